//! The times of all measurements as a table.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::Path;

/// What all is compared with: no table, no program, no Service.
const BASELINE: &str = "bare.direct";

/// Prints a line for each file `KIND.WAY.PATH`: how many times, median, 99th percentile in microseconds, and the median
/// against that of the same kind without any table.
pub(crate) fn print(folder: &Path, out: &mut dyn Write) -> io::Result<()> {
    let mut kinds: BTreeMap<String, BTreeMap<String, Vec<f64>>> = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some((kind, path)) = name.split_once('.') else { continue };
        let text = fs::read_to_string(entry.path())?;
        let mut times: Vec<f64> = text.lines().filter_map(|line| line.parse().ok()).collect();
        times.sort_by(f64::total_cmp);
        kinds.entry(kind.into()).or_default().insert(path.into(), times);
    }
    writeln!(out, "  {:44} {:>6} {:>10} {:>10} {:>8}", "microseconds", "times", "p50", "p99", "x bare")?;
    for (kind, paths) in &kinds {
        let bare = paths.get(BASELINE).map_or(f64::NAN, |times| at(times, 50));
        for (path, times) in paths {
            let (median, slow) = (at(times, 50), at(times, 99));
            let name = format!("{kind} {}", path.replace('.', " "));
            let [p50, p99] = [median, slow].map(|time| time / 1e3);
            writeln!(out, "  {name:44} {:6} {p50:10.1} {p99:10.1} {:8.2}", times.len(), median / bare)?;
        }
    }
    Ok(())
}

fn at(sorted: &[f64], percent: usize) -> f64 {
    sorted.get(sorted.len() * percent / 100).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_are_compared_with_the_direct_path_of_the_same_kind() {
        let folder = std::env::temp_dir().join(format!("services-summary-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("connect.bare.direct"), "1000\n3000\n2000\n").unwrap();
        fs::write(folder.join("connect.bpf.service"), "9000\n4000\n3000\n").unwrap();
        let mut out = Vec::new();
        print(&folder, &mut out).unwrap();
        fs::remove_dir_all(&folder).unwrap();
        let text = String::from_utf8(out).unwrap();
        let words: Vec<&str> = text.lines().nth(2).unwrap().split_whitespace().collect();
        assert_eq!(words, ["connect", "bpf", "service", "3", "4.0", "9.0", "2.00"]);
    }
}
