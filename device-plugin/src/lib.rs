//! The node daemon: offers VFs to the kubelet as extended resources, and tells containers about the VFs they are given.
//!
//! Knows pools, selectors and the kubelet's registration, and claims blocks of addresses for the node. Refuses to know how
//! a VF gets into a pod and which address it has there: that is the CNI plugin's part.
#![forbid(unsafe_code)]

mod allocation;
mod answers;
mod blocking;
mod boot_list;
mod cdi;
mod cli;
mod cluster;
mod config;
mod daemon;
mod debounce;
mod device;
mod device_info;
mod duration;
mod explanation;
mod folder_watch;
mod health;
mod inventory;
mod kubelet;
mod leg;
mod lookout;
mod observer;
mod operations;
mod own_files;
mod pod_resources;
mod pool;
mod preference;
mod protection;
mod rdma;
mod reconcile;
mod release;
mod resource;
mod selector;

pub use allocation::{Allocation, AllocationError, Allocator, AllocatorError, Delivery, Nodes, allocate};
pub use boot_list::BootListError;
pub use cdi::{CdiError, CdiFolder, NodeMethod};
pub use cli::{Cli, LogFormat};
pub use cluster::{ApiAccess, IpBlocks};
pub use config::{
    CdiMode, Config, ConfigError, ConfigFile, Format, LegAddresses, LegConfig, LegKind, MOST_SHARES,
    NodeConfig, NodeIdentity, Notice, PoolConfig, PoolKind, PoolRdma, PortName,
};
pub use daemon::{ConfigurationError, DaemonError, PresenceError, Settings, dry_run, node_config, run};
pub use device::{Device, DeviceId, DeviceIdError, Hardware};
pub use device_info::DeviceInfoFolder;
pub use explanation::{Explanation, Outcome, PoolExplanation, Problem, explain};
pub use health::{Check, HealthPolicy, Policy};
pub use kubelet::{EndpointError, is_served};
pub use leg::{LegStanding, LegStatus, LegsError, end_legs, look_at_legs};
pub use observer::{Needs, ObserveError, Observer, Roots};
pub use own_files::own_files;
pub use pod_resources::{Held, Holder};
pub use pool::{Holdings, Surroundings, Withheld};
pub use preference::{Neighbour, Place, Preference, neighbours, prefer};
pub use protection::{HostUse, host_use};
pub use rdma::{Cause, KernelRelease, MemoryLimit, Obstacle, RdmaNode, obstacles};
pub use reconcile::{Cause as RepairCause, Decision, Reconciler, Reconciliation, Repair, Report};
pub use resource::{DEFAULT_PREFIX, ResourceName, ResourceNameError};
pub use selector::{
    Candidate, HexId, Indexes, PartitionKey, PfSelector, PortMatch, RootSelector, Selector, SelectorError,
    Selectors, Subject, VdpaType, Verdict,
};
pub use zerobridge_cni_sriov::documents::{Document, DocumentError};
