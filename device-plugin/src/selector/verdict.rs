//! Why a device is in a pool or not, selector by selector.

use std::fmt::Display;

use zerobridge_kernel::LinkType;

use super::kinds::{LINK_TYPES, PartitionKey, VDPA_TYPES};
use super::{Candidate, HexId, Selector, Selectors, Subject};

/// What one selector says about a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The selector.
    pub selector: Selector,
    /// Whether it keeps the device.
    pub kept: bool,
    /// What was asked, as a configuration writes it; several entries are joined by ", ".
    pub wanted: String,
    /// What the device has, or that it has nothing of the kind.
    pub found: String,
}

impl Selectors {
    /// What each written selector says about a device. The pool takes it if all keep it.
    #[must_use]
    pub fn verdicts(&self, candidate: &Candidate<'_>) -> Vec<Verdict> {
        let verdict = |selector: &Selector| {
            let kept = self.keeps(*selector, candidate)?;
            let (wanted, found) = (self.wanted(*selector), candidate.found(*selector));
            Some(Verdict { selector: *selector, kept, wanted, found })
        };
        Selector::ALL.iter().filter_map(verdict).collect()
    }

    fn wanted(&self, selector: Selector) -> String {
        match selector {
            Selector::Vendors => joined(&self.vendors),
            Selector::Devices => joined(&self.devices),
            Selector::Drivers => joined(&self.drivers),
            Selector::PciAddresses => joined(&self.pci_addresses),
            Selector::AcpiIndexes => joined(&self.acpi_indexes),
            Selector::PfNames => joined(&self.pf_names),
            Selector::RootDevices => joined(&self.root_devices),
            Selector::IfNames => joined(&self.if_names),
            Selector::LinkTypes => joined(self.link_types.iter().map(|kind| link_type(*kind))),
            Selector::IsRdma => self.is_rdma.to_string(),
            Selector::PKeys => joined(&self.p_keys),
            Selector::DdpProfiles => joined(&self.ddp_profiles),
            Selector::NeedVhostNet => self.need_vhost_net.to_string(),
            Selector::VdpaType => joined(
                VDPA_TYPES.iter().filter(|(_, kind)| Some(*kind) == self.vdpa_type).map(|(name, _)| name),
            ),
            Selector::AuxTypes => joined(&self.aux_types),
        }
    }
}

impl Candidate<'_> {
    fn found(&self, selector: Selector) -> String {
        let function = self.function;
        match selector {
            Selector::Vendors => HexId(function.vendor).to_string(),
            Selector::Devices => HexId(function.device).to_string(),
            Selector::Drivers => function.driver.clone().unwrap_or_else(|| "no driver".to_owned()),
            Selector::PciAddresses => function.address.to_string(),
            Selector::AcpiIndexes => {
                function.acpi_index.map_or_else(|| "no ACPI index".to_owned(), |index| index.to_string())
            }
            Selector::PfNames if self.pf_names.is_empty() => "no PF with a netdev on this machine".to_owned(),
            Selector::PfNames => joined(self.pf_names.iter().cloned().chain(self.number())),
            Selector::RootDevices => joined([self.root().to_string()].into_iter().chain(self.number())),
            Selector::IfNames => or_none(joined(self.if_names), "no netdev on the host"),
            Selector::LinkTypes => or_none(
                joined(self.link_netdevs().map(|netdev| link_type(netdev.link_type))),
                "no netdev, and no PF with one",
            ),
            Selector::IsRdma => match (self.rdma(), self.rdma_enabled) {
                ([], Some(enabled)) => format!("no RDMA device on the host, enable_rdma {enabled}"),
                ([], None) => "no RDMA device".to_owned(),
                (devices, _) => joined(devices.iter().map(|device| &device.name)),
            },
            Selector::PKeys => {
                let keys = self.rdma().iter().flat_map(|device| &device.ports).filter_map(|port| port.pkey);
                or_none(joined(keys.map(PartitionKey)), "no InfiniBand port")
            }
            Selector::DdpProfiles => self.ddp_profile.unwrap_or("no profile told by the driver").to_owned(),
            Selector::NeedVhostNet => String::new(),
            Selector::VdpaType => match self.vdpa() {
                None => "no vDPA device".to_owned(),
                Some(device) => match &device.driver {
                    None => format!("{} without a driver", device.name),
                    Some(driver) => format!("{} with {driver}", device.name),
                },
            },
            Selector::AuxTypes => match self.subject {
                Subject::Auxiliary(device) => device.kind.clone(),
                Subject::Function => "a PCI function".to_owned(),
            },
        }
    }
}

fn link_type(kind: LinkType) -> String {
    let name = LINK_TYPES.iter().find(|(_, known)| *known == kind).map(|(name, _)| (*name).to_owned());
    match (name, kind) {
        (Some(name), _) => name,
        (None, LinkType::Other(number)) => format!("type {number}"),
        (None, kind) => format!("{kind:?}"),
    }
}

fn joined<T: Display>(entries: impl IntoIterator<Item = T>) -> String {
    entries.into_iter().map(|entry| entry.to_string()).collect::<Vec<_>>().join(", ")
}

fn or_none(text: String, none: &str) -> String {
    if text.is_empty() { none.to_owned() } else { text }
}
