//! A running VM: it starts with its value and dies with it, or with the process that holds it.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use thiserror::Error;

use super::guest::{Guest, GuestError};
use super::place::{Place, PlaceError};
use super::qemu::{Files, Hardware, arguments, kvm_is_usable};
use crate::prepare::{Prepared, tail};

/// How long a boot may take: it takes seconds, but the machine may be emulated and loaded.
const BOOT_LIMIT: Duration = Duration::from_secs(180);
/// What the names of the VMs' folders begin with.
const PREFIX: &str = "zerobridge-vm-";
const SOCKET_LIMIT: Duration = Duration::from_secs(30);

/// Why there is no running VM.
#[derive(Debug, Error)]
pub enum VmError {
    /// There is no folder for its files.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// A file or folder of the VM could not be made.
    #[error("{action} {path}")]
    File {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// QEMU did not come up.
    #[error("QEMU did not start; it said:\n{said}")]
    Qemu {
        /// QEMU's own output.
        said: String,
    },
    /// The guest did not come up.
    #[error("the guest did not boot; the end of its console:\n{console}")]
    Boot {
        /// The end of the console.
        console: String,
        /// What was noticed.
        #[source]
        source: GuestError,
    },
}

/// A running VM.
#[derive(Debug)]
pub struct Vm {
    /// The way in.
    pub guest: Guest,
    files: Files,
    // Fields drop in this order: QEMU first, then the folder with its files.
    _keeper: Keeper,
    _place: Place,
}

impl Vm {
    /// Boots a VM and waits until its agent answers.
    ///
    /// # Errors
    /// With the end of the console or of QEMU's output when it does not come up.
    pub fn boot(prepared: &Prepared, hardware: &Hardware) -> Result<Self, VmError> {
        let place = Place::make(PREFIX)?;
        let files = Files { folder: place.path().to_owned() };
        let file = |action, path: &Path| {
            let path = path.to_owned();
            move |source| VmError::File { action, path, source }
        };
        fs::create_dir(files.out()).map_err(file("make", &files.out()))?;
        let log = File::create(files.qemu()).map_err(file("create", &files.qemu()))?;
        let arguments = arguments(prepared, hardware, &files, kvm_is_usable());
        let keeper =
            Keeper::start(arguments, log).map_err(|source| VmError::Qemu { said: source.to_string() })?;
        let mut guest = connect(&files, &keeper)?;
        guest
            .greet(BOOT_LIMIT)
            .map_err(|source| VmError::Boot { console: end_of(&files.console()), source })?;
        Ok(Self { guest, files, _keeper: keeper, _place: place })
    }

    /// The folder on the host that the guest sees as `/out`.
    #[must_use]
    pub fn out(&self) -> PathBuf {
        self.files.out()
    }

    /// The end of what the guest's kernel and first process printed.
    #[must_use]
    pub fn console(&self) -> String {
        end_of(&self.files.console())
    }
}

fn end_of(path: &Path) -> String {
    tail(&String::from_utf8_lossy(&fs::read(path).unwrap_or_default()))
}

/// Connects as soon as QEMU listens.
fn connect(files: &Files, keeper: &Keeper) -> Result<Guest, VmError> {
    let deadline = Instant::now() + SOCKET_LIMIT;
    loop {
        if let Ok(guest) = Guest::connect(&files.socket()) {
            return Ok(guest);
        }
        if keeper.has_ended() || Instant::now() > deadline {
            return Err(VmError::Qemu { said: end_of(&files.qemu()) });
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// The thread that QEMU is a child of. The kernel kills QEMU when that thread ends for whatever reason: PR_SET_PDEATHSIG
/// watches the thread, not the process, so a test's own thread would not do.
#[derive(Debug)]
struct Keeper {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    fn start(arguments: Vec<String>, log: File) -> io::Result<Self> {
        let (stop, stopped) = channel();
        let (report, started) = channel();
        let thread = thread::Builder::new().name("qemu-keeper".into()).spawn(move || {
            keep(&arguments, log, &report, &stopped);
        })?;
        started.recv().map_err(io::Error::other)??;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }

    fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            // It has nothing to tell: QEMU is gone either way.
            let _ = thread.join();
        }
    }
}

fn keep(arguments: &[String], log: File, report: &Sender<io::Result<()>>, stopped: &Receiver<()>) {
    let spawned = log.try_clone().and_then(|copy| {
        Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "qemu-system-x86_64"])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(copy)
            .stderr(log)
            .spawn()
    });
    let mut qemu = match spawned {
        Ok(child) => child,
        Err(error) => {
            let _ = report.send(Err(error));
            return;
        }
    };
    let _ = report.send(Ok(()));
    // A value is never sent: the other side hangs up, or QEMU ends by itself.
    while stopped.recv_timeout(Duration::from_millis(200)) == Err(std::sync::mpsc::RecvTimeoutError::Timeout)
    {
        if !matches!(qemu.try_wait(), Ok(None)) {
            return;
        }
    }
    let _ = qemu.kill();
    let _ = qemu.wait();
}
