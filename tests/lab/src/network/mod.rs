//! The guest's network cards as tests see them, and CNI plugins called by hand.
//!
//! Refuses to know Kubernetes.

mod cni;
mod link;
mod snapshot;
mod vf;

pub use cni::{CniCall, CniError, PLUGIN_FOLDER};
pub use link::{Link, LinkInfo, Rate, VfInfo, Vlan};
pub use snapshot::{Snapshot, VfPlace};
pub use vf::rebinding;
