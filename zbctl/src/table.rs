//! Columns of text, as wide as what is in them.

use std::io::{self, Write};

/// Writes rows under their heads, two blanks between columns and none at the end of a line.
pub(crate) fn write<const N: usize>(
    out: &mut impl Write,
    heads: [&str; N],
    rows: &[[String; N]],
) -> io::Result<()> {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([heads[column].len()]).max().unwrap_or_default()
    };
    let widths: [usize; N] = std::array::from_fn(width);
    line(out, &widths, &heads)?;
    for row in rows {
        line(out, &widths, &row.each_ref().map(String::as_str))?;
    }
    Ok(())
}

fn line(out: &mut impl Write, widths: &[usize], cells: &[&str]) -> io::Result<()> {
    let mut text = String::new();
    for (cell, &width) in cells.iter().zip(widths) {
        text.push_str(&format!("{cell:width$}  "));
    }
    writeln!(out, "{}", text.trim_end())
}

/// What stands where there is nothing.
pub(crate) fn or_dash(text: impl Into<String>) -> String {
    let text = text.into();
    if text.is_empty() { "-".to_owned() } else { text }
}
