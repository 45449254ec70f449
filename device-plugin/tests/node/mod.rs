//! A node for the daemon to run on: a sysfs tree with two Intel 82576 ports, a kubelet folder, a kubelet.
#![allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    reason = "every test program of this crate uses a part of it"
)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot prepare its node has failed")]

mod kubelet;
mod rules;

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use zerobridge_device_plugin::{ApiAccess, DaemonError, Roots, Settings, run};
use zerobridge_kernel::testing::SysfsTree;

pub use kubelet::{Fault, Generation, Kubelet, View};

/// Two pools: four VFs of the first port, and the VFs of the second.
pub const TWO_POOLS: &str = r#"{"pools": [
    {"resourceName": "vf", "selectors": {"pfNames": ["enp1s0f0#0-3"]}},
    {"resourceName": "vf-green", "selectors": {"pfNames": ["enp1s0f1"], "drivers": ["igbvf"]}}
]}"#;

/// Fails a test that would otherwise wait for ever. No test says how fast anything has to be.
pub async fn soon<T>(what: &str, waiting: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), waiting).await.unwrap_or_else(|_| panic!("never: {what}"))
}

/// Folders of a node.
pub struct Node {
    folder: tempfile::TempDir,
    /// Holds the tree, which has too many files for a disk.
    memory: tempfile::TempDir,
    pub tree: SysfsTree,
}

impl Node {
    /// A node with two VFs on each port and a kubelet folder that is empty.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let shm = Path::new("/dev/shm");
        let memory = if shm.is_dir() { tempfile::tempdir_in(shm) } else { tempfile::tempdir() }.unwrap();
        let tree = SysfsTree::new(memory.path());
        symlink(memory.path(), folder.path().join("sys")).unwrap();
        tree.add_igb(0, 2);
        tree.add_igb(1, 2);
        std::fs::create_dir_all(folder.path().join("kubelet/device-plugins")).unwrap();
        Self { folder, memory, tree }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn plugins(&self) -> PathBuf {
        self.path("kubelet/device-plugins")
    }

    /// Our sockets in the kubelet folder, sorted.
    pub fn sockets(&self) -> Vec<String> {
        sockets(&self.plugins())
    }

    /// Starts a kubelet of today.
    pub fn kubelet(&self) -> Kubelet {
        Kubelet::start(&self.plugins(), Generation::BySocket)
    }

    /// Starts a daemon with `TWO_POOLS` that is process `pid`.
    pub fn daemon(&self, pid: u32) -> Daemon {
        self.daemon_with(pid, TWO_POOLS)
    }

    /// Starts a daemon that is process `pid`.
    pub fn daemon_with(&self, pid: u32, config: &str) -> Daemon {
        let file = self.path(&format!("config-{pid}.json"));
        std::fs::write(&file, config).unwrap();
        let settings = Settings {
            config: file,
            resource_prefix: None,
            node_name: None,
            api: ApiAccess::None,
            ip_pools: Vec::new(),
            kubelet_root: self.path("kubelet"),
            roots: Roots { sysfs: self.path("sys"), procfs: "/proc".into(), dev: self.path("dev") },
            devinfo_dir: self.path("devinfo"),
            cdi_dir: self.path("cdi"),
            state_dir: self.path("state"),
            run_dir: self.path("run"),
            rescan: Duration::from_millis(20),
            http: None,
            http_socket: None,
            pid,
            start: SystemTime::now(),
        };
        let (stop, stopped) = oneshot::channel::<()>();
        let stopped = async {
            let _ = stopped.await;
        };
        Daemon { stop, task: tokio::spawn(run(settings, stopped)) }
    }
}

pub fn sockets(folder: &Path) -> Vec<String> {
    let names =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name.starts_with("zerobridge-")).collect();
    names.sort();
    names
}

/// A daemon that runs in this process.
pub struct Daemon {
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), DaemonError>>,
}

impl Daemon {
    /// Asks the daemon to stop, and waits until it has.
    pub async fn stop(self) {
        self.stop.send(()).unwrap();
        soon("the daemon stops", self.task).await.unwrap().unwrap();
    }
}
