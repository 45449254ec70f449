//! Keeps the node's legs: a pass after every look at the machine, and whenever the configuration or what pods hold changes.
//!
//! Kernel events cause looks, so they cause passes too. What stands when the daemon ends stays: the pods do not end with it.
//! Refuses to know what a pass does.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::sleep;
use tracing::warn;
use zerobridge_proto::chain;

use crate::blocking::blocking;
use crate::config::Config;
use crate::device::Hardware;
use crate::inventory::Look;
use crate::leg::{Keeper, LegStatus, Moment};
use crate::pod_resources::Held;

/// How soon a leg is tried again that is not as configured: what is in its way, such as a block of addresses that is not
/// claimed yet, may tell nobody when it goes.
const RETRY: Duration = Duration::from_secs(5);

/// How often otherwise, should everything else keep silent.
const PERIOD: Duration = Duration::from_secs(60);

/// Keeps them.
#[derive(Debug)]
pub(super) struct Legs {
    /// Away while it works.
    keeper: Option<Keeper>,
    configs: watch::Receiver<Arc<Config>>,
    looks: watch::Receiver<Arc<Look>>,
    held: watch::Receiver<Option<Arc<Held>>>,
    statuses: watch::Sender<Arc<Vec<LegStatus>>>,
    told_failure: Option<String>,
}

impl Legs {
    pub(super) fn new(
        keeper: Keeper,
        configs: watch::Receiver<Arc<Config>>,
        looks: watch::Receiver<Arc<Look>>,
        held: watch::Receiver<Option<Arc<Held>>>,
    ) -> Self {
        let statuses = watch::Sender::default();
        Self { keeper: Some(keeper), configs, looks, held, statuses, told_failure: None }
    }

    /// How the legs stand.
    pub(super) fn statuses(&self) -> watch::Receiver<Arc<Vec<LegStatus>>> {
        self.statuses.subscribe()
    }

    /// Goes on for ever, or until nobody tells anything any more.
    pub(super) async fn run(mut self) {
        loop {
            let is_settled = self.pass().await;
            // Without a leg, and with nothing left of one, only another configuration can bring something to do.
            let is_idle = is_settled && self.statuses.borrow().is_empty();
            let pause = if is_settled { PERIOD } else { RETRY };
            let changed = tokio::select! {
                changed = self.configs.changed() => changed,
                changed = self.looks.changed(), if !is_idle => changed,
                changed = self.held.changed(), if !is_idle => changed,
                () = sleep(pause), if !is_idle => Ok(()),
            };
            if changed.is_err() {
                return;
            }
        }
    }

    /// Makes a pass. Returns whether nothing is left to be done.
    async fn pass(&mut self) -> bool {
        let Some(mut keeper) = self.keeper.take() else { return true };
        let config = Arc::clone(&self.configs.borrow_and_update());
        let look = Arc::clone(&self.looks.borrow_and_update());
        let held = self.held.borrow_and_update().clone();
        let work = move || {
            let devices = look.pools.iter().flat_map(|pool| pool.devices.keys());
            let offered: BTreeSet<Hardware> = devices.map(|id| id.hardware.clone()).collect();
            let moment = Moment {
                machine: &look.around.machine,
                held: held.as_deref(),
                offered: &offered,
                now: SystemTime::now().into(),
            };
            (keeper.pass(&config.legs, &moment), keeper)
        };
        let (outcome, keeper) = blocking(work).await;
        self.keeper = Some(keeper);
        match outcome {
            Ok(statuses) => {
                self.told_failure = None;
                let is_settled = statuses.iter().all(|status| status.problem.is_none());
                self.statuses.send_replace(Arc::new(statuses));
                is_settled
            }
            Err(error) => {
                let failure = Some(chain(&error));
                if self.told_failure != failure {
                    warn!(error = failure, "cannot see to the node's legs; it is tried again");
                    self.told_failure = failure;
                }
                false
            }
        }
    }
}
