//! Static pods: submit, wait, look inside, delete.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::container::{LOCK, USER};
use super::kubelet::{self, MANIFESTS, NODE, PodItem};
use super::runtime::TASKS;
use crate::machine::{Guest, GuestError, Output, program, succeeded};
use crate::prepare::{IMAGE, RDMA_IMAGE};

const LIMIT: Duration = Duration::from_secs(180);
const COMMAND_LIMIT: Duration = Duration::from_secs(60);
/// Ends at once when told to, which a first process does not do by itself.
const IDLE: &str = "trap 'exit 0' TERM; while :; do sleep 3600 & wait $!; done";

/// Becomes a member of a process's control group (the one line of a unified hierarchy is `0::PATH`), then enters its
/// namespaces.
const ENTER: &str = r#"
pid=$1
shift
echo $$ > "/sys/fs/cgroup$(cut -d: -f3 "/proc/$pid/cgroup")/cgroup.procs"
exec nsenter --target "$pid" --mount --uts --ipc --net --pid --cgroup --root --wd -- "$@"
"#;

/// What a pod asks for.
#[derive(Clone, Debug)]
pub struct PodRequest {
    /// Its name; the kubelet adds the node's.
    pub name: String,
    /// Extended resources and how many of each.
    pub resources: BTreeMap<String, u32>,
    /// Whether it stays in the node's network namespace, for which no CNI plugin is called.
    pub host_network: bool,
    /// Whether it is of [`RDMA_IMAGE`], which [`Node::import_rdma_image`](super::Node::import_rdma_image) makes known, and
    /// has none of root's rights.
    pub verbs: bool,
    /// The port at which it answers HTTP, and which the kubelet asks whether it is ready; `None` for a pod that is ready as
    /// soon as it runs.
    pub serves: Option<u16>,
}

/// A pod that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Its name without the node's.
    pub name: String,
    /// Its address, as the kubelet reports it; empty in the node's network namespace.
    pub ip: String,
    /// Its container's first process, in the guest's numbering.
    pub pid: u32,
    /// Its container's ID.
    pub container: String,
    /// The name of its network namespace below `/run/netns`; empty if it is the node's.
    pub netns: String,
}

/// An address of a link, as `ip -j addr` prints it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct LinkAddresses {
    /// The link's name.
    pub ifname: String,
    /// The PCI function behind it, if there is one.
    #[serde(default)]
    pub parentdev: Option<String>,
    /// What kind of virtual link it is, if it is one.
    #[serde(default)]
    pub linkinfo: Option<crate::network::LinkInfo>,
    /// Its addresses.
    #[serde(default)]
    pub addr_info: Vec<Address>,
}

/// One address.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Address {
    /// `inet` or `inet6`.
    pub family: String,
    /// The address.
    pub local: String,
    /// Its prefix length.
    pub prefixlen: u8,
    /// `global`, `link` or `host`.
    pub scope: String,
}

impl PodRequest {
    /// A pod that asks for one device of `resource`.
    #[must_use]
    pub fn with_one(name: &str, resource: &str) -> Self {
        let resources = BTreeMap::from([(resource.to_owned(), 1)]);
        Self { name: name.into(), resources, host_network: false, verbs: false, serves: None }
    }

    /// A pod that asks for one device of `resource` and runs verbs programs as nobody, with the capability to lock memory.
    #[must_use]
    pub fn with_verbs(name: &str, resource: &str) -> Self {
        Self { verbs: true, ..Self::with_one(name, resource) }
    }

    /// A pod that asks for one device of `resource` and is ready when the kubelet reaches its HTTP server at `port`.
    #[must_use]
    pub fn serving(name: &str, resource: &str, port: u16) -> Self {
        Self { serves: Some(port), ..Self::with_one(name, resource) }
    }

    /// A pod in the node's network namespace that asks for one device of each of `resources`.
    #[must_use]
    pub fn on_host_network(name: &str, resources: &[&str]) -> Self {
        let resources = resources.iter().map(|resource| ((*resource).to_owned(), 1)).collect();
        Self { name: name.into(), resources, host_network: true, verbs: false, serves: None }
    }

    /// Its manifest.
    #[must_use]
    pub fn manifest(&self) -> Value {
        let amounts: BTreeMap<&str, String> =
            self.resources.iter().map(|(name, count)| (name.as_str(), count.to_string())).collect();
        json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": self.name, "namespace": "default"},
            "spec": {
                "terminationGracePeriodSeconds": 5,
                "hostNetwork": self.host_network,
                "containers": [{
                    "name": "main",
                    "image": if self.verbs { RDMA_IMAGE } else { IMAGE },
                    "imagePullPolicy": "Never",
                    "command": ["sh", "-c", self.command()],
                    "resources": {"limits": amounts, "requests": amounts},
                    "securityContext": self.verbs.then(unprivileged),
                    "readinessProbe": self.serves.map(|port| json!({
                        "httpGet": {"path": "/", "port": port}, "periodSeconds": 1, "timeoutSeconds": 2,
                    })),
                }],
            },
        })
    }
}

impl PodRequest {
    fn command(&self) -> String {
        match self.serves {
            Some(port) => {
                format!("mkdir -p /www; echo here > /www/index.html; httpd -p {port} -h /www; {IDLE}")
            }
            None => IDLE.to_owned(),
        }
    }
}

/// As a cluster's strictest policy wants it ("restricted"), but for one capability.
fn unprivileged() -> Value {
    json!({
        "runAsNonRoot": true,
        "runAsUser": USER,
        "runAsGroup": USER,
        "allowPrivilegeEscalation": false,
        "capabilities": {"drop": ["ALL"], "add": [LOCK]},
        "seccompProfile": {"type": "RuntimeDefault"},
    })
}

impl Pod {
    /// Runs a program in the pod's container: its control group, all its namespaces, its root. It keeps root's
    /// capabilities, so what it is refused is refused by one of those.
    ///
    /// # Errors
    /// When it could not be started, or the VM is lost.
    pub fn output(&self, guest: &mut Guest, argv: &[&str]) -> Result<Output, GuestError> {
        let pid = self.pid.to_string();
        guest.output(program(&[&["sh", "-ec", ENTER, "enter", &pid], argv].concat()), COMMAND_LIMIT)
    }

    /// [`Pod::output`] of a program that must succeed.
    ///
    /// # Errors
    /// With everything the program said when it failed.
    pub fn run(&self, guest: &mut Guest, argv: &[&str]) -> Result<String, GuestError> {
        let output = self.output(guest, argv)?;
        succeeded(&format!("{}: {}", self.name, argv.join(" ")), output)
    }

    /// Whether `address` answers to one of three echo requests from the pod.
    ///
    /// # Errors
    /// When the pod cannot be entered, or the VM is lost.
    pub fn reaches(&self, guest: &mut Guest, address: &str) -> Result<bool, GuestError> {
        Ok(self.output(guest, &["ping", "-c", "3", "-W", "2", "-A", address])?.code == 0)
    }

    /// The links in the pod's network namespace with their addresses.
    ///
    /// # Errors
    /// When the guest cannot say, or the VM is lost.
    pub fn addresses(&self, guest: &mut Guest) -> Result<Vec<LinkAddresses>, GuestError> {
        guest.json(&["ip", "-n", &self.netns, "-j", "-d", "addr"])
    }

    /// The environment that the container was started with.
    ///
    /// # Errors
    /// When the process is gone, or the VM is lost.
    pub fn environment(&self, guest: &mut Guest) -> Result<BTreeMap<String, String>, GuestError> {
        let text = guest.read(&format!("/proc/{}/environ", self.pid))?.unwrap_or_default();
        let pairs = text.split('\0').filter_map(|pair| pair.split_once('='));
        Ok(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }
}

/// Hands a manifest to the kubelet and does not wait.
pub(crate) fn submit(guest: &mut Guest, request: &PodRequest) -> Result<(), GuestError> {
    guest.write(&format!("{MANIFESTS}/{}.json", request.name), &request.manifest().to_string())
}

/// Waits until the pod's container runs and, unless it is in the node's network namespace, it has an address.
pub(crate) fn wait_running(guest: &mut Guest, name: &str) -> Result<Pod, GuestError> {
    guest.wait_for(&format!("pod {name} running"), LIMIT, |guest| look(guest, name))
}

fn look(guest: &mut Guest, name: &str) -> Result<Result<Pod, String>, GuestError> {
    let Some(item) = find(guest, name)? else { return Ok(Err("the kubelet does not know it".into())) };
    let status = &item.status;
    let seen = format!("{} {} {}", status.phase, status.reason, status.message);
    let Some(container) = status.container_statuses.first().filter(|one| !one.state["running"].is_null())
    else {
        let waiting = status.container_statuses.first().map(|one| one.state.to_string());
        return Ok(Err(format!("{seen} {}", waiting.unwrap_or_default())));
    };
    let id = container.container_id.trim_start_matches("containerd://").to_owned();
    let pid = guest.read(&format!("{TASKS}/{id}/init.pid"))?;
    let Some(pid) = pid.and_then(|text| text.trim().parse().ok()) else {
        return Ok(Err(format!("container {id} has no process")));
    };
    let netns = guest.run(&["ip", "netns", "identify", &format!("{pid}")])?.trim().to_owned();
    // A kubelet without an API server gives no address to a pod in the node's network namespace.
    if status.pod_ip.is_empty() && !netns.is_empty() {
        return Ok(Err(format!("{seen}, without an address")));
    }
    Ok(Ok(Pod { name: name.into(), ip: status.pod_ip.clone(), pid, container: id, netns }))
}

/// Whether the kubelet says that the pod is ready.
pub(crate) fn is_ready(guest: &mut Guest, name: &str) -> Result<bool, GuestError> {
    let conditions = find(guest, name)?.map(|item| item.status.conditions).unwrap_or_default();
    Ok(conditions.iter().any(|condition| condition.kind == "Ready" && condition.status == "True"))
}

/// What the kubelet says about a pod that is not to run: its phase, reason and message.
pub(crate) fn describe(guest: &mut Guest, name: &str) -> Result<Option<String>, GuestError> {
    Ok(find(guest, name)?
        .map(|item| format!("{} {} {}", item.status.phase, item.status.reason, item.status.message)))
}

/// The devices that a pod was given and how the kubelet says that they fare: `Healthy`, `Unhealthy` or `Unknown`.
pub(crate) fn device_health(guest: &mut Guest, name: &str) -> Result<BTreeMap<String, String>, GuestError> {
    let containers = find(guest, name)?.map(|item| item.status.container_statuses).unwrap_or_default();
    let resources = containers.into_iter().flat_map(|container| container.allocated_resources_status);
    Ok(resources.flat_map(|resource| resource.resources).map(|device| (device.id, device.health)).collect())
}

fn find(guest: &mut Guest, name: &str) -> Result<Option<PodItem>, GuestError> {
    let full = format!("{name}-{NODE}");
    Ok(kubelet::pods(guest)?.into_iter().find(|item| item.metadata.name == full))
}

/// Takes the manifest away and does not wait.
pub(crate) fn withdraw(guest: &mut Guest, name: &str) -> Result<(), GuestError> {
    guest.run(&["rm", "-f", &format!("{MANIFESTS}/{name}.json")])?;
    Ok(())
}

/// Waits until the container and the network namespace of a withdrawn pod are gone: the runtime removes the namespace
/// after the CNI plugin's DEL.
pub(crate) fn wait_gone(guest: &mut Guest, pod: &Pod) -> Result<(), GuestError> {
    guest.wait_for(&format!("the end of pod {}", pod.name), LIMIT, |guest| {
        if guest.exists(&format!("{TASKS}/{}", pod.container))? {
            return Ok(Err(format!("container {} exists", pod.container)));
        }
        let list = guest.run(&["ip", "netns", "list"])?;
        let alive = list.split_whitespace().any(|name| name == pod.netns);
        Ok(if alive { Err(format!("{} exists", pod.netns)) } else { Ok(()) })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_extended_resource_is_requested_and_limited_alike() {
        let manifest = PodRequest::with_one("a", "zerobridge.io/vf").manifest();
        let resources = &manifest["spec"]["containers"][0]["resources"];
        assert_eq!(resources["limits"]["zerobridge.io/vf"], "1");
        assert_eq!(resources["limits"], resources["requests"]);
    }

    #[test]
    fn only_a_pod_with_verbs_is_without_privileges() {
        let container = |request: PodRequest| request.manifest()["spec"]["containers"][0].clone();
        let usual = container(PodRequest::with_one("a", "zerobridge.io/vf"));
        assert_eq!((&usual["image"], &usual["securityContext"]), (&json!(IMAGE), &Value::Null));
        let verbs = container(PodRequest::with_verbs("a", "zerobridge.io/vf"));
        assert_eq!(
            (&verbs["image"], &verbs["securityContext"]["runAsUser"]),
            (&json!(RDMA_IMAGE), &json!(65534))
        );
    }
}
