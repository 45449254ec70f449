//! The agent: reads requests from the virtio serial port, one at a time, and answers each.
//!
//! When the host hangs up the agent returns, and with it the VM powers off: a VM never outlives its test.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use thiserror::Error;
use zerobridge_lab_guest::{Answer, Call, PORT_NAME, Program, Reply, Request, State};

use crate::process;

const PORTS: &str = "/sys/class/virtio-ports";

/// A read of a file on 9p ends in ENODATA when somebody appends to it meanwhile (netfs: fewer bytes came than the size that
/// it had asked for a moment before). The next one sees the new size.
const GROWS: Option<i32> = Some(Errno::ENODATA as i32);
/// How often such a read is repeated, and the pause before.
const READS: u32 = 50;
const PAUSE: Duration = Duration::from_millis(10);

/// Why the agent cannot serve.
#[derive(Debug, Error)]
pub(crate) enum AgentError {
    /// QEMU was started without the port.
    #[error("no virtio serial port is named {PORT_NAME} in {PORTS}")]
    NoPort,
    /// The port was lost.
    #[error("{path}")]
    Port {
        /// The port's device node.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

/// Serves until the host hangs up.
pub(crate) fn run() -> Result<(), AgentError> {
    let path = find_port(Path::new(PORTS)).ok_or(AgentError::NoPort)?;
    let fail = |source| AgentError::Port { path: path.clone(), source };
    let mut port = OpenOptions::new().read(true).write(true).open(&path).map_err(fail)?;
    let mut lines = BufReader::new(port.try_clone().map_err(fail)?);
    let mut agent = Agent::default();
    let mut line = String::new();
    let mut greeted = false;
    loop {
        line.clear();
        if lines.read_line(&mut line).map_err(fail)? == 0 {
            // The kernel reads end-of-file while no host is connected (drivers/char/virtio_console.c).
            if greeted {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(20));
            continue;
        }
        greeted = true;
        let mut reply = serde_json::to_string(&agent.reply(&line)).map_err(|error| fail(error.into()))?;
        reply.push('\n');
        port.write_all(reply.as_bytes()).map_err(fail)?;
    }
}

/// The device node of the port named [`PORT_NAME`] among those in `ports`.
fn find_port(ports: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(ports).ok()?;
    let found = entries.flatten().find(|entry| {
        fs::read_to_string(entry.path().join("name")).is_ok_and(|name| name.trim() == PORT_NAME)
    })?;
    Some(Path::new("/dev").join(found.file_name()))
}

#[derive(Default)]
struct Agent {
    started: BTreeMap<u32, Child>,
}

impl Agent {
    fn reply(&mut self, line: &str) -> Reply {
        match serde_json::from_str::<Call>(line) {
            Ok(call) => {
                Reply { id: call.id, answer: self.answer(call.request).map_err(|error| error.to_string()) }
            }
            Err(error) => Reply { id: 0, answer: Err(format!("not a call: {error}: {line}")) },
        }
    }

    fn answer(&mut self, request: Request) -> io::Result<Answer> {
        match request {
            Request::Hello => Ok(Answer::Done),
            Request::Run { program, timeout_ms } => process::run(&program, Duration::from_millis(timeout_ms))
                .map(Answer::Output)
                .map_err(|error| named(&error, &program.argv.join(" "))),
            Request::Start { program, log } => self.start(&program, &log),
            Request::Signal { pid, signal } => self.signal(pid, signal),
            Request::State { pid } => {
                let ended = self.child(pid)?.try_wait()?;
                Ok(Answer::State(ended.map_or(State::Running, |status| State::Ended(process::code(status)))))
            }
            Request::Write { path, content } => {
                write(Path::new(&path), &content).map_err(|error| named(&error, &path))?;
                Ok(Answer::Done)
            }
            Request::Read { path } => match while_it_grows(|| fs::read_to_string(&path)) {
                Ok(content) => Ok(Answer::Content(Some(content))),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Answer::Content(None)),
                Err(error) => Err(named(&error, &path)),
            },
        }
    }

    fn start(&mut self, program: &Program, log: &str) -> io::Result<Answer> {
        let log =
            OpenOptions::new().create(true).append(true).open(log).map_err(|error| named(&error, log))?;
        let child = process::command(program)?
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .map_err(|error| named(&error, &program.argv.join(" ")))?;
        let pid = child.id();
        self.started.insert(pid, child);
        Ok(Answer::Started { pid })
    }

    fn signal(&mut self, pid: u32, signal: i32) -> io::Result<Answer> {
        self.child(pid)?;
        let signal = Signal::try_from(signal)?;
        let target = i32::try_from(pid).map_err(io::Error::other)?;
        kill(Pid::from_raw(target), signal)?;
        Ok(Answer::Done)
    }

    fn child(&mut self, pid: u32) -> io::Result<&mut Child> {
        self.started.get_mut(&pid).ok_or_else(|| {
            io::Error::new(io::ErrorKind::NotFound, format!("no process {pid} was started here"))
        })
    }
}

fn named(error: &io::Error, object: &str) -> io::Error {
    io::Error::new(error.kind(), format!("{object}: {error}"))
}

/// Writes beside `path`, then renames: the kubelet reads a manifest as soon as it sees it, half written or not.
fn write(path: &Path, content: &str) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(folder)?;
    // The leading dot keeps every reader that lists the folder from taking it for the file itself.
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let beside = folder.join(format!(".{name}.new"));
    let mut file = File::create(&beside)?;
    file.write_all(content.as_bytes())?;
    fs::rename(&beside, path)
}

fn while_it_grows<T>(mut read: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    for _ in 1..READS {
        match read() {
            Err(error) if error.raw_os_error() == GROWS => thread::sleep(PAUSE),
            outcome => return outcome,
        }
    }
    read()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(agent: &mut Agent, request: Request) -> Result<Answer, String> {
        let line = serde_json::to_string(&Call { id: 5, request }).unwrap();
        let reply = agent.reply(&line);
        assert_eq!(reply.id, 5);
        reply.answer
    }

    #[test]
    fn a_started_process_is_seen_to_run_and_to_be_killed() {
        let mut agent = Agent::default();
        let program = Program { argv: ["sleep", "1000"].map(String::from).to_vec(), ..Program::default() };
        let Ok(Answer::Started { pid }) =
            ask(&mut agent, Request::Start { program, log: "/dev/null".into() })
        else {
            panic!("sleep was not started");
        };
        assert_eq!(ask(&mut agent, Request::State { pid }), Ok(Answer::State(State::Running)));
        assert_eq!(ask(&mut agent, Request::Signal { pid, signal: 9 }), Ok(Answer::Done));
        while ask(&mut agent, Request::State { pid }) == Ok(Answer::State(State::Running)) {
            thread::sleep(Duration::from_millis(2));
        }
        assert_eq!(ask(&mut agent, Request::State { pid }), Ok(Answer::State(State::Ended(137))));
    }

    #[test]
    fn only_started_processes_are_signalled() {
        let refusal = ask(&mut Agent::default(), Request::Signal { pid: 1, signal: 9 }).unwrap_err();
        assert!(refusal.contains("no process 1 was started"), "{refusal}");
    }

    #[test]
    fn what_is_written_is_read_and_a_missing_file_is_no_error() {
        let mut agent = Agent::default();
        let folder = std::env::temp_dir().join(format!("lab-guest-{}", std::process::id()));
        let path = folder.join("a/b.json").to_string_lossy().into_owned();
        assert_eq!(ask(&mut agent, Request::Read { path: path.clone() }), Ok(Answer::Content(None)));
        let content = "{}\n".to_owned();
        assert_eq!(
            ask(&mut agent, Request::Write { path: path.clone(), content: content.clone() }),
            Ok(Answer::Done)
        );
        assert_eq!(ask(&mut agent, Request::Read { path }), Ok(Answer::Content(Some(content))));
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_file_that_grows_while_it_is_read_is_read_again_and_nothing_else_is() {
        let mut reads = 0;
        let mut answer = |errors: u32, errno: Errno| {
            reads = 0;
            let read = || {
                reads += 1;
                if reads > errors { Ok("content") } else { Err(io::Error::from(errno)) }
            };
            (while_it_grows(read).map_err(|error| error.raw_os_error()), reads)
        };
        assert_eq!(answer(2, Errno::ENODATA), (Ok("content"), 3));
        assert_eq!(answer(READS, Errno::ENODATA), (Err(GROWS), READS));
        assert_eq!(answer(1, Errno::EIO), (Err(Some(Errno::EIO as i32)), 1));
    }

    #[test]
    fn a_line_that_is_no_call_is_answered_with_its_defect() {
        let reply = Agent::default().reply("{\"id\":1}\n");
        assert!(reply.answer.unwrap_err().contains("missing field `request`"));
    }
}
