//! A machine's devices at one moment, as values.
//!
//! Refuses to know how they were read, and what they are good for.

use std::collections::BTreeMap;

use zerobridge_proto::PciAddress;

use super::{PciFunction, VfPosition};

/// Every device that may become a pod's, found in one look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// The PCI functions.
    pub functions: BTreeMap<PciAddress, PciFunction>,
    /// The auxiliary devices of PCI functions, by name, such as `mlx5_core.sf.4`.
    pub auxiliaries: BTreeMap<String, AuxDevice>,
}

impl Machine {
    /// The netdev that stands for a VF on its PF's embedded switch, in the host's place of the cable; `None` without
    /// switchdev mode.
    ///
    /// The kernel names the port of a representor `pf0vf3`, or `c1pf0vf3` where another host owns the VF
    /// (`__devlink_port_phys_port_name_get` in net/devlink/port.c): the latter is no VF of this machine.
    #[must_use]
    pub fn representor_of(&self, vf: VfPosition) -> Option<&str> {
        let netdevs = &self.functions.get(&vf.pf)?.netdevs;
        let stands =
            |netdev: &&Netdev| netdev.port_name.as_deref().is_some_and(|name| names_vf(name, vf.index));
        netdevs.iter().find(stands).map(|netdev| netdev.name.as_str())
    }
}

/// Whether a `phys_port_name` is that of the representor of VF `index`.
fn names_vf(port_name: &str, index: u16) -> bool {
    let numbers = port_name.strip_prefix("pf").and_then(|rest| rest.split_once("vf"));
    numbers.is_some_and(|(pf, vf)| pf.parse::<u16>().is_ok() && vf.parse() == Ok(index))
}

/// A part of a PCI function that its driver offers as a device of its own (the kernel's `drivers/base/auxiliary.c`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuxDevice {
    /// Its name, `driver.kind.id`.
    pub name: String,
    /// The middle part of its name, `sf`: the only kind that can be given away without its function.
    pub kind: String,
    /// The PCI function that it is a part of.
    pub parent: PciAddress,
    /// Number of the scalable function, which its administrator chose; `None` for another kind.
    pub sf_number: Option<u32>,
    /// The driver it is bound to.
    pub driver: Option<String>,
    /// Its netdevs in the namespace of the sysfs mount, sorted by name.
    pub netdevs: Vec<Netdev>,
    /// Its RDMA devices, as far as the mount shows them.
    pub rdma: Vec<RdmaDevice>,
    /// The vDPA device made of it, the first if there are several.
    pub vdpa: Option<VdpaDevice>,
}

/// A network interface as sysfs shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Netdev {
    /// Its name.
    pub name: String,
    /// What is spoken on it.
    pub link_type: LinkType,
    /// `phys_port_name` of a PF's netdev, where the driver has one; not read of others.
    pub port_name: Option<String>,
}

/// The `type` of a netdev (`ARPHRD_…` in the kernel's `linux/if_arp.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LinkType {
    /// `ARPHRD_ETHER`, 1.
    Ethernet,
    /// `ARPHRD_INFINIBAND`, 32.
    Infiniband,
    /// Another one.
    Other(u16),
}

impl LinkType {
    pub(super) fn from_arphrd(number: u16) -> Self {
        match number {
            1 => Self::Ethernet,
            32 => Self::Infiniband,
            other => Self::Other(other),
        }
    }
}

/// An RDMA device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RdmaDevice {
    /// Its name, such as `mlx5_0`.
    pub name: String,
    /// Its ports, in order.
    pub ports: Vec<RdmaPort>,
}

/// A port of an RDMA device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RdmaPort {
    /// Its number, from 1.
    pub number: u8,
    /// Whether the port is in the state `ACTIVE` (`enum ib_port_state`, 4).
    pub active: bool,
    /// The default partition key, at index 0 of its table. InfiniBand only.
    pub pkey: Option<u16>,
}

/// A vDPA device made of a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VdpaDevice {
    /// Its name on the vDPA bus, such as `vdpa0`.
    pub name: String,
    /// `vhost_vdpa` or `virtio_vdpa`, if it is bound.
    pub driver: Option<String>,
    /// Name of its character device below `/dev`, such as `vhost-vdpa-0`; with `vhost_vdpa` only.
    pub vhost: Option<String>,
}
