//! Address pools: which addresses a network may give out, picking one, leasing and releasing it.
//!
//! [`PoolConfig`] reads the `ipam` object of a network configuration, in host-local's keys. [`lease`] and [`release`]
//! work inside a ledger transaction of the caller, so that an address and what it is for are promised together. The
//! policy (round robin, rest after release, what counts as free) is in pure functions over spans of addresses.
//! [`plugin`] is the CNI IPAM plugin `zerobridge-ipam`, for use under any other CNI plugin.
//!
//! Knows nothing of links and namespaces, and has no clock.
#![forbid(unsafe_code)]

mod cluster;
mod earlier;
mod error;
mod lease;
mod picker;
pub mod plugin;
mod pool;
mod probe;
mod range;
mod range_set;
mod resolv_conf;
mod span;

pub use cluster::{ClusterPool, POOL_KEYS};
pub use error::{IpamError, PoolError};
pub use lease::{
    Foreign, LeaseRequest, Leased, check, given_out, lease, pod_of, release, require_room, set_aside,
};
pub use pool::{DEFAULT_STATE_DIR, PoolConfig, state_dir};
pub use probe::{ConflictProbe, GatewayProbe};
pub use range::Range;
pub use range_set::RangeSet;
