//! What one device is to its container: device nodes, and what is said about it in the `_INFO` variable.
//!
//! The kinds, keys and values in that variable are those of sriov-network-device-plugin, because workloads read them; what
//! is said beyond them is told in `docs/device-plugin.md`.

use std::collections::BTreeMap;

use zerobridge_cni_sriov::rdma_nodes_name;
use zerobridge_kernel::{RDMA_CM, RdmaNodes, VfioGroup, VfioNodes};

use super::delivery::Delivery;
use super::error::AllocationError;
use super::nodes::{IOMMUFD, Nodes, TUN, VFIO_CONTAINER, VHOST_NET, path};
use crate::cdi::NodeMethod;
use crate::config::{PoolConfig, PoolRdma};
use crate::device::{Device, Hardware};
use crate::selector::{Selectors, VdpaType};

/// Drivers that give a function to a program through UIO: the kernel's own, DPDK's, and what old configurations call it.
const UIO_DRIVERS: [&str; 3] = ["uio_pci_generic", "igb_uio", "uio"];

/// What a container gets for one device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Grant {
    /// By path in the container: path on the host.
    pub(super) nodes: BTreeMap<String, String>,
    /// The CDI name of what the CNI plugin will make known.
    pub(super) late: Option<String>,
    /// By kind: keys and values.
    pub(super) details: Details,
}

/// What the `_INFO` variable says about one device.
pub(super) type Details = BTreeMap<&'static str, BTreeMap<String, String>>;

/// How a pool is to be used beside what its devices' drivers say. An alternative of the selectors that asks for something
/// asks for it on behalf of the pool: what only some alternatives ask for is given to those devices that have it, what all
/// ask for must be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Demand {
    None,
    WhereItIs,
    Everywhere,
}

impl Demand {
    fn of(pool: &PoolConfig, asks: impl Fn(&Selectors) -> bool) -> Self {
        match pool.selectors.iter().filter(|selectors| asks(selectors)).count() {
            0 => Self::None,
            all if all == pool.selectors.len() => Self::Everywhere,
            _ => Self::WhereItIs,
        }
    }
}

/// What a container gets that was given `device` of `pool`.
pub(super) fn grant(
    pool: &PoolConfig,
    device: &Device,
    nodes: &Nodes,
    delivery: Delivery,
) -> Result<Grant, AllocationError> {
    let mut granting = Granting { pool, device, nodes, delivery, grant: Grant::default() };
    granting.tell("generic", "deviceID", device.id.to_string());
    // A share gives RDMA and nothing else: the rest of the function stays with the host.
    if pool.shares.is_some() {
        granting.rdma(Demand::Everywhere)?;
    } else {
        granting.by_driver()?;
        match pool.rdma {
            PoolRdma::Auto => granting.own_rdma(Demand::of(pool, |selectors| selectors.is_rdma))?,
            PoolRdma::Plain => granting.rdma(Demand::of(pool, |selectors| selectors.is_rdma))?,
            PoolRdma::Soft => granting.soft_rdma()?,
            PoolRdma::Off => {}
        }
        granting.vdpa(VdpaType::Vhost)?;
        granting.vdpa(VdpaType::Virtio)?;
        granting.vhost_net()?;
    }
    granting.additional_info();
    Ok(granting.grant)
}

/// Whether containers of a pool get the nodes of vhost-net.
pub(super) fn gives_vhost_net(pool: &PoolConfig) -> bool {
    Demand::of(pool, |selectors| selectors.need_vhost_net) != Demand::None
}

/// Whether a pool is meant for vDPA devices.
pub(super) fn gives_vdpa(pool: &PoolConfig) -> bool {
    Demand::of(pool, |selectors| selectors.vdpa_type.is_some()) != Demand::None
}

struct Granting<'a> {
    pool: &'a PoolConfig,
    device: &'a Device,
    nodes: &'a Nodes,
    delivery: Delivery,
    grant: Grant,
}

impl Granting<'_> {
    fn by_driver(&mut self) -> Result<(), AllocationError> {
        if self.is_vfio() {
            return self.vfio();
        }
        if self.is_uio() { self.uio() } else { Ok(()) }
    }

    fn is_vfio(&self) -> bool {
        self.nodes.characters.vfio.is_some() || self.driver() == "vfio-pci"
    }

    fn is_uio(&self) -> bool {
        UIO_DRIVERS.contains(&self.driver())
    }

    fn driver(&self) -> &str {
        self.device.driver.as_deref().unwrap_or_default()
    }

    /// The group and, where the machine has them, the function's own device and iommufd: a program takes what it knows.
    /// One of the two ways must be complete.
    fn vfio(&mut self) -> Result<(), AllocationError> {
        self.grant.details.entry("vfio").or_default();
        let VfioNodes { group, device, .. } = self.nodes.characters.vfio.clone().unwrap_or_default();
        if let Some(device) = device.filter(|device| self.nodes.has(device) && self.nodes.has(IOMMUFD)) {
            self.give("vfio", "cdev-mount", &device);
            self.give("vfio", "iommu-mount", IOMMUFD);
            // A kernel without CONFIG_VFIO_GROUP has only this way.
            if group.is_none_or(|group| !self.nodes.has(&group.node())) {
                return Ok(());
            }
        }
        let group = group.ok_or_else(|| {
            self.unusable(
                "IOMMU group",
                "enable the IOMMU of this machine, or vfio's enable_unsafe_noiommu_mode",
            )
        })?;
        self.require("vfio", "mount", VFIO_CONTAINER, "load the module vfio")?;
        self.vfio_group(group)
    }

    fn vfio_group(&mut self, group: VfioGroup) -> Result<(), AllocationError> {
        let node = group.node();
        if !self.nodes.has(&node) {
            return Err(self.missing(&node, "bind the device to vfio-pci again"));
        }
        // Without an IOMMU the node has a name of its own. Programs look for it under that (VPP) or, because
        // sriov-network-device-plugin has it so, under that of an ordinary group; both are the same node.
        let ordinary = VfioGroup { noiommu: false, ..group }.node();
        self.tell("vfio", "dev-mount", path(&ordinary));
        for name in [&ordinary, &node] {
            self.grant.nodes.insert(path(name), path(&node));
        }
        Ok(())
    }

    fn uio(&mut self) -> Result<(), AllocationError> {
        let node = self.nodes.characters.uio.clone();
        let node = node.ok_or_else(|| self.unusable("UIO device", "bind it to its driver again"))?;
        self.require("uio", "mount", &node, "bind the device to its driver again")
    }

    /// The RDMA device of a device that moves into the pod. Where it gets other nodes there, the container asks for it by
    /// name. It may be on its way back from another pod at the moment.
    fn own_rdma(&mut self, demand: Demand) -> Result<(), AllocationError> {
        let present = !self.nodes.characters.rdma.is_empty();
        let is_given = demand == Demand::Everywhere || (demand == Demand::WhereItIs && present);
        let function = matches!(self.device.id.hardware, Hardware::Function(_));
        if self.delivery.is_late() && is_given && function && !self.is_vfio() && !self.is_uio() {
            let names = self.rdma_names();
            self.late_rdma();
            if !names.is_empty() {
                self.tell("rdma", "rdma_dev", names);
            }
            return Ok(());
        }
        self.rdma(demand)
    }

    /// An RDMA device that the CNI plugin makes of the network interface, when it is in the pod.
    fn soft_rdma(&mut self) -> Result<(), AllocationError> {
        let pool = self.pool.resource.clone();
        if self.is_vfio() || self.is_uio() {
            let (device, driver) = (self.device.id.clone(), self.driver().to_owned());
            return Err(AllocationError::SoftRdmaOfUserspace { device, pool, driver });
        }
        if self.delivery.method == NodeMethod::Plain {
            return Err(AllocationError::SoftRdmaWithoutCdi { pool });
        }
        self.late_rdma();
        Ok(())
    }

    fn late_rdma(&mut self) {
        self.grant.late = Some(rdma_nodes_name(self.device.function));
        self.grant.details.entry("rdma").or_default();
        // The only node of RDMA that keeps its name.
        if self.nodes.has(RDMA_CM) {
            self.tell("rdma", "rdma_cm", path(RDMA_CM));
        }
    }

    fn rdma(&mut self, demand: Demand) -> Result<(), AllocationError> {
        let devices = self.nodes.characters.rdma.clone();
        match (demand, devices.is_empty()) {
            (Demand::None, _) | (Demand::WhereItIs, true) => return Ok(()),
            (Demand::Everywhere, true) => {
                let remedy = "load the RDMA driver of this network card, or wait until the device is back from its pod";
                return Err(self.unusable("RDMA device", remedy));
            }
            _ => {}
        }
        for RdmaNodes { uverbs, umads, issms, ucm, .. } in &devices {
            let uverbs = uverbs
                .as_deref()
                .ok_or_else(|| self.unusable("uverbs device", "load the module ib_uverbs"))?;
            self.require("rdma", "uverbs", uverbs, "load the module ib_uverbs")?;
            // Not every kind of RDMA has these: RoCE has no subnet manager, recent kernels have no ucm.
            self.give_those("rdma", "umad", umads);
            self.give_those("rdma", "issm", issms);
            if let Some(ucm) = ucm.iter().find(|name| self.nodes.has(name)) {
                self.grant.nodes.insert(path(ucm), path(ucm));
            }
        }
        self.give_those("rdma", "rdma_cm", &[RDMA_CM.to_owned()]);
        let names = self.rdma_names();
        self.tell("rdma", "rdma_dev", names);
        Ok(())
    }

    fn rdma_names(&self) -> String {
        let devices = self.nodes.characters.rdma.iter();
        devices.map(|device| device.device.as_str()).collect::<Vec<_>>().join(",")
    }

    fn vdpa(&mut self, wanted: VdpaType) -> Result<(), AllocationError> {
        let demand = Demand::of(self.pool, |selectors| selectors.vdpa_type == Some(wanted));
        if demand == Demand::None {
            return Ok(());
        }
        let vdpa = self.nodes.characters.vdpa.clone().unwrap_or_default();
        let (bound, what, remedy) = match wanted {
            VdpaType::Vhost => {
                (vdpa.vhost.is_some(), "vhost vDPA device", "bind its vDPA device to vhost_vdpa")
            }
            VdpaType::Virtio => {
                (vdpa.virtio.is_some(), "virtio vDPA device", "bind its vDPA device to virtio_vdpa")
            }
        };
        if !bound {
            return if demand == Demand::Everywhere { Err(self.unusable(what, remedy)) } else { Ok(()) };
        }
        self.grant.details.entry("vdpa").or_default();
        match vdpa.vhost {
            Some(node) if wanted == VdpaType::Vhost => self.require("vdpa", "mount", &node, remedy),
            _ => Ok(()),
        }
    }

    fn vhost_net(&mut self) -> Result<(), AllocationError> {
        if gives_vhost_net(self.pool) {
            self.require("vhost", "net-mount", VHOST_NET, "load the module vhost_net")?;
            self.require("vhost", "tun-mount", TUN, "load the module tun")?;
        }
        Ok(())
    }

    /// First what is said about all devices, then what is said about the hardware, then about the device.
    fn additional_info(&mut self) {
        let said = &self.pool.additional_info;
        if said.is_empty() {
            return;
        }
        let (hardware, id) = (self.device.id.hardware.to_string(), self.device.id.to_string());
        let extra = self.grant.details.entry("extra").or_default();
        for about in ["*", &hardware, &id] {
            extra.extend(said.get(about).cloned().unwrap_or_default());
        }
    }

    fn tell(&mut self, kind: &'static str, key: &str, value: String) {
        self.grant.details.entry(kind).or_default().insert(key.to_owned(), value);
    }

    fn give(&mut self, kind: &'static str, key: &str, name: &str) {
        self.grant.nodes.insert(path(name), path(name));
        self.tell(kind, key, path(name));
    }

    fn give_those(&mut self, kind: &'static str, key: &str, names: &[String]) {
        for name in names.iter().filter(|name| self.nodes.has(name)) {
            self.give(kind, key, name);
        }
    }

    fn require(
        &mut self,
        kind: &'static str,
        key: &str,
        name: &str,
        remedy: &'static str,
    ) -> Result<(), AllocationError> {
        if !self.nodes.has(name) {
            return Err(self.missing(name, remedy));
        }
        self.give(kind, key, name);
        Ok(())
    }

    fn missing(&self, name: &str, remedy: &'static str) -> AllocationError {
        let (device, pool) = (self.device.id.clone(), self.pool.resource.clone());
        AllocationError::NoNode { device, pool, node: path(name), remedy }
    }

    fn unusable(&self, what: &'static str, remedy: &'static str) -> AllocationError {
        let (device, pool) = (self.device.id.clone(), self.pool.resource.clone());
        AllocationError::Unusable { device, pool, what, remedy }
    }
}
