//! What the shipped program costs before it does anything: its size, and VERSION from start to exit beside a process
//! that does nothing.
//!
//! `make bench` builds the static programs and names their folder in `ZEROBRIDGE_BIN_DIR`; without it, the program that
//! Cargo built for this bench is measured.

use std::error::Error;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

const REPETITIONS: usize = 500;

fn main() -> ExitCode {
    // `cargo test --benches` runs this too, and measures nothing.
    if std::env::args().all(|argument| argument != "--bench") {
        return ExitCode::SUCCESS;
    }
    match measure() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(&format!("failed: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn measure() -> Result<(), Box<dyn Error>> {
    let program = std::env::var_os("ZEROBRIDGE_BIN_DIR")
        .map(PathBuf::from)
        .map_or_else(|| env!("CARGO_BIN_EXE_zerobridge").into(), |folder| folder.join("zerobridge"));
    report(&format!("{:28} {} bytes", "zerobridge", fs::metadata(&program)?.len()));
    // In turns, so that whatever else the machine does strikes both alike.
    let (mut nothing, mut version) = (Vec::new(), Vec::new());
    for _ in 0..REPETITIONS {
        nothing.push(start_to_exit(Path::new("/bin/true"))?);
        version.push(start_to_exit(&program)?);
    }
    show("/bin/true", nothing);
    show("zerobridge VERSION", version);
    Ok(())
}

fn start_to_exit(program: &Path) -> Result<Duration, Box<dyn Error>> {
    let mut command = Command::new(program);
    command.env("CNI_COMMAND", "VERSION").stdin(Stdio::null()).stdout(Stdio::null());
    let started = Instant::now();
    let status = command.status()?;
    let time = started.elapsed();
    if status.success() { Ok(time) } else { Err(format!("{} ended with {status}", program.display()).into()) }
}

fn show(name: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let percentile = |percent: usize| times[times.len() * percent / 100].as_secs_f64() * 1000.0;
    report(&format!("{name:28} p50 {:>6.2} ms   p99 {:>6.2} ms", percentile(50), percentile(99)));
}

fn report(line: &str) {
    // Without standard output there is nobody to tell.
    let _ = writeln!(std::io::stdout(), "{line}");
}
