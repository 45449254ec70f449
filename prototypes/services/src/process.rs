//! What an action takes of time and processor.

use std::io::{self, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::{TimeVal, TimeValLike};
use thiserror::Error;

use crate::figure;

/// Why there is no figure.
#[derive(Debug, Error)]
pub(crate) enum ProcessError {
    /// A program could not be run.
    #[error("run {program}")]
    Start {
        /// Which.
        program: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A program failed.
    #[error("{program} failed")]
    Failed {
        /// Which.
        program: String,
    },
    /// The kernel does not say what was taken.
    #[error("getrusage")]
    Usage {
        /// What the kernel said.
        #[source]
        source: nix::errno::Errno,
    },
}

/// Time from start to end, and processor time in programs and in the kernel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    pub(crate) wall: Duration,
    pub(crate) user: Duration,
    pub(crate) system: Duration,
}

fn processor(who: UsageWho) -> Result<(Duration, Duration), ProcessError> {
    let usage = getrusage(who).map_err(|source| ProcessError::Usage { source })?;
    let time =
        |value: TimeVal| Duration::from_micros(value.num_microseconds().try_into().unwrap_or_default());
    Ok((time(usage.user_time()), time(usage.system_time())))
}

/// What `action` takes; `who` does the work.
pub(crate) fn cost<E: From<ProcessError>>(
    who: UsageWho,
    action: impl FnOnce() -> Result<(), E>,
) -> Result<Cost, E> {
    let (user, system) = processor(who)?;
    let started = Instant::now();
    action()?;
    let wall = started.elapsed();
    let after = processor(who)?;
    Ok(Cost { wall, user: after.0.saturating_sub(user), system: after.1.saturating_sub(system) })
}

/// Runs a program that reads `input` and must succeed.
pub(crate) fn feed(argv: &[&str], input: &str) -> Result<(), ProcessError> {
    let program = argv.join(" ");
    let start = |source| ProcessError::Start { program: program.clone(), source };
    let (name, arguments) = argv.split_first().unwrap_or((&"", &[]));
    let mut child = Command::new(name).args(arguments).stdin(Stdio::piped()).spawn().map_err(start)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).map_err(start)?;
    }
    if child.wait().map_err(start)?.success() { Ok(()) } else { Err(ProcessError::Failed { program }) }
}

/// Prints the cost of one action.
pub(crate) fn show(name: &str, cost: Cost) {
    let [wall, user, system] = [cost.wall, cost.user, cost.system].map(|time| time.as_secs_f64() * 1e3);
    figure(name, &format!("wall {wall:9.2} ms   user {user:9.2} ms   kernel {system:9.2} ms"));
}

/// Prints the mean cost of many.
pub(crate) fn show_mean(name: &str, total: Cost, times: u32) {
    let part = |time: Duration| time.checked_div(times).unwrap_or_default();
    show(name, Cost { wall: part(total.wall), user: part(total.user), system: part(total.system) });
}
