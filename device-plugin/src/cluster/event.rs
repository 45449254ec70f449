//! What is worth an event, as values: whom it concerns, and how it reads.
//!
//! Refuses to know how often it happened, and how it gets to the API server.

use std::collections::BTreeSet;

use crate::device::DeviceId;
use crate::health::Check;
use crate::resource::ResourceName;

/// The longest note (`NoteLengthLimit` in Kubernetes' `pkg/apis/core/validation/events.go`), in bytes.
const LONGEST_NOTE: usize = 1024;

/// Something that the people who run a cluster, or own a pod, want to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// Devices of a pool fail a check, so that no further pod gets them.
    DeviceUnhealthy {
        /// The pool.
        pool: ResourceName,
        /// The devices.
        devices: BTreeSet<DeviceId>,
        /// The check.
        check: Check,
    },
    /// Devices of a pool pass a check again.
    DeviceHealthy {
        /// The pool.
        pool: ResourceName,
        /// The devices.
        devices: BTreeSet<DeviceId>,
        /// The check.
        check: Check,
    },
    /// A pool selects devices that are not offered.
    DevicesWithheld {
        /// The pool.
        pool: ResourceName,
        /// The devices.
        devices: BTreeSet<DeviceId>,
        /// Why, as part of a sentence.
        why: String,
    },
    /// A changed configuration cannot be used; the earlier one stays.
    ConfigurationRejected {
        /// The problem, with its place.
        problem: String,
    },
    /// A changed configuration is in use.
    ConfigurationReloaded {
        /// How many pools it has.
        pools: usize,
    },
    /// Something that nobody owned any more was put in order.
    RepairDone {
        /// The device.
        device: DeviceId,
        /// What was done, as part of a sentence.
        what: String,
    },
    /// Something looks as if nobody owned it, and is left alone.
    RepairRefused {
        /// The device.
        device: DeviceId,
        /// Why, as part of a sentence.
        why: String,
    },
    /// A changed IPPool cannot be used; the earlier one stays.
    AddressPoolRejected {
        /// The IPPool.
        pool: String,
        /// The problem, with its place.
        problem: String,
    },
    /// All blocks of an IPPool are claimed, and this node lacks addresses.
    AddressPoolExhausted {
        /// The IPPool.
        pool: String,
    },
    /// A block with leased addresses was given to another node.
    AddressBlockLost {
        /// The IPPool.
        pool: String,
        /// The block.
        block: String,
    },
}

/// Whom an event concerns.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Subject {
    /// This node.
    Node,
    /// A pod on this node.
    Pod {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// Its UID, where it is known: without it, `kubectl describe pod` does not show the event.
        uid: Option<String>,
    },
}

/// How bad an event is: the `type` of a Kubernetes event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Severity {
    /// Only for information.
    Normal,
    /// Something is wrong.
    Warning,
}

impl Event {
    /// What happened, in one word: the `reason` of the Kubernetes event.
    #[must_use]
    pub(crate) const fn reason(&self) -> &'static str {
        match self {
            Self::DeviceUnhealthy { .. } => "DeviceUnhealthy",
            Self::DeviceHealthy { .. } => "DeviceHealthy",
            Self::DevicesWithheld { .. } => "DevicesWithheld",
            Self::ConfigurationRejected { .. } => "ConfigurationRejected",
            Self::ConfigurationReloaded { .. } => "ConfigurationReloaded",
            Self::RepairDone { .. } => "RepairDone",
            Self::RepairRefused { .. } => "RepairRefused",
            Self::AddressPoolRejected { .. } => "AddressPoolRejected",
            Self::AddressPoolExhausted { .. } => "AddressPoolExhausted",
            Self::AddressBlockLost { .. } => "AddressBlockLost",
        }
    }

    /// What the daemon did, in one word: the `action` of the Kubernetes event.
    #[must_use]
    pub(crate) const fn action(&self) -> &'static str {
        match self {
            Self::DeviceUnhealthy { .. } | Self::DeviceHealthy { .. } => "HealthCheck",
            Self::DevicesWithheld { .. } => "Inventory",
            Self::ConfigurationRejected { .. } | Self::ConfigurationReloaded { .. } => "Reload",
            Self::RepairDone { .. } | Self::RepairRefused { .. } => "Repair",
            Self::AddressPoolRejected { .. }
            | Self::AddressPoolExhausted { .. }
            | Self::AddressBlockLost { .. } => "ClaimAddresses",
        }
    }

    /// How bad it is.
    #[must_use]
    pub(crate) const fn severity(&self) -> Severity {
        match self {
            Self::DeviceUnhealthy { .. }
            | Self::ConfigurationRejected { .. }
            | Self::RepairRefused { .. }
            | Self::AddressPoolRejected { .. }
            | Self::AddressPoolExhausted { .. }
            | Self::AddressBlockLost { .. } => Severity::Warning,
            Self::DeviceHealthy { .. }
            | Self::DevicesWithheld { .. }
            | Self::ConfigurationReloaded { .. }
            | Self::RepairDone { .. } => Severity::Normal,
        }
    }

    /// What a person reads, at most 1,024 bytes.
    #[must_use]
    pub(crate) fn note(&self) -> String {
        let note = match self {
            Self::DeviceUnhealthy { pool, devices, check } => {
                list(&format!("the check {check} fails for {pool}"), devices)
            }
            Self::DeviceHealthy { pool, devices, check } => {
                list(&format!("the check {check} passes again for {pool}"), devices)
            }
            Self::DevicesWithheld { pool, devices, why } => {
                list(&format!("{pool} does not offer what it selects, because {why}"), devices)
            }
            Self::ConfigurationRejected { problem } => {
                format!("the changed configuration cannot be used, the earlier one stays: {problem}")
            }
            Self::ConfigurationReloaded { pools } => {
                format!("the changed configuration is in use; pools: {pools}")
            }
            Self::RepairDone { device, what } => format!("{device}: {what}"),
            Self::RepairRefused { device, why } => format!("{device} is left as it is: {why}"),
            Self::AddressPoolRejected { pool, problem } => {
                format!("IPPool {pool} cannot be used as it is, the last good one stays: {problem}")
            }
            Self::AddressPoolExhausted { pool } => {
                format!(
                    "all blocks of IPPool {pool} are claimed, and this node lacks addresses; see its status"
                )
            }
            Self::AddressBlockLost { pool, block } => format!(
                "block {block} of IPPool {pool} was given to another node while addresses of it are leased here; nothing is \
                 leased from it any more, and pods with these addresses should be replaced"
            ),
        };
        cut(note)
    }

    /// Takes another event's devices in, if it differs from this one in nothing else. Gives back what it cannot take.
    pub(super) fn absorb(&mut self, other: Self) -> Result<(), Self> {
        match (self, other) {
            (
                Self::DeviceUnhealthy { pool, devices, check },
                Self::DeviceUnhealthy { pool: other_pool, devices: more, check: other_check },
            )
            | (
                Self::DeviceHealthy { pool, devices, check },
                Self::DeviceHealthy { pool: other_pool, devices: more, check: other_check },
            ) if *pool == other_pool && *check == other_check => devices.extend(more),
            (
                Self::DevicesWithheld { pool, devices, why },
                Self::DevicesWithheld { pool: other_pool, devices: more, why: other_why },
            ) if *pool == other_pool && *why == other_why => devices.extend(more),
            (_, other) => return Err(other),
        }
        Ok(())
    }
}

/// `text: a, b, c`, with as many devices as a note has room for.
fn list(text: &str, devices: &BTreeSet<DeviceId>) -> String {
    let rest = |count: usize| format!(" and {count} more");
    let mut note = format!("{text}: ");
    for (position, device) in devices.iter().enumerate() {
        let separator = if position == 0 { "" } else { ", " };
        let next = format!("{separator}{device}");
        let left = devices.len() - position - 1;
        let reserve = if left == 0 { 0 } else { rest(left).len() };
        if note.len() + next.len() + reserve > LONGEST_NOTE {
            note.push_str(&rest(left + 1));
            break;
        }
        note.push_str(&next);
    }
    note
}

fn cut(mut note: String) -> String {
    const MARK: &str = " …";
    if note.len() > LONGEST_NOTE {
        let end = note.floor_char_boundary(LONGEST_NOTE - MARK.len());
        note.truncate(end);
        note.push_str(MARK);
    }
    note
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(name: &str) -> ResourceName {
        ResourceName::new("zerobridge.io", name).unwrap()
    }

    fn devices(count: u16) -> BTreeSet<DeviceId> {
        (0..count)
            .map(|n| format!("0000:{:02x}:{:02x}.{}", n >> 8, (n >> 3) & 31, n & 7).parse().unwrap())
            .collect()
    }

    fn unhealthy(name: &str, devices: BTreeSet<DeviceId>, check: Check) -> Event {
        Event::DeviceUnhealthy { pool: pool(name), devices, check }
    }

    #[test]
    fn notes_say_what_where_and_why() {
        let device = || "0000:01:10.0".parse::<DeviceId>().unwrap();
        let one = || BTreeSet::from([device()]);
        for (event, reason, note) in [
            (
                unhealthy("vf", one(), Check::PfCarrier),
                "DeviceUnhealthy",
                "the check pfCarrier fails for zerobridge.io/vf: 0000:01:10.0",
            ),
            (
                Event::DeviceHealthy { pool: pool("vf"), devices: devices(2), check: Check::DirtyVf },
                "DeviceHealthy",
                "the check dirtyVf passes again for zerobridge.io/vf: 0000:00:00.0, 0000:00:00.1",
            ),
            (
                Event::DevicesWithheld { pool: pool("vf"), devices: one(), why: "it has VFs".to_owned() },
                "DevicesWithheld",
                "zerobridge.io/vf does not offer what it selects, because it has VFs: 0000:01:10.0",
            ),
            (
                Event::ConfigurationRejected {
                    problem: "unknown key pool; did you mean \"pools\"?".to_owned(),
                },
                "ConfigurationRejected",
                "the changed configuration cannot be used, the earlier one stays: unknown key pool; did you mean \"pools\"?",
            ),
            (
                Event::ConfigurationReloaded { pools: 3 },
                "ConfigurationReloaded",
                "the changed configuration is in use; pools: 3",
            ),
            (
                Event::RepairRefused { device: device(), why: "another program made it".to_owned() },
                "RepairRefused",
                "0000:01:10.0 is left as it is: another program made it",
            ),
        ] {
            assert_eq!((event.reason(), event.note().as_str()), (reason, note));
        }
    }

    #[test]
    fn a_note_has_room_for_what_it_says() {
        let note = unhealthy("vf", devices(1024), Check::PfCarrier).note();
        assert!(note.len() <= LONGEST_NOTE && note.len() > LONGEST_NOTE - 40, "{}", note.len());
        let (listed, more) = note.rsplit_once(" and ").unwrap();
        let listed = listed.matches("0000:").count();
        assert_eq!(more, format!("{} more", 1024 - listed));

        let long = Event::ConfigurationRejected { problem: "ö".repeat(2000) }.note();
        assert!(long.len() <= LONGEST_NOTE && long.ends_with(" …"));
    }

    #[test]
    fn events_that_differ_in_devices_only_become_one() {
        let mut first = unhealthy("vf", devices(2), Check::PfCarrier);
        assert_eq!(first.absorb(unhealthy("vf", devices(3), Check::PfCarrier)), Ok(()));
        assert_eq!(first, unhealthy("vf", devices(3), Check::PfCarrier));
        for other in [
            unhealthy("other", devices(1), Check::PfCarrier),
            unhealthy("vf", devices(1), Check::AerFatal),
            Event::DeviceHealthy { pool: pool("vf"), devices: devices(1), check: Check::PfCarrier },
            Event::ConfigurationReloaded { pools: 1 },
        ] {
            assert_eq!(first.absorb(other.clone()), Err(other));
        }
    }
}
