//! What a container needs in order to use its VFs: pure function from device IDs to the answer of `Allocate`.
//!
//! Keeps no record of what it gave: the kubelet gives the same device to an init container and then to the main one, and
//! repeats itself after a restart. Refuses to know how the files it asks for are written.

use std::collections::BTreeMap;

use thiserror::Error;
use zerobridge_proto::deviceplugin::{ContainerAllocateResponse, DeviceSpec};
use zerobridge_proto::{DeviceInfo, PciAddress, PciDeviceInfo};

use crate::pool::{Device, PoolDevices};
use crate::resource::ResourceName;

/// The kernel driver that gives a function to a program instead of to the network stack.
const VFIO_PCI: &str = "vfio-pci";

/// The node that a program opens to make an IOMMU container (`Documentation/driver-api/vfio.rst` in the kernel).
const VFIO_CONTAINER: &str = "/dev/vfio/vfio";

/// What one container is given.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Allocation {
    /// The answer to the kubelet.
    pub(crate) response: ContainerAllocateResponse,
    /// The device-info documents that have to exist before the answer is given, by device.
    pub(crate) infos: Vec<(PciAddress, DeviceInfo)>,
}

/// A request that cannot be answered.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum AllocationError {
    /// No device has this ID.
    #[error("\"{id}\" is not a device of pool {pool}; it may have been removed or bound to another driver")]
    UnknownDevice {
        /// The ID asked for.
        id: String,
        /// The pool that was asked.
        pool: String,
    },
    /// No device at all was asked for.
    #[error("a request to pool {pool} names no device")]
    NoDevice {
        /// The pool that was asked.
        pool: String,
    },
    /// A device with a userspace driver, but without the isolation that such a driver needs.
    #[error(
        "{device} of pool {pool} is bound to vfio-pci but has no IOMMU group; enable the IOMMU of this machine"
    )]
    NoIommuGroup {
        /// The device.
        device: PciAddress,
        /// The pool it is in.
        pool: String,
    },
}

/// What a container needs that was given the devices `ids` of a pool.
///
/// # Errors
///
/// [`AllocationError`], which names the device and the pool. Nothing is given then.
pub(crate) fn allocate(
    pool: &ResourceName,
    devices: &PoolDevices,
    ids: &[String],
) -> Result<Allocation, AllocationError> {
    if ids.is_empty() {
        return Err(AllocationError::NoDevice { pool: pool.to_string() });
    }
    let devices = ids.iter().map(|id| find(pool, devices, id)).collect::<Result<Vec<_>, _>>()?;
    let mut nodes = BTreeMap::new();
    let mut details = BTreeMap::new();
    for device in &devices {
        let mut detail =
            BTreeMap::from([("generic", BTreeMap::from([("deviceID", device.address.to_string())]))]);
        if device.driver == VFIO_PCI {
            let group = vfio_group(pool, device)?;
            detail.insert(
                "vfio",
                BTreeMap::from([("dev-mount", group.clone()), ("mount", VFIO_CONTAINER.to_owned())]),
            );
            nodes.extend([VFIO_CONTAINER.to_owned(), group].map(|path| (path.clone(), node(path))));
        }
        details.insert(device.address.to_string(), detail);
    }
    let response = ContainerAllocateResponse {
        envs: environment(pool, ids, &details),
        devices: nodes.into_values().collect(),
        ..ContainerAllocateResponse::default()
    };
    let infos = devices.into_iter().map(|device| (device.address, device_info(device))).collect();
    Ok(Allocation { response, infos })
}

type Details = BTreeMap<String, BTreeMap<&'static str, BTreeMap<&'static str, String>>>;

fn find<'a>(pool: &ResourceName, devices: &'a PoolDevices, id: &str) -> Result<&'a Device, AllocationError> {
    id.parse()
        .ok()
        .and_then(|address: PciAddress| devices.get(&address))
        .ok_or_else(|| AllocationError::UnknownDevice { id: id.to_owned(), pool: pool.to_string() })
}

fn vfio_group(pool: &ResourceName, device: &Device) -> Result<String, AllocationError> {
    let missing = || AllocationError::NoIommuGroup { device: device.address, pool: pool.to_string() };
    Ok(format!("/dev/vfio/{}", device.iommu_group.ok_or_else(missing)?))
}

fn node(path: String) -> DeviceSpec {
    DeviceSpec { container_path: path.clone(), host_path: path, permissions: "rw".to_owned() }
}

/// The variables of sriov-network-device-plugin, because workloads read them: the IDs joined by commas, and under the
/// name with `_INFO` a JSON object of what each device offers, by kind.
fn environment(
    pool: &ResourceName,
    ids: &[String],
    details: &Details,
) -> std::collections::HashMap<String, String> {
    // Maps of text to text: there is nothing in them that JSON could not hold.
    let details = serde_json::to_string(details).unwrap_or_default();
    let variables = |name: String| [(format!("{name}_INFO"), details.clone()), (name, ids.join(","))];
    pool.environment().into_iter().flat_map(variables).collect()
}

fn device_info(device: &Device) -> DeviceInfo {
    DeviceInfo::pci(PciDeviceInfo { pf_pci_address: Some(device.pf), ..PciDeviceInfo::new(device.address) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(address: &str, driver: &str, iommu_group: Option<u32>) -> Device {
        Device {
            address: address.parse().unwrap(),
            pf: "0000:01:00.0".parse().unwrap(),
            driver: driver.to_owned(),
            numa_node: None,
            iommu_group,
        }
    }

    fn pool() -> (ResourceName, PoolDevices) {
        let devices = [
            device("0000:01:10.0", "igbvf", Some(100)),
            device("0000:01:10.2", "igbvf", None),
            device("0000:01:10.4", VFIO_PCI, Some(7)),
            device("0000:01:10.6", VFIO_PCI, Some(8)),
            device("0000:01:11.0", VFIO_PCI, None),
        ];
        let devices = devices.into_iter().map(|device| (device.address, device)).collect();
        (ResourceName::new("zerobridge.io", "vf-a").unwrap(), devices)
    }

    fn allocated(ids: &[&str]) -> Result<Allocation, AllocationError> {
        let (pool, devices) = pool();
        allocate(&pool, &devices, &ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn a_kernel_vf_needs_variables_and_no_nodes() {
        let Allocation { response, infos } = allocated(&["0000:01:10.2", "0000:01:10.0"]).unwrap();
        let ids = "0000:01:10.2,0000:01:10.0".to_owned();
        let info = r#"{"0000:01:10.0":{"generic":{"deviceID":"0000:01:10.0"}},"0000:01:10.2":{"generic":{"deviceID":"0000:01:10.2"}}}"#;
        let expected = [
            ("PCIDEVICE_ZEROBRIDGE_IO_VF-A".to_owned(), ids.clone()),
            ("PCIDEVICE_ZEROBRIDGE_IO_VF_A".to_owned(), ids),
            ("PCIDEVICE_ZEROBRIDGE_IO_VF-A_INFO".to_owned(), info.to_owned()),
            ("PCIDEVICE_ZEROBRIDGE_IO_VF_A_INFO".to_owned(), info.to_owned()),
        ];
        assert_eq!(response.envs, expected.into());
        assert_eq!((response.devices, response.mounts.len(), response.annotations.len()), (Vec::new(), 0, 0));
        let named: Vec<String> = infos.iter().map(|(device, _)| device.to_string()).collect();
        assert_eq!(named, ["0000:01:10.2", "0000:01:10.0"]);
        assert_eq!(infos[0].1.pci.pf_pci_address, Some("0000:01:00.0".parse().unwrap()));
    }

    #[test]
    fn vfio_vfs_share_the_container_node_and_have_a_group_each() {
        let Allocation { response, .. } = allocated(&["0000:01:10.6", "0000:01:10.4"]).unwrap();
        let paths: Vec<&str> = response.devices.iter().map(|node| node.host_path.as_str()).collect();
        assert_eq!(paths, ["/dev/vfio/7", "/dev/vfio/8", "/dev/vfio/vfio"]);
        assert!(
            response
                .devices
                .iter()
                .all(|node| node.container_path == node.host_path && node.permissions == "rw")
        );
        assert_eq!(
            response.envs["PCIDEVICE_ZEROBRIDGE_IO_VF_A_INFO"],
            r#"{"0000:01:10.4":{"generic":{"deviceID":"0000:01:10.4"},"vfio":{"dev-mount":"/dev/vfio/7","mount":"/dev/vfio/vfio"}},"0000:01:10.6":{"generic":{"deviceID":"0000:01:10.6"},"vfio":{"dev-mount":"/dev/vfio/8","mount":"/dev/vfio/vfio"}}}"#
        );
    }

    #[test]
    fn the_same_request_gets_the_same_answer() {
        assert_eq!(allocated(&["0000:01:10.4"]).unwrap(), allocated(&["0000:01:10.4"]).unwrap());
    }

    #[test]
    fn what_cannot_be_given_is_named_with_its_pool() {
        for id in ["0000:09:10.0", "eth0", ""] {
            let error = allocated(&["0000:01:10.0", id]).unwrap_err();
            assert!(error.to_string().contains(&format!("\"{id}\"")), "{error}");
            assert!(error.to_string().contains("zerobridge.io/vf-a"), "{error}");
        }
        assert!(matches!(allocated(&["0000:01:11.0"]), Err(AllocationError::NoIommuGroup { .. })));
        assert!(matches!(allocated(&[]), Err(AllocationError::NoDevice { .. })));
    }
}
