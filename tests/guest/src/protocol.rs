//! Requests and answers. The host sends one request and waits for its answer before the next.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The virtio serial port's name, as QEMU's `virtserialport,name=` gives it and the guest's sysfs shows it.
pub const PORT_NAME: &str = "zerobridge.lab";

/// A request with the number its answer repeats.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// Chosen by the host, unique per connection.
    pub id: u64,
    /// What to do.
    pub request: Request,
}

/// The answer to the [`Call`] of the same number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// The call's number.
    pub id: u64,
    /// What came of it, or why nothing did.
    pub answer: Result<Answer, String>,
}

/// A program as it is to be executed: no shell in between.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// The program (looked up in `PATH`) and its arguments.
    pub argv: Vec<String>,
    /// Variables added to the agent's own environment.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// What the program reads on its standard input.
    #[serde(default)]
    pub stdin: String,
}

/// What the host asks of the guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Request {
    /// Answers [`Answer::Done`]: the guest is up.
    Hello,
    /// Runs a program to its end; past `timeout_ms` its process group is killed. Answers [`Answer::Output`].
    Run {
        /// What to run.
        program: Program,
        /// How long it may take, in milliseconds.
        timeout_ms: u64,
    },
    /// Starts a program and leaves it running, both outputs appended to `log`. Answers [`Answer::Started`].
    Start {
        /// What to start.
        program: Program,
        /// A file in the guest.
        log: String,
    },
    /// Sends a signal, by number, to a process that [`Request::Start`] started. Answers [`Answer::Done`].
    Signal {
        /// The process.
        pid: u32,
        /// Such as 9 for SIGKILL.
        signal: i32,
    },
    /// Asks whether a started process still runs. Answers [`Answer::State`].
    State {
        /// The process.
        pid: u32,
    },
    /// Replaces a file by way of a rename, so that a reader never sees half of it. Answers [`Answer::Done`].
    Write {
        /// Where; missing folders are made.
        path: String,
        /// All of it.
        content: String,
    },
    /// Reads a whole text file. Answers [`Answer::Content`].
    Read {
        /// Which.
        path: String,
    },
}

/// What the guest answers when it could do as asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Answer {
    /// Nothing more to say.
    Done,
    /// A program ran to its end.
    Output(Output),
    /// A program was started.
    Started {
        /// Its process.
        pid: u32,
    },
    /// How a started process fares.
    State(State),
    /// A file's content, or none if there is no such file.
    Content(Option<String>),
}

/// What a program left behind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Output {
    /// Its exit code; a program that a signal ended has 128 + the signal's number, as in a shell.
    pub code: i32,
    /// Whether it was killed because its time was up.
    pub timed_out: bool,
    /// Its standard output, invalid UTF-8 replaced.
    pub stdout: String,
    /// Its standard error, invalid UTF-8 replaced.
    pub stderr: String,
}

/// A started process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum State {
    /// Not ended.
    Running,
    /// Ended with this code; 128 + the signal's number if a signal ended it.
    Ended(i32),
}

/// What `lab-guest cycles` reads: two programs that undo each other, such as ADD and DEL.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cycles {
    /// How often both are run.
    pub rounds: u32,
    /// Run first in each round.
    pub first: Program,
    /// Run second.
    pub second: Program,
    /// Run after each round without being measured, for the machine to come to rest.
    pub between: Option<Program>,
}

/// What `lab-guest cycles` prints.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Runs {
    /// One entry a round.
    pub first: Vec<Run>,
    /// One entry a round.
    pub second: Vec<Run>,
    /// The most memory that any process of the first round had, in KiB. A process starts as a copy of `lab-guest`, so it
    /// cannot be less than what that has.
    pub peak_kib: u64,
}

/// What one run took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// From start to end.
    pub wall: Duration,
    /// Of processors, in user and kernel mode together, with everything that it started and waited for.
    pub cpu: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_one_line_whatever_its_program_is_given() {
        let program = Program {
            argv: vec!["sh".into(), "-c".into(), "echo one\necho two".into()],
            env: BTreeMap::from([("CNI_ARGS".into(), "A=1;B=2".into())]),
            stdin: "{\n}\n".into(),
        };
        let call = Call { id: 7, request: Request::Run { program, timeout_ms: 1000 } };
        let line = serde_json::to_string(&call).unwrap();
        assert!(!line.contains('\n'), "{line}");
        assert_eq!(serde_json::from_str::<Call>(&line).unwrap(), call);
    }

    #[test]
    fn a_failure_and_an_answer_are_told_apart() {
        let replies = [
            Reply { id: 1, answer: Ok(Answer::State(State::Ended(137))) },
            Reply { id: 2, answer: Ok(Answer::Content(None)) },
            Reply { id: 3, answer: Err("no process 99 was started here".into()) },
        ];
        for reply in replies {
            let line = serde_json::to_string(&reply).unwrap();
            assert_eq!(serde_json::from_str::<Reply>(&line).unwrap(), reply, "{line}");
        }
    }
}
