//! What a node says about RDMA, and what keeps it from giving what its pools promise.
//!
//! Refuses to know single devices: what is wrong with one of those is a health check.

mod away;
mod memlock;
mod node;
mod observer;
mod obstacle;

pub use memlock::MemoryLimit;
pub use node::{KernelRelease, RdmaNode};
pub(crate) use observer::RdmaObserver;
pub use obstacle::{Cause, Obstacle, obstacles};
