//! The default network of a cluster with Multus: of each pod a veth pair to its node (`ptp`), of each node a range of
//! addresses (`host-local`), between the nodes a route over the wire.
//!
//! Decides only: what is written where. Refuses to know Zerobridge.

use std::net::Ipv4Addr;

use serde_json::{Value, json};

/// The addresses of all pods of the default network, in CIDR notation; that of Services is the API server's.
pub(super) const PODS: &str = "10.244.0.0/16";
/// What a cluster with Multus is given.
pub(super) const DEFINITIONS: &str = include_str!("multus.yaml");
/// The binaries beside Multus itself.
pub(super) const PLUGINS: [&str; 2] = ["ptp", "host-local"];
pub(super) const MULTUS_CONFIG: &str = "/etc/cni/net.d/00-multus.conf";
pub(super) const MULTUS_KUBECONFIG: &str = "/etc/cni/net.d/multus.d/multus.kubeconfig";

/// The range of a node's pods.
pub(super) fn range_of(number: u8) -> String {
    format!("10.244.{number}.0/24")
}

/// A node's address on the wire, from TEST-NET-1 (RFC 5737).
pub(super) fn on_the_wire(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, number)
}

/// The command by which a node reaches node `to`, which has the address `internal` on a management network of its own.
pub(super) fn route_to_node(to: u8, internal: Ipv4Addr) -> String {
    format!("ip route replace {internal}/32 via {}", on_the_wire(to))
}

/// The command by which a node reaches the pods of node `to`.
pub(super) fn route(to: u8) -> String {
    format!("ip route replace {} via {}", range_of(to), on_the_wire(to))
}

/// Multus' configuration on a node.
pub(super) fn multus_config(number: u8) -> Value {
    let address = |last: u8| Ipv4Addr::new(10, 244, number, last).to_string();
    json!({
        "cniVersion": "1.1.0", "name": "multus", "type": "multus",
        "kubeconfig": MULTUS_KUBECONFIG,
        "delegates": [{
            "cniVersion": "1.1.0", "name": "default", "type": "ptp",
            // Pods reach the API server and nothing else beyond the nodes; from there they look like their node.
            "ipMasq": true, "ipMasqBackend": "nftables",
            "ipam": {
                "type": "host-local",
                // One subnet for all, so that pods of different nodes see each other's own addresses.
                "ranges": [[{
                    "subnet": PODS,
                    "rangeStart": address(2), "rangeEnd": address(254), "gateway": address(1),
                }]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        }],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ranges_of_nodes_are_apart_and_routed_to_whom_they_belong() {
        let range = |number| multus_config(number)["delegates"][0]["ipam"]["ranges"][0][0].clone();
        assert_eq!(range(1)["rangeStart"], "10.244.1.2");
        assert_eq!(range(2)["rangeEnd"], "10.244.2.254");
        assert_eq!(range(1)["subnet"], range(2)["subnet"]);
        assert_eq!(route(2), "ip route replace 10.244.2.0/24 via 192.0.2.2");
        let to_node = route_to_node(2, Ipv4Addr::new(10, 0, 2, 12));
        assert_eq!(to_node, "ip route replace 10.0.2.12/32 via 192.0.2.2");
    }
}
