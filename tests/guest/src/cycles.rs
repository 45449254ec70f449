//! Runs two programs in turn, many times, and notes what each run took: what a comparison of CNI plugins needs, without
//! the host's requests in between.
//!
//! Times of processors are those of the program and of all that it started and waited for, as the kernel adds them up
//! for this process's children. Refuses to know what the programs do, or what is much.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::resource::{Usage, UsageWho, getrusage};
use nix::sys::time::{TimeVal, TimeValLike};
use thiserror::Error;
use zerobridge_lab_guest::{Cycles, Program, Run, Runs};

use crate::process;

/// Two files for what a run reads and prints: pipes would need threads beside each run.
struct Files {
    told: PathBuf,
    said: PathBuf,
}

impl Files {
    fn new() -> Self {
        let file = |name| std::env::temp_dir().join(format!("cycles-{}-{name}", std::process::id()));
        Self { told: file("told"), said: file("said") }
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        for file in [&self.told, &self.said] {
            // What cannot be removed is in nobody's way.
            let _ = fs::remove_file(file);
        }
    }
}

/// Why there are no times.
#[derive(Debug, Error)]
pub(crate) enum CyclesError {
    /// Standard input is no request.
    #[error("cycles reads what to run as JSON from standard input")]
    Request {
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A file, a pipe or a process could not be had.
    #[error("{action}")]
    Io {
        /// What was tried.
        action: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The kernel does not say what the children took.
    #[error("getrusage")]
    Usage {
        /// What the kernel said.
        #[source]
        source: Errno,
    },
    /// A run failed, so its time says nothing.
    #[error("`{program}` ended with {code} in round {round}: {said}")]
    Failed {
        /// The command line.
        program: String,
        /// Its exit code.
        code: i32,
        /// From 1.
        round: u32,
        /// All that it printed.
        said: String,
    },
}

fn io_error(action: impl Into<String>) -> impl FnOnce(io::Error) -> CyclesError {
    let action = action.into();
    move |source| CyclesError::Io { action, source }
}

/// Reads a [`Cycles`] from standard input and prints its [`Runs`].
pub(crate) fn run() -> Result<(), CyclesError> {
    let mut text = String::new();
    io::stdin().read_to_string(&mut text).map_err(io_error("read standard input"))?;
    let wanted = serde_json::from_str(&text).map_err(|source| CyclesError::Request { source })?;
    let runs = repeat(&wanted)?;
    let line = serde_json::to_string(&runs).map_err(|source| CyclesError::Request { source })?;
    writeln!(io::stdout(), "{line}").map_err(io_error("print the times"))
}

fn repeat(wanted: &Cycles) -> Result<Runs, CyclesError> {
    let files = Files::new();
    let mut runs = Runs::default();
    for round in 1..=wanted.rounds {
        runs.first.push(timed(&files, &wanted.first, round)?);
        runs.second.push(timed(&files, &wanted.second, round)?);
        // The kernel keeps one maximum for all children, so it is read before one that is not of interest.
        runs.peak_kib = runs.peak_kib.max(if round == 1 { peak()? } else { 0 });
        if let Some(between) = &wanted.between {
            // A machine that did not come to rest makes slow runs, and no wrong ones.
            let _ = timed(&files, between, round);
        }
    }
    Ok(runs)
}

fn peak() -> Result<u64, CyclesError> {
    Ok(u64::try_from(usage()?.max_rss()).unwrap_or_default())
}

fn usage() -> Result<Usage, CyclesError> {
    getrusage(UsageWho::RUSAGE_CHILDREN).map_err(|source| CyclesError::Usage { source })
}

fn processor_time(usage: &Usage) -> Duration {
    let micros = |time: TimeVal| u64::try_from(time.num_microseconds()).unwrap_or_default();
    Duration::from_micros(micros(usage.user_time()) + micros(usage.system_time()))
}

fn timed(files: &Files, program: &Program, round: u32) -> Result<Run, CyclesError> {
    let line = program.argv.join(" ");
    let file = |path: &Path| io_error(path.display().to_string());
    fs::write(&files.told, &program.stdin).map_err(file(&files.told))?;
    let told = File::open(&files.told).map_err(file(&files.told))?;
    let said = File::create(&files.said).map_err(file(&files.said))?;
    let mut command = process::command(program).map_err(io_error("build a command"))?;
    command.stdin(told).stdout(said.try_clone().map_err(file(&files.said))?).stderr(said);
    let before = usage()?;
    let started = Instant::now();
    let status = command.status().map_err(io_error(format!("start {line}")))?;
    let wall = started.elapsed();
    let cpu = processor_time(&usage()?).saturating_sub(processor_time(&before));
    match process::code(status) {
        0 => Ok(Run { wall, cpu }),
        code => {
            let said = fs::read_to_string(&files.said).unwrap_or_default();
            Err(CyclesError::Failed { program: line, code, round, said: said.trim_end().into() })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Program {
        Program { argv: ["sh", "-c", script].map(String::from).to_vec(), ..Program::default() }
    }

    // One test: the kernel adds up the time of all children of a process, whichever test they belong to.
    #[test]
    fn waiting_is_no_work_that_of_grandchildren_is_and_a_failure_says_why() {
        let busy = shell("sh -c 'n=0; while [ $n -lt 300000 ]; do n=$((n+1)); done'; true");
        let cycles = Cycles { rounds: 1, first: shell("sleep 0.2"), second: busy, between: None };
        let runs = repeat(&cycles).unwrap();
        let (idle, busy) = (runs.first[0], runs.second[0]);
        assert!(idle.wall >= Duration::from_millis(200) && busy.cpu > idle.cpu, "{idle:?} {busy:?}");
        assert!(runs.peak_kib > 0);

        let refused = Program { stdin: "no such VF".into(), ..shell("cat; exit 3") };
        let error = repeat(&Cycles { first: refused, ..cycles }).unwrap_err().to_string();
        assert!(error.contains("ended with 3 in round 1: no such VF"), "{error}");
    }
}
