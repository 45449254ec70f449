//! The pools and their present devices: takes a look at the machine, publishes what changed, and remembers what was told.
//!
//! Each pool has a `watch` channel that holds its devices; subscribers hear of real changes only, and the end of the
//! channel is the end of the pool. Refuses to know how a look is taken and when the next one is due, except for a check
//! that waits to be sure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::cdi::NodeMethod;
use crate::config::PoolConfig;
use crate::device::{DeviceId, Hardware};
use crate::health::{Check, DirtyVfs, HealthMonitor, Transition};
use crate::pod_resources::Held;
use crate::pool::{Assignment, Conflict, Holdings, PoolDevices, Surroundings, Withheld, Withholding, assign};
use crate::rdma::{Obstacle, obstacles};
use crate::resource::ResourceName;

/// The present devices of one pool.
pub(crate) type DeviceWatch = watch::Receiver<Arc<PoolDevices>>;

/// The pools of the node.
#[derive(Debug, Default)]
pub(crate) struct Inventory {
    pools: Vec<Pool>,
    told_conflicts: BTreeSet<(Hardware, ResourceName, ResourceName)>,
    withheld: BTreeMap<Hardware, Withholding>,
}

/// What the latest look found, and what was made of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Look {
    /// What was found.
    pub(crate) around: Surroundings,
    /// The pools, in the order of the configuration.
    pub(crate) pools: Vec<PoolLook>,
    /// Devices that a pool selects and does not offer, and why.
    pub(crate) withheld: BTreeMap<Hardware, Withheld>,
    /// What keeps the node from giving what its pools promise.
    pub(crate) obstacles: Vec<Obstacle>,
}

/// One pool after a look.
#[derive(Clone, Debug)]
pub(crate) struct PoolLook {
    /// Its configuration.
    pub(crate) config: Arc<PoolConfig>,
    /// Its devices.
    pub(crate) devices: Arc<PoolDevices>,
    /// The checks that fail, and why, by device.
    pub(crate) problems: BTreeMap<DeviceId, BTreeMap<Check, String>>,
}

#[derive(Debug)]
struct Pool {
    config: watch::Sender<Arc<PoolConfig>>,
    devices: watch::Sender<Arc<PoolDevices>>,
    monitor: HealthMonitor,
}

/// What a look brought.
#[derive(Debug, Default)]
pub(crate) struct Update {
    /// Checks that changed their mind about a device.
    pub(crate) transitions: Vec<(ResourceName, Transition)>,
    /// Devices that are no longer offered although a pool selects them, or for another reason than before.
    pub(crate) withheld: Vec<(ResourceName, Hardware, Withheld)>,
    /// When a check that waits to be sure has waited long enough.
    pub(crate) next: Option<Instant>,
}

/// What one pool needs in order to be present at the kubelet.
#[derive(Clone, Debug)]
pub(crate) struct Offer {
    /// Its configuration.
    pub(crate) config: watch::Receiver<Arc<PoolConfig>>,
    /// Its devices.
    pub(crate) devices: DeviceWatch,
}

impl Inventory {
    /// Takes over a configuration. Pools whose resource stays keep their devices and their subscribers until the next
    /// update; the channels of the others end.
    pub(crate) fn configure(&mut self, pools: Vec<PoolConfig>) {
        let mut former: BTreeMap<ResourceName, Pool> =
            self.pools.drain(..).map(|pool| (pool.resource(), pool)).collect();
        let take_over = |config: PoolConfig| match former.remove(&config.resource) {
            Some(pool) => {
                pool.config.send_replace(Arc::new(config));
                pool
            }
            None => Pool {
                config: watch::Sender::new(Arc::new(config)),
                devices: watch::Sender::default(),
                monitor: HealthMonitor::default(),
            },
        };
        self.pools = pools.into_iter().map(take_over).collect();
    }

    /// What to offer to the kubelet, in the order of the configuration.
    pub(crate) fn offers(&self) -> impl Iterator<Item = Offer> {
        self.pools
            .iter()
            .map(|pool| Offer { config: pool.config.subscribe(), devices: pool.devices.subscribe() })
    }

    /// The present state, after a look that found `around` on a node where device nodes reach containers by `method`.
    pub(crate) fn look(&self, around: Surroundings, method: NodeMethod) -> Look {
        let pool = |pool: &Pool| PoolLook {
            config: pool.config(),
            devices: Arc::clone(&pool.devices.borrow()),
            problems: problems(pool),
        };
        let withheld = self.withheld.iter().map(|(device, one)| (device.clone(), one.reason.clone()));
        let configs: Vec<Arc<PoolConfig>> = self.pools.iter().map(Pool::config).collect();
        Look {
            obstacles: obstacles(&configs, &around.rdma, Some(method)),
            around,
            pools: self.pools.iter().map(pool).collect(),
            withheld: withheld.collect(),
        }
    }

    /// Publishes what a look found. `held` is what pods have, as far as that is known.
    pub(crate) fn update(
        &mut self,
        around: &Surroundings,
        held: Option<&Held>,
        dirty: &DirtyVfs,
        now: Instant,
    ) -> Update {
        let configs: Vec<Arc<PoolConfig>> = self.pools.iter().map(Pool::config).collect();
        let Assignment { pools, conflicts, withheld } = assign(&configs, around, held.map(holdings).as_ref());
        let mut update = Update::default();
        for ((pool, config), mut devices) in self.pools.iter_mut().zip(&configs).zip(pools) {
            keep_lost(config, &mut devices, &pool.devices.borrow(), held);
            let judgement = pool.monitor.judge(now, config, &mut devices, around, dirty);
            update.next = [update.next, judgement.next].into_iter().flatten().min();
            let resource = &config.resource;
            for transition in judgement.transitions {
                transition.log(resource);
                update.transitions.push((resource.clone(), transition));
            }
            publish(config, &pool.devices, devices);
        }
        self.tell_conflicts(&configs, conflicts);
        for (device, Withholding { pool, reason }) in &withheld {
            if self.withheld.get(device).is_some_and(|told| told.reason == *reason) {
                continue;
            }
            info!(%device, %reason, "not offered");
            if let Some(pool) = pool {
                let pool = configs[*pool].resource.clone();
                update.withheld.push((pool, device.clone(), reason.clone()));
            }
        }
        self.withheld = withheld;
        update
    }

    fn tell_conflicts(&mut self, configs: &[Arc<PoolConfig>], conflicts: Vec<Conflict>) {
        for Conflict { device, winner, loser } in conflicts {
            let (winner, loser) = (&configs[winner].resource, &configs[loser].resource);
            if self.told_conflicts.insert((device.clone(), winner.clone(), loser.clone())) {
                warn!(%device, pool = %winner, not = %loser, "two pools select one device");
            }
        }
    }
}

impl Pool {
    fn config(&self) -> Arc<PoolConfig> {
        Arc::clone(&self.config.borrow())
    }

    fn resource(&self) -> ResourceName {
        self.config.borrow().resource.clone()
    }
}

/// The resource under which each piece of hardware is in a pod.
fn holdings(held: &Held) -> Holdings {
    let parsed = held
        .devices()
        .filter_map(|(resource, id)| Some((id.parse::<DeviceId>().ok()?.hardware, resource.to_owned())));
    parsed.collect()
}

/// A device that has left the machine stays on the list, as what it was, for as long as a pod holds it: so the kubelet can
/// say what happened to the pod's device.
fn keep_lost(pool: &PoolConfig, devices: &mut PoolDevices, former: &PoolDevices, held: Option<&Held>) {
    let resource = pool.resource.to_string();
    for (id, device) in former {
        let holds = || held.is_some_and(|held| held.holds(&resource, &id.to_string()));
        if !devices.contains_key(id) && holds() {
            devices.insert(id.clone(), device.clone());
        }
    }
}

/// What is wrong with the devices of a pool that something is wrong with.
fn problems(pool: &Pool) -> BTreeMap<DeviceId, BTreeMap<Check, String>> {
    let devices = Arc::clone(&pool.devices.borrow());
    let of = |id: &DeviceId| pool.monitor.failures(id).map(|(check, why)| (check, why.to_owned())).collect();
    let all = devices.keys().map(|id| (id.clone(), of(id)));
    all.filter(|(_, failures): &(_, BTreeMap<Check, String>)| !failures.is_empty()).collect()
}

fn publish(pool: &PoolConfig, published: &watch::Sender<Arc<PoolDevices>>, devices: PoolDevices) {
    published.send_if_modified(|present| {
        if **present == devices {
            return false;
        }
        let (added, removed) = (missing(&devices, present), missing(present, &devices));
        let unhealthy = devices.values().filter(|device| !device.healthy).count();
        info!(pool = %pool.resource, devices = devices.len(), unhealthy, added, removed, "devices changed");
        *present = Arc::new(devices);
        true
    });
}

/// The IDs in one set that are not in another, for the log.
fn missing(of: &PoolDevices, from: &PoolDevices) -> String {
    let missing = of.keys().filter(|id| !from.contains_key(id));
    missing.map(ToString::to_string).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use zerobridge_kernel::testing::SysfsTree;
    use zerobridge_kernel::{Scanner, Sysfs};
    use zerobridge_proto::podresources::{ContainerDevices, ContainerResources, PodResources};

    use super::*;
    use crate::config::Config;
    use crate::pool::outside_of_pods;

    const OVERLAP: &str = r#"{"pools": [
        {"resourceName": "first", "selectors": {"pfNames": ["enp1s0f0#0"]}},
        {"resourceName": "rest", "selectors": {"any": true}}
    ]}"#;

    struct Node {
        _folder: tempfile::TempDir,
        tree: SysfsTree,
        scanner: Scanner,
        inventory: Inventory,
        held: Option<Held>,
        dirty: DirtyVfs,
    }

    impl Node {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let tree = SysfsTree::new(folder.path().join("sys"));
            tree.add_igb(0, 2);
            let scanner = Scanner::new(Sysfs::new(tree.root()));
            let inventory = Inventory::default();
            let (held, dirty) = (Some(Held::default()), DirtyVfs::new());
            let mut node = Self { _folder: folder, tree, scanner, inventory, held, dirty };
            node.configure(OVERLAP);
            node.look();
            node
        }

        fn configure(&mut self, config: &str) {
            self.inventory.configure(Config::parse(config).unwrap().pools);
        }

        fn look(&mut self) -> Update {
            self.look_at(Instant::now())
        }

        fn look_at(&mut self, now: Instant) -> Update {
            let around = Surroundings { machine: self.scanner.scan().unwrap(), ..Surroundings::default() };
            self.inventory.update(&around, self.held.as_ref(), &self.dirty, now)
        }

        /// The pods hold this device and nothing else.
        fn hold(&mut self, resource: &str, id: &str) {
            let devices = ContainerDevices {
                resource_name: resource.to_owned(),
                device_ids: vec![id.to_owned()],
                topology: None,
            };
            let container = ContainerResources { devices: vec![devices], ..ContainerResources::default() };
            let pod = PodResources {
                name: "web".to_owned(),
                containers: vec![container],
                ..PodResources::default()
            };
            self.held = Some(Held::new(&[pod]));
        }

        fn watches(&self) -> Vec<DeviceWatch> {
            self.inventory.offers().map(|offer| offer.devices).collect()
        }

        /// ID and health of every device of a pool.
        fn pool(&self, position: usize) -> Vec<(String, bool)> {
            let devices = Arc::clone(&self.watches()[position].borrow());
            devices.values().map(|device| (device.id.to_string(), device.healthy)).collect()
        }
    }

    #[test]
    fn subscribers_hear_of_changes_of_their_own_pool_only() {
        let mut node = Node::new();
        let watches = node.watches();
        assert_eq!(watches.iter().map(|watch| watch.borrow().len()).collect::<Vec<_>>(), [1, 1]);
        let changed = |watches: &[DeviceWatch]| {
            watches.iter().map(|watch| watch.has_changed().unwrap()).collect::<Vec<_>>()
        };
        node.look();
        assert_eq!(changed(&watches), [false, false]);
        node.tree.add_igb_vf(0, 2);
        node.look();
        assert_eq!(changed(&watches), [false, true]);
    }

    #[test]
    fn a_conflict_is_told_once() {
        let mut node = Node::new();
        let told = node.inventory.told_conflicts.clone();
        assert_eq!(told.len(), 1);
        node.tree.remove("0000:01:10.0".parse().unwrap());
        node.look();
        assert_eq!(node.inventory.told_conflicts, told, "a VF that comes back is no news");
    }

    #[test]
    fn a_device_that_leaves_is_gone_unless_a_pod_holds_it() {
        let mut node = Node::new();
        node.hold("zerobridge.io/first", "0000:01:10.0");
        node.look();
        for vf in ["0000:01:10.0", "0000:01:10.2"] {
            node.tree.remove(vf.parse().unwrap());
        }
        let due = node.look().next.unwrap();
        assert_eq!(node.pool(0), [("0000:01:10.0".to_owned(), true)], "it may be back in a moment");
        assert_eq!(node.pool(1), []);
        let update = node.look_at(due);
        assert_eq!(node.pool(0), [("0000:01:10.0".to_owned(), false)]);
        assert_eq!(update.transitions[0].1.check, Check::DevicePresent);

        node.held = Some(Held::default());
        node.look();
        assert_eq!(node.pool(0), []);
    }

    /// In exclusive mode the host sees nothing of an RDMA device that is in a pod, and a daemon that has just started has
    /// never seen it.
    #[test]
    fn after_a_restart_a_pods_vf_is_in_its_rdma_pool_and_healthy() {
        let mut node = Node::new();
        node.tree.add_mlx5(0, 2);
        node.configure(
            r#"{"pools": [{"resourceName": "rdma", "selectors": {"vendors": ["15b3"], "isRdma": true}}]}"#,
        );
        node.look();
        let all = [("0000:3d:00.2".to_owned(), true), ("0000:3d:00.3".to_owned(), true)];
        assert_eq!(node.pool(0), all);

        node.tree.hide_netdev("0000:3d:00.2", "ens1f0v0");
        node.tree.hide_rdma("mlx5_2");
        node.hold("zerobridge.io/rdma", "0000:3d:00.2");
        let former = std::mem::take(&mut node.inventory);
        node.inventory.configure(former.pools.iter().map(|pool| PoolConfig::clone(&pool.config())).collect());
        let update = node.look();
        assert_eq!(node.pool(0), all);
        assert_eq!(update.transitions, []);
        node.held = Some(Held::default());
        node.look();
        assert_eq!(node.pool(0), all[1..], "without a holder it is one without RDMA");
    }

    #[test]
    fn what_is_withheld_is_told_when_it_begins() {
        let mut node = Node::new();
        node.tree.add_igb(1, 1);
        let update = node.look();
        let told: Vec<String> =
            update.withheld.iter().map(|(pool, device, _)| format!("{pool} {device}")).collect();
        assert_eq!(told, ["zerobridge.io/rest 0000:01:00.1"]);
        assert!(node.look().withheld.is_empty());
    }

    #[test]
    fn a_dirty_vf_is_unhealthy_until_it_is_clean() {
        let mut node = Node::new();
        node.dirty.insert("0000:01:10.2".parse().unwrap(), "left behind".to_owned());
        // What is found for the first time counts at once; what changes has to last, and says how long.
        let next = node.look().next;
        assert!(next.is_some_and(|next| next > Instant::now()));
        node.configure(OVERLAP.replace("\"rest\"", "\"other\"").as_str());
        node.look();
        assert_eq!(node.pool(1), [("0000:01:10.2".to_owned(), false)]);
    }

    #[test]
    fn a_new_configuration_keeps_the_subscribers_of_pools_that_stay() {
        let mut node = Node::new();
        let (first, rest) = (node.watches()[0].clone(), node.watches()[1].clone());
        node.configure(r#"{"pools": [{"resourceName": "first", "selectors": {"pfNames": ["enp1s0f0"]}}]}"#);
        node.look();
        assert_eq!(first.borrow().len(), 2);
        assert!(first.has_changed().unwrap());
        assert!(rest.has_changed().is_err(), "the end of a pool is the end of its channel");
    }

    #[test]
    fn a_group_is_the_hosts_only_if_the_kubelet_says_that_no_pod_has_it() {
        let mut node = Node::new();
        let vf = "0000:01:10.0";
        let machine = node.scanner.scan().unwrap();
        let group = machine.functions[&vf.parse().unwrap()].iommu_group.unwrap();
        let by_host = |held: Option<&Held>| outside_of_pods(group, &machine, held.map(holdings).as_ref());
        assert!(by_host(node.held.as_ref()));
        node.hold("example.com/somebody-elses", vf);
        assert!(!by_host(node.held.as_ref()));
        assert!(!by_host(None));
    }
}
