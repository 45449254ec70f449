//! What an operator sees of a running daemon: counters, probes, and the devices as a document.
//!
//! Everything here reads or counts; nothing decides. A value of each is made at start and passed to whoever has something
//! to tell.

mod heartbeat;
mod http;
mod metrics;
mod snapshot;

pub(crate) use heartbeat::Heartbeat;
pub(crate) use http::{Operations, serve};
pub(crate) use metrics::{AllocationResult, ConfigInfo, Metrics, Outcome};
pub(crate) use snapshot::{Counters, DeviceCount, Snapshot, VfTraffic};
