//! How the story looks: chapters, commands before their output, tables, and expectations with a mark.

use std::io::{self, Write};

/// No line of the story's own is wider, in characters.
const WIDTH: usize = 110;
/// Before what a command printed.
const INDENT: &str = "    ";

/// Where the story is told, and how its expectations fared.
pub(crate) struct Screen<'a> {
    out: &'a mut dyn Write,
    bold: bool,
    chapters: u32,
    met: u32,
    missed: Vec<String>,
}

impl<'a> Screen<'a> {
    /// `bold` only where the reader's terminal understands it.
    pub(crate) fn new(out: &'a mut dyn Write, bold: bool) -> Self {
        Self { out, bold, chapters: 0, met: 0, missed: Vec::new() }
    }

    /// A new chapter, with what it is about.
    pub(crate) fn chapter(&mut self, title: &str, about: &str) -> io::Result<()> {
        self.chapters += 1;
        let heading = format!("{}. {title}", self.chapters);
        let line = "─".repeat(WIDTH.saturating_sub(heading.chars().count() + 1));
        let heading = self.strong(&heading);
        writeln!(self.out, "\n{heading} {line}\n{about}")
    }

    /// A command, before it is run.
    pub(crate) fn command(&mut self, command: &str) -> io::Result<()> {
        let shown = self.strong(&format!("$ {command}"));
        writeln!(self.out, "\n  {shown}")?;
        self.out.flush()
    }

    /// What a command printed; `(nothing)` if it was silent, which is an answer, too.
    pub(crate) fn output(&mut self, text: &str) -> io::Result<()> {
        let text = text.trim_end();
        if text.is_empty() {
            return writeln!(self.out, "{INDENT}(nothing)");
        }
        let lines = text.lines().flat_map(|line| wrapped(line.trim_end(), WIDTH - INDENT.len()));
        lines.into_iter().try_for_each(|line| writeln!(self.out, "{INDENT}{line}"))
    }

    /// A table; the first row holds the titles.
    pub(crate) fn table(&mut self, rows: &[Vec<String>]) -> io::Result<()> {
        writeln!(self.out)?;
        for line in aligned(rows) {
            writeln!(self.out, "{INDENT}{line}")?;
        }
        Ok(())
    }

    /// Something that must hold for the story to be true.
    pub(crate) fn expect(&mut self, sentence: &str, holds: bool) -> io::Result<()> {
        let mark = if holds { "✓" } else { "✗" };
        if holds {
            self.met += 1;
        } else {
            self.missed.push(sentence.to_owned());
        }
        writeln!(self.out, "  {mark} {sentence}")
    }

    /// The last lines; returns whether everything held.
    pub(crate) fn end(self) -> io::Result<bool> {
        let total = usize::try_from(self.met).unwrap_or(usize::MAX).saturating_add(self.missed.len());
        writeln!(self.out, "\n{} of {total} expectations met.", self.met)?;
        for sentence in &self.missed {
            writeln!(self.out, "  ✗ {sentence}")?;
        }
        Ok(self.missed.is_empty())
    }

    fn strong(&self, text: &str) -> String {
        if self.bold { format!("\x1b[1m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// Rows as lines, their columns padded to the widest cell.
fn aligned(rows: &[Vec<String>]) -> Vec<String> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or_default()
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

/// `line` in pieces of at most `width` characters, broken behind a space or comma where there is one; all but the first
/// are indented by two.
fn wrapped(line: &str, width: usize) -> Vec<String> {
    let mut pieces = Vec::new();
    let mut rest: Vec<char> = line.chars().collect();
    while rest.len() > width {
        let breaks = |at: &usize| matches!(rest[at - 1], ' ' | ',');
        let at = (width / 2..=width).rev().find(breaks).unwrap_or(width);
        let tail = rest.split_off(at);
        pieces.push(rest.iter().collect::<String>().trim_end().to_owned());
        rest = "  ".chars().chain(tail).collect();
    }
    pieces.push(rest.into_iter().collect());
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(bold: bool, tell: impl FnOnce(&mut Screen<'_>)) -> (String, bool) {
        let mut bytes = Vec::new();
        let mut screen = Screen::new(&mut bytes, bold);
        tell(&mut screen);
        let held = screen.end().unwrap();
        (String::from_utf8(bytes).unwrap(), held)
    }

    #[test]
    fn one_missed_expectation_spoils_the_story_and_is_repeated_at_its_end() {
        let (text, held) = told(false, |screen| {
            screen.expect("pods reach each other", true).unwrap();
            screen.expect("no bridge", false).unwrap();
        });
        assert!(!held);
        assert!(text.ends_with("1 of 2 expectations met.\n  ✗ no bridge\n"), "{text}");
        assert!(told(false, |_| ()).1, "a story without expectations cannot fail");
    }

    #[test]
    fn a_terminal_gets_bold_commands_and_a_file_gets_none() {
        let tell = |screen: &mut Screen<'_>| screen.command("ip link").unwrap();
        assert!(told(true, tell).0.contains("\x1b[1m$ ip link\x1b[0m"));
        assert!(!told(false, tell).0.contains('\x1b'));
    }

    #[test]
    fn long_lines_break_behind_a_comma_and_lose_nothing() {
        assert_eq!(wrapped("aaaa,bbbb,cccc", 10), ["aaaa,bbbb,", "  cccc"]);
        assert_eq!(wrapped("aaaaaaaaaaaaaaa", 10), ["aaaaaaaaaa", "  aaaaa"]);
        assert_eq!(wrapped("short", 10), ["short"]);
    }

    #[test]
    fn columns_line_up_and_headings_fill_the_line() {
        let rows = [vec!["VF".into(), "MAC".into()], vec!["0000:01:10.0".to_owned(), "02:…".into()]];
        assert_eq!(aligned(&rows), ["VF            MAC", "0000:01:10.0  02:…"]);
        let (text, _) = told(false, |screen| screen.chapter("The node", "Two cards.").unwrap());
        assert_eq!(text.lines().nth(1).unwrap().chars().count(), WIDTH);
    }
}
