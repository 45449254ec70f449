//! The kubelet's pod resources contract, version v1: which device was given to which container.
//!
//! Only the generated types. Answers of a large node exceed gRPC's default of 4 MiB per message, so a client raises its
//! limit ([`MAX_MESSAGE_BYTES`]).

/// Directory of the kubelet's socket, below the kubelet's root directory (`/var/lib/kubelet`).
pub const DIRECTORY: &str = "pod-resources";

/// File name of the socket in [`DIRECTORY`].
pub const SOCKET: &str = "kubelet.sock";

/// A receive limit that the answer of a full node stays below. It is the one of the kubelet's own client in its node
/// tests (`defaultPodResourcesMaxSize` in `test/e2e_node/util.go`).
pub const MAX_MESSAGE_BYTES: usize = 16 * 1024 * 1024;

mod wire {
    #![allow(missing_docs, unreachable_pub, clippy::all, reason = "generated from the contract")]
    tonic::include_proto!("v1");
}

pub use wire::pod_resources_lister_client::PodResourcesListerClient;
pub use wire::pod_resources_lister_server::{PodResourcesLister, PodResourcesListerServer};
pub use wire::{
    AllocatableResourcesRequest, AllocatableResourcesResponse, CdiDevice, ClaimResource, ContainerDevices,
    ContainerMemory, ContainerResources, DynamicResource, GetPodResourcesRequest, GetPodResourcesResponse,
    ListPodResourcesRequest, ListPodResourcesResponse, NumaNode, PodResources, TopologyInfo,
};

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    #[test]
    fn a_pod_has_the_wire_format_of_the_contract() {
        let pod = PodResources {
            name: "p".to_owned(),
            namespace: "n".to_owned(),
            containers: vec![ContainerResources {
                name: "c".to_owned(),
                devices: vec![ContainerDevices {
                    resource_name: "a/b".to_owned(),
                    device_ids: vec!["d".to_owned()],
                    topology: Some(TopologyInfo { nodes: vec![NumaNode { id: 1 }] }),
                }],
                ..ContainerResources::default()
            }],
        };
        let devices = b"\x0a\x03a/b\x12\x01d\x1a\x04\x0a\x02\x08\x01";
        let container = [b"\x0a\x01c\x12\x0e".as_slice(), devices].concat();
        let expected = [b"\x0a\x01p\x12\x01n\x1a\x13".as_slice(), &container].concat();
        assert_eq!(pod.encode_to_vec(), expected);
    }

    #[test]
    fn fields_of_a_newer_kubelet_are_skipped() {
        // Field 9, length-delimited, unknown to this contract, before the pod's name.
        let pod = PodResources::decode(b"\x4a\x02xy\x0a\x01p".as_slice()).unwrap();
        assert_eq!(pod.name, "p");
    }
}
