//! The client of the pod-resources socket.

use std::collections::BTreeMap;

use serde::Serialize;
use tonic::transport::{Channel, Endpoint};
use zerobridge_proto::podresources::{
    AllocatableResourcesRequest, ContainerDevices, ListPodResourcesRequest, MAX_MESSAGE_BYTES,
    PodResourcesListerClient,
};

use super::ResourcesError;

pub(super) const POD_RESOURCES: &str = "unix:///var/lib/kubelet/pod-resources/kubelet.sock";

/// Device IDs by resource name.
pub(super) type Devices = BTreeMap<String, Vec<String>>;

/// A pod as `resources pods` prints it.
#[derive(Serialize)]
pub(super) struct Pod {
    namespace: String,
    name: String,
    devices: Devices,
}

/// A connection that is made at the first question, and made again after the kubelet was away.
pub(super) struct Lister(PodResourcesListerClient<Channel>);

impl Lister {
    /// Only inside a runtime.
    pub(super) fn new() -> Self {
        let channel = Endpoint::from_static(POD_RESOURCES).connect_lazy();
        Self(PodResourcesListerClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES))
    }

    /// The healthy devices of every resource, allocated ones included.
    pub(super) async fn allocatable(&mut self) -> Result<Devices, ResourcesError> {
        let answer =
            self.0.get_allocatable_resources(AllocatableResourcesRequest {}).await.map_err(|status| {
                ResourcesError::Call { call: "GetAllocatableResources", source: status.into() }
            })?;
        Ok(by_resource(answer.into_inner().devices))
    }

    /// The pods that the kubelet lists, with what they were given.
    pub(super) async fn pods(&mut self) -> Result<Vec<Pod>, ResourcesError> {
        let answer = self
            .0
            .list(ListPodResourcesRequest {})
            .await
            .map_err(|status| ResourcesError::Call { call: "List", source: status.into() })?;
        let pods = answer.into_inner().pod_resources.into_iter().map(|pod| Pod {
            namespace: pod.namespace,
            name: pod.name,
            devices: by_resource(pod.containers.into_iter().flat_map(|container| container.devices)),
        });
        Ok(pods.collect())
    }
}

/// The kubelet splits one resource into an entry per NUMA node: gathers them.
fn by_resource(entries: impl IntoIterator<Item = ContainerDevices>) -> Devices {
    let mut devices = Devices::new();
    for entry in entries {
        devices.entry(entry.resource_name).or_default().extend(entry.device_ids);
    }
    for list in devices.values_mut() {
        list.sort();
    }
    devices
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_of_one_resource_are_gathered_and_sorted() {
        let entry = |name: &str, ids: &[&str]| ContainerDevices {
            resource_name: name.into(),
            device_ids: ids.iter().map(|id| (*id).into()).collect(),
            topology: None,
        };
        let gathered = by_resource([entry("a/x", &["2"]), entry("a/y", &["9"]), entry("a/x", &["1"])]);
        assert_eq!(gathered["a/x"], ["1", "2"]);
        assert_eq!(gathered["a/y"], ["9"]);
    }
}
