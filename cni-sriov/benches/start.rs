//! What the shipped program costs before it does anything: its size, and VERSION from start to exit beside a process
//! that does nothing.
//!
//! `make bench` builds the static programs and names their folder in `ZEROBRIDGE_BIN_DIR`; without it, the program that
//! Cargo built for this bench is measured.

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use zerobridge_measure::{Outcome, figure, program, run, show};

const REPETITIONS: usize = 500;

fn main() -> ExitCode {
    run(measure)
}

fn measure() -> Outcome<()> {
    let program = program("zerobridge", env!("CARGO_BIN_EXE_zerobridge"));
    figure("zerobridge", &format!("{} bytes", fs::metadata(&program)?.len()));
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

fn start_to_exit(program: &Path) -> Outcome<Duration> {
    let mut command = Command::new(program);
    command.env("CNI_COMMAND", "VERSION").stdin(Stdio::null()).stdout(Stdio::null());
    let started = Instant::now();
    let status = command.status()?;
    let time = started.elapsed();
    if status.success() { Ok(time) } else { Err(format!("{} ended with {status}", program.display()).into()) }
}
