//! The comparison of each selector with a device.

use zerobridge_kernel::{FunctionRole, Netdev, PciFunction, RdmaDevice, VdpaDevice};

use super::{Candidate, Selector, Selectors, Subject};

impl Selectors {
    /// Whether the pool takes this device.
    #[must_use]
    pub fn admit(&self, candidate: &Candidate<'_>) -> bool {
        Selector::ALL.iter().all(|&selector| self.keeps(selector, candidate) != Some(false))
    }

    /// Whether one selector keeps this device; `None` if it asks nothing.
    pub(super) fn keeps(&self, selector: Selector, candidate: &Candidate<'_>) -> Option<bool> {
        let function = candidate.function;
        match selector {
            Selector::Vendors => any(&self.vendors, |wanted| wanted.0 == function.vendor),
            Selector::Devices => any(&self.devices, |wanted| wanted.0 == function.device),
            Selector::Drivers => any(&self.drivers, |wanted| Some(wanted) == function.driver.as_ref()),
            Selector::PciAddresses => any(&self.pci_addresses, |wanted| *wanted == function.address),
            Selector::AcpiIndexes => any(&self.acpi_indexes, |wanted| Some(*wanted) == function.acpi_index),
            Selector::PfNames => any(&self.pf_names, |wanted| wanted.selects(candidate, self.port_match)),
            Selector::RootDevices => {
                any(&self.root_devices, |wanted| wanted.selects(candidate, self.port_match))
            }
            Selector::IfNames => any(&self.if_names, |wanted| candidate.if_names.contains(wanted)),
            Selector::LinkTypes => any(&self.link_types, |wanted| {
                candidate.link_netdevs().any(|netdev| netdev.link_type == *wanted)
            }),
            Selector::IsRdma => {
                self.is_rdma.then(|| !candidate.rdma().is_empty() || candidate.rdma_enabled == Some(true))
            }
            Selector::PKeys => any(&self.p_keys, |wanted| {
                let ports = candidate.rdma().iter().flat_map(|device| &device.ports);
                ports.into_iter().any(|port| port.pkey == Some(wanted.0))
            }),
            Selector::DdpProfiles => {
                any(&self.ddp_profiles, |wanted| Some(wanted.as_str()) == candidate.ddp_profile)
            }
            Selector::NeedVhostNet => None,
            Selector::VdpaType => self.vdpa_type.map(|wanted| {
                let driver = candidate.vdpa().and_then(|device| device.driver.as_deref());
                driver == Some(wanted.driver())
            }),
            Selector::AuxTypes => any(&self.aux_types, |wanted| match candidate.subject {
                Subject::Auxiliary(device) => device.kind == *wanted,
                Subject::Function => false,
            }),
        }
    }
}

fn any<T>(wanted: &[T], matches: impl FnMut(&T) -> bool) -> Option<bool> {
    (!wanted.is_empty()).then(|| wanted.iter().any(matches))
}

impl<'a> Candidate<'a> {
    /// The netdevs that tell what is spoken: its own, or those of its PF's port while it has none on the host.
    pub(super) fn link_netdevs(&self) -> impl Iterator<Item = &'a Netdev> + use<'a> {
        let own = match self.subject {
            Subject::Auxiliary(device) => &device.netdevs,
            Subject::Function => &self.function.netdevs,
        };
        let port = if own.is_empty() { self.pf } else { None };
        own.iter().chain(port.into_iter().flat_map(uplinks))
    }

    pub(super) fn vdpa(&self) -> Option<&'a VdpaDevice> {
        match self.subject {
            Subject::Auxiliary(device) => device.vdpa.as_ref(),
            Subject::Function => self.function.vdpa.as_ref(),
        }
    }

    pub(super) fn rdma(&self) -> &'a [RdmaDevice] {
        match self.subject {
            Subject::Auxiliary(device) => &device.rdma,
            Subject::Function => &self.function.rdma,
        }
    }
}

fn uplinks(pf: &PciFunction) -> impl Iterator<Item = &Netdev> {
    let names: &[String] = match &pf.role {
        FunctionRole::Physical { uplinks, .. } => uplinks,
        FunctionRole::Virtual(_) | FunctionRole::Plain => &[],
    };
    pf.netdevs.iter().filter(|netdev| names.contains(&netdev.name))
}
