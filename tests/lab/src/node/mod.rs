//! A Kubernetes node in the guest: containerd, a standalone kubelet, the device plugin and the CNI plugin.

mod allocatable;
mod container;
mod device_plugin;
mod kubelet;
mod metrics;
mod pod;
mod runtime;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use crate::machine::{Guest, GuestError};
use crate::prepare::Prepared;
use crate::programs::Programs;

pub use allocatable::{Change, Followed, Waited, Watch, Watched};
pub use device_plugin::{METRICS, Usage};
pub use metrics::Metrics;
pub use pod::{Address, LinkAddresses, Pod, PodRequest};
pub use runtime::{import as import_image, launch as launch_runtime};

/// Where the runtime looks for the CNI configuration.
pub const CNI_CONFIG: &str = "/etc/cni/net.d/10-zerobridge.conflist";
const LIMIT: Duration = Duration::from_secs(120);

/// The resource whose pods are in VLAN 100.
pub const BLUE: &str = "zerobridge.io/vf";
/// The resource whose pods are in VLAN 200.
pub const GREEN: &str = "zerobridge.io/vf-green";

/// The running node.
#[derive(Debug)]
pub struct Node {
    prepared: Prepared,
    /// The device plugin's program.
    program: PathBuf,
    kubelet: u32,
    device_plugin: u32,
    /// How many programs of each kind have been started, for the names of their logs.
    started: u32,
}

/// The lab's two pools: of each card the first two VFs are [`BLUE`], the next two are [`GREEN`].
#[must_use]
pub fn device_config() -> Value {
    json!({"pools": [
        {"resourceName": "vf", "selectors": {"pfNames": ["enp1s0#0-1", "enp2s0#0-1"]}},
        {"resourceName": "vf-green", "selectors": {"pfNames": ["enp1s0#2-3", "enp2s0#2-3"]}},
    ]})
}

/// The lab's CNI configuration: the resource that a pod was given chooses its network.
#[must_use]
pub fn cni_config() -> Value {
    let ipam = |range: Value| json!({"type": "zerobridge-ipam", "ranges": [[range]]});
    json!({"cniVersion": "1.1.0", "name": "pods", "plugins": [{"type": "zerobridge", "networks": [
        {"name": "blue", "resourceName": BLUE, "vlan": 100, "ipam": ipam(json!({"subnet": "10.100.0.0/24"}))},
        {"name": "green", "resourceName": GREEN, "vlan": 200,
         "ipam": ipam(json!({"subnet": "10.100.0.0/24", "rangeStart": "10.100.0.128"}))},
    ]}]})
}

impl Node {
    /// Starts the node on a guest that has four VFs on each of two cards, and waits until both resources are
    /// allocatable: a pod that comes before its resource would be admitted without a device.
    ///
    /// # Errors
    /// The first thing that does not come up.
    pub fn start(guest: &mut Guest, prepared: &Prepared, programs: &Programs) -> Result<Self, GuestError> {
        programs.install_plugins(guest)?;
        programs.install_command(guest)?;
        guest.write(CNI_CONFIG, &cni_config().to_string())?;
        device_plugin::configure(guest, &device_config())?;
        runtime::start(guest, prepared)?;
        let kubelet = kubelet::start(guest, prepared)?;
        let program = PathBuf::from(programs.device_plugin());
        let device_plugin = device_plugin::launch(guest, &program, &[], "device-plugin")?;
        let mut node = Self { prepared: prepared.clone(), program, kubelet, device_plugin, started: 0 };
        for resource in [BLUE, GREEN] {
            node.wait_allocatable(guest, resource, 4, LIMIT, None)?;
        }
        Ok(node)
    }

    /// `lab-guest` as the guest sees it.
    fn guest_program(&self) -> String {
        self.prepared.guest.display().to_string()
    }

    /// A name for the log of one more program of a kind.
    fn log_name(&mut self, kind: &str) -> String {
        self.started += 1;
        format!("{kind}-{}", self.started)
    }

    /// The processes of the kubelet and of the device plugin.
    #[must_use]
    pub fn processes(&self) -> (u32, u32) {
        (self.kubelet, self.device_plugin)
    }

    /// Submits all pods, then waits for each to run.
    ///
    /// # Errors
    /// When one does not.
    pub fn run_pods(&mut self, guest: &mut Guest, requests: &[PodRequest]) -> Result<Vec<Pod>, GuestError> {
        for request in requests {
            pod::submit(guest, request)?;
        }
        requests.iter().map(|request| pod::wait_running(guest, &request.name)).collect()
    }

    /// Submits one pod and does not wait.
    ///
    /// # Errors
    /// When the manifest cannot be written.
    pub fn submit(&mut self, guest: &mut Guest, request: &PodRequest) -> Result<(), GuestError> {
        pod::submit(guest, request)
    }

    /// The running pod of that name, as it is now.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pod(&mut self, guest: &mut Guest, name: &str) -> Result<Pod, GuestError> {
        pod::wait_running(guest, name)
    }

    /// Phase, reason and message of a pod; `None` if the kubelet does not know it.
    ///
    /// # Errors
    /// When the VM is lost.
    pub fn describe(&mut self, guest: &mut Guest, name: &str) -> Result<Option<String>, GuestError> {
        pod::describe(guest, name)
    }

    /// The devices that a pod was given, by ID, and how the kubelet says that they fare: `Healthy`, `Unhealthy` or
    /// `Unknown`.
    ///
    /// # Errors
    /// When the VM is lost.
    pub fn device_health(
        &mut self,
        guest: &mut Guest,
        name: &str,
    ) -> Result<BTreeMap<String, String>, GuestError> {
        pod::device_health(guest, name)
    }

    /// Whether the kubelet says that a pod is ready.
    ///
    /// # Errors
    /// When the VM is lost.
    pub fn is_ready(&mut self, guest: &mut Guest, name: &str) -> Result<bool, GuestError> {
        pod::is_ready(guest, name)
    }

    /// Deletes pods and waits until their containers and network namespaces are gone.
    ///
    /// # Errors
    /// When one stays.
    pub fn delete_pods(&mut self, guest: &mut Guest, pods: &[Pod]) -> Result<(), GuestError> {
        for pod in pods {
            pod::withdraw(guest, &pod.name)?;
        }
        pods.iter().try_for_each(|pod| pod::wait_gone(guest, pod))
    }

    /// Takes away the manifest of a pod that never ran.
    ///
    /// # Errors
    /// When it cannot be taken away.
    pub fn withdraw(&mut self, guest: &mut Guest, name: &str) -> Result<(), GuestError> {
        pod::withdraw(guest, name)
    }

    /// Kills the kubelet with SIGKILL and starts it again. Returns the old registration socket's inode.
    ///
    /// # Errors
    /// When it cannot be killed or started.
    pub fn restart_kubelet(&mut self, guest: &mut Guest) -> Result<Option<u64>, GuestError> {
        let old = kubelet::inode(guest)?;
        guest.kill(self.kubelet)?;
        self.kubelet = kubelet::launch(guest, &self.prepared)?;
        Ok(old)
    }
}
