//! The VM's first process, after the initramfs has mounted the host's root: mounts, cgroups, udev, then the agent.
//!
//! Refuses to know the network: whoever runs a test creates the VFs it needs.

use std::fs;
use std::io;
use std::process::Command;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::wait::wait;
use nix::unistd::{Pid, sethostname};
use thiserror::Error;

/// What stopped the VM from coming up.
#[derive(Debug, Error)]
pub(crate) enum InitError {
    /// A mount failed.
    #[error("mount {kind} on {target}")]
    Mount {
        /// The file system's type.
        kind: &'static str,
        /// Where.
        target: &'static str,
        /// What the kernel said.
        #[source]
        source: Errno,
    },
    /// A file or folder could not be written.
    #[error("write {path}")]
    Write {
        /// Which.
        path: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A program could not be started.
    #[error("start {program}")]
    Start {
        /// Which.
        program: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A program failed.
    #[error("{program} ended with {code}")]
    Failed {
        /// Which.
        program: String,
        /// Its exit code as text.
        code: String,
    },
    /// A system call of the first process failed.
    #[error("{call}")]
    Call {
        /// Which.
        call: &'static str,
        /// What the kernel said.
        #[source]
        source: Errno,
    },
}

/// Where the VM needs a file system of its own, because the host's folder shines through the overlay: some must not be
/// seen (the host's own CNI configuration), some must not lie on an overlay (containerd's snapshots).
const TMPFS: [&str; 10] = [
    "/run",
    "/dev/shm",
    "/etc/cni",
    "/etc/containerd",
    "/etc/kubernetes",
    "/etc/zerobridge",
    "/opt/cni",
    "/var/lib/containerd",
    "/var/lib/kubelet",
    "/var/lib/zerobridge",
];

/// Brings the VM up, serves the host, and powers off when it hangs up.
pub(crate) fn run() -> Result<(), InitError> {
    let outcome = serve();
    if let Err(error) = &outcome {
        // The console is the only thing that the host can still read.
        let _ = io::Write::write_fmt(
            &mut io::stderr(),
            format_args!("lab-guest init: {}\n", zerobridge_proto::chain(error)),
        );
    }
    reboot(RebootMode::RB_POWER_OFF).map_err(|source| InitError::Call { call: "power off", source })?;
    outcome
}

fn serve() -> Result<(), InitError> {
    mount_all()?;
    sethostname("lab").map_err(|source| InitError::Call { call: "sethostname", source })?;
    enable_controllers()?;
    call("ip", &["link", "set", "lo", "up"])?;
    // udev before the drivers: its renames and alternative names are part of what a VF goes through.
    call("/lib/systemd/systemd-udevd", &["--daemon"])?;
    call("modprobe", &["-a", "igb", "igbvf", "8021q"])?;
    let program =
        std::env::current_exe().map_err(|source| InitError::Start { program: "agent".into(), source })?;
    let agent = Command::new(program)
        .arg("agent")
        .spawn()
        .map_err(|source| InitError::Start { program: "agent".into(), source })?;
    reap_until(agent.id())
}

fn mount_all() -> Result<(), InitError> {
    make_folder("/dev/pts")?;
    mount_one("devpts", "/dev/pts")?;
    for target in TMPFS {
        make_folder(target)?;
        mount_one("tmpfs", target)?;
    }
    mount_one("cgroup2", "/sys/fs/cgroup")
}

fn make_folder(path: &'static str) -> Result<(), InitError> {
    fs::create_dir_all(path).map_err(|source| InitError::Write { path, source })
}

fn mount_one(kind: &'static str, target: &'static str) -> Result<(), InitError> {
    mount(Some(kind), target, Some(kind), MsFlags::empty(), None::<&str>).map_err(|source| InitError::Mount {
        kind,
        target,
        source,
    })
}

/// Hands every controller to the children of the root group, as systemd would.
fn enable_controllers() -> Result<(), InitError> {
    let path = "/sys/fs/cgroup/cgroup.controllers";
    let list = fs::read_to_string(path).map_err(|source| InitError::Write { path, source })?;
    let enabled: Vec<String> = list.split_whitespace().map(|name| format!("+{name}")).collect();
    let path = "/sys/fs/cgroup/cgroup.subtree_control";
    fs::write(path, enabled.join(" ")).map_err(|source| InitError::Write { path, source })
}

fn call(program: &str, arguments: &[&str]) -> Result<(), InitError> {
    let status = Command::new(program)
        .args(arguments)
        .status()
        .map_err(|source| InitError::Start { program: program.into(), source })?;
    if status.success() {
        return Ok(());
    }
    Err(InitError::Failed { program: format!("{program} {}", arguments.join(" ")), code: status.to_string() })
}

/// Reaps every orphan, as the first process must, until `agent` ends.
fn reap_until(agent: u32) -> Result<(), InitError> {
    loop {
        let status = wait().map_err(|source| InitError::Call { call: "wait", source })?;
        if status.pid().map(Pid::as_raw).and_then(|pid| u32::try_from(pid).ok()) == Some(agent) {
            return Ok(());
        }
    }
}
