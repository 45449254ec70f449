//! What a container needs in order to use its devices: from the device IDs to the answer of `Allocate`.
//!
//! Keeps no record of what it gave: the kubelet gives the same device to an init container and then to the main one, and
//! repeats itself after a restart. Only [`Allocator`] reads and writes files,
//! everything else is a pure function.

mod allocator;
mod delivery;
mod error;
mod grant;
mod info;
mod nodes;
#[cfg(test)]
mod tests;
mod upkeep;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use zerobridge_proto::deviceplugin::{CdiDevice, ContainerAllocateResponse, DeviceSpec};
use zerobridge_proto::{DeviceInfo, PciAddress, cdi};

pub(crate) use allocator::RESOURCES;
pub use allocator::{Allocator, AllocatorError};
pub use delivery::Delivery;
pub use error::AllocationError;
pub use nodes::Nodes;
#[cfg(test)]
use upkeep::Held;

use crate::cdi::{NodeMethod, device_name, qualified_name, spec};
use crate::config::PoolConfig;
use crate::device::{Device, DeviceId};
use crate::pool::PoolDevices;
use crate::resource::ResourceName;
use grant::{Details, grant};
use info::device_info;

/// Reading and writing. Nobody needs to make nodes: the runtime does, before the container starts.
const PERMISSIONS: &str = "rw";

/// What one container is given.
#[derive(Clone, Debug, PartialEq)]
pub struct Allocation {
    /// The answer to the kubelet.
    pub response: ContainerAllocateResponse,
    /// The device-info documents that have to exist before the answer is given.
    pub infos: Vec<(DeviceId, DeviceInfo)>,
    /// The CDI specifications that have to exist before the answer is given. None for a device without nodes, and none for
    /// an RDMA device that gets its nodes in the pod: the CNI plugin writes that one.
    pub specs: Vec<(DeviceId, cdi::Spec)>,
    /// The functions that a container reaches although it was not given them, because an IOMMU cannot tell them apart from
    /// one that it was given.
    pub companions: Vec<(DeviceId, Vec<PciAddress>)>,
}

/// The devices that a request names, each once, in its order.
///
/// # Errors
///
/// [`AllocationError::UnknownDevice`] and [`AllocationError::NoDevice`].
pub(crate) fn requested<'a>(
    pool: &ResourceName,
    devices: &'a PoolDevices,
    ids: &[String],
) -> Result<Vec<&'a Device>, AllocationError> {
    if ids.is_empty() {
        return Err(AllocationError::NoDevice { pool: pool.clone() });
    }
    let mut seen = BTreeSet::new();
    let mut found = Vec::with_capacity(ids.len());
    for id in ids {
        let device = id.parse().ok().and_then(|id: DeviceId| devices.get(&id));
        let device =
            device.ok_or_else(|| AllocationError::UnknownDevice { id: id.clone(), pool: pool.clone() })?;
        if seen.insert(&device.id) {
            found.push(device);
        }
    }
    Ok(found)
}

/// What a container needs that was given these devices of a pool. The same devices always need the same.
///
/// # Errors
///
/// [`AllocationError`], which names the device and the pool. Nothing is given then.
pub fn allocate(
    pool: &PoolConfig,
    requested: &[(&Device, Nodes)],
    delivery: Delivery,
) -> Result<Allocation, AllocationError> {
    let resource = &pool.resource;
    if requested.is_empty() {
        return Err(AllocationError::NoDevice { pool: resource.clone() });
    }
    let mut nodes = BTreeMap::new();
    let mut details = BTreeMap::new();
    let (mut specs, mut cdi_devices) = (Vec::new(), Vec::new());
    for (device, present) in requested {
        let grant = grant(pool, device, present, delivery)?;
        if delivery.method == NodeMethod::Cdi && !grant.nodes.is_empty() {
            specs.push((device.id.clone(), spec(resource, &device.id, &grant.nodes, PERMISSIONS)));
            let name = qualified_name(resource, &device_name(resource, &device.id));
            cdi_devices.push(CdiDevice { name });
        }
        cdi_devices.extend(grant.late.map(|name| CdiDevice { name }));
        nodes.extend(grant.nodes);
        details.insert(device.id.to_string(), grant.details);
    }
    let ids: Vec<String> = requested.iter().map(|(device, _)| device.id.to_string()).collect();
    let mut response =
        ContainerAllocateResponse { envs: environment(resource, &ids, &details), ..Default::default() };
    match delivery.method {
        NodeMethod::Plain => response.devices = nodes.into_iter().map(device_spec).collect(),
        NodeMethod::Cdi => response.cdi_devices = cdi_devices,
    }
    let infos = requested.iter().filter_map(|(device, present)| {
        device_info(pool, device, present).map(|info| (device.id.clone(), info))
    });
    let companions = requested.iter().filter_map(|(device, present)| {
        let companions = present.characters.vfio.as_ref()?.companions.clone();
        (!companions.is_empty()).then(|| (device.id.clone(), companions))
    });
    Ok(Allocation { response, infos: infos.collect(), specs, companions: companions.collect() })
}

fn device_spec((container_path, host_path): (String, String)) -> DeviceSpec {
    DeviceSpec { container_path, host_path, permissions: PERMISSIONS.to_owned() }
}

/// The variables of sriov-network-device-plugin, because workloads read them: the IDs joined by commas, and under the
/// name with `_INFO` a JSON object of what each device offers, by kind.
fn environment(
    pool: &ResourceName,
    ids: &[String],
    details: &BTreeMap<String, Details>,
) -> HashMap<String, String> {
    // Maps of text to text: there is nothing in them that JSON could not hold.
    let details = serde_json::to_string(details).unwrap_or_default();
    let variables = |name: String| [(format!("{name}_INFO"), details.clone()), (name, ids.join(","))];
    pool.environment().into_iter().flat_map(variables).collect()
}
