//! What Multus and CNI plugins are told about a device.

use zerobridge_kernel::VdpaNodes;
use zerobridge_proto::{DeviceInfo, PciDeviceInfo, VdpaDeviceInfo, VdpaDriver};

use super::grant::{gives_vdpa, gives_vhost_net};
use super::nodes::{Nodes, VHOST_NET, path};
use crate::config::{PoolConfig, PoolKind};
use crate::device::Device;

/// The device-info document of a device; `None` if no CNI plugin moves it: a share stays on the host, and an accelerator
/// is no network interface.
pub(super) fn device_info(pool: &PoolConfig, device: &Device, nodes: &Nodes) -> Option<DeviceInfo> {
    if pool.shares.is_some() || pool.kind == PoolKind::Accelerator {
        return None;
    }
    let vdpa = nodes.characters.vdpa.as_ref().filter(|_| gives_vdpa(pool));
    Some(match vdpa.and_then(|vdpa| vdpa_info(device, vdpa)) {
        Some(vdpa) => DeviceInfo::Vdpa(vdpa),
        None => DeviceInfo::Pci(pci_info(pool, device, nodes)),
    })
}

fn pci_info(pool: &PoolConfig, device: &Device, nodes: &Nodes) -> PciDeviceInfo {
    let rdma: Vec<&str> = nodes.characters.rdma.iter().map(|rdma| rdma.device.as_str()).collect();
    PciDeviceInfo {
        pci_address: device.function,
        vhost_net: gives_vhost_net(pool).then(|| path(VHOST_NET)),
        rdma_device: (pool.gives_hardware_rdma() && !rdma.is_empty()).then(|| rdma.join(",")),
        pf_pci_address: device.pf,
        representor_device: device.representor.clone(),
    }
}

fn vdpa_info(device: &Device, vdpa: &VdpaNodes) -> Option<VdpaDeviceInfo> {
    let vhost = vdpa.vhost.iter().map(|name| (VdpaDriver::Vhost, path(name)));
    let virtio =
        vdpa.virtio.iter().map(|name| (VdpaDriver::Virtio, format!("/sys/bus/virtio/devices/{name}")));
    let (driver, path) = vhost.chain(virtio).next()?;
    Some(VdpaDeviceInfo {
        parent_device: vdpa.device.clone(),
        driver,
        path,
        pci_address: Some(device.function),
        pf_pci_address: device.pf,
        representor_device: device.representor.clone(),
    })
}
