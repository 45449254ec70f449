//! Runs a program under ptrace(2) and kills it before a chosen system call.
//!
//! The program and everything it starts is traced; calls count in whichever thread or process. At the entry of the chosen
//! one all of it gets SIGKILL, so that call never happens. The kernel runs on: what the calls before it began, such as
//! the return of a netdev from a dead namespace, goes its way.
//!
//! The program begins as a shell that waits for a line, so that it can be attached to before it is the program. A process
//! that asks to be traced would need code between fork and exec.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::c_void;
use std::fs;
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::thread::{self, JoinHandle};

use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::change::{Address, Call, Verdict, is_path, only_asks};
use crate::{Count, TraceError};

/// The program that is run, and killed.
#[derive(Clone, Copy, Debug)]
pub struct Victim<'a> {
    /// The program (looked up in `PATH`) and its arguments.
    pub argv: &'a [String],
    /// Variables added to the caller's own environment.
    pub env: &'a BTreeMap<String, String>,
    /// What it reads on its standard input; must fit a pipe (64 KiB).
    pub stdin: &'a str,
}

/// What became of it.
#[derive(Clone, Debug, Default)]
pub struct Ended {
    /// The calls that counted, one line each, up to the one that it did not live to make.
    pub calls: Vec<String>,
    /// Whether it was killed.
    pub killed: bool,
    /// Its exit code; 137 when killed.
    pub code: i32,
    /// What it wrote to standard output.
    pub stdout: String,
    /// What it wrote to standard error.
    pub stderr: String,
}

/// Says that it is there, and becomes its arguments when it has read a line. `read` takes no more of a pipe than the line.
const GATE: &str = r#"echo && read -r _ && exec "$0" "$@""#;

impl Victim<'_> {
    /// Runs it and kills it at the entry of call number `kill_at`, from 1, of those that `count` counts.
    ///
    /// Other threads may have children of their own meanwhile, this one must have none.
    ///
    /// # Errors
    /// It cannot be started or traced. That it fails by itself is none: see [`Ended::code`].
    pub fn run(&self, count: Count, kill_at: Option<u64>) -> Result<Ended, TraceError> {
        let name = self.argv.join(" ");
        let start = |source| TraceError::Start { program: name.clone(), source };
        // Spawned and attached to by this thread, which therefore is the tracer: everything below must stay on it.
        let mut command = Command::new("sh");
        command.args(["-c", GATE]).args(self.argv).envs(self.env);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(start)?;
        if let Some(stdout) = &mut child.stdout {
            // Until then it may still be on its way from being a copy of this program to being the shell.
            stdout.read_exact(&mut [0]).map_err(start)?;
        }
        let outputs = [collect(child.stdout.take()), collect(child.stderr.take())];
        let main = i32::try_from(child.id()).map_err(|error| start(std::io::Error::other(error)))?;
        let mut tracer = Tracer::begin(&name, Pid::from_raw(main), count, kill_at)?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(format!("\n{}", self.stdin).as_bytes()).map_err(start)?;
        }
        tracer.follow()?;
        let [stdout, stderr] = outputs.map(|thread| thread.join().unwrap_or_default());
        Ok(Ended { stdout, stderr, ..tracer.ended })
    }
}

fn collect(pipe: Option<impl Read + Send + 'static>) -> JoinHandle<String> {
    thread::spawn(move || {
        let mut text = Vec::new();
        // What came before a failure is what there is to show.
        let _ = pipe.map(|mut pipe| pipe.read_to_end(&mut text));
        String::from_utf8_lossy(&text).into_owned()
    })
}

struct Tracer<'a> {
    name: &'a str,
    main: Pid,
    count: Count,
    kill_at: Option<u64>,
    /// It is the program now and no longer the shell before it.
    begun: bool,
    counted: u64,
    /// Every thread, and the process it belongs to.
    threads: BTreeMap<Pid, Pid>,
    /// Threads between entry and exit of a call.
    inside: BTreeMap<Pid, Call>,
    /// Sockets to rtnetlink, by process and descriptor.
    rtnetlink: BTreeSet<(Pid, u64)>,
    ended: Ended,
}

impl<'a> Tracer<'a> {
    fn begin(name: &'a str, main: Pid, count: Count, kill_at: Option<u64>) -> Result<Self, TraceError> {
        ptrace::attach(main).map_err(TraceError::trace(name, "attach"))?;
        match waitpid(main, Some(WaitPidFlag::__WALL)).map_err(TraceError::trace(name, "wait"))? {
            WaitStatus::Stopped(_, Signal::SIGSTOP) => {}
            status => {
                let source = std::io::Error::other(format!("it ended before it was the program: {status:?}"));
                return Err(TraceError::Start { program: name.into(), source });
            }
        }
        let options = Options::PTRACE_O_TRACESYSGOOD
            | Options::PTRACE_O_TRACECLONE
            | Options::PTRACE_O_TRACEFORK
            | Options::PTRACE_O_TRACEVFORK
            | Options::PTRACE_O_TRACEEXEC
            | Options::PTRACE_O_EXITKILL;
        ptrace::setoptions(main, options).map_err(TraceError::trace(name, "setoptions"))?;
        ptrace::syscall(main, None).map_err(TraceError::trace(name, "continue"))?;
        Ok(Self {
            name,
            main,
            count,
            kill_at,
            begun: false,
            counted: 0,
            threads: [(main, main)].into(),
            inside: BTreeMap::new(),
            rtnetlink: BTreeSet::new(),
            ended: Ended::default(),
        })
    }

    /// Until nothing of the program is left.
    fn follow(&mut self) -> Result<(), TraceError> {
        loop {
            let (pid, signal) = match waitpid(None, Some(WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD)) {
                Ok(WaitStatus::Exited(pid, code)) => {
                    self.note_end(pid, code);
                    continue;
                }
                Ok(WaitStatus::Signaled(pid, signal, _)) => {
                    self.note_end(pid, 128 + signal as i32);
                    continue;
                }
                Ok(WaitStatus::PtraceSyscall(pid)) => match self.at_call(pid) {
                    Ok(true) => {
                        self.kill_all();
                        continue;
                    }
                    Ok(false) => (pid, None),
                    // Killed in the meantime: its end is reported next.
                    Err(Errno::ESRCH) => continue,
                    Err(source) => return Err(TraceError::trace(self.name, "look at a call")(source)),
                },
                Ok(WaitStatus::PtraceEvent(pid, _, event)) => {
                    self.begun |= pid == self.main && event == libc::PTRACE_EVENT_EXEC;
                    (pid, None)
                }
                // A new thread or process begins with a stop that is ptrace's own, not a signal for it.
                Ok(WaitStatus::Stopped(pid, Signal::SIGSTOP)) if !self.threads.contains_key(&pid) => {
                    self.threads.insert(pid, process_of(pid));
                    (pid, None)
                }
                Ok(WaitStatus::Stopped(pid, signal)) => (pid, Some(signal)),
                Ok(_) => continue,
                Err(Errno::ECHILD) => return Ok(()),
                Err(source) => return Err(TraceError::trace(self.name, "wait")(source)),
            };
            match ptrace::syscall(pid, signal) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(source) => return Err(TraceError::trace(self.name, "continue")(source)),
            }
        }
    }

    /// At the entry or the exit of a call; `true` when this is where the program is to die.
    fn at_call(&mut self, pid: Pid) -> Result<bool, Errno> {
        let registers = ptrace::getregs(pid)?;
        if let Some(call) = self.inside.remove(&pid) {
            if call.number == libc::SYS_socket.unsigned_abs() {
                let socket = (self.process(pid), registers.rax);
                if call.is_rtnetlink_socket() {
                    self.rtnetlink.insert(socket);
                } else {
                    // The number may have been that of another socket, closed since.
                    self.rtnetlink.remove(&socket);
                }
            }
            return Ok(false);
        }
        let arguments =
            [registers.rdi, registers.rsi, registers.rdx, registers.r10, registers.r8, registers.r9];
        let call = Call { number: registers.orig_rax, arguments };
        self.inside.insert(pid, call);
        if !self.begun || self.ended.killed || (self.count == Count::Changes && !self.changes(pid, &call)?) {
            return Ok(false);
        }
        self.counted += 1;
        self.ended.calls.push(describe(pid, &call));
        Ok(self.kill_at == Some(self.counted))
    }

    fn changes(&self, pid: Pid, call: &Call) -> Result<bool, Errno> {
        Ok(match call.verdict() {
            Verdict::Nothing => false,
            Verdict::Change => true,
            Verdict::ByFamily(address) => is_path(peek(pid, address)?),
            Verdict::ByMessage { descriptor, address } => {
                let message = match address {
                    Address::Direct(message) => message,
                    // struct msghdr: a pointer, a length and its padding, then the pointer to the vector.
                    Address::InHeader(header) => peek(pid, peek(pid, header + 16)?)?,
                };
                !(self.rtnetlink.contains(&(self.process(pid), descriptor)) && only_asks(peek(pid, message)?))
            }
        })
    }

    fn process(&self, pid: Pid) -> Pid {
        self.threads.get(&pid).copied().unwrap_or(pid)
    }

    fn kill_all(&mut self) {
        self.ended.killed = true;
        for tracee in self.threads.keys() {
            // Most of them are threads of one process, dead with the first.
            let _ = kill(*tracee, Signal::SIGKILL);
        }
    }

    fn note_end(&mut self, pid: Pid, code: i32) {
        self.threads.remove(&pid);
        self.inside.remove(&pid);
        if pid == self.main {
            self.ended.code = code;
        }
    }
}

/// The process that a thread belongs to.
fn process_of(thread: Pid) -> Pid {
    let status = fs::read_to_string(format!("/proc/{thread}/status")).unwrap_or_default();
    let group = status.lines().find_map(|line| line.strip_prefix("Tgid:")?.trim().parse().ok());
    group.map_or(thread, Pid::from_raw)
}

/// Eight bytes of a stopped program's memory, as x86 has them in a word.
fn peek(pid: Pid, address: u64) -> Result<u64, Errno> {
    ptrace::read(pid, address as *mut c_void).map(i64::cast_unsigned)
}

fn describe(pid: Pid, call: &Call) -> String {
    let (name, has_descriptor) = call.name();
    let link = format!("/proc/{pid}/fd/{}", call.arguments[0]);
    match fs::read_link(link) {
        // The number of a pipe or a socket is another in each run.
        Ok(target) if has_descriptor => {
            let target = target.to_string_lossy();
            format!("{name} {}", target.split(":[").next().unwrap_or_default())
        }
        _ => name,
    }
}
