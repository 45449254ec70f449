//! The guest as a test sees it: run programs, keep programs, move files.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use thiserror::Error;
use zerobridge_lab_guest::{Answer, Call, Output, Program, Reply, Request, State};

/// How long an ordinary command may take: generous, because the guest may be emulated on a loaded machine.
const LIMIT: Duration = Duration::from_secs(60);
/// How much longer than the command itself its answer may take.
const SLACK: Duration = Duration::from_secs(20);
/// Between two looks at a condition.
const POLL: Duration = Duration::from_millis(100);

/// Why the guest gave no result.
#[derive(Debug, Error)]
pub enum GuestError {
    /// The connection to the agent broke or stayed silent: the VM hangs or is gone.
    #[error("the VM does not answer to {request}")]
    Lost {
        /// What was asked.
        request: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The agent could not do as asked.
    #[error("in the guest: {message}")]
    Refused {
        /// Its reason.
        message: String,
    },
    /// The agent answered something else than was asked.
    #[error("the agent answered {answer} to {request}")]
    Nonsense {
        /// What was asked.
        request: String,
        /// What came.
        answer: String,
    },
    /// A program ran and failed.
    #[error("`{command}` in the guest {ended}\n{said}")]
    Failed {
        /// The command line.
        command: String,
        /// How it ended.
        ended: String,
        /// What it printed.
        said: String,
    },
    /// A program printed something that could not be read as JSON.
    #[error("`{command}` in the guest printed no JSON that is understood: {text}")]
    NotJson {
        /// The command line.
        command: String,
        /// What it printed.
        text: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A condition did not come true.
    #[error("{what} did not happen within {} s; last seen: {last}", limit.as_secs())]
    TooLate {
        /// What was waited for.
        what: String,
        /// For how long.
        limit: Duration,
        /// The last look at it.
        last: String,
    },
}

/// A connection to the agent.
#[derive(Debug)]
pub struct Guest {
    writer: UnixStream,
    reader: BufReader<UnixStream>,
    calls: u64,
}

impl Guest {
    /// Connects to QEMU's socket. The guest may still be booting: the first answer takes as long as that does.
    pub(crate) fn connect(socket: &Path) -> io::Result<Self> {
        let writer = UnixStream::connect(socket)?;
        let reader = BufReader::new(writer.try_clone()?);
        Ok(Self { writer, reader, calls: 0 })
    }

    /// Waits until the guest is up.
    pub(crate) fn greet(&mut self, limit: Duration) -> Result<(), GuestError> {
        self.done(Request::Hello, limit)
    }

    /// Runs a program and returns what came of it, success or not.
    ///
    /// # Errors
    /// When it could not be started, or the VM is lost.
    pub fn output(&mut self, program: Program, limit: Duration) -> Result<Output, GuestError> {
        let timeout_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        match self.ask(Request::Run { program, timeout_ms }, limit + SLACK)? {
            (_, Answer::Output(output)) => Ok(output),
            (request, answer) => Err(nonsense(request, &answer)),
        }
    }

    /// Runs a program that must succeed and returns its standard output.
    ///
    /// # Errors
    /// [`GuestError::Failed`] with everything it said when it failed.
    pub fn run(&mut self, argv: &[&str]) -> Result<String, GuestError> {
        self.run_within(argv, LIMIT)
    }

    /// [`Guest::run`] with a time limit of its own.
    ///
    /// # Errors
    /// As [`Guest::run`].
    pub fn run_within(&mut self, argv: &[&str], limit: Duration) -> Result<String, GuestError> {
        let output = self.output(program(argv), limit)?;
        succeeded(&argv.join(" "), output)
    }

    /// Runs a shell script that must succeed.
    ///
    /// # Errors
    /// As [`Guest::run`].
    pub fn shell(&mut self, script: &str) -> Result<String, GuestError> {
        self.run(&["sh", "-ec", script])
    }

    /// Runs a program that must succeed and print JSON.
    ///
    /// # Errors
    /// As [`Guest::run`], and [`GuestError::NotJson`].
    pub fn json<T: DeserializeOwned>(&mut self, argv: &[&str]) -> Result<T, GuestError> {
        let text = self.run(argv)?;
        serde_json::from_str(&text).map_err(|source| GuestError::NotJson {
            command: argv.join(" "),
            text,
            source,
        })
    }

    /// Starts a program that keeps running; both its outputs go to `/out/NAME.log`, which the host can read.
    ///
    /// # Errors
    /// When it could not be started, or the VM is lost.
    pub fn start(&mut self, program: Program, name: &str) -> Result<u32, GuestError> {
        let log = format!("/out/{name}.log");
        match self.ask(Request::Start { program, log }, LIMIT)? {
            (_, Answer::Started { pid }) => Ok(pid),
            (request, answer) => Err(nonsense(request, &answer)),
        }
    }

    /// Sends a signal to a process that [`Guest::start`] started.
    ///
    /// # Errors
    /// When the agent knows no such process, or the VM is lost.
    pub fn signal(&mut self, pid: u32, signal: i32) -> Result<(), GuestError> {
        self.done(Request::Signal { pid, signal }, LIMIT)
    }

    /// How a process that [`Guest::start`] started fares.
    ///
    /// # Errors
    /// When the agent knows no such process, or the VM is lost.
    pub fn state(&mut self, pid: u32) -> Result<State, GuestError> {
        match self.ask(Request::State { pid }, LIMIT)? {
            (_, Answer::State(state)) => Ok(state),
            (request, answer) => Err(nonsense(request, &answer)),
        }
    }

    /// Kills a started process and waits until it is gone.
    ///
    /// # Errors
    /// As [`Guest::signal`].
    pub fn kill(&mut self, pid: u32) -> Result<(), GuestError> {
        self.signal(pid, 9)?;
        self.wait_for("the end of a killed process", LIMIT, |guest| match guest.state(pid)? {
            State::Ended(_) => Ok(Ok(())),
            State::Running => Ok(Err(format!("process {pid} runs"))),
        })
    }

    /// Writes a file, whole or not at all.
    ///
    /// # Errors
    /// When the guest cannot write it, or the VM is lost.
    pub fn write(&mut self, path: &str, content: &str) -> Result<(), GuestError> {
        self.done(Request::Write { path: path.into(), content: content.into() }, LIMIT)
    }

    /// Reads a text file; `None` if there is none.
    ///
    /// # Errors
    /// When the guest cannot read it, or the VM is lost.
    pub fn read(&mut self, path: &str) -> Result<Option<String>, GuestError> {
        match self.ask(Request::Read { path: path.into() }, LIMIT)? {
            (_, Answer::Content(content)) => Ok(content),
            (request, answer) => Err(nonsense(request, &answer)),
        }
    }

    /// Whether there is such a file or folder.
    ///
    /// # Errors
    /// When the VM is lost.
    pub fn exists(&mut self, path: &str) -> Result<bool, GuestError> {
        Ok(self.output(program(&["test", "-e", path]), LIMIT)?.code == 0)
    }

    /// Looks again and again until `look` returns `Ok(Ok(_))`. `Ok(Err(_))` says what was seen instead.
    ///
    /// # Errors
    /// [`GuestError::TooLate`] with the last look when `limit` is over; any other error of `look` at once.
    pub fn wait_for<T>(
        &mut self,
        what: &str,
        limit: Duration,
        mut look: impl FnMut(&mut Self) -> Result<Result<T, String>, GuestError>,
    ) -> Result<T, GuestError> {
        look_until(limit, POLL, || look(self))?.map_err(|last| GuestError::TooLate {
            what: what.into(),
            limit,
            last,
        })
    }

    fn done(&mut self, request: Request, limit: Duration) -> Result<(), GuestError> {
        match self.ask(request, limit)? {
            (_, Answer::Done) => Ok(()),
            (request, answer) => Err(nonsense(request, &answer)),
        }
    }

    fn ask(&mut self, request: Request, limit: Duration) -> Result<(String, Answer), GuestError> {
        self.calls += 1;
        let call = Call { id: self.calls, request };
        let name = name_of(&call.request);
        let reply = self
            .exchange(&call, limit)
            .map_err(|source| GuestError::Lost { request: name.clone(), source })?;
        match reply.answer {
            Ok(answer) => Ok((name, answer)),
            Err(message) => Err(GuestError::Refused { message }),
        }
    }

    fn exchange(&mut self, call: &Call, limit: Duration) -> io::Result<Reply> {
        let mut line = serde_json::to_string(call)?;
        line.push('\n');
        self.writer.write_all(line.as_bytes())?;
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.writer.set_read_timeout(Some(left))?;
            let mut text = String::new();
            if self.reader.read_line(&mut text)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let reply: Reply = serde_json::from_str(&text)?;
            // An answer that came too late for an earlier call is not for this one.
            if reply.id == call.id {
                return Ok(reply);
            }
        }
    }
}

/// Looks again and again, with a pause in between, until `look` returns `Ok(Ok(_))`, and returns that, or what was seen last when `limit` is over.
///
/// # Errors
/// Any of `look`, at once.
pub fn look_until<T, E>(
    limit: Duration,
    pause: Duration,
    mut look: impl FnMut() -> Result<Result<T, String>, E>,
) -> Result<Result<T, String>, E> {
    let deadline = Instant::now() + limit;
    loop {
        let seen = look()?;
        if seen.is_ok() || Instant::now() >= deadline {
            return Ok(seen);
        }
        std::thread::sleep(pause);
    }
}

/// A program without variables or input.
#[must_use]
pub fn program(argv: &[&str]) -> Program {
    Program { argv: argv.iter().map(|word| (*word).to_owned()).collect(), ..Program::default() }
}

/// The standard output of a program that must have succeeded.
pub(crate) fn succeeded(command: &str, output: Output) -> Result<String, GuestError> {
    if output.code == 0 && !output.timed_out {
        return Ok(output.stdout);
    }
    let ended = if output.timed_out { "took too long".into() } else { format!("ended with {}", output.code) };
    let said = format!("{}{}", output.stdout, output.stderr);
    Err(GuestError::Failed { command: command.into(), ended, said: said.trim_end().into() })
}

fn name_of(request: &Request) -> String {
    match request {
        Request::Hello => "the first greeting".into(),
        Request::Run { program, .. } => format!("`{}`", program.argv.join(" ")),
        Request::Start { program, .. } => format!("the start of `{}`", program.argv.join(" ")),
        Request::Signal { pid, .. } | Request::State { pid } => format!("a request for process {pid}"),
        Request::Write { path, .. } => format!("a write of {path}"),
        Request::Read { path } => format!("a read of {path}"),
    }
}

fn nonsense(request: String, answer: &Answer) -> GuestError {
    GuestError::Nonsense { request, answer: format!("{answer:?}") }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::thread;

    use super::*;

    /// A guest whose agent gives `replies`, whatever it is asked.
    fn guest_that_answers(replies: Vec<Reply>) -> (tempfile::TempDir, Guest) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let mut stream = stream;
            for reply in replies {
                lines.next();
                writeln!(stream, "{}", serde_json::to_string(&reply).unwrap()).unwrap();
            }
        });
        let guest = Guest::connect(&path).unwrap();
        (folder, guest)
    }

    fn output(code: i32, stdout: &str, stderr: &str) -> Reply {
        let output = Output { code, timed_out: false, stdout: stdout.into(), stderr: stderr.into() };
        Reply { id: 1, answer: Ok(Answer::Output(output)) }
    }

    #[test]
    fn a_failed_program_says_all_it_said() {
        let (_folder, mut guest) = guest_that_answers(vec![output(2, "half", "no such device\n")]);
        let text = guest.run(&["ip", "link", "show", "x"]).unwrap_err().to_string();
        assert_eq!(text, "`ip link show x` in the guest ended with 2\nhalfno such device");
    }

    #[test]
    fn a_vm_that_is_gone_is_an_error_and_not_a_hang() {
        let (_folder, mut guest) = guest_that_answers(vec![]);
        assert!(matches!(guest.run(&["true"]), Err(GuestError::Lost { .. })));
    }

    #[test]
    fn a_late_answer_is_not_taken_for_the_next_one() {
        let late = Reply { id: 0, answer: Ok(Answer::Done) };
        let (_folder, mut guest) = guest_that_answers(vec![late]);
        let outcome = guest.greet(Duration::from_millis(200));
        assert!(matches!(outcome, Err(GuestError::Lost { .. })));
    }

    #[test]
    fn output_that_is_no_json_is_shown() {
        let (_folder, mut guest) = guest_that_answers(vec![output(0, "Usage: ip", "")]);
        let text = guest.json::<Vec<u32>>(&["ip", "-j"]).unwrap_err().to_string();
        assert!(text.contains("Usage: ip"), "{text}");
    }
}
