//! Who holds a promise and since when.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

/// The holder of attachments and leases: one interface of one container, as the runtime named them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner {
    /// The sandbox's id (`CNI_CONTAINERID`), unique for all time on a node.
    pub container_id: String,
    /// The interface's name in the container (`CNI_IFNAME`).
    pub ifname: String,
}

/// A moment in seconds since 1970-01-01 00:00 UTC, by whatever clock the caller has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixSeconds(pub i64);

impl From<SystemTime> for UnixSeconds {
    fn from(time: SystemTime) -> Self {
        let seconds = |duration: std::time::Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
        Self(match time.duration_since(UNIX_EPOCH) {
            Ok(after) => seconds(after),
            Err(before) => -seconds(before.duration()),
        })
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} of container {}", self.ifname, self.container_id)
    }
}
