//! Who holds a promise and since when.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

/// What stands in the place of a container's id where the node itself is the owner. No container can have it: CNI allows
/// letters, digits, `_`, `.` and `-` (CNI specification 1.1, section 2, `CNI_CONTAINERID`).
const LEG: &str = "node:leg";

/// The holder of attachments and leases: one interface of one container, as the runtime named them, or a leg of the node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner {
    /// The sandbox's id (`CNI_CONTAINERID`), unique for all time on a node; `node:leg` for a leg.
    pub container_id: String,
    /// The interface's name in the container (`CNI_IFNAME`); a leg's name.
    pub ifname: String,
}

impl Owner {
    /// The node itself, with an interface of its own in a network of pods. It outlives every boot and no runtime knows it,
    /// so what it has ends only when the node gives it up.
    #[must_use]
    pub fn leg(name: &str) -> Self {
        Self { container_id: LEG.to_owned(), ifname: name.to_owned() }
    }

    /// Whether this is a leg of the node and no container.
    #[must_use]
    pub fn is_leg(&self) -> bool {
        self.container_id == LEG
    }
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
        if self.is_leg() {
            return write!(out, "the node's leg {}", self.ifname);
        }
        write!(out, "{} of container {}", self.ifname, self.container_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leg_is_no_container() {
        let leg = Owner::leg("pods");
        assert!(leg.is_leg() && !zerobridge_proto::cni::is_container_id(&leg.container_id));
        assert_eq!(leg.to_string(), "the node's leg pods");
        let pod = Owner { container_id: "c1".to_owned(), ifname: "pods".to_owned() };
        assert!(!pod.is_leg());
    }
}
