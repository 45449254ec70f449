//! What tests of this workspace need of Linux. Present in tests and behind the feature `testing` only.
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot prepare its world has nothing better to do than stop"
)]

mod decoding;
mod host_link;
mod netns;

pub use crate::sysfs::{FakeFunction, FakeRdma, SysfsTree};
pub use decoding::{read_datagram, read_frame};
pub use host_link::idle_link;
pub use netns::TestNetns;
