//! A kubelet in the guest, standalone: static pods from a folder, no API server.

use std::time::Duration;

use serde::Deserialize;

use crate::machine::{Guest, GuestError, program};
use crate::prepare::Prepared;

/// The node's name, which the kubelet appends to a static pod's.
pub(crate) const NODE: &str = "lab";
/// The folder of the static pods.
pub(crate) const MANIFESTS: &str = "/etc/kubernetes/manifests";
/// Where device plugins register.
pub(crate) const REGISTRATION: &str = "/var/lib/kubelet/device-plugins/kubelet.sock";
const CONFIG_PATH: &str = "/etc/kubernetes/kubelet.yaml";
const PODS: &str = "http://127.0.0.1:10255/pods";
const LIMIT: Duration = Duration::from_secs(180);
/// From TEST-NET-1 (RFC 5737): the kubelet wants an address of the node that is not the loopback's.
const NODE_ADDRESS: &str = "192.0.2.1";

const CONFIG: &str = r#"apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication:
  anonymous: {enabled: true}
  webhook: {enabled: false}
authorization: {mode: AlwaysAllow}
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
staticPodPath: /etc/kubernetes/manifests
readOnlyPort: 10255
cgroupDriver: cgroupfs
failSwapOn: false
# A pod's status then says how the devices fare that it was given.
featureGates: {ResourceHealthStatus: true}
enforceNodeAllocatable: []
# The guest's disks are memory; nothing may be evicted or collected for want of space.
evictionHard: {memory.available: "0%", nodefs.available: "0%", nodefs.inodesFree: "0%", imagefs.available: "0%"}
imageGCHighThresholdPercent: 100
localStorageCapacityIsolation: false
"#;

/// The kubelet's answer to `/pods`, as far as it is read.
#[derive(Debug, Deserialize)]
struct PodList {
    #[serde(default)]
    items: Option<Vec<PodItem>>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct PodItem {
    pub(crate) metadata: Metadata,
    #[serde(default)]
    pub(crate) status: PodStatus,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Metadata {
    pub(crate) name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PodStatus {
    #[serde(default)]
    pub(crate) phase: String,
    #[serde(default)]
    pub(crate) reason: String,
    #[serde(default)]
    pub(crate) message: String,
    #[serde(rename = "podIP", default)]
    pub(crate) pod_ip: String,
    #[serde(default)]
    pub(crate) container_statuses: Vec<ContainerStatus>,
    #[serde(default)]
    pub(crate) conditions: Vec<Condition>,
}

/// One of a pod's conditions, such as `Ready`.
#[derive(Debug, Deserialize)]
pub(crate) struct Condition {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) status: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ContainerStatus {
    #[serde(rename = "containerID", default)]
    pub(crate) container_id: String,
    #[serde(default)]
    pub(crate) state: serde_json::Value,
    #[serde(default)]
    pub(crate) allocated_resources_status: Vec<AllocatedResource>,
}

/// The devices of one resource that a container was given (KEP-4680).
#[derive(Debug, Deserialize)]
pub(crate) struct AllocatedResource {
    #[serde(default)]
    pub(crate) resources: Vec<DeviceHealth>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct DeviceHealth {
    #[serde(rename = "resourceID")]
    pub(crate) id: String,
    #[serde(default)]
    pub(crate) health: String,
}

/// Gives the node an address and starts the kubelet. Returns its process.
pub(crate) fn start(guest: &mut Guest, prepared: &Prepared) -> Result<u32, GuestError> {
    guest.write(CONFIG_PATH, CONFIG)?;
    guest.run(&["mkdir", "-p", MANIFESTS])?;
    guest.shell(&format!("ip address replace {NODE_ADDRESS}/24 dev enp1s0; ip link set enp1s0 up"))?;
    let pid = launch(guest, prepared)?;
    guest.wait_for("the kubelet's registration socket", LIMIT, |guest| {
        Ok(inode(guest)?.ok_or("absent".into()))
    })?;
    Ok(pid)
}

/// Starts the kubelet and does not wait.
pub(crate) fn launch(guest: &mut Guest, prepared: &Prepared) -> Result<u32, GuestError> {
    let kubelet = prepared.kubernetes.join("kubelet").display().to_string();
    let node = format!("--hostname-override={NODE}");
    let address = format!("--node-ip={NODE_ADDRESS}");
    guest.start(program(&[&kubelet, &format!("--config={CONFIG_PATH}"), &node, &address, "--v=2"]), "kubelet")
}

/// The registration socket's inode: a restarted kubelet makes a new one.
pub(crate) fn inode(guest: &mut Guest) -> Result<Option<u64>, GuestError> {
    let output = guest.output(program(&["stat", "-c", "%i", REGISTRATION]), LIMIT)?;
    Ok(output.stdout.trim().parse().ok())
}

/// Every pod that the kubelet knows; none while it does not answer.
pub(crate) fn pods(guest: &mut Guest) -> Result<Vec<PodItem>, GuestError> {
    let argv = ["busybox", "wget", "-q", "-O", "-", PODS];
    let output = guest.output(program(&argv), LIMIT)?;
    if output.code != 0 {
        return Ok(Vec::new());
    }
    let list: PodList = serde_json::from_str(&output.stdout).map_err(|source| GuestError::NotJson {
        command: argv.join(" "),
        text: output.stdout,
        source,
    })?;
    Ok(list.items.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_without_pods_and_one_with_a_waiting_pod_are_read() {
        let none: PodList = serde_json::from_str(r#"{"kind":"PodList","items":null}"#).unwrap();
        assert!(none.items.is_none());
        let text = r#"{"items":[{"metadata":{"name":"a-lab"},"status":{"phase":"Pending","containerStatuses":
            [{"name":"main","state":{"waiting":{"reason":"ContainerCreating"}}}]}}]}"#;
        let one: PodList = serde_json::from_str(text).unwrap();
        let pod = &one.items.unwrap()[0];
        assert_eq!((pod.metadata.name.as_str(), pod.status.phase.as_str()), ("a-lab", "Pending"));
        assert!(pod.status.container_statuses[0].container_id.is_empty());
    }
}
