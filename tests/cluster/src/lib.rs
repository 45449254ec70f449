//! Clusters of real programs. [`ControlPlane`]: etcd and the API server as processes of this machine, on loopback, in a folder
//! that goes with it; no controllers, no nodes. [`Cluster`]: the same with controllers, a scheduler, and VMs with SR-IOV cards
//! as its nodes.
//!
//! Either needs nothing but the cache of the lab, in which the programs are built once. Refuses to know what is tested with it.
#![forbid(unsafe_code)]

mod control_plane;
mod node;
mod nodes;
mod process;

pub use control_plane::{ControlPlane, ControlPlaneError};
pub use node::{Node, NodeError};
pub use nodes::{Cluster, ClusterError, ClusterNode, ClusterOptions};
pub use process::ProcessError;
