//! A control plane of real programs: etcd and the API server as processes of this machine, on loopback, in a folder that
//! goes with it. No controllers, no nodes.
//!
//! [`ControlPlane::start`] needs nothing but the cache of the lab, in which the programs are built once. Refuses to know
//! what is tested with it.
#![forbid(unsafe_code)]

mod control_plane;
mod node;

pub use control_plane::{ControlPlane, ControlPlaneError};
pub use node::{Node, NodeError};
