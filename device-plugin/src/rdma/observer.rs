//! Reads what a node says about RDMA.
//!
//! Asked only where a pool has to do with RDMA. Refuses to judge.

use std::fs;
use std::path::PathBuf;

use zerobridge_kernel::{DevFolder, Machine, NetlinkError, RDMA_CM, RdmaNetnsMode, RdmaSocket, Sysfs};
use zerobridge_proto::PciAddress;

use super::away::{self, Seen};
use super::memlock;
use super::node::{KernelRelease, RdmaNode};
use crate::observer::Roots;

/// Where sysfs has the device nodes of RDMA devices, once the module that makes them is there.
const UVERBS: &str = "class/infiniband_verbs";

/// Reads it.
#[derive(Debug)]
pub(crate) struct RdmaObserver {
    sysfs: PathBuf,
    procfs: PathBuf,
    dev: DevFolder,
    /// Whether the kernel may be asked: not if a tree of files stands for another machine.
    real: bool,
    /// `None` before the RDMA subsystem is there.
    socket: Option<RdmaSocket>,
    /// What the latest thorough look found of what changes without an event.
    slow: RdmaNode,
    /// The functions that have RDMA devices, those in pods included.
    seen: Seen,
}

impl RdmaObserver {
    pub(crate) fn new(roots: &Roots, real: bool) -> Self {
        Self {
            sysfs: roots.sysfs.clone(),
            procfs: roots.procfs.clone(),
            dev: DevFolder::new(&roots.dev),
            real,
            socket: None,
            slow: RdmaNode::default(),
            seen: Seen::new(),
        }
    }

    /// Looks, at a machine that was just read; with `thorough`, also at the processes.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub(crate) fn look(&mut self, machine: &Machine, thorough: bool) -> Result<RdmaNode, NetlinkError> {
        if thorough {
            let release = fs::read_to_string(self.procfs.join("sys/kernel/osrelease")).ok();
            self.slow = RdmaNode {
                kernel: release.as_deref().and_then(KernelRelease::parse),
                memory_limits: memlock::of_runtimes(&self.procfs),
                ..RdmaNode::default()
            };
        }
        let mut node = RdmaNode {
            uverbs: self.sysfs.join(UVERBS).exists(),
            connection_manager: self.dev.exists(RDMA_CM),
            ..self.slow.clone()
        };
        if self.real && self.socket.is_none() {
            self.socket = RdmaSocket::open(&Sysfs::new(&self.sysfs))?;
        }
        if let Some(socket) = &mut self.socket {
            node.exclusive = socket.netns_mode()? == RdmaNetnsMode::Exclusive;
            let devices = socket.devices()?.into_iter();
            node.node_guids = devices.map(|device| (device.name, device.node_guid)).collect();
        }
        self.seen = away::seen(&self.seen, machine, node.exclusive);
        let is_here = |address: &PciAddress| !machine.functions[address].rdma.is_empty();
        node.away = self.seen.keys().filter(|address| !is_here(address)).copied().collect();
        Ok(node)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::MemoryLimit;
    use super::*;

    fn write(root: &Path, file: &str, text: &str) {
        let file = root.join(file);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }

    #[test]
    fn what_the_files_say_is_read_and_processes_only_in_a_thorough_look() {
        let root = tempfile::tempdir().unwrap();
        let [sysfs, procfs, dev] = ["sys", "proc", "dev"].map(|name| root.path().join(name));
        let look = |observer: &mut RdmaObserver, thorough| observer.look(&Machine::default(), thorough);
        let mut observer = RdmaObserver::new(&Roots { sysfs, procfs, dev }, false);
        assert_eq!(look(&mut observer, true).unwrap(), RdmaNode::default());

        write(root.path(), "sys/class/infiniband_verbs/abi_version", "6\n");
        write(root.path(), "dev/infiniband/rdma_cm", "");
        write(root.path(), "proc/sys/kernel/osrelease", "7.2.13-amd64\n");
        write(root.path(), "proc/7/comm", "crio\n");
        write(root.path(), "proc/7/limits", "Max locked memory  65536  65536  bytes\n");
        let quick = RdmaNode { uverbs: true, connection_manager: true, ..RdmaNode::default() };
        assert_eq!(look(&mut observer, false).unwrap(), quick);
        let all = RdmaNode {
            kernel: Some(KernelRelease(7, 2)),
            memory_limits: [("crio".to_owned(), MemoryLimit::Bytes(65536))].into(),
            ..quick
        };
        assert_eq!(look(&mut observer, true).unwrap(), all);
        assert_eq!(look(&mut observer, false).unwrap(), all, "remembered");
    }
}
