//! What keeps a node from giving what its pools promise about RDMA: pure judgement of one moment.
//!
//! Refuses to know who is told. All of it is a warning: a pod that needs none of what is missing runs.

use std::borrow::Borrow;
use std::fmt;

use super::memlock::MemoryLimit;
use super::node::{KernelRelease, RdmaNode};
use crate::cdi::NodeMethod;
use crate::config::{PoolConfig, PoolKind, PoolRdma};
use crate::resource::ResourceName;

/// The first kernel whose software RDMA devices can be used in a pod's network namespace in shared mode.
const SOFT_SHARED: KernelRelease = KernelRelease(7, 1);

/// The first kernel in which a software RDMA device can be moved into a pod's network namespace, as exclusive mode needs.
const SOFT_EXCLUSIVE: KernelRelease = KernelRelease(7, 3);

/// Something in the way of some pools.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Obstacle {
    /// What it is.
    pub cause: Cause,
    /// Which pools it is in the way of, in the order of the configuration.
    pub pools: Vec<ResourceName>,
}

/// What can be in the way.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// Shares are of a device on the host, which no pod can use in exclusive mode.
    SharesInExclusiveMode,
    /// The device moves into the pod, and its nodes are told by numbers that it has before.
    StaleNumbers,
    /// A software device has no nodes when the kubelet is answered.
    SoftWithoutCdi,
    /// The kernel makes no device nodes of RDMA devices.
    NoUverbs,
    /// The device node of the connection manager is missing.
    NoConnectionManager,
    /// The kernel is older than what software RDMA devices in pods need.
    OldKernel {
        /// Its release.
        release: KernelRelease,
        /// The first that is enough.
        needed: KernelRelease,
        /// Whether that is because of exclusive mode.
        exclusive: bool,
    },
    /// Containers may lock only so much memory.
    LockedMemory {
        /// The container runtime, by the name of its process.
        runtime: String,
        /// How much.
        limit: MemoryLimit,
    },
}

/// What is in the way of these pools on a node. `method` is `None` if it is not known how nodes reach containers.
#[must_use]
pub fn obstacles(
    pools: &[impl Borrow<PoolConfig>],
    node: &RdmaNode,
    method: Option<NodeMethod>,
) -> Vec<Obstacle> {
    let plain = method == Some(NodeMethod::Plain);
    let hardware = |pool: &PoolConfig| pool.gives_hardware_rdma();
    let soft = |pool: &PoolConfig| pool.gives_soft_rdma();
    let either = |pool: &PoolConfig| hardware(pool) || soft(pool);
    let moves = |pool: &PoolConfig| hardware(pool) && pool.shares.is_none();
    // Only a PCI function's device has a name that is right whenever it exists.
    let told_early = |pool: &PoolConfig| pool.rdma == PoolRdma::Plain || pool.kind == PoolKind::AuxNetDevice;
    let numbered = |pool: &PoolConfig| moves(pool) && (plain || told_early(pool));

    let mut found = Vec::new();
    let mut add = |is_so: bool, cause: Cause, concerns: &dyn Fn(&PoolConfig) -> bool| {
        let pools = pools.iter().map(Borrow::borrow).filter(|pool| concerns(pool));
        let pools: Vec<ResourceName> = pools.map(|pool| pool.resource.clone()).collect();
        if is_so && !pools.is_empty() {
            found.push(Obstacle { cause, pools });
        }
    };
    add(node.exclusive, Cause::SharesInExclusiveMode, &|pool| hardware(pool) && pool.shares.is_some());
    add(node.exclusive, Cause::StaleNumbers, &numbered);
    add(plain, Cause::SoftWithoutCdi, &soft);
    // The module of software devices brings it along.
    add(!node.uverbs, Cause::NoUverbs, &hardware);
    add(!node.connection_manager, Cause::NoConnectionManager, &either);
    let needed = if node.exclusive { SOFT_EXCLUSIVE } else { SOFT_SHARED };
    if let Some(release) = node.kernel.filter(|release| *release < needed) {
        add(true, Cause::OldKernel { release, needed, exclusive: node.exclusive }, &soft);
    }
    for (runtime, &limit) in &node.memory_limits {
        let cause = Cause::LockedMemory { runtime: runtime.clone(), limit };
        add(limit < MemoryLimit::Unlimited, cause, &either);
    }
    found
}

impl Cause {
    /// The cause in one word, for metrics.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::SharesInExclusiveMode => "shares_in_exclusive_mode",
            Self::StaleNumbers => "stale_numbers",
            Self::SoftWithoutCdi => "soft_without_cdi",
            Self::NoUverbs => "no_uverbs",
            Self::NoConnectionManager => "no_connection_manager",
            Self::OldKernel { .. } => "old_kernel",
            Self::LockedMemory { .. } => "locked_memory",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SharesInExclusiveMode => out.write_str(
                "no pod can use a share of an RDMA device, because the node's RDMA subsystem is in exclusive mode; set \
                 shared mode (options ib_core netns_mode=1, and boot), or give VFs with isRdma instead of shares",
            ),
            Self::StaleNumbers => out.write_str(
                "a container may miss the nodes of its RDMA device or have another's, because the node's RDMA subsystem \
                 is in exclusive mode, where an RDMA device gets other nodes when it goes into a pod, and these are told \
                 beforehand; let a VF's nodes be told by CDI (\"cdi\": \"on\", or kubelet 1.31 with containerd 2.0 or \
                 CRI-O 1.23) and remove \"rdma\": \"plain\" from the pool, which needs the CNI plugin zerobridge, or set shared \
                 mode, which is all there is for scalable functions",
            ),
            Self::SoftWithoutCdi => out.write_str(
                "no container gets a software RDMA device, because its nodes can be told by CDI only, and this node \
                 tells them plainly; use kubelet 1.31 with containerd 2.0 or CRI-O 1.23, or write \"cdi\": \"on\" where \
                 the runtime has CDI switched on",
            ),
            Self::NoUverbs => {
                out.write_str("RDMA devices have no device nodes; load the module ib_uverbs, at boot too")
            }
            Self::NoConnectionManager => out.write_str(
                "programs that use RDMA-CM will not work, because there is no /dev/infiniband/rdma_cm; load the module \
                 rdma_ucm, at boot too",
            ),
            Self::OldKernel { release, needed, exclusive } => {
                let mode = if *exclusive { "exclusive" } else { "shared" };
                write!(
                    out,
                    "software RDMA devices do not work in pods, because the kernel is {release}, and in {mode} mode they \
                     need {needed}; use a newer kernel"
                )?;
                if *exclusive { write!(out, ", or shared mode with {SOFT_SHARED}") } else { Ok(()) }
            }
            Self::LockedMemory { runtime, limit } => write!(
                out,
                "a container without the capability IPC_LOCK can register {limit} of memory for RDMA, because that is \
                 the limit of {runtime}; write LimitMEMLOCK=infinity into its systemd unit and restart it, or add \
                 IPC_LOCK to the containers"
            ),
        }
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pools: Vec<String> = self.pools.iter().map(ToString::to_string).collect();
        write!(out, "{}: {}", pools.join(", "), self.cause)
    }
}

#[cfg(test)]
mod tests;
