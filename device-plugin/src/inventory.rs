//! The node's devices, kept current: reads the machine, sorts it into pools, publishes what changed.
//!
//! Each pool has a `watch` channel that holds its present devices. Whatever should cause a new look (a timer now, kernel
//! events one day) only has to wake the inventory; it compares, and subscribers hear of real changes only. The end of
//! the channels is the end of the plugin. Refuses to know the kubelet.

use std::collections::BTreeSet;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task;
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tracing::{debug, info, warn};
use zerobridge_kernel::{Sysfs, SysfsError};

use crate::config::PoolConfig;
use crate::pool::{Assignment, Conflict, PoolDevices, assign};
use zerobridge_proto::chain;

/// The present devices of one pool.
pub(crate) type DeviceWatch = watch::Receiver<Arc<PoolDevices>>;

/// Reads the machine and publishes the devices of every pool.
#[derive(Debug)]
pub(crate) struct Inventory {
    sysfs: Sysfs,
    pools: Arc<[PoolConfig]>,
    publishers: Vec<watch::Sender<Arc<PoolDevices>>>,
    told_conflicts: BTreeSet<Conflict>,
    told_failure: Option<String>,
    wake: Arc<Notify>,
}

impl Inventory {
    /// Takes the first look, so that the pools are complete before anybody registers them.
    ///
    /// # Errors
    ///
    /// What kept the machine from being read. Later looks that fail only leave things as they were.
    pub(crate) async fn open(sysfs: Sysfs, pools: Vec<PoolConfig>) -> Result<Self, SysfsError> {
        let pools: Arc<[PoolConfig]> = pools.into();
        let Assignment { pools: devices, conflicts } = look(sysfs.clone(), Arc::clone(&pools)).await?;
        let mut inventory = Self {
            sysfs,
            pools,
            publishers: devices.into_iter().map(|devices| watch::Sender::new(Arc::new(devices))).collect(),
            told_conflicts: BTreeSet::new(),
            told_failure: None,
            wake: Arc::default(),
        };
        for (pool, publisher) in inventory.pools.iter().zip(&inventory.publishers) {
            info!(pool = %pool.resource, devices = publisher.borrow().len(), "pool built");
        }
        inventory.tell_conflicts(&conflicts);
        Ok(inventory)
    }

    /// The device watches, in the order of the pools.
    #[must_use]
    pub(crate) fn subscribe(&self) -> Vec<DeviceWatch> {
        self.publishers.iter().map(watch::Sender::subscribe).collect()
    }

    /// Wakes the inventory for a new look. Several wakes before it gets to it are one.
    #[must_use]
    pub(crate) fn waker(&self) -> Arc<Notify> {
        Arc::clone(&self.wake)
    }

    /// Looks again every `rescan`, and whenever it is woken. Never returns: dropping it ends every subscription.
    pub(crate) async fn run(mut self, rescan: Duration) {
        // The first look has just been taken.
        let mut timer = interval_at(Instant::now() + rescan, rescan);
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let wake = self.waker();
        loop {
            tokio::select! {
                _ = timer.tick() => {}
                () = wake.notified() => {}
            }
            self.look_again().await;
        }
    }

    async fn look_again(&mut self) {
        match look(self.sysfs.clone(), Arc::clone(&self.pools)).await {
            Ok(assignment) => self.publish(assignment),
            Err(error) => self.tell_failure(&error),
        }
    }

    fn publish(&mut self, assignment: Assignment) {
        self.told_failure = None;
        for ((pool, publisher), devices) in self.pools.iter().zip(&self.publishers).zip(assignment.pools) {
            publisher.send_if_modified(|present| {
                if **present == devices {
                    return false;
                }
                let (added, removed) = (missing(&devices, present), missing(present, &devices));
                info!(pool = %pool.resource, devices = devices.len(), added, removed, "devices changed");
                *present = Arc::new(devices);
                true
            });
        }
        self.tell_conflicts(&assignment.conflicts);
    }

    fn tell_conflicts(&mut self, conflicts: &[Conflict]) {
        for conflict in conflicts {
            if self.told_conflicts.insert(*conflict) {
                let (winner, loser) =
                    (&self.pools[conflict.winner].resource, &self.pools[conflict.loser].resource);
                warn!(device = %conflict.device, pool = %winner, not = %loser, "two pools select one device");
            }
        }
    }

    /// A failure that lasts is told once.
    fn tell_failure(&mut self, error: &SysfsError) {
        let failure = chain(error);
        if self.told_failure.as_ref() == Some(&failure) {
            debug!(error = failure, "cannot read the machine's devices, still");
        } else {
            warn!(error = failure, "cannot read the machine's devices; the pools stay as they are");
            self.told_failure = Some(failure);
        }
    }
}

/// The addresses in one set that are not in another, for the log.
fn missing(of: &PoolDevices, from: &PoolDevices) -> String {
    let missing = of.keys().filter(|address| !from.contains_key(address));
    missing.map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// sysfs answers from memory, but asks drivers on the way, and a driver may sleep: so not on an async worker.
async fn look(sysfs: Sysfs, pools: Arc<[PoolConfig]>) -> Result<Assignment, SysfsError> {
    let looked = task::spawn_blocking(move || Ok(assign(&pools, &sysfs.pci_functions()?))).await;
    // A walk does not panic. If it does, that is this task's panic too and not an empty machine.
    looked.unwrap_or_else(|error| {
        resume_unwind(error.try_into_panic().unwrap_or_else(|error| Box::new(error.to_string())))
    })
}

#[cfg(test)]
mod tests {
    use zerobridge_kernel::testing::SysfsTree;

    use super::*;
    use crate::config::Config;

    const OVERLAP: &str = r#"{"pools": [
        {"resourceName": "first", "selectors": {"pfNames": ["enp1s0f0#0"]}},
        {"resourceName": "rest", "selectors": {"any": true}}
    ]}"#;

    async fn inventory() -> (tempfile::TempDir, SysfsTree, Inventory) {
        let folder = tempfile::tempdir().unwrap();
        let tree = SysfsTree::new(folder.path().join("sys"));
        tree.add_igb(0, 2);
        let pools = Config::parse(OVERLAP).unwrap().pools;
        let inventory = Inventory::open(Sysfs::new(tree.root()), pools).await.unwrap();
        (folder, tree, inventory)
    }

    #[tokio::test]
    async fn subscribers_hear_of_changes_of_their_own_pool_only() {
        let (_folder, tree, mut inventory) = inventory().await;
        let watches = inventory.subscribe();
        assert_eq!(watches.iter().map(|watch| watch.borrow().len()).collect::<Vec<_>>(), [1, 1]);

        let mut changed = async || {
            inventory.look_again().await;
            watches.iter().map(|watch| watch.has_changed().unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(changed().await, [false, false]);
        tree.add_igb_vf(0, 2);
        assert_eq!(changed().await, [false, true]);
    }

    #[tokio::test]
    async fn a_failed_look_changes_nothing() {
        let (folder, tree, mut inventory) = inventory().await;
        let watches = inventory.subscribe();
        let away = folder.path().join("away");
        std::fs::rename(tree.root(), &away).unwrap();
        inventory.look_again().await;
        assert!(inventory.told_failure.as_ref().unwrap().contains("bus/pci/devices"));
        assert!(watches.iter().all(|watch| !watch.has_changed().unwrap() && watch.borrow().len() == 1));

        std::fs::rename(&away, tree.root()).unwrap();
        inventory.look_again().await;
        assert_eq!(inventory.told_failure, None, "the next failure is news");
    }

    #[tokio::test]
    async fn a_conflict_is_told_once() {
        let (_folder, tree, mut inventory) = inventory().await;
        let device = "0000:01:10.0".parse().unwrap();
        let told = BTreeSet::from([Conflict { device, winner: 0, loser: 1 }]);
        assert_eq!(inventory.told_conflicts, told);
        tree.remove(device);
        inventory.look_again().await;
        assert_eq!(inventory.told_conflicts, told, "a VF that comes back is no news");
    }

    /// The timer is as good as off, so that only the wake can be the cause.
    #[tokio::test]
    async fn a_wake_causes_a_look_and_the_end_of_the_inventory_is_the_end_of_the_channels() {
        let (_folder, tree, inventory) = inventory().await;
        let (wake, mut rest) = (inventory.waker(), inventory.subscribe().remove(1));
        let running = tokio::spawn(inventory.run(Duration::from_secs(86_400)));
        tree.add_igb_vf(0, 2);
        wake.notify_one();
        let changed = tokio::time::timeout(Duration::from_secs(60), rest.changed());
        changed.await.unwrap().unwrap();
        assert_eq!(rest.borrow().len(), 2);

        running.abort();
        assert!(rest.changed().await.is_err());
    }
}
