//! What kubelet and kube-proxy are told on a node. Decides only; starting them is the node's business.

use std::net::Ipv4Addr;

use serde_json::{Value, json};

use super::network::PODS;

/// Where the kubelet serves, for logs and commands in pods.
pub(super) const KUBELET_PORT: u16 = 10250;
pub(super) const AUTHORITY: &str = "/etc/kubernetes/ca.crt";
pub(super) const KUBELET_KUBECONFIG: &str = "/etc/kubernetes/kubelet.kubeconfig";
pub(super) const KUBELET_CONFIG: &str = "/etc/kubernetes/kubelet.json";
pub(super) const PROXY_KUBECONFIG: &str = "/etc/kubernetes/kube-proxy.kubeconfig";
pub(super) const PROXY_CONFIG: &str = "/etc/kubernetes/kube-proxy.json";

/// How a program of a node reaches the API server.
pub(super) fn kubeconfig(server: &str, token: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": server, "certificate-authority": AUTHORITY}}],
        "users": [{"name": "u", "user": {"token": token}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
    })
}

/// Only the host reaches the kubelet, by a port of its loopback, so that it serves whoever asks.
pub(super) fn kubelet_config() -> Value {
    let nothing = "0%";
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
        "authentication": {"anonymous": {"enabled": true}, "webhook": {"enabled": false}},
        "authorization": {"mode": "AlwaysAllow"},
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "port": KUBELET_PORT,
        "cgroupDriver": "cgroupfs",
        "failSwapOn": false,
        // A pod's status then says how the devices fare that it was given.
        "featureGates": {"ResourceHealthStatus": true},
        "enforceNodeAllocatable": [],
        // The root is memory; nothing may be evicted or collected for want of space.
        "evictionHard": {
            "memory.available": nothing, "nodefs.available": nothing, "nodefs.inodesFree": nothing,
            "imagefs.available": nothing,
        },
        "imageGCHighThresholdPercent": 100,
        "localStorageCapacityIsolation": false,
    })
}

pub(super) fn kubelet_arguments(name: &str, address: Ipv4Addr) -> Vec<String> {
    vec![
        format!("--config={KUBELET_CONFIG}"),
        format!("--kubeconfig={KUBELET_KUBECONFIG}"),
        format!("--hostname-override={name}"),
        format!("--node-ip={address}"),
        "--v=2".to_owned(),
    ]
}

/// Services by nftables, for which the machine needs no program beside nft.
pub(super) fn proxy_config(name: &str) -> Value {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": PROXY_KUBECONFIG},
        "hostnameOverride": name,
        "mode": "nftables",
        "clusterCIDR": PODS,
        // Zero leaves the kernel's own limit.
        "conntrack": {"maxPerCore": 0},
    })
}
