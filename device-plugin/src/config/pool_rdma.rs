//! What the key `rdma` of a pool excludes.
//!
//! Refuses to know which devices there are, and what they are bound to when they are given away.

use super::selectors::USERSPACE_DRIVERS;
use super::{ConfigError, PoolKind, PoolRdma};
use crate::selector::{Selector, Selectors};

/// Refuses a choice that no device of the pool could follow. `place` is where the key stands.
pub(super) fn check(
    rdma: PoolRdma,
    place: &str,
    kind: PoolKind,
    shared: bool,
    alternatives: &[Selectors],
) -> Result<(), ConfigError> {
    let conflict = |word: &str, other: &str, reason, remedy| ConfigError::Conflict {
        place: format!("{place} \"{word}\""),
        other: other.to_owned(),
        reason,
        remedy,
    };
    match rdma {
        PoolRdma::Auto | PoolRdma::Plain => Ok(()),
        PoolRdma::Off if shared => Err(conflict(
            "off",
            "shares",
            "a share is a share of an RDMA device and of nothing else",
            "write \"auto\", or leave one of the two out",
        )),
        PoolRdma::Off => Ok(()),
        PoolRdma::Soft => match soft_conflict(kind, shared, alternatives) {
            Some((other, reason, remedy)) => Err(conflict("soft", &other, reason, remedy)),
            None => Ok(()),
        },
    }
}

/// What a software RDMA device does not go together with, why, and what to write.
fn soft_conflict(
    kind: PoolKind,
    shared: bool,
    alternatives: &[Selectors],
) -> Option<(String, &'static str, &'static str)> {
    if shared {
        return Some((
            "shares".to_owned(),
            "a share is of an RDMA device on the host, and one of software is made in the pod",
            "write \"auto\" to share those that are on the host, or leave shares out",
        ));
    }
    if kind != PoolKind::NetDevice {
        return Some((
            format!("deviceType \"{}\"", kind.name()),
            "the CNI plugin makes a software RDMA device of a VF's network interface",
            "write \"netDevice\", or \"auto\" or \"off\" for rdma",
        ));
    }
    let any = |asks: fn(&Selectors) -> bool| alternatives.iter().any(asks);
    if any(|selectors| selectors.is_rdma) {
        return Some((
            Selector::IsRdma.name().to_owned(),
            "a device with RDMA of its own needs none of software",
            "write \"auto\" to give that of the hardware, or leave isRdma out",
        ));
    }
    if any(|selectors| selectors.vdpa_type.is_some()) {
        return Some((
            Selector::VdpaType.name().to_owned(),
            "a device that is given away as vDPA has no network interface in the pod",
            "leave one of the two out",
        ));
    }
    let userspace = |driver: &String| USERSPACE_DRIVERS.contains(&driver.as_str());
    let drivers = alternatives.iter().flat_map(|selectors| &selectors.drivers);
    drivers.clone().find(|driver| userspace(driver)).map(|driver| {
        (
            format!("{} \"{driver}\"", Selector::Drivers),
            "a device of a userspace driver has no network interface that an RDMA device could be made of",
            "write the network driver, such as iavf or igbvf, or leave rdma out",
        )
    })
}
