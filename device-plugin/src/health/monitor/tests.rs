use std::time::Duration;

use zerobridge_kernel::testing::SysfsTree;
use zerobridge_kernel::{Scanner, Sysfs};

use super::*;
use crate::config::Config;
use crate::device::{Device, Hardware};
use crate::health::HealthPolicy;

const DIRTY: &str = "a dead pod had it";

/// A card with two VFs, of which checks can only find that they are dirty.
struct World {
    pool: PoolConfig,
    around: Surroundings,
    devices: PoolDevices,
    dirty: DirtyVfs,
    monitor: HealthMonitor,
    now: Instant,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let tree = SysfsTree::new(folder.path());
        tree.add_igb(0, 2);
        let machine = Scanner::new(Sysfs::new(folder.path())).scan().unwrap();
        let devices = ["0000:01:10.0", "0000:01:10.2"].map(|text| {
            let function = text.parse().unwrap();
            let id = DeviceId { hardware: Hardware::Function(function), share: None };
            let (pf, vf_index, driver, numa_node, upstream) = Default::default();
            let healthy = true;
            let representor = None;
            let device = Device {
                id: id.clone(),
                function,
                pf,
                vf_index,
                driver,
                numa_node,
                topology: None,
                upstream,
                representor,
                healthy,
            };
            (id, device)
        });
        let around = Surroundings { machine, ..Surroundings::default() };
        let (dirty, monitor) = Default::default();
        let text = r#"{"pools": [{"resourceName": "vf", "selectors": {"any": true}}]}"#;
        let pool = Config::parse(text).unwrap().pools.remove(0);
        Self { pool, around, devices: devices.into(), dirty, monitor, now: Instant::now() }
    }

    fn soil(&mut self, number: usize, is_dirty: bool) {
        let device = self.devices.values().nth(number).unwrap().function;
        match is_dirty {
            true => self.dirty.insert(device, DIRTY.to_owned()),
            false => self.dirty.remove(&device),
        };
    }

    /// Judges after a pause, and returns who is healthy, too.
    fn judge(&mut self, milliseconds: u64, health: &HealthPolicy) -> (Vec<bool>, Judgement) {
        self.now += Duration::from_millis(milliseconds);
        let pool = PoolConfig { health: health.clone(), ..self.pool.clone() };
        let judgement = self.monitor.judge(self.now, &pool, &mut self.devices, &self.around, &self.dirty);
        (self.devices.values().map(|device| device.healthy).collect(), judgement)
    }

    fn transition(&self, number: usize, policy: Policy, failure: Option<&str>) -> Transition {
        let device = self.devices.keys().nth(number).unwrap().clone();
        Transition { device, check: Check::DirtyVf, policy, failure: failure.map(str::to_owned) }
    }
}

fn with(policy: Policy) -> HealthPolicy {
    HealthPolicy { policies: [(Check::DirtyVf, policy)].into(), hold_down: Duration::from_secs(1) }
}

#[test]
fn a_failure_of_one_device_turns_that_one_unhealthy_after_the_hold_down_and_back() {
    let (mut world, health) = (World::new(), with(Policy::Unhealthy));
    assert_eq!(world.judge(0, &health), (vec![true, true], Judgement::default()));
    for (is_dirty, words) in [(true, Some(DIRTY)), (false, None)] {
        world.soil(1, is_dirty);
        let (healthy, judgement) = world.judge(100, &health);
        assert_eq!(healthy, [true, is_dirty]);
        assert_eq!(judgement, Judgement { transitions: vec![], next: Some(world.now + health.hold_down) });
        let (healthy, judgement) = world.judge(1000, &health);
        assert_eq!(healthy, [true, !is_dirty]);
        let transitions = vec![world.transition(1, Policy::Unhealthy, words)];
        assert_eq!(judgement, Judgement { transitions, next: None });
        let failures: Vec<_> = world.monitor.failures(world.devices.keys().nth(1).unwrap()).collect();
        assert_eq!(failures, words.map(|words| (Check::DirtyVf, words)).into_iter().collect::<Vec<_>>());
    }
}

#[test]
fn the_next_round_is_due_when_the_first_pending_change_is() {
    let (mut world, health) = (World::new(), with(Policy::Unhealthy));
    world.judge(0, &health);
    world.soil(1, true);
    let (_, judgement) = world.judge(100, &health);
    world.soil(0, true);
    assert_eq!(world.judge(300, &health).1.next, judgement.next);
    let (healthy, judgement) = world.judge(700, &health);
    assert_eq!(healthy, [true, false]);
    assert_eq!(judgement.next, Some(world.now + Duration::from_millis(300)));
}

#[test]
fn what_follows_is_the_pools_to_say() {
    let mut world = World::new();
    world.soil(0, true);
    for (policy, healthy, transitions) in [
        (Policy::Warn, [true, true], vec![world.transition(0, Policy::Warn, Some(DIRTY))]),
        // The standing is known, only what follows from it is new.
        (Policy::Unhealthy, [false, true], vec![]),
        (Policy::Off, [true, true], vec![]),
        // Nothing was remembered of a check that was not made, so this is the first time again.
        (Policy::Unhealthy, [false, true], vec![world.transition(0, Policy::Unhealthy, Some(DIRTY))]),
    ] {
        let (found, judgement) = world.judge(1, &with(policy));
        assert_eq!((found, judgement.transitions), (healthy.to_vec(), transitions), "{policy:?}");
    }
}

#[test]
fn a_device_that_comes_back_is_seen_for_the_first_time_again() {
    let (mut world, health) = (World::new(), with(Policy::Unhealthy));
    world.judge(0, &health);
    let away = world.devices.clone();
    world.devices.pop_last();
    world.judge(0, &health);
    assert_eq!(world.monitor.standings.len(), 1);
    world.devices = away;
    world.soil(1, true);
    let (_, judgement) = world.judge(0, &health);
    assert_eq!(judgement.transitions, [world.transition(1, Policy::Unhealthy, Some(DIRTY))]);
}
