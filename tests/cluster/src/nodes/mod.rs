//! A cluster: the control plane on the host, and VMs with SR-IOV cards as its nodes.
//!
//! Refuses to know Zerobridge, which is installed on it as on any other cluster.

mod cluster;
mod controllers;
mod error;
mod kubectl;
mod network;
mod node;
mod programs;
mod report;
mod tunnel;
mod users;
mod ways;

pub use cluster::{Cluster, ClusterOptions};
pub use error::ClusterError;
pub use node::ClusterNode;
