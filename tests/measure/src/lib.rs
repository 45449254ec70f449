//! What the benches of all crates do alike: begin only when asked to, repeat, and print a line for each figure.
//!
//! The figures are for people and for the README, so there is no baseline, no statistics beyond two percentiles, and no
//! limit that could fail. Refuses to know what is measured.
#![forbid(unsafe_code)]

use std::error::Error;
use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// What a measurement returns.
pub type Outcome<T> = Result<T, Box<dyn Error>>;

/// Names the folder of the programs to measure.
const PROGRAMS: &str = "ZEROBRIDGE_BIN_DIR";

/// Runs a bench, if that is wanted: `cargo test --benches` starts it too, without the argument `--bench`.
pub fn run(measure: impl FnOnce() -> Outcome<()>) -> ExitCode {
    if std::env::args().any(|argument| argument == "--bench") {
        conclude(measure())
    } else {
        ExitCode::SUCCESS
    }
}

/// The exit code of a measurement, or of a process that it starts, after a line about what failed.
pub fn conclude(outcome: Outcome<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(&format!("failed: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// The program `name` in `$ZEROBRIDGE_BIN_DIR`, where `make bench` has the shipped ones, or else the one that Cargo built.
#[must_use]
pub fn program(name: &str, built: &str) -> PathBuf {
    std::env::var_os(PROGRAMS).map(PathBuf::from).map_or_else(|| built.into(), |folder| folder.join(name))
}

/// How long an action takes, each time of `times`.
///
/// # Errors
/// The first that the action returns.
pub fn repeat(times: usize, mut action: impl FnMut() -> Outcome<()>) -> Outcome<Vec<Duration>> {
    let once = |_| {
        let started = Instant::now();
        action()?;
        Ok(started.elapsed())
    };
    (0..times).map(once).collect()
}

/// The memory of a process in KiB, the kernel's `VmRSS`. `process` is its number, or `self`.
///
/// # Errors
/// There is no such process.
pub fn resident(process: &str) -> Outcome<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// A time in milliseconds.
#[must_use]
pub fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// Prints median and 99th percentile of at least one time, in milliseconds.
pub fn show(name: &str, times: Vec<Duration>) {
    let (median, worst) = percentiles(times);
    figure(name, &format!("p50 {:>7.2} ms   p99 {:>7.2} ms", milliseconds(median), milliseconds(worst)));
}

/// Prints median and 99th percentile of at least one time, in microseconds.
pub fn show_microseconds(name: &str, times: Vec<Duration>) {
    let (median, worst) = percentiles(times);
    let microseconds = |time: Duration| time.as_secs_f64() * 1e6;
    figure(name, &format!("p50 {:>7.1} µs   p99 {:>7.1} µs", microseconds(median), microseconds(worst)));
}

/// Prints one figure.
pub fn figure(name: &str, figure: &str) {
    report(&format!("{name:34} {figure}"));
}

fn percentiles(mut times: Vec<Duration>) -> (Duration, Duration) {
    times.sort_unstable();
    let at = |percent: usize| times[times.len() * percent / 100];
    (at(50), at(99))
}

fn report(line: &str) {
    // Without standard output there is nobody to tell.
    let _ = writeln!(std::io::stdout(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_sorted_times() {
        let times: Vec<Duration> = (0..200).rev().map(Duration::from_millis).collect();
        assert_eq!(percentiles(times), (Duration::from_millis(100), Duration::from_millis(198)));
        let one = Duration::from_secs(1);
        assert_eq!(percentiles(vec![one]), (one, one));
    }

    #[test]
    fn an_action_that_fails_ends_the_repetition() {
        let mut left = 3_u32;
        let result = repeat(10, || {
            left = left.checked_sub(1).ok_or("enough")?;
            Ok(())
        });
        assert_eq!(result.unwrap_err().to_string(), "enough");
        assert_eq!(left, 0);
    }

    #[test]
    fn this_process_has_memory() {
        assert!(resident("self").unwrap() > 0);
    }
}
