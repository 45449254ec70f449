//! The devices of one pool, judged over time: which of them may be given to a pod.
//!
//! Refuses to know where the facts come from, and whom a transition interests.

use std::collections::BTreeMap;

use tokio::time::Instant;
use tracing::{info, warn};

use super::aer::FatalErrors;
use super::facts::{DirtyVfs, Facts};
use super::hysteresis::Standing;
use super::{Check, Policy};
use crate::config::PoolConfig;
use crate::device::DeviceId;
use crate::pool::{PoolDevices, Surroundings};
use crate::resource::ResourceName;

/// Remembers what was found at the devices of one pool.
#[derive(Debug, Default)]
pub(crate) struct HealthMonitor {
    errors: FatalErrors,
    standings: BTreeMap<DeviceId, BTreeMap<Check, Standing>>,
}

/// What a round of checks brought.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Judgement {
    /// The checks that changed their mind, by device and check.
    pub(crate) transitions: Vec<Transition>,
    /// When the first of the changes that are pending has lasted long enough, so that the next round is due then.
    pub(crate) next: Option<Instant>,
}

/// A check that changed its mind about a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Transition {
    /// The device.
    pub(crate) device: DeviceId,
    /// The check.
    pub(crate) check: Check,
    /// What follows from it in this pool; never [`Policy::Off`].
    pub(crate) policy: Policy,
    /// Why it fails now; `None` when it passes again.
    pub(crate) failure: Option<String>,
}

impl HealthMonitor {
    /// Makes every check of the pool at every device, and says in each device whether it may be allocated. Devices that
    /// are not among `devices` are forgotten.
    pub(crate) fn judge(
        &mut self,
        now: Instant,
        pool: &PoolConfig,
        devices: &mut PoolDevices,
        around: &Surroundings,
        dirty: &DirtyVfs,
    ) -> Judgement {
        self.errors.update(&around.aer_fatal);
        self.standings.retain(|id, _| devices.contains_key(id));
        let (health, gives_rdma) = (&pool.health, pool.gives_hardware_rdma());
        let facts = Facts { around, errors: &self.errors, dirty, gives_rdma };
        let mut judgement = Judgement::default();
        for (id, device) in devices {
            let standings = self.standings.entry(id.clone()).or_default();
            standings.retain(|check, _| health.of(*check) != Policy::Off);
            device.healthy = true;
            for (check, policy) in Check::ALL.map(|check| (check, health.of(check))) {
                if policy == Policy::Off {
                    continue;
                }
                let outcome = facts.outcome(check, device);
                let turned = match standings.get_mut(&check) {
                    Some(standing) => standing.update(outcome, now, health.hold_down),
                    None => {
                        let first = Standing::first(outcome);
                        let fails = first.as_ref().is_some_and(|standing| standing.reason().is_some());
                        standings.extend(first.map(|standing| (check, standing)));
                        fails
                    }
                };
                let Some(standing) = standings.get(&check) else { continue };
                let failure = standing.reason();
                device.healthy &= failure.is_none() || policy == Policy::Warn;
                judgement.next = [judgement.next, standing.due(health.hold_down)].into_iter().flatten().min();
                if turned {
                    let failure = failure.map(str::to_owned);
                    judgement.transitions.push(Transition { device: id.clone(), check, policy, failure });
                }
            }
        }
        judgement
    }

    /// The checks that fail at a device, and why.
    pub(crate) fn failures(&self, device: &DeviceId) -> impl Iterator<Item = (Check, &str)> {
        let standings = self.standings.get(device).into_iter().flatten();
        standings.filter_map(|(check, standing)| Some((*check, standing.reason()?)))
    }
}

impl Transition {
    /// One line for whoever asks later why a pod was kept away from a device.
    pub(crate) fn log(&self, pool: &ResourceName) {
        let Self { device, check, policy, failure } = self;
        match failure {
            Some(reason) => warn!(%pool, %device, %check, ?policy, reason, "a health check fails"),
            None => info!(%pool, %device, %check, ?policy, "a health check passes again"),
        }
    }
}

#[cfg(test)]
mod tests;
