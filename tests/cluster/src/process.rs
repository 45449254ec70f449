//! Programs that run on the host beside a test, and end with it.

use std::fs::{self, File};
use std::io;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use thiserror::Error;

/// How much of a log is shown, in lines from its end.
const TAIL_LINES: usize = 30;

/// Why a program does not run.
#[derive(Debug, Error)]
pub enum ProcessError {
    /// Its log cannot be opened.
    #[error("open {path}")]
    Log {
        /// The log.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// It cannot be started.
    #[error("start {program}")]
    Start {
        /// The program.
        program: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// There is no port for it.
    #[error("find a free port of the loopback")]
    Port(#[source] io::Error),
}

/// A running program; killed when it is dropped, and by the kernel when the thread ends that started it.
#[derive(Debug)]
pub(crate) struct Process(Child);

impl Process {
    /// Starts `program` with its output appended to `folder/NAME.log`. A process group of its own keeps the terminal's Ctrl-C
    /// from it: the order of its end is its owner's business.
    pub(crate) fn start(
        program: &Path,
        folder: &Path,
        arguments: &[(&str, String)],
        flags: &[&str],
    ) -> Result<Self, ProcessError> {
        let path = folder.join(format!("{}.log", name_of(program)));
        let open = || {
            let log = File::options().create(true).append(true).open(&path)?;
            Ok((log.try_clone()?, log))
        };
        let (output, log) = open().map_err(|source| ProcessError::Log { path: path.clone(), source })?;
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL"])
            .arg(program)
            .args(flags)
            .args(arguments.iter().map(|(key, value)| format!("{key}={value}")))
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(log)
            .spawn();
        child.map(Self).map_err(|source| ProcessError::Start { program: program.to_owned(), source })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // One that has ended by itself has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The end of the log of a program that was started in `folder`.
pub(crate) fn end_of_log(folder: &Path, program: &str) -> String {
    let text = fs::read(folder.join(format!("{program}.log"))).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}

/// A TCP port that was free just now; programs that cannot choose one by themselves leave no better way.
pub(crate) fn free_port() -> Result<u16, ProcessError> {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(ProcessError::Port)?;
    listener.local_addr().map(|address| address.port()).map_err(ProcessError::Port)
}

/// As [`free_port`], two different ones of UDP.
pub(crate) fn free_udp_ports() -> Result<[u16; 2], ProcessError> {
    let bind = || UdpSocket::bind("127.0.0.1:0").map_err(ProcessError::Port);
    let port =
        |socket: &UdpSocket| socket.local_addr().map(|address| address.port()).map_err(ProcessError::Port);
    let (one, other) = (bind()?, bind()?);
    Ok([port(&one)?, port(&other)?])
}

fn name_of(program: &Path) -> String {
    program.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_program_ends_with_its_value_and_its_words_stay() {
        let folder = tempfile::tempdir().unwrap();
        let script = "echo $$ and more; exec sleep 1000";
        let process = Process::start(Path::new("/bin/sh"), folder.path(), &[], &["-c", script]).unwrap();
        let begun = Instant::now();
        while end_of_log(folder.path(), "sh").is_empty() && begun.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(5));
        }
        let said = end_of_log(folder.path(), "sh");
        let number: u32 = said.split(' ').next().unwrap().parse().unwrap();
        assert!(said.ends_with("and more"));
        assert!(Path::new(&format!("/proc/{number}")).exists());
        drop(process);
        assert!(!Path::new(&format!("/proc/{number}")).exists());
    }
}
