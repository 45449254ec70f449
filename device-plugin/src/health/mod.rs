//! Whether a device may be given to a pod: named checks, each with a policy and against flapping.
//!
//! [`facts`] says what each check finds now, `hysteresis` when a finding counts, [`HealthMonitor`] what follows from it
//! for the devices of one pool. No check depends on whether a netdev or an RDMA device is visible on the host, because
//! those of an allocated VF are not. Refuses to read anything itself, and to tell anybody.

mod aer;
mod facts;
mod hysteresis;
mod monitor;
mod policy;

pub(crate) use facts::DirtyVfs;
pub(crate) use monitor::{HealthMonitor, Transition};
pub use policy::{Check, HealthPolicy, Policy};
