//! What a node says about RDMA, as one value.
//!
//! Refuses to know where it is read.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use zerobridge_proto::PciAddress;

use super::memlock::MemoryLimit;
use crate::release::first_two_numbers;

/// RDMA on a node, as far as its pools have to do with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RdmaNode {
    /// Whether an RDMA device is in one network namespace only. Otherwise every namespace sees every device, which is also
    /// so where there is no RDMA subsystem.
    pub exclusive: bool,
    /// The functions that have an RDMA device which is not on the host, because it is in a pod with the netdev.
    pub away: BTreeSet<PciAddress>,
    /// The node GUIDs of the RDMA devices that are on the host, by name. Zero for one that has none.
    pub node_guids: BTreeMap<String, u64>,
    /// Whether the kernel has device nodes for RDMA devices (module `ib_uverbs`).
    pub uverbs: bool,
    /// Whether the device node of the connection manager is there (module `rdma_ucm`).
    pub connection_manager: bool,
    /// The kernel's release; `None` if it is not known.
    pub kernel: Option<KernelRelease>,
    /// How much memory container runtimes may lock, by the name of the process; the least of several of one name.
    pub memory_limits: BTreeMap<String, MemoryLimit>,
}

/// The first two numbers of a kernel's release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KernelRelease(pub u32, pub u32);

impl KernelRelease {
    /// Reads what `uname -r` shows.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        first_two_numbers(text.trim()).map(|(major, minor)| Self(major, minor))
    }
}

impl fmt::Display for KernelRelease {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}.{}", self.0, self.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_is_its_first_two_numbers_whatever_follows() {
        for (text, release) in [
            ("7.2.13\n", Some(KernelRelease(7, 2))),
            ("6.12.95-1-amd64", Some(KernelRelease(6, 12))),
            ("7.3-rc2+", Some(KernelRelease(7, 3))),
            ("5.14.0-427.el9.x86_64", Some(KernelRelease(5, 14))),
            ("7", None),
            ("next-20260101", None),
            ("", None),
        ] {
            assert_eq!(KernelRelease::parse(text), release, "{text}");
        }
        assert!(KernelRelease(6, 12) < KernelRelease(7, 1) && KernelRelease(7, 9) < KernelRelease(7, 10));
    }
}
