//! Why a device is in a pool, or is not: the decisions of `assign` for one device, told instead of made.
//!
//! Refuses to know how an explanation is shown.

use std::fmt;

use tokio::time::Instant;

use crate::config::{PoolConfig, PoolKind};
use crate::device::{Device, Hardware};
use crate::health::{Check, DirtyVfs, HealthMonitor, Policy};
use crate::pool::{Gathered, Holdings, PoolDevices, Surroundings, Withheld, gather, is_of_kind, withheld};
use crate::resource::ResourceName;
use crate::selector::{Candidate, Verdict};

/// What each pool makes of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The device.
    pub device: Hardware,
    /// The pools, in the order of the configuration.
    pub pools: Vec<PoolExplanation>,
    /// What the checks of the pool that offers it find wrong with it, in one look: without what only the daemon
    /// remembers, which are PCIe errors since it began, and VFs that dead pods left behind.
    pub problems: Vec<Problem>,
}

/// A check that a device fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The check.
    pub check: Check,
    /// What follows from it in the pool.
    pub policy: Policy,
    /// Why it fails.
    pub reason: String,
}

/// What one pool makes of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolExplanation {
    /// The pool.
    pub resource: ResourceName,
    /// What became of the device.
    pub outcome: Outcome,
    /// What the selectors say, for each alternative that the pool has. Empty if the device is not of the pool's kind,
    /// because nothing else is asked then.
    pub alternatives: Vec<Vec<Verdict>>,
}

/// What became of a device in a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The pool offers it.
    Offered,
    /// The pool offers it because a pod holds it under the pool's resource, whatever the selectors say.
    Held,
    /// A pod holds it under another resource.
    HeldElsewhere {
        /// The resource.
        resource: String,
    },
    /// The pool consists of something else.
    OtherKind {
        /// What the pool consists of.
        kind: PoolKind,
    },
    /// No alternative of the selectors admits it.
    Dropped,
    /// The selectors admit it, and yet it is not offered.
    Withheld(Withheld),
    /// An earlier pool has it.
    Taken {
        /// The earlier pool.
        by: ResourceName,
    },
}

/// Explains every device of a machine, functions before auxiliary devices.
///
/// `held` names the resource under which a pod has a device; `None` if nobody knows what pods have.
#[must_use]
pub fn explain(pools: &[PoolConfig], around: &Surroundings, held: Option<&Holdings>) -> Vec<Explanation> {
    gather(around).map(|gathered| explanation(pools, &gathered, around, held)).collect()
}

fn explanation(
    pools: &[PoolConfig],
    gathered: &Gathered<'_>,
    around: &Surroundings,
    held: Option<&Holdings>,
) -> Explanation {
    let candidate = gathered.candidate(around);
    let holder = held.and_then(|held| held.get(&gathered.hardware));
    let mut taken = None;
    let mut explanations = Vec::with_capacity(pools.len());
    for pool in pools {
        let outcome = match holder {
            Some(resource) if *resource == pool.resource.to_string() => Outcome::Held,
            Some(resource) => Outcome::HeldElsewhere { resource: resource.clone() },
            None => free(pool, gathered, &candidate, around, held, &mut taken),
        };
        let alternatives = alternatives(pool, &candidate);
        explanations.push(PoolExplanation { resource: pool.resource.clone(), outcome, alternatives });
    }
    let offered = explanations.iter().position(PoolExplanation::is_offered);
    let problems =
        offered.map(|index| problems(&pools[index], gathered.device(around), around)).unwrap_or_default();
    Explanation { device: gathered.hardware.clone(), pools: explanations, problems }
}

/// What the checks of a pool find wrong with one of its devices.
fn problems(pool: &PoolConfig, device: Device, around: &Surroundings) -> Vec<Problem> {
    let id = device.id.clone();
    let mut monitor = HealthMonitor::default();
    let mut devices = PoolDevices::from([(id.clone(), device)]);
    monitor.judge(Instant::now(), pool, &mut devices, around, &DirtyVfs::new());
    let problem = |(check, reason): (Check, &str)| Problem {
        check,
        policy: pool.health.of(check),
        reason: reason.to_owned(),
    };
    monitor.failures(&id).map(problem).collect()
}

impl Explanation {
    /// The pool that offers the device.
    #[must_use]
    pub fn offered_by(&self) -> Option<&PoolExplanation> {
        self.pools.iter().find(|pool| pool.is_offered())
    }

    /// Why the device is not offered though selectors admit it, for the first pool where that is so.
    #[must_use]
    pub fn withheld_by(&self) -> Option<(&PoolExplanation, &Withheld)> {
        self.pools.iter().find_map(|pool| match &pool.outcome {
            Outcome::Withheld(reason) => Some((pool, reason)),
            _ => None,
        })
    }
}

impl PoolExplanation {
    /// Whether the pool offers the device.
    #[must_use]
    pub fn is_offered(&self) -> bool {
        matches!(self.outcome, Outcome::Offered | Outcome::Held)
    }
}

/// What becomes of a device that no pod holds.
fn free<'a>(
    pool: &'a PoolConfig,
    gathered: &Gathered<'_>,
    candidate: &Candidate<'_>,
    around: &Surroundings,
    held: Option<&Holdings>,
    taken: &mut Option<&'a ResourceName>,
) -> Outcome {
    if !is_of_kind(pool.kind, candidate) {
        return Outcome::OtherKind { kind: pool.kind };
    }
    let Some(selectors) = pool.selectors.iter().find(|selectors| selectors.admit(candidate)) else {
        return Outcome::Dropped;
    };
    if let Some(reason) = withheld(pool, selectors, gathered, around, held) {
        return Outcome::Withheld(reason);
    }
    match *taken {
        Some(by) => Outcome::Taken { by: by.clone() },
        None => {
            *taken = Some(&pool.resource);
            Outcome::Offered
        }
    }
}

fn alternatives(pool: &PoolConfig, candidate: &Candidate<'_>) -> Vec<Vec<Verdict>> {
    if !is_of_kind(pool.kind, candidate) {
        return Vec::new();
    }
    pool.selectors.iter().map(|selectors| selectors.verdicts(candidate)).collect()
}

impl fmt::Display for Outcome {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Offered => out.write_str("offered"),
            Self::Held => out.write_str("offered, because a pod holds it under this resource"),
            Self::HeldElsewhere { resource } => {
                write!(out, "not offered, because a pod holds it as {resource}")
            }
            Self::OtherKind { kind } => {
                let what = match kind {
                    PoolKind::NetDevice => "network controllers (PCI class 02)",
                    PoolKind::Accelerator => "accelerators (PCI class 12)",
                    PoolKind::AuxNetDevice => "auxiliary devices of network controllers",
                };
                write!(out, "not selected, because the pool consists of {what}")
            }
            Self::Dropped => out.write_str("not selected"),
            Self::Withheld(reason) => write!(out, "selected, but withheld: {reason}"),
            Self::Taken { by } => {
                write!(out, "selected, but {by} comes first in the configuration and has it")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use zerobridge_kernel::testing::SysfsTree;
    use zerobridge_kernel::{Scanner, Sysfs};

    use super::*;
    use crate::config::Config;
    use crate::pool::{Withholding, assign};

    /// Explanations and decisions are two walks over the same rules, so they are compared on a machine where most rules
    /// have something to say.
    #[test]
    fn what_is_explained_is_what_is_decided() {
        let folder = tempfile::tempdir().unwrap();
        let tree = SysfsTree::new(folder.path());
        tree.add_igb(0, 4);
        tree.add_igb(1, 0);
        tree.add_mlx5(0, 4);
        tree.add_mlx5_sf(0, 4, 88);
        tree.add_e810(1, 2);
        tree.add_acc100(2);
        let machine = Scanner::new(Sysfs::new(tree.root())).scan().unwrap();
        let around = Surroundings { machine, open_vfio_groups: vec![61], ..Surroundings::default() };
        let config = Config::parse(
            r#"{"pools": [
                {"resourceName": "some", "selectors": {"pfNames": ["enp1s0f0#0-1", "ens1f0np0#0"]}},
                {"resourceName": "intel", "selectors": {"vendors": ["8086"]}},
                {"resourceName": "named", "selectors": {"pciAddresses": ["01:00.1", "01:00.0"]}},
                {"resourceName": "shared", "shares": 3, "selectors": {"vendors": ["15b3", "8086"]}},
                {"resourceName": "fec", "deviceType": "accelerator", "selectors": {"devices": ["0d5d"]}},
                {"resourceName": "sf", "deviceType": "auxNetDevice", "selectors": {"auxTypes": ["sf"]}},
                {"resourceName": "all", "selectors": {"any": true}}
            ]}"#,
        )
        .unwrap();
        let hardware = |text: &str| text.parse::<crate::device::DeviceId>().unwrap().hardware;
        let held = BTreeMap::from([
            (hardware("0000:01:10.0"), "zerobridge.io/all".to_owned()),
            (hardware("0000:01:10.2"), "zerobridge.io/former".to_owned()),
        ]);

        let decided = assign(&config.pools, &around, Some(&held));
        for explanation in explain(&config.pools, &around, Some(&held)) {
            let device = &explanation.device;
            for (index, pool) in explanation.pools.iter().enumerate() {
                let offered = decided.pools[index].keys().any(|id| id.hardware == *device);
                let said = pool.is_offered();
                assert_eq!(said, offered, "{device} in {}: {}", pool.resource, pool.outcome);
            }
            let by_a_pool = decided.withheld.get(device).filter(|withholding| withholding.pool.is_some());
            if let Some(Withholding { reason, .. }) = by_a_pool {
                let outcome = Outcome::Withheld(reason.clone());
                assert!(explanation.pools.iter().any(|pool| pool.outcome == outcome));
            }
            let withheld = explanation.withheld_by().is_some() && explanation.offered_by().is_none();
            assert_eq!(withheld, by_a_pool.is_some(), "{device}");
        }
        let taken = explain(&config.pools, &around, Some(&held))
            .into_iter()
            .flat_map(|explanation| explanation.pools)
            .filter(|pool| matches!(pool.outcome, Outcome::Taken { .. }))
            .count();
        assert_eq!(taken, decided.conflicts.len());
        assert!(taken > 0 && !decided.withheld.is_empty());
    }

    #[test]
    fn a_device_that_is_offered_is_examined_too() {
        let folder = tempfile::tempdir().unwrap();
        let tree = SysfsTree::new(folder.path());
        tree.add_igb(0, 2);
        tree.bind("0000:01:10.0", None);
        let machine = Scanner::new(Sysfs::new(tree.root())).scan().unwrap();
        let around = Surroundings { machine, ..Surroundings::default() };
        let config =
            Config::parse(r#"{"pools": [{"resourceName": "vf", "selectors": {"any": true}}]}"#).unwrap();
        let found: Vec<_> = explain(&config.pools, &around, None)
            .into_iter()
            .flat_map(|explanation| {
                explanation.problems.into_iter().map(move |problem| (explanation.device.clone(), problem))
            })
            .collect();
        let [(device, Problem { check, policy, .. })] = &found[..] else { panic!("{found:?}") };
        assert_eq!(
            (device.to_string().as_str(), check, policy),
            ("0000:01:10.0", &Check::DriverBound, &Policy::Unhealthy)
        );
    }

    #[test]
    fn an_open_vfio_group_is_the_hosts_only_if_no_pod_can_have_it() {
        let folder = tempfile::tempdir().unwrap();
        let tree = SysfsTree::new(folder.path());
        tree.add_igb(0, 1);
        let vf: zerobridge_proto::PciAddress = "0000:01:10.0".parse().unwrap();
        let machine = Scanner::new(Sysfs::new(tree.root())).scan().unwrap();
        let open_vfio_groups = machine.functions[&vf].iommu_group.into_iter().collect();
        let around = Surroundings { machine, open_vfio_groups, ..Surroundings::default() };
        let config =
            Config::parse(r#"{"pools": [{"resourceName": "vf", "selectors": {"any": true}}]}"#).unwrap();
        let offered = |held: Option<&BTreeMap<Hardware, String>>| {
            let explanations = explain(&config.pools, &around, held);
            let vf = explanations.iter().find(|explanation| explanation.device == Hardware::Function(vf));
            vf.unwrap().offered_by().is_some()
        };
        assert!(!offered(Some(&BTreeMap::new())));
        let held = BTreeMap::from([(Hardware::Function(vf), "zerobridge.io/vf".to_owned())]);
        assert!(offered(Some(&held)));
        assert!(offered(None), "a pod's device must not be taken for the host's");
    }
}
