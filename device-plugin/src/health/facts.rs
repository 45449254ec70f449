//! What each check finds at one device: pure judgement of one moment.
//!
//! Refuses to look at what depends on the namespace that a VF's interfaces are in: not the VF's netdev, and the VF's own
//! RDMA device only where no PF answers for the wire. Whether a finding counts is the hysteresis' to say.

use std::collections::BTreeMap;

use zerobridge_kernel::{AuxDevice, FunctionRole, PciFunction, RdmaDevice};
use zerobridge_proto::PciAddress;

use super::Check;
use super::aer::FatalErrors;
use super::hysteresis::Outcome;
use crate::device::{Device, Hardware};
use crate::pool::Surroundings;

/// The driver of ConnectX cards and of their VFs.
const MLX5: &str = "mlx5_core";

/// VFs that pods left behind as they were, and in what state.
pub(crate) type DirtyVfs = BTreeMap<PciAddress, String>;

/// Everything that checks look at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts<'a> {
    pub(super) around: &'a Surroundings,
    pub(super) errors: &'a FatalErrors,
    pub(super) dirty: &'a DirtyVfs,
    /// Whether containers get the RDMA devices.
    pub(super) gives_rdma: bool,
}

/// A device as it is in the machine now, as far as it is there.
struct Present<'a> {
    device: &'a Device,
    function: &'a PciFunction,
    part: Option<&'a AuxDevice>,
}

impl Facts<'_> {
    /// What a check finds at a device.
    pub(super) fn outcome(self, check: Check, device: &Device) -> Outcome {
        match (check, self.present(device)) {
            (Check::DevicePresent, Some(_)) => Outcome::Passed,
            (Check::DevicePresent, None) => failed("it is no longer in the machine"),
            (Check::DriverBound, Some(present)) => present.driver_bound(),
            // Where there is no device, the first check has said so, and the others have nothing to look at.
            (Check::DriverBound, None) => Outcome::Unknown,
            (Check::PfCarrier, _) => self.pf_carrier(device),
            (Check::RdmaPort, present) => self.rdma_port(device, present.as_ref()),
            (Check::NodeGuid, Some(present)) if self.gives_rdma => self.node_guid(&present),
            (Check::NodeGuid, _) => Outcome::Unknown,
            (Check::DevlinkHealth, _) => self.devlink_health(device),
            (Check::AerFatal, _) => self.aer_fatal(device),
            (Check::DirtyVf, _) => self.dirty_vf(device),
        }
    }

    fn present<'a>(&'a self, device: &'a Device) -> Option<Present<'a>> {
        let machine = &self.around.machine;
        let function = machine.functions.get(&device.function)?;
        let part = match &device.id.hardware {
            Hardware::Function(_) => None,
            Hardware::Auxiliary(name) => Some(machine.auxiliaries.get(name)?),
        };
        Some(Present { device, function, part })
    }

    fn pf_carrier(&self, device: &Device) -> Outcome {
        let Some(pf) = self.pf(device) else { return Outcome::Unknown };
        let carriers: Vec<(&str, bool)> = self.uplinks(pf).collect();
        match carriers.as_slice() {
            [] => Outcome::Unknown,
            // With two ports behind one function, any of the two may be the VF's.
            all if all.iter().any(|(_, carrier)| *carrier) => Outcome::Passed,
            all => {
                let names: Vec<&str> = all.iter().map(|(name, _)| *name).collect();
                failed(format!("{} of PF {} has no carrier", names.join(" and "), pf.address))
            }
        }
    }

    /// The PF's port stands for the wire of all its VFs. A VF's own tells of the pod instead: for RoCE it is active when
    /// the netdev is up, for InfiniBand when the CNI plugin has set its link state and GUID.
    fn rdma_port(&self, device: &Device, present: Option<&Present<'_>>) -> Outcome {
        let of_pf = self.pf(device).map(|pf| self.ports(pf, &pf.rdma, |_| true));
        match (of_pf, present) {
            (Some(known @ (Outcome::Passed | Outcome::Failed { .. })), _) => known,
            (_, Some(present)) => self.ports(present.function, present.rdma(), |up| up),
            (_, None) => Outcome::Unknown,
        }
    }

    /// Whether a port of these RDMA devices is active. A RoCE port follows its netdev, so it tells something only while
    /// that is here and `is_set_up`, given whether it is administratively up.
    fn ports(
        &self,
        function: &PciFunction,
        rdma: &[RdmaDevice],
        is_set_up: impl Fn(bool) -> bool,
    ) -> Outcome {
        let links = &self.around.host.links;
        let set_up = function
            .netdevs
            .iter()
            .filter_map(|netdev| links.get(&netdev.name))
            .any(|link| is_set_up(link.link.up));
        let ports = rdma.iter().flat_map(|device| &device.ports);
        let telling: Vec<bool> =
            ports.filter(|port| port.pkey.is_some() || set_up).map(|port| port.active).collect();
        match telling.as_slice() {
            [] => Outcome::Unknown,
            ports if ports.contains(&true) => Outcome::Passed,
            _ => {
                let names: Vec<&str> = rdma.iter().map(|device| device.name.as_str()).collect();
                failed(format!("no port of RDMA device {} is active", names.join(" or ")))
            }
        }
    }

    /// A VF of a ConnectX reads its node GUID when its driver is bound, and has none if nobody gave the VF a MAC address
    /// before. Other cards make one of the address that they have.
    fn node_guid(self, present: &Present<'_>) -> Outcome {
        let driver = present.function.driver.as_deref();
        if present.part.is_some()
            || driver != Some(MLX5)
            || !matches!(present.function.role, FunctionRole::Virtual(_))
        {
            return Outcome::Unknown;
        }
        let guids = &self.around.rdma.node_guids;
        let known =
            present.rdma().iter().filter_map(|device| Some((&device.name, *guids.get(&device.name)?)));
        worst(known.map(|(name, guid)| match guid {
            0 => failed(format!(
                "its RDMA device {name} has no node GUID, which RDMA-CM needs; give the VF a MAC address at its PF, or \
                 with InfiniBand a node GUID (ip link set PF vf N mac ADDRESS, or node_guid GUID), and then bind it to \
                 {MLX5} again"
            )),
            _ => Outcome::Passed,
        }))
    }

    fn devlink_health(&self, device: &Device) -> Outcome {
        let reports = functions_of(device)
            .filter_map(|address| Some((address, self.around.failed_reporters.get(&address)?)));
        worst(reports.map(|(address, failed_reporters)| match failed_reporters.as_slice() {
            [] => Outcome::Passed,
            names => failed(format!(
                "devlink health reporter {} of {address} is in the state of error",
                names.join(", ")
            )),
        }))
    }

    fn aer_fatal(&self, device: &Device) -> Outcome {
        let counts =
            functions_of(device).filter_map(|address| Some((address, self.errors.new_ones(address)?)));
        worst(counts.map(|(address, count)| match count {
            0 => Outcome::Passed,
            count => failed(format!("{count} fatal PCIe errors at {address} since the daemon began")),
        }))
    }

    fn dirty_vf(&self, device: &Device) -> Outcome {
        let Hardware::Function(address) = &device.id.hardware else { return Outcome::Unknown };
        match self.dirty.get(address) {
            Some(state) => failed(state),
            None => Outcome::Passed,
        }
    }

    /// The PF of a device, or the device itself if it is one: a share of a PF leaves its interface on the host.
    fn pf(&self, device: &Device) -> Option<&PciFunction> {
        let pf = self.around.machine.functions.get(&device.pf.unwrap_or(device.function))?;
        matches!(pf.role, FunctionRole::Physical { .. }).then_some(pf)
    }

    /// The netdevs of a PF's ports that are here, and whether they have a carrier.
    fn uplinks<'a>(&'a self, pf: &'a PciFunction) -> impl Iterator<Item = (&'a str, bool)> {
        let uplinks = match &pf.role {
            FunctionRole::Physical { uplinks, .. } => uplinks.as_slice(),
            _ => &[],
        };
        uplinks.iter().filter_map(|name| {
            let link = &self.around.host.links.get(name)?.link;
            Some((name.as_str(), link.up && link.carrier))
        })
    }
}

impl Present<'_> {
    fn driver_bound(&self) -> Outcome {
        let driver = self.part.map_or(&self.function.driver, |part| &part.driver);
        match (driver, &self.device.driver) {
            (Some(_), _) => Outcome::Passed,
            (None, Some(former)) => failed(format!("it is bound to no driver; it was bound to {former}")),
            (None, None) => failed("it is bound to no driver"),
        }
    }

    fn rdma(&self) -> &[RdmaDevice] {
        self.part.map_or(&self.function.rdma, |part| &part.rdma)
    }
}

/// The functions on which a device depends.
fn functions_of(device: &Device) -> impl Iterator<Item = PciAddress> {
    let pf = device.pf.filter(|pf| *pf != device.function);
    [device.function].into_iter().chain(pf)
}

/// The first failure, if there is one.
fn worst(outcomes: impl Iterator<Item = Outcome>) -> Outcome {
    outcomes.fold(Outcome::Unknown, |worst, outcome| match worst {
        Outcome::Failed { .. } => worst,
        _ => outcome,
    })
}

fn failed(reason: impl Into<String>) -> Outcome {
    Outcome::Failed { reason: reason.into() }
}

#[cfg(test)]
mod tests;
