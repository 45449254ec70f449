//! Programs run on the host while the lab is prepared: a failure says which command, how it ended and what it said.

use std::ffi::OsStr;
use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use thiserror::Error;

/// How much of a failed command's output is shown, in lines from its end.
const TAIL_LINES: usize = 25;

/// Why a command gave no result.
#[derive(Debug, Error)]
pub enum HostError {
    /// It could not be started.
    #[error("cannot start `{command}`; is the program installed?")]
    Start {
        /// The command line.
        command: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// It was started and failed.
    #[error("`{command}` ended with {status}; its last output:\n{tail}")]
    Failed {
        /// The command line.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// The end of its standard error, or of its standard output if it said nothing there.
        tail: String,
    },
}

/// One program with its arguments, to be run to its end.
pub(crate) struct HostCommand {
    command: Command,
    stdin: Option<Vec<u8>>,
}

impl HostCommand {
    pub(crate) fn new(program: &str) -> Self {
        Self { command: Command::new(program), stdin: None }
    }

    pub(crate) fn args(mut self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.command.args(arguments);
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    pub(crate) fn folder(mut self, folder: &Path) -> Self {
        self.command.current_dir(folder);
        self
    }

    pub(crate) fn stdin(mut self, bytes: Vec<u8>) -> Self {
        self.stdin = Some(bytes);
        self
    }

    /// Runs it and returns its standard output.
    pub(crate) fn run(mut self) -> Result<Vec<u8>, HostError> {
        let line = self.line();
        let start = |source| HostError::Start { command: line.clone(), source };
        let input = self.stdin.take();
        let stdin = if input.is_some() { Stdio::piped() } else { Stdio::null() };
        let mut child =
            self.command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(start)?;
        let pipe = child.stdin.take();
        let output = std::thread::scope(|scope| {
            if let (Some(mut pipe), Some(bytes)) = (pipe, &input) {
                // A command that stops reading says why on its standard error.
                scope.spawn(move || pipe.write_all(bytes));
            }
            child.wait_with_output().map_err(start)
        })?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        let said = if output.stderr.is_empty() { &output.stdout } else { &output.stderr };
        Err(HostError::Failed {
            command: line,
            status: output.status,
            tail: tail(&String::from_utf8_lossy(said)),
        })
    }

    /// Like [`HostCommand::run`], as text.
    pub(crate) fn text(self) -> Result<String, HostError> {
        self.run().map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    fn line(&self) -> String {
        let words = std::iter::once(self.command.get_program()).chain(self.command.get_args());
        words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
    }
}

/// The last lines of `text`.
pub(crate) fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_shows_the_command_its_end_and_its_last_words() {
        let error = HostCommand::new("sh").args(["-c", "echo no space left >&2; exit 4"]).run().unwrap_err();
        let text = error.to_string();
        assert!(text.contains("sh -c"), "{text}");
        assert!(text.contains("exit status: 4"), "{text}");
        assert!(text.ends_with("no space left"), "{text}");
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let error = HostCommand::new("no-such-program-here").run().unwrap_err();
        assert!(error.to_string().contains("no-such-program-here"));
    }

    #[test]
    fn input_arrives_whole() {
        let bytes = vec![7; 1 << 20];
        assert_eq!(HostCommand::new("cat").stdin(bytes.clone()).run().unwrap(), bytes);
    }

    #[test]
    fn only_the_end_of_a_long_output_is_kept() {
        let text: String = (0..100).map(|number| format!("{number}\n")).collect();
        assert_eq!(tail(&text).lines().count(), TAIL_LINES);
        assert!(tail(&text).ends_with("99"));
    }
}
