//! What the daemon asks of the API server, and tells it: this node's labels and versions, events, and blocks of
//! cluster-wide address pools.
//!
//! All of it is optional. Without access, with access refused, with the server away, everything else works the same,
//! and that is said once. Nothing of it is loaded before it is needed. Refuses to know what the answers are good for.

mod api;
mod blocks;
mod event;
mod node;
mod recorder;
mod series;
#[cfg(test)]
mod testing;

pub use api::ApiAccess;
pub(crate) use api::ApiServer;
pub use blocks::IpBlocks;
pub(crate) use blocks::{INCARNATIONS, LOCK};
pub(crate) use event::{Event, Subject};
pub(crate) use node::NodeFacts;
pub(crate) use recorder::{EventRecorder, EventSink};
