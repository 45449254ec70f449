//! A PCI function as a value.

use std::collections::BTreeMap;

use zerobridge_proto::PciAddress;

use super::machine::{Netdev, RdmaDevice, VdpaDevice};

/// A PCI function as sysfs described it at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PciFunction {
    /// Where it is.
    pub address: PciAddress,
    /// Who made it, as registered with the PCI-SIG.
    pub vendor: u16,
    /// Which of the vendor's devices it is.
    pub device: u16,
    /// Base class, subclass and interface in one number, `0x020000` for Ethernet (PCI Code and ID Assignment, 1.3).
    pub class: u32,
    /// The driver it is bound to.
    pub driver: Option<String>,
    /// The NUMA node it is next to; `None` where the machine does not say.
    pub numa_node: Option<u32>,
    /// The group of functions that an IOMMU can only isolate together; `None` without an IOMMU.
    pub iommu_group: Option<u32>,
    /// The number that the firmware gave an on-board device (ACPI `_DSM`, or SMBIOS type 41).
    pub acpi_index: Option<u32>,
    /// The bridges above it, from the root port down: what two functions share tells how near they are.
    pub upstream: Vec<PciAddress>,
    /// Its netdevs in the namespace of the sysfs mount, sorted by name. Empty for a VF that is in a pod.
    pub netdevs: Vec<Netdev>,
    /// Its RDMA devices, as far as the mount shows them: one that was moved into a pod alone is missing.
    pub rdma: Vec<RdmaDevice>,
    /// The vDPA device made of it, the first if there are several.
    pub vdpa: Option<VdpaDevice>,
    /// What it is in terms of SR-IOV.
    pub role: FunctionRole,
}

/// What a PCI function is in terms of SR-IOV.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FunctionRole {
    /// A function that can have VFs, whether it has any or not.
    Physical {
        /// How many VFs it can have.
        total_vfs: u16,
        /// The VFs it has, by index. Indexes may have gaps: a VF can be unplugged alone.
        vfs: BTreeMap<u16, PciAddress>,
        /// Those of its netdevs that stand for its port, see [`crate::Sysfs::uplinks`].
        uplinks: Vec<String>,
    },
    /// A VF.
    Virtual(VfPosition),
    /// A function without SR-IOV.
    Plain,
}

/// Which VF of which PF.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VfPosition {
    /// The PF.
    pub pf: PciAddress,
    /// The VF's number within it, from 0: the `vf` of `ip link set … vf`.
    pub index: u16,
}

impl PciFunction {
    /// Whether this is a network controller: base class 2 (PCI Code and ID Assignment, 1.3), InfiniBand included.
    #[must_use]
    pub fn is_network_controller(&self) -> bool {
        is_of_network_class(self.class)
    }
}

pub(super) fn is_of_network_class(class: u32) -> bool {
    class >> 16 == 0x02
}

/// Whether a `phys_port_name` stands for a port of the machine and not for a representor: `p` and a number, with `s` and
/// a number behind it for a port that was split.
pub(super) fn names_a_port(name: &str) -> bool {
    let Some(rest) = name.strip_prefix('p') else { return name.is_empty() };
    let (port, split) = rest.split_once('s').map_or((rest, None), |(port, split)| (port, Some(split)));
    let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    number(port) && split.is_none_or(number)
}
