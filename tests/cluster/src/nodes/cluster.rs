//! The cluster as a scenario sees it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use serde_json::Value;
use tokio::runtime::Runtime;
use zerobridge_lab::{
    Cache, HOST_ADDRESS, Place, Prepared, Progress, cluster_programs, look_until, multus, prepare,
};

use super::error::ClusterError;
use super::kubectl::Kubectl;
use super::network::DEFINITIONS;
use super::node::{ClusterNode, Plan, name_of};
use super::{controllers, report, users, ways};
use crate::control_plane::{ControlPlane, ForNodes, PREFIX};
use crate::process::Process;

const POLL: Duration = Duration::from_millis(500);
/// From power to Ready, on a machine that has better things to do.
const BOOT_LIMIT: Duration = Duration::from_secs(300);

/// What a cluster consists of.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// How many nodes, 1 or 2: `n1`, `n2`.
    pub nodes: u8,
    /// Whether each has Multus and a default network. Without, nothing configures the network: the nodes are registered, and
    /// Ready when somebody has.
    pub multus: bool,
    /// VFs on each card (`enp1s0`, `enp2s0` …), at most 7.
    pub vfs: Vec<u8>,
    /// Archives of images that every node knows, beside the lab's own two.
    pub images: Vec<PathBuf>,
}

impl Default for ClusterOptions {
    fn default() -> Self {
        Self { nodes: 2, multus: true, vfs: vec![7, 4], images: Vec::new() }
    }
}

/// A running cluster; ends when it is dropped.
#[derive(Debug)]
pub struct Cluster {
    // Fields drop in this order: whoever uses a thing before it.
    nodes: Vec<ClusterNode>,
    _controllers: Process,
    _scheduler: Process,
    kubectl: Kubectl,
    plane: ControlPlane,
    runtime: Runtime,
    prepared: Prepared,
}

impl Cluster {
    /// Starts the control plane, boots the nodes, and waits until they are Ready or, without a network, registered.
    ///
    /// # Errors
    /// What does not come up, with a report of everything that did.
    pub fn start(options: &ClusterOptions, progress: &Progress) -> Result<Self, ClusterError> {
        if !(1..=2).contains(&options.nodes) {
            return Err(ClusterError::Nodes { nodes: options.nodes });
        }
        let cache = Cache::from_environment()?;
        let prepared = prepare(&cache, progress)?;
        let programs = cluster_programs(&cache, progress)?;
        let multus = options.multus.then(|| multus(&cache, progress)).transpose()?;
        let mut cluster = progress.step(
            "control plane",
            || Self::control_plane(options, prepared, programs, multus),
            |cluster| format!("at port {} of the loopback", cluster.plane.port()),
        )?;
        if options.multus {
            cluster.apply(DEFINITIONS)?;
        }
        progress.step(
            &format!("nodes: {}", options.nodes),
            || {
                cluster.boot(options.multus).map_err(|source| ClusterError::NotUp {
                    report: cluster.report(),
                    source: Box::new(source),
                })
            },
            |()| if options.multus { "Ready" } else { "registered" }.to_owned(),
        )?;
        Ok(cluster)
    }

    fn control_plane(
        options: &ClusterOptions,
        prepared: Prepared,
        programs: PathBuf,
        multus: Option<PathBuf>,
    ) -> Result<Self, ClusterError> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.map_err(ClusterError::Threads)?;
        let folder = Place::make(PREFIX)?;
        let members = ways::members(options.nodes, folder.path())?;
        let names: Vec<String> = members.iter().map(|member| name_of(member.number)).collect();
        let for_nodes = ForNodes {
            tokens: users::tokens(&names),
            egress: runtime.block_on(async { ways::open(folder.path(), &members) })?,
        };
        let plane = runtime.block_on(ControlPlane::start_for_nodes(folder, for_nodes))?;
        let controllers = controllers::start(&programs, &plane)?;
        let scheduler = controllers::start_scheduler(&programs, &plane)?;
        let kubectl = Kubectl {
            program: programs.join("kubectl"),
            kubeconfig: plane.kubeconfig()?,
            home: plane.folder().to_owned(),
        };
        let authority = plane.authority();
        let mut images = vec![prepared.image.clone(), prepared.rdma_image.clone()];
        images.extend(options.images.iter().cloned());
        let plan = Arc::new(Plan {
            prepared: prepared.clone(),
            programs,
            multus,
            vfs: options.vfs.clone(),
            images,
            server: format!("https://{HOST_ADDRESS}:{}", plane.port()),
            authority: fs::read_to_string(&authority).map_err(ClusterError::file("read", authority))?,
            nodes: members.iter().map(|member| (member.number, member.address())).collect(),
        });
        let nodes = members.into_iter().map(|member| ClusterNode::new(member, Arc::clone(&plan)));
        let nodes = nodes.collect::<Result<_, _>>()?;
        let (_controllers, _scheduler) = (controllers, scheduler);
        Ok(Self { nodes, _controllers, _scheduler, kubectl, plane, runtime, prepared })
    }

    fn boot(&mut self, until_ready: bool) -> Result<(), ClusterError> {
        // Side by side. A VM ends with the thread that it has started for it, not with the one that called.
        let outcomes: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = self.nodes.iter_mut().map(|node| scope.spawn(|| node.power_on())).collect();
            threads.into_iter().map(|thread| thread.join()).collect()
        });
        for outcome in outcomes {
            outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        (0..self.nodes.len()).try_for_each(|index| {
            if until_ready { self.wait_ready(index) } else { self.wait_registered(index) }
        })
    }

    /// Where its files are on the host; the folder ends with it.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.plane.folder()
    }

    /// Where the kubeconfig of an administrator is.
    #[must_use]
    pub fn kubeconfig(&self) -> &Path {
        &self.kubectl.kubeconfig
    }

    /// Where kubectl is, of the cluster's own version.
    #[must_use]
    pub fn kubectl_program(&self) -> &Path {
        &self.kubectl.program
    }

    /// What the lab has cached, such as its images.
    #[must_use]
    pub fn prepared(&self) -> &Prepared {
        &self.prepared
    }

    /// Runs kubectl with the rights of an administrator; returns its standard output.
    ///
    /// # Errors
    /// [`ClusterError::Failed`] with all it said.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String, ClusterError> {
        self.kubectl.run(arguments, "")
    }

    /// As [`kubectl`](Self::kubectl), with `-o json`.
    ///
    /// # Errors
    /// As there, and [`ClusterError::NotJson`].
    pub fn kubectl_json(&self, arguments: &[&str]) -> Result<Value, ClusterError> {
        let arguments: Vec<&str> = arguments.iter().copied().chain(["-o", "json"]).collect();
        let command = format!("kubectl {}", arguments.join(" "));
        serde_json::from_str(&self.kubectl(&arguments)?)
            .map_err(|source| ClusterError::NotJson { command, source })
    }

    /// `kubectl apply` of the manifests in `text`.
    ///
    /// # Errors
    /// As [`kubectl`](Self::kubectl).
    pub fn apply(&self, text: &str) -> Result<String, ClusterError> {
        self.kubectl.run(&["apply", "-f", "-"], text)
    }

    /// A client with all rights, to be used within [`block_on`](Self::block_on).
    ///
    /// # Errors
    /// [`ClusterError::ControlPlane`].
    pub fn client(&self) -> Result<Client, ClusterError> {
        Ok(self.block_on(self.plane.client())?)
    }

    /// Runs what is asynchronous.
    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// The control plane, to stop the API server and to start it again (within [`block_on`](Self::block_on)).
    pub fn control_plane_mut(&mut self) -> (&mut ControlPlane, &Runtime) {
        (&mut self.plane, &self.runtime)
    }

    /// How many nodes there are, on or off.
    #[must_use]
    pub fn nodes(&self) -> usize {
        self.nodes.len()
    }

    /// Node `index`, counted from 0.
    ///
    /// # Errors
    /// [`ClusterError::NoNode`].
    pub fn node(&mut self, index: usize) -> Result<&mut ClusterNode, ClusterError> {
        let nodes = self.nodes.len();
        self.nodes.get_mut(index).ok_or(ClusterError::NoNode { index, nodes })
    }

    /// Makes the image in an archive of the host known to every node that is on.
    ///
    /// # Errors
    /// As [`ClusterNode::import_image`].
    pub fn import_image(&mut self, archive: &Path) -> Result<(), ClusterError> {
        let mut on = self.nodes.iter_mut().filter(|node| node.is_on());
        on.try_for_each(|node| node.import_image(archive))
    }

    /// Takes the power from node `index` at once: what is not on its disk is lost, and nobody is told.
    ///
    /// # Errors
    /// [`ClusterError::NoNode`].
    pub fn power_off(&mut self, index: usize) -> Result<(), ClusterError> {
        self.node(index)?.power_off();
        Ok(())
    }

    /// Boots node `index` and starts its programs. It is not waited for: see [`wait_ready`](Self::wait_ready).
    ///
    /// # Errors
    /// What does not come up.
    pub fn power_on(&mut self, index: usize) -> Result<(), ClusterError> {
        self.node(index)?.power_on()
    }

    /// Looks again and again until `look` returns `Ok(Ok(_))`. `Ok(Err(_))` says what was seen instead.
    ///
    /// # Errors
    /// [`ClusterError::TooLate`] with the last look when `limit` is over; any other error of `look` at once.
    pub fn wait_for<T>(
        &mut self,
        what: &str,
        limit: Duration,
        mut look: impl FnMut(&mut Self) -> Result<Result<T, String>, ClusterError>,
    ) -> Result<T, ClusterError> {
        look_until(limit, POLL, || look(self))?.map_err(|last| ClusterError::TooLate {
            what: what.to_owned(),
            limit,
            last,
        })
    }

    /// Waits until the kubelet of this boot of node `index` has said that the node is Ready, and Services work on it: in
    /// emulation the first set of rules takes its time.
    ///
    /// # Errors
    /// [`ClusterError::TooLate`] with what was seen last.
    pub fn wait_ready(&mut self, index: usize) -> Result<(), ClusterError> {
        self.wait_node(index, "is Ready", |node| {
            let mut conditions = node["status"]["conditions"].as_array().into_iter().flatten();
            conditions.any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
        })?;
        self.node(index)?.wait_services(BOOT_LIMIT)
    }

    /// Waits until the kubelet of this boot of node `index` is known to the API server.
    ///
    /// # Errors
    /// [`ClusterError::TooLate`].
    pub fn wait_registered(&mut self, index: usize) -> Result<(), ClusterError> {
        self.wait_node(index, "is registered", |_| true)
    }

    fn wait_node(
        &mut self,
        index: usize,
        what: &str,
        holds: impl Fn(&Value) -> bool,
    ) -> Result<(), ClusterError> {
        let node = self.node(index)?;
        let name = node.name().to_owned();
        let boot = node.guest()?.run(&["cat", "/proc/sys/kernel/random/boot_id"]);
        let boot = boot.map_err(|source| ClusterError::Guest { node: name.clone(), source })?;
        self.wait_for(&format!("node {name} {what}"), BOOT_LIMIT, |cluster| {
            let node = match cluster.kubectl_json(&["get", "node", &name]) {
                Ok(node) => node,
                Err(error) => return Ok(Err(error.to_string())),
            };
            let of_this_boot = node["status"]["nodeInfo"]["bootID"] == boot.trim();
            Ok(if of_this_boot && holds(&node) {
                Ok(())
            } else {
                Err(node["status"]["conditions"].to_string())
            })
        })
    }

    /// Waits until the pods of a DaemonSet or Deployment, such as `deployment/web`, are as it wants them.
    ///
    /// # Errors
    /// As [`kubectl`](Self::kubectl).
    pub fn wait_rollout(&self, namespace: &str, what: &str, limit: Duration) -> Result<(), ClusterError> {
        let timeout = format!("--timeout={}s", limit.as_secs());
        self.kubectl(&["-n", namespace, "rollout", "status", what, &timeout]).map(drop)
    }

    /// Waits until something, such as `pod/a`, has a condition, such as `Ready`.
    ///
    /// # Errors
    /// As [`kubectl`](Self::kubectl).
    pub fn wait_condition(
        &self,
        namespace: &str,
        what: &str,
        condition: &str,
        limit: Duration,
    ) -> Result<(), ClusterError> {
        let condition = format!("--for=condition={condition}");
        let timeout = format!("--timeout={}s", limit.as_secs());
        self.kubectl(&["-n", namespace, "wait", &condition, &timeout, what]).map(drop)
    }

    /// Everything that a person needs to see after a failure: objects, events, and the logs of every program, as text.
    #[must_use]
    pub fn report(&mut self) -> String {
        report::report(self)
    }

    pub(super) fn nodes_mut(&mut self) -> &mut [ClusterNode] {
        &mut self.nodes
    }
}
