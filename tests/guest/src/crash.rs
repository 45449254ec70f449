//! Kills a program at a chosen system call: what a test of crash recovery needs, exact and repeatable.
//!
//! The program and everything it starts is traced with ptrace(2); each system call's entry counts, in whichever thread
//! or process. At the entry of the N-th one all of it gets SIGKILL, so that call never happens.

use std::collections::BTreeSet;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::errno::Errno;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use serde::Serialize;
use thiserror::Error;

/// Why a program could not be traced.
#[derive(Debug, Error)]
pub(crate) enum CrashError {
    /// The arguments are not as they should be.
    #[error("crash {arguments}: write crash REPORT [--at N] -- PROGRAM [ARGUMENT…], N from 1")]
    Usage {
        /// What was given.
        arguments: String,
    },
    /// The program could not be started.
    #[error("start {program}")]
    Start {
        /// Which.
        program: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// ptrace or wait failed.
    #[error("trace {program}: {call}")]
    Trace {
        /// Which.
        program: String,
        /// The system call.
        call: &'static str,
        /// What the kernel said.
        #[source]
        source: Errno,
    },
    /// The report could not be written.
    #[error("write the report {path}")]
    Report {
        /// Where.
        path: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

/// What happened, as the report file says it.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    /// System calls entered, the fatal one included.
    calls: u64,
    /// The number (x86-64) of the call at whose entry the program was killed; none if it ran to its end.
    killed_at: Option<u64>,
    /// The program's exit code; 137 when killed.
    code: i32,
}

/// `crash REPORT [--at N] -- PROGRAM [ARGUMENT…]`: the program keeps standard input and both outputs.
pub(crate) fn run(arguments: &[&str]) -> Result<(), CrashError> {
    let usage = || CrashError::Usage { arguments: arguments.join(" ") };
    let (path, at, command) = match arguments {
        [path, "--at", number, "--", command @ ..] => {
            (path, Some(number.parse::<u64>().ok().filter(|n| *n > 0).ok_or_else(usage)?), command)
        }
        [path, "--", command @ ..] => (path, None, command),
        _ => return Err(usage()),
    };
    let report = trace(command.first().ok_or_else(usage)?, &command[1..], at)?;
    let fail = |source| CrashError::Report { path: (*path).to_owned(), source };
    let text = serde_json::to_string(&report).map_err(|error| fail(error.into()))?;
    std::fs::write(path, text).map_err(fail)
}

/// `traced PROGRAM [ARGUMENT…]`: asks to be traced by the parent, then becomes the program.
pub(crate) fn become_traced(program: &str, arguments: &[&str]) -> Result<(), CrashError> {
    ptrace::traceme().map_err(|source| CrashError::Trace {
        program: program.into(),
        call: "traceme",
        source,
    })?;
    let source = Command::new(program).args(arguments).exec();
    Err(CrashError::Start { program: program.into(), source })
}

fn trace(program: &str, arguments: &[&str], at: Option<u64>) -> Result<Report, CrashError> {
    let start = |source| CrashError::Start { program: program.into(), source };
    let own = std::env::current_exe().map_err(start)?;
    // Spawned by this thread, which therefore is the tracer: everything below must stay on it.
    let child = Command::new(own).arg("traced").arg(program).args(arguments).spawn().map_err(start)?;
    let main = Pid::from_raw(i32::try_from(child.id()).map_err(|error| start(io::Error::other(error)))?);
    let fail = |call| move |source| CrashError::Trace { program: program.into(), call, source };

    match waitpid(main, Some(WaitPidFlag::__WALL)).map_err(fail("wait"))? {
        WaitStatus::Stopped(_, Signal::SIGTRAP) => {}
        status => {
            let source = io::Error::other(format!("it ended before it was the program: {status:?}"));
            return Err(start(source));
        }
    }
    let options = Options::PTRACE_O_TRACESYSGOOD
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_TRACEFORK
        | Options::PTRACE_O_TRACEVFORK
        | Options::PTRACE_O_TRACEEXEC
        | Options::PTRACE_O_EXITKILL;
    ptrace::setoptions(main, options).map_err(fail("setoptions"))?;
    ptrace::syscall(main, None).map_err(fail("continue"))?;

    let mut report = Report::default();
    let mut known = BTreeSet::from([main]);
    let mut inside = BTreeSet::new();
    loop {
        let status = match waitpid(None, Some(WaitPidFlag::__WALL)) {
            Ok(status) => status,
            Err(Errno::ECHILD) => return Ok(report),
            Err(source) => return Err(fail("wait")(source)),
        };
        let (pid, signal) = match status {
            WaitStatus::Exited(pid, code) => {
                note_end(&mut report, pid == main, code);
                continue;
            }
            WaitStatus::Signaled(pid, signal, _) => {
                note_end(&mut report, pid == main, 128 + signal as i32);
                continue;
            }
            WaitStatus::PtraceSyscall(pid) => {
                if !inside.remove(&pid) {
                    inside.insert(pid);
                    report.calls += 1;
                }
                (pid, None)
            }
            WaitStatus::PtraceEvent(pid, ..) => (pid, None),
            // A new thread or process begins with a stop that is ptrace's own, not a signal for it.
            WaitStatus::Stopped(pid, Signal::SIGSTOP) if known.insert(pid) => (pid, None),
            WaitStatus::Stopped(pid, signal) => (pid, Some(signal)),
            _ => continue,
        };
        if report.killed_at.is_none() && at == Some(report.calls) && inside.contains(&pid) {
            report.killed_at = Some(ptrace::getregs(pid).map_err(fail("getregs"))?.orig_rax);
            for tracee in &known {
                // Most of them are threads of one process, dead with the first.
                let _ = kill(*tracee, Signal::SIGKILL);
            }
            continue;
        }
        match ptrace::syscall(pid, signal) {
            // Killed in the meantime: its end is reported next.
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(source) => return Err(fail("continue")(source)),
        }
    }
}

fn note_end(report: &mut Report, is_main: bool, code: i32) {
    if is_main {
        report.code = code;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_that_make_no_sense_are_shown() {
        for arguments in [&["report"][..], &["report", "--at", "0", "--", "true"], &["report", "--"]] {
            let text = run(arguments).unwrap_err().to_string();
            assert!(text.contains(&arguments.join(" ")), "{text}");
        }
    }
}
