//! The pod's RDMA device once it is where the pod will use it: who must know of it, and when it is ready.
//!
//! Refuses to move it.

use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use serde_json::{Value, json};
use tracing::warn;
use zerobridge_kernel::DevFolder;
use zerobridge_proto::cni::{CniError, ErrorCode};
use zerobridge_proto::{DeviceInfo, PciAddress, PciDeviceInfo, chain};

use crate::add::CARRIER_PATIENCE;
use crate::attachment::{AttachmentError, ReadyRdma, VfAccess, VfState};
use crate::call::Call;
use crate::config::RdmaSetting;
use crate::documents::DocumentFolder;
use crate::failure::attachment_error;
use crate::rdma_nodes;

/// How long an RDMA device that a network demands may take to be ready: its port follows the carrier, and the kernel fills the
/// table of GIDs in its own time.
const PATIENCE: Duration = Duration::from_secs(5);

/// Tells the container runtime the nodes of the pod's RDMA device, waits until the pod can use it, and describes it to Multus.
/// `None` when the pod has none. A network that only takes RDMA where there is some is not held up for long,
/// and not failed.
pub(crate) fn hand_over(
    call: &Call<'_>,
    setting: RdmaSetting,
    wanted: &VfState,
    access: &mut VfAccess,
) -> Result<Option<ReadyRdma>, CniError> {
    let Some(rdma) = wanted.rdma.as_ref().filter(|_| setting != RdmaSetting::Off) else { return Ok(None) };
    let nodes = access.rdma_nodes().map_err(attachment_error)?;
    rdma_nodes::write(&call.paths.cdi_dir, &DevFolder::new("/dev"), access.device(), &nodes)
        .map_err(|error| CniError::from_chain(ErrorCode::IO, &error))?;
    let patience = if setting == RdmaSetting::Auto { CARRIER_PATIENCE } else { PATIENCE };
    let addresses: Vec<IpAddr> = wanted.addresses.iter().map(IpNet::addr).collect();
    match access.wait_for_rdma(rdma, &addresses, Instant::now() + patience) {
        Ok(ready) => {
            describe(call, access, &ready);
            Ok(Some(ready))
        }
        Err(error @ AttachmentError::RdmaNotReady { .. }) if setting == RdmaSetting::Auto => {
            warn!(error = chain(&error), "the pod starts all the same");
            Ok(Some(ReadyRdma { name: rdma.name.clone(), gid_indexes: Vec::new() }))
        }
        Err(error) => Err(attachment_error(error)),
    }
}

/// Writes the device's name and GIDs into the file that Multus makes a part of the pod's network status. Failing to tell is no
/// failure of the attachment.
fn describe(call: &Call<'_>, access: &VfAccess, ready: &ReadyRdma) {
    let file = call.config.runtime.device_info_file.as_deref().unwrap_or_default();
    let file = Path::new(file);
    let (Some(folder), Some(name)) = (file.parent().filter(|_| file.is_absolute()), file.file_name()) else {
        return;
    };
    let known = fs::read(file).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let pf = call.sysfs().vf_position(access.device()).ok().flatten().map(|position| position.pf);
    let document = described(known, access.device(), pf, ready);
    if let Err(error) = DocumentFolder::new(folder).write(&name.to_string_lossy(), &document) {
        warn!(error = chain(&error), "the network status will lack the RDMA device");
    }
}

/// The device-info document of `device`, after `known`, which the device plugin wrote. The key for GIDs is not of the
/// specification, whose readers pass over it.
fn described(known: Option<Value>, device: PciAddress, pf: Option<PciAddress>, ready: &ReadyRdma) -> Value {
    let fresh = || {
        let info = PciDeviceInfo { pf_pci_address: pf, ..PciDeviceInfo::new(device) };
        json!(DeviceInfo::Pci(info))
    };
    let mut document = known.filter(|document| document["pci"].is_object()).unwrap_or_else(fresh);
    let gid = |(address, index): &(IpAddr, u16)| json!({"address": address, "index": index});
    document["pci"]["rdma-device"] = json!(ready.name);
    document["pci"]["rdma-gids"] = ready.gid_indexes.iter().map(gid).collect();
    document
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_device_plugin_said_is_kept_and_the_rdma_device_is_the_pods() {
        let (device, pf) = ("0000:3b:00.2".parse().unwrap(), "0000:3b:00.0".parse().unwrap());
        let ready =
            ReadyRdma { name: "rdma0".to_owned(), gid_indexes: vec![("10.1.0.2".parse().unwrap(), 3)] };
        let known = json!({"type": "pci", "version": "1.1.0", "pci": {
            "pci-address": "0000:3b:00.2", "rdma-device": "mlx5_3", "representor-device": "pf0vf2"}});
        let gids = json!([{"address": "10.1.0.2", "index": 3}]);
        let expected = json!({"type": "pci", "version": "1.1.0", "pci": {"pci-address": "0000:3b:00.2",
            "rdma-device": "rdma0", "representor-device": "pf0vf2", "rdma-gids": gids}});
        assert_eq!(described(Some(known), device, Some(pf), &ready), expected);
        let expected = json!({"type": "pci", "version": "1.1.0", "pci": {"pci-address": "0000:3b:00.2",
            "rdma-device": "rdma0", "pf-pci-address": "0000:3b:00.0", "rdma-gids": gids}});
        for unreadable in [None, Some(json!([]))] {
            assert_eq!(described(unreadable, device, Some(pf), &ready), expected);
        }
    }
}
