//! The kubelet's device plugin contract, version v1beta1: how a node's daemon announces devices and hands them out.
//!
//! Only the generated types and the constants that are part of the contract. What to answer is the daemon's affair.

/// The one version that [`RegisterRequest`] may name; the kubelet refuses every other.
pub const VERSION: &str = "v1beta1";

/// [`Device::health`] of a device that may be allocated (`Healthy` in the kubelet's `constants.go`).
pub const HEALTHY: &str = "Healthy";

/// [`Device::health`] of a device that exists but may not be allocated.
pub const UNHEALTHY: &str = "Unhealthy";

/// Directory of the sockets, below the kubelet's root directory (`/var/lib/kubelet`).
pub const DIRECTORY: &str = "device-plugins";

/// File name of the kubelet's own socket in [`DIRECTORY`].
pub const KUBELET_SOCKET: &str = "kubelet.sock";

mod wire {
    #![allow(missing_docs, unreachable_pub, clippy::all, reason = "generated from the contract")]
    tonic::include_proto!("v1beta1");
}

pub use wire::device_plugin_client::DevicePluginClient;
pub use wire::device_plugin_server::{DevicePlugin, DevicePluginServer};
pub use wire::registration_client::RegistrationClient;
pub use wire::registration_server::{Registration, RegistrationServer};
pub use wire::{
    AllocateRequest, AllocateResponse, CdiDevice, ContainerAllocateRequest, ContainerAllocateResponse,
    ContainerPreferredAllocationRequest, ContainerPreferredAllocationResponse, Device, DevicePluginOptions,
    DeviceSpec, Empty, ListAndWatchResponse, Mount, NumaNode, PreStartContainerRequest,
    PreStartContainerResponse, PreferredAllocationRequest, PreferredAllocationResponse, RegisterRequest,
    TopologyInfo,
};

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    /// Bytes written by hand after the field numbers of the contract, so that a renumbered field is seen.
    #[test]
    fn the_device_list_has_the_wire_format_of_the_contract() {
        let list = ListAndWatchResponse {
            devices: vec![Device {
                id: "a".to_owned(),
                health: HEALTHY.to_owned(),
                topology: Some(TopologyInfo { nodes: vec![NumaNode { id: 1 }] }),
            }],
        };
        let wire = b"\x0a\x12\x0a\x01a\x12\x07Healthy\x1a\x04\x0a\x02\x08\x01";
        assert_eq!(list.encode_to_vec(), wire);
    }

    #[test]
    fn an_allocation_has_the_wire_format_of_the_contract() {
        let response = ContainerAllocateResponse {
            envs: [("K".to_owned(), "V".to_owned())].into(),
            mounts: vec![Mount {
                container_path: "c".to_owned(),
                host_path: "h".to_owned(),
                read_only: true,
            }],
            devices: vec![DeviceSpec {
                container_path: "c".to_owned(),
                host_path: "h".to_owned(),
                permissions: "rw".to_owned(),
            }],
            annotations: [("A".to_owned(), "B".to_owned())].into(),
            cdi_devices: vec![CdiDevice { name: "n".to_owned() }],
        };
        let wire = [
            b"\x0a\x06\x0a\x01K\x12\x01V".as_slice(),
            b"\x12\x08\x0a\x01c\x12\x01h\x18\x01",
            b"\x1a\x0a\x0a\x01c\x12\x01h\x1a\x02rw",
            b"\x22\x06\x0a\x01A\x12\x01B",
            b"\x2a\x03\x0a\x01n",
        ];
        assert_eq!(response.encode_to_vec(), wire.concat());
    }

    #[test]
    fn a_registration_has_the_wire_format_of_the_contract() {
        let request = RegisterRequest {
            version: VERSION.to_owned(),
            endpoint: "e".to_owned(),
            resource_name: "a/b".to_owned(),
            options: Some(DevicePluginOptions {
                pre_start_required: true,
                get_preferred_allocation_available: true,
            }),
        };
        let wire = b"\x0a\x07v1beta1\x12\x01e\x1a\x03a/b\x22\x04\x08\x01\x10\x01";
        assert_eq!(request.encode_to_vec(), wire);
    }
}
