//! The guest's network cards as tests see them, and CNI plugins called by hand.
//!
//! Refuses to know Kubernetes.

mod cni;
mod link;
mod rdma;
mod snapshot;
mod verbs;
mod vf;

pub use cni::{CniCall, CniError, PLUGIN_FOLDER};
pub use link::{Link, LinkInfo, Rate, VfInfo, Vlan};
pub use rdma::{HOST, RdmaMode, RdmaPort};
pub use snapshot::{Snapshot, VfPlace};
pub use verbs::VerbsEnd;
pub use vf::rebinding;
