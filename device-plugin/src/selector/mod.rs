//! Which devices a pool takes: pure comparison of what was asked with what a device is.
//!
//! Within one selector any entry may match, between selectors all must. Refuses to know where the texts come from and
//! who else wants the same device.

mod key;
mod kinds;
mod matching;
mod port;
mod verdict;

use thiserror::Error;
use zerobridge_kernel::{AuxDevice, LinkType, PciFunction};
use zerobridge_proto::PciAddress;

pub use key::Selector;
pub use kinds::{HexId, PartitionKey, VdpaType};
pub(crate) use kinds::{LINK_TYPES, VDPA_TYPES, aux_type, ddp_profile, driver, interface};
pub use port::{Indexes, PfSelector, PortMatch, RootSelector};
pub use verdict::Verdict;

/// What a pool asks of a device. What is empty, `None` or false asks nothing; the rest must all match.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selectors {
    /// The device's vendor; an auxiliary device has that of its function.
    pub vendors: Vec<HexId>,
    /// The device ID; that of a VF differs from its PF's.
    pub devices: Vec<HexId>,
    /// The driver that the device is bound to; for an auxiliary device that of its function.
    pub drivers: Vec<String>,
    /// The function's own address.
    pub pci_addresses: Vec<PciAddress>,
    /// The number that the firmware gave the device.
    pub acpi_indexes: Vec<u32>,
    /// The PF's netdev, by name or alternative name, and perhaps which of its VFs or SFs.
    pub pf_names: Vec<PfSelector>,
    /// The PF's address, and perhaps which of its VFs or SFs.
    pub root_devices: Vec<RootSelector>,
    /// How the two before are compared.
    pub port_match: PortMatch,
    /// The device's own netdev, by name or alternative name; while that is in a pod it matches none of these.
    pub if_names: Vec<String>,
    /// What is spoken on its netdev, or on its PF's while the device is in a pod.
    pub link_types: Vec<LinkType>,
    /// It has an RDMA device, or would have one if that were not in a pod.
    pub is_rdma: bool,
    /// The default partition key of its InfiniBand port.
    pub p_keys: Vec<PartitionKey>,
    /// The profile of Intel's dynamic device personalisation that its PF runs.
    pub ddp_profiles: Vec<String>,
    /// Containers get the nodes of vhost-net beside. Selects nothing.
    pub need_vhost_net: bool,
    /// A vDPA device of this type is made of it.
    pub vdpa_type: Option<VdpaType>,
    /// The middle part of an auxiliary device's name, such as `sf`.
    pub aux_types: Vec<String>,
}

/// A device and what its surroundings contribute to a choice.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// What it is.
    pub subject: Subject<'a>,
    /// The function that it is, or is a part of.
    pub function: &'a PciFunction,
    /// Its PF, if it is a VF or a part of a PF, and the PF is in this machine.
    pub pf: Option<&'a PciFunction>,
    /// The names, alternative ones included, of the netdevs that stand for its PF's port; for a PF, and for a function
    /// without SR-IOV, those of its own.
    pub pf_names: &'a [String],
    /// The names of its own netdevs, alternative ones included.
    pub if_names: &'a [String],
    /// The running profile of dynamic device personalisation, where the driver tells one.
    pub ddp_profile: Option<&'a str>,
    /// Whether RDMA is enabled although no RDMA device is on the host: the driver says so (devlink's `enable_rdma`), or the
    /// device was seen before it went into a pod.
    pub rdma_enabled: Option<bool>,
}

/// What a [`Candidate`] is.
#[derive(Clone, Copy, Debug)]
pub enum Subject<'a> {
    /// A PCI function.
    Function,
    /// An auxiliary device of [`Candidate::function`].
    Auxiliary(&'a AuxDevice),
}

/// A text that selects nothing that exists.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SelectorError {
    /// No PCI ID.
    #[error("\"{text}\" is no PCI ID; write four hexadecimal digits, such as 8086 or 0x10ca")]
    HexId {
        /// What was given.
        text: String,
    },
    /// No partition key.
    #[error("\"{text}\" is no partition key; write up to four hexadecimal digits behind 0x, such as 0x8001")]
    PartitionKey {
        /// What was given.
        text: String,
    },
    /// What cannot be the name of a network interface.
    #[error("\"{text}\" names no network interface; write a name or alternative name, such as enp1s0")]
    Interface {
        /// What was given.
        text: String,
    },
    /// The part before `#` cannot be the name of a network interface.
    #[error(
        "\"{text}\" names no PF; write the name of its network interface, such as enp1s0 or enp1s0#0-3; its PCI address \
         goes into rootDevices"
    )]
    PfName {
        /// What was given.
        text: String,
    },
    /// The part before `#` is no PCI address.
    #[error("\"{text}\" names no PF; write its PCI address, such as 0000:01:00.0 or 01:00.0#0-3")]
    RootDevice {
        /// What was given.
        text: String,
    },
    /// The part behind `#` is no list of VF indexes.
    #[error("\"{part}\" in \"{text}\" is no range of VFs; write numbers from 0, such as enp1s0#0-3,7")]
    Range {
        /// What was given.
        text: String,
        /// The faulty part.
        part: String,
    },
    /// A range that runs backwards, and so holds nothing.
    #[error(
        "\"{part}\" in \"{text}\" holds no VF, because it runs backwards; write the smaller number first"
    )]
    Backwards {
        /// What was given.
        text: String,
        /// The faulty part.
        part: String,
    },
    /// What cannot be the name of a driver.
    #[error(
        "\"{text}\" names no driver; write what the link \"driver\" of the device in sysfs leads to, such as vfio-pci"
    )]
    Driver {
        /// What was given.
        text: String,
    },
    /// What cannot be the kind of an auxiliary device.
    #[error("\"{text}\" is no kind of auxiliary device; write the middle part of its name, such as sf")]
    AuxType {
        /// What was given.
        text: String,
    },
    /// An empty name of a profile.
    #[error("\"{text}\" names no profile; write it as `devlink dev info` shows it under fw.app.name")]
    DdpProfile {
        /// What was given.
        text: String,
    },
}

impl Selectors {
    /// Whether nothing is asked, so that every device of the pool's kind is admitted. What only says how to compare, or
    /// what containers get beside, asks nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let nothing =
            Self { port_match: self.port_match, need_vhost_net: self.need_vhost_net, ..Self::default() };
        *self == nothing
    }

    /// The selectors that are written.
    pub fn written(&self) -> impl Iterator<Item = Selector> + '_ {
        Selector::ALL.into_iter().filter(|selector| match selector {
            Selector::Vendors => !self.vendors.is_empty(),
            Selector::Devices => !self.devices.is_empty(),
            Selector::Drivers => !self.drivers.is_empty(),
            Selector::PciAddresses => !self.pci_addresses.is_empty(),
            Selector::AcpiIndexes => !self.acpi_indexes.is_empty(),
            Selector::PfNames => !self.pf_names.is_empty(),
            Selector::RootDevices => !self.root_devices.is_empty(),
            Selector::IfNames => !self.if_names.is_empty(),
            Selector::LinkTypes => !self.link_types.is_empty(),
            Selector::IsRdma => self.is_rdma,
            Selector::PKeys => !self.p_keys.is_empty(),
            Selector::DdpProfiles => !self.ddp_profiles.is_empty(),
            Selector::NeedVhostNet => self.need_vhost_net,
            Selector::VdpaType => self.vdpa_type.is_some(),
            Selector::AuxTypes => !self.aux_types.is_empty(),
        })
    }
}

#[cfg(test)]
mod tests;
