//! Running a program to its end, with its outputs and a time limit.

use std::io::{self, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use zerobridge_lab_guest::{Output, Program};

/// How often a running program is looked at. Short, because every command of every test waits for it.
const POLL: Duration = Duration::from_millis(2);

/// The command for `program`, in a process group of its own.
pub(crate) fn command(program: &Program) -> io::Result<Command> {
    let (name, arguments) = program
        .argv
        .split_first()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "argv is empty: name a program"))?;
    let mut command = Command::new(name);
    command.args(arguments).envs(&program.env).process_group(0);
    Ok(command)
}

/// Runs `program` and waits for it; past `limit` its process group is killed.
///
/// # Errors
/// When it cannot be started or waited for. A program that fails is no error: see [`Output::code`].
pub(crate) fn run(program: &Program, limit: Duration) -> io::Result<Output> {
    let mut child =
        command(program)?.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let stdin = child.stdin.take();
    let input = program.stdin.clone();
    // A program that exits without reading its input closes the pipe; that is its own affair.
    let feeder = thread::spawn(move || stdin.map(|mut pipe| pipe.write_all(input.as_bytes())));
    let stdout = collect(child.stdout.take());
    let stderr = collect(child.stderr.take());
    let (status, timed_out) = wait(&mut child, Instant::now() + limit)?;
    let _ = feeder.join();
    Ok(Output {
        code: code(status),
        timed_out,
        stdout: stdout.join().unwrap_or_default(),
        stderr: stderr.join().unwrap_or_default(),
    })
}

fn wait(child: &mut Child, deadline: Instant) -> io::Result<(ExitStatus, bool)> {
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait()? {
            return Ok((status, false));
        }
        thread::sleep(POLL);
    }
    // The group may be gone between the last look and now; then the wait below says so.
    if let Ok(group) = i32::try_from(child.id()) {
        let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
    }
    Ok((child.wait()?, true))
}

/// Reads a pipe to its end, in a thread of its own.
pub(crate) fn collect(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // What was read before an error is still worth showing.
            let _ = pipe.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// A shell's exit code for `status`.
pub(crate) fn code(status: ExitStatus) -> i32 {
    status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(-1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, stdin: &str) -> Program {
        let argv = ["sh", "-c", script].map(String::from).to_vec();
        Program { argv, stdin: stdin.into(), ..Program::default() }
    }

    #[test]
    fn outputs_code_and_input_arrive() {
        let output = run(&shell("cat; echo err >&2; exit 3", "in"), Duration::from_secs(20)).unwrap();
        assert_eq!(output, Output { code: 3, timed_out: false, stdout: "in".into(), stderr: "err\n".into() });
    }

    #[test]
    fn a_signal_is_told_from_an_exit() {
        assert_eq!(run(&shell("kill -9 $$", ""), Duration::from_secs(20)).unwrap().code, 137);
    }

    #[test]
    fn a_program_past_its_time_dies_with_its_children() {
        let output = run(&shell("echo begun; sleep 1000 & wait", ""), Duration::from_millis(300)).unwrap();
        assert!(output.timed_out);
        assert_eq!(output.stdout, "begun\n");
    }

    #[test]
    fn input_that_nobody_reads_is_no_failure() {
        let big = "x".repeat(1 << 20);
        assert_eq!(run(&shell("exit 0", &big), Duration::from_secs(20)).unwrap().code, 0);
    }
}
