//! The ways between host and nodes: the wire, the ports of the host's loopback that lead to the nodes, and how the API server
//! finds those.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;
use zerobridge_lab::{Forward, Member, Wire};

use super::error::ClusterError;
use super::node::name_of;
use super::programs::KUBELET_PORT;
use super::tunnel::{self, Targets};
use crate::process::{free_port, free_udp_ports};

/// The nodes with what joins them; `nodes` is 1 or 2.
pub(super) fn members(nodes: u8, folder: &Path) -> Result<Vec<Member>, ClusterError> {
    let [first, second] = free_udp_ports()?;
    let ends = [Wire { here: first, there: second }, Wire { here: second, there: first }];
    let member = |(number, wire): (u8, Wire)| {
        let forwards = vec![Forward { host: free_port()?, guest: KUBELET_PORT }];
        Ok(Member { number, wire, forwards, disk: folder.join(format!("{}.ext4", name_of(number))) })
    };
    (1..=nodes).zip(ends).map(member).collect()
}

/// Has the API server reach the kubelets, for as long as the runtime lives that this is called in; returns the file that tells
/// it how.
pub(super) fn open(folder: &Path, members: &[Member]) -> Result<PathBuf, ClusterError> {
    let target = |member: &Member| {
        let address = member.address();
        member
            .forwards
            .iter()
            .map(move |way| (format!("{address}:{}", way.guest), way.host))
            .collect::<Vec<_>>()
    };
    let targets: Targets = members.iter().flat_map(target).collect();
    let socket = folder.join("egress.sock");
    tunnel::serve(&socket, targets).map_err(ClusterError::file("listen on", &socket))?;
    let path = folder.join("egress.json");
    let config = json!({
        "apiVersion": "apiserver.k8s.io/v1beta1", "kind": "EgressSelectorConfiguration",
        "egressSelections": [{"name": "cluster", "connection": {
            "proxyProtocol": "HTTPConnect", "transport": {"uds": {"udsName": socket}},
        }}],
    });
    fs::write(&path, config.to_string()).map_err(ClusterError::file("write", &path))?;
    Ok(path)
}
