//! Leases against a real ledger: single cases, and random ones beside a model.
#![expect(clippy::unwrap_used, reason = "a test program, of which clippy takes the helpers for none")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use proptest::prelude::*;
use serde_json::json;
use zerobridge_ipam::{
    Foreign, IpamError, LeaseRequest, Leased, PoolConfig, check, lease, release, require_room, set_aside,
};
use zerobridge_ledger::{Ledger, Owner, UnixSeconds};

fn pool(ipam: serde_json::Value) -> PoolConfig {
    PoolConfig::parse(&ipam, None).unwrap()
}

fn owner(number: u32) -> Owner {
    Owner { container_id: format!("c{number}"), ifname: "eth0".to_owned() }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A ledger in a directory of its own, and a clock.
struct Node {
    _directory: tempfile::TempDir,
    ledger: Ledger,
    now: i64,
    boot_id: &'static str,
}

impl Node {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(directory.path()).unwrap();
        Self { _directory: directory, ledger, now: 1_000_000, boot_id: "b1" }
    }

    fn request(&self, number: u32, requested: &[IpAddr]) -> LeaseRequest {
        LeaseRequest {
            owner: owner(number),
            pod: None,
            device: None,
            mac: None,
            vlan: None,
            rdma: None,
            requested: requested.to_vec(),
            now: UnixSeconds(self.now),
            boot_id: self.boot_id.to_owned(),
        }
    }

    fn lease_requested(
        &mut self,
        pool: &PoolConfig,
        number: u32,
        requested: &[IpAddr],
    ) -> Result<Leased, IpamError> {
        let request = self.request(number, requested);
        let mut transaction = self.ledger.begin().unwrap();
        let leased = lease(&mut transaction, "blue", pool, &request);
        // Committed after a failure too: a lease that failed must have changed nothing by itself.
        transaction.commit().unwrap();
        leased
    }

    fn lease(&mut self, pool: &PoolConfig, number: u32) -> Result<Vec<IpAddr>, IpamError> {
        Ok(self.lease_requested(pool, number, &[])?.ips.iter().map(|ip| ip.address.addr()).collect())
    }

    fn lease_one(&mut self, pool: &PoolConfig, number: u32) -> String {
        self.lease(pool, number).unwrap()[0].to_string()
    }

    fn release(&mut self, number: u32) -> Vec<IpAddr> {
        let mut transaction = self.ledger.begin().unwrap();
        let released = release(&mut transaction, &owner(number), "blue", UnixSeconds(self.now)).unwrap();
        transaction.commit().unwrap();
        released
    }
}

#[test]
fn addresses_go_round_and_rest_before_they_come_again() {
    let pool = pool(json!({"subnet": "10.0.0.0/29"}));
    let mut node = Node::new();
    assert_eq!(node.lease_one(&pool, 1), "10.0.0.2");
    assert_eq!(node.lease_one(&pool, 2), "10.0.0.3");
    node.release(1);
    for (number, address) in [(3, "10.0.0.4"), (4, "10.0.0.5"), (5, "10.0.0.6")] {
        assert_eq!(node.lease_one(&pool, number), address);
    }
    node.release(4);
    node.now += 1;
    // Only resting addresses are left: the one that has rested longest.
    assert_eq!(node.lease_one(&pool, 6), "10.0.0.2");
    node.now += 59;
    node.release(2);
    // 10.0.0.5 has rested for a minute, 10.0.0.3 has only begun to.
    assert_eq!(node.lease_one(&pool, 7), "10.0.0.5");
    assert_eq!(node.ledger.audit().unwrap(), []);
}

#[test]
fn a_result_has_the_prefix_the_gateway_and_what_goes_with_it() {
    let pool = pool(json!({
        "ranges": [
            [{"subnet": "10.0.0.0/30", "rangeStart": "10.0.0.2"}, {"subnet": "10.1.0.0/16", "gateway": "10.1.9.9"}],
            [{"subnet": "fd00::/64"}],
        ],
        "routes": [{"dst": "0.0.0.0/0"}],
        "dns": {"nameservers": ["10.0.0.3"]},
    }));
    let mut node = Node::new();
    let shown = |leased: Leased| {
        assert_eq!((leased.routes.len(), leased.dns.nameservers.len()), (1, 1));
        leased.ips.iter().map(|ip| format!("{} {}", ip.address, ip.gateway.unwrap())).collect::<Vec<_>>()
    };
    assert_eq!(
        shown(node.lease_requested(&pool, 1, &[]).unwrap()),
        ["10.0.0.2/30 10.0.0.1", "fd00::2/64 fd00::1"]
    );
    // The first range of the set is full, the second stands in for it.
    assert_eq!(
        shown(node.lease_requested(&pool, 2, &[]).unwrap()),
        ["10.1.0.1/16 10.1.9.9", "fd00::3/64 fd00::1"]
    );
}

#[test]
fn the_same_owner_gets_the_same_addresses_though_the_pool_is_full() {
    let pool = pool(json!({"ranges": [[{"subnet": "10.0.0.0/30"}], [{"subnet": "fd00::/126"}]]}));
    let mut node = Node::new();
    let first = node.lease(&pool, 1).unwrap();
    assert_eq!(node.lease(&pool, 1).unwrap(), first);
    let error = node.lease(&pool, 2).unwrap_err().to_string();
    assert!(
        error.contains("all 1 addresses that network blue gives out of 10.0.0.0/30 are leased"),
        "{error}"
    );
    assert_eq!(node.lease(&pool, 1).unwrap(), first);
    check(&node.ledger, "blue", &pool, &owner(1)).unwrap();
    assert!(matches!(check(&node.ledger, "blue", &pool, &owner(2)), Err(IpamError::NotLeased { .. })));
    assert!(matches!(require_room(&node.ledger, "blue", &pool, "b1"), Err(IpamError::Exhausted { .. })));
    node.release(1);
    require_room(&node.ledger, "blue", &pool, "b1").unwrap();
}

#[test]
fn when_one_set_is_full_nothing_is_taken_from_the_other() {
    let pool = pool(json!({"ranges": [[{"subnet": "10.0.0.0/24"}], [{"subnet": "fd00::/126"}]]}));
    let mut node = Node::new();
    for number in 1..=2 {
        node.lease(&pool, number).unwrap();
    }
    assert!(matches!(node.lease(&pool, 3), Err(IpamError::Exhausted { .. })));
    assert_eq!(node.ledger.leases().unwrap().len(), 4);
    assert_eq!(node.ledger.resting_in("blue").unwrap(), []);
}

#[test]
fn an_owner_gets_what_a_changed_pool_lacks_and_keeps_what_it_has() {
    let mut node = Node::new();
    let narrow = pool(json!({"subnet": "10.0.0.0/24"}));
    let dual = pool(
        json!({"exclude": ["10.0.0.2"], "ranges": [[{"subnet": "10.0.0.0/24"}], [{"subnet": "fd00::/64"}]]}),
    );
    assert_eq!(node.lease(&narrow, 1).unwrap(), [ip("10.0.0.2")]);
    assert_eq!(node.lease(&dual, 1).unwrap(), [ip("10.0.0.2"), ip("fd00::2")]);
    assert_eq!(node.release(1), [ip("10.0.0.2"), ip("fd00::2")]);
}

#[test]
fn an_address_that_is_asked_for_is_given_unless_another_has_it() {
    let pool = pool(json!({"ranges": [[{"subnet": "10.0.0.0/24"}], [{"subnet": "fd00::/64"}]]}));
    let mut node = Node::new();
    let asked = [ip("10.0.0.77")];
    let leased = node.lease_requested(&pool, 1, &asked).unwrap();
    assert_eq!(leased.ips[0].address.to_string(), "10.0.0.77/24");
    assert_eq!(leased.ips[1].address.to_string(), "fd00::2/64");
    assert_eq!(node.lease_requested(&pool, 1, &asked).unwrap(), leased);

    let message = |result: Result<Leased, IpamError>| result.unwrap_err().to_string();
    assert_eq!(
        message(node.lease_requested(&pool, 2, &asked)),
        "10.0.0.77 of network blue was asked for and is leased to eth0 of container c1"
    );
    assert!(message(node.lease_requested(&pool, 1, &[ip("10.0.0.78")])).contains("has 10.0.0.77 already"));
    for outside in ["10.0.0.1", "10.0.0.0", "10.0.1.9"] {
        assert!(message(node.lease_requested(&pool, 2, &[ip(outside)])).contains(outside));
    }
    let two = [ip("10.0.0.5"), ip("10.0.0.6")];
    assert!(message(node.lease_requested(&pool, 2, &two)).contains("gives one address from 10.0.0.0/24"));
    // A rest does not keep an address from the one who asks for it.
    node.release(1);
    node.lease_requested(&pool, 2, &asked).unwrap();
    assert_eq!(node.ledger.audit().unwrap(), []);
}

#[test]
fn a_release_in_one_network_leaves_the_others_alone() {
    let pool = pool(json!({"subnet": "10.0.0.0/24"}));
    let mut node = Node::new();
    node.lease(&pool, 1).unwrap();
    let mut transaction = node.ledger.begin().unwrap();
    let request = LeaseRequest {
        owner: owner(1),
        pod: None,
        device: Some("0000:01:10.0".parse().unwrap()),
        mac: None,
        vlan: None,
        rdma: None,
        requested: Vec::new(),
        now: UnixSeconds(node.now),
        boot_id: node.boot_id.to_owned(),
    };
    // Another network is another space: the same address is free in it.
    let leased = lease(&mut transaction, "green", &pool, &request).unwrap();
    assert_eq!(leased.ips[0].address.addr(), ip("10.0.0.2"));
    transaction.commit().unwrap();
    assert_eq!(node.release(1), [ip("10.0.0.2")]);
    let left = node.ledger.leases().unwrap();
    assert_eq!(
        left.iter().map(|lease| (lease.network.as_str(), lease.device)).collect::<Vec<_>>(),
        [("green", request.device)]
    );
}

#[test]
fn after_a_reboot_a_full_pool_takes_back_what_nobody_can_use_any_more() {
    let pool = pool(json!({"subnet": "10.0.0.0/29"}));
    let mut node = Node::new();
    for number in 1..=5 {
        node.lease(&pool, number).unwrap();
    }
    node.boot_id = "b2";
    for number in 6..=10 {
        node.lease(&pool, number).unwrap();
    }
    assert!(matches!(node.lease(&pool, 11), Err(IpamError::Exhausted { .. })));
    // The late DEL of a container from before the reboot must not free what another has now.
    for number in 1..=5 {
        assert_eq!(node.release(number), Vec::<IpAddr>::new());
    }
    assert_eq!(node.ledger.leases().unwrap().len(), 5);
    assert_eq!(node.ledger.audit().unwrap(), []);
}

#[test]
fn a_pool_of_many_chunks_is_used_to_the_last_address() {
    let pool = pool(json!({"subnet": "10.0.0.0/18", "exclude": ["10.0.0.0/20", "10.0.20.0/22"]}));
    let size = pool.sets()[0].size();
    let mut node = Node::new();
    let mut transaction = node.ledger.begin().unwrap();
    let mut seen = BTreeSet::new();
    let request = |number: u32| LeaseRequest {
        owner: owner(number),
        pod: None,
        device: None,
        mac: None,
        vlan: None,
        rdma: None,
        requested: Vec::new(),
        now: UnixSeconds(0),
        boot_id: "b1".to_owned(),
    };
    for number in 0..u32::try_from(size).unwrap() {
        let leased = lease(&mut transaction, "blue", &pool, &request(number)).unwrap();
        assert!(pool.sets()[0].gives_out(leased.ips[0].address.addr()));
        seen.insert(leased.ips[0].address.addr());
    }
    assert_eq!(seen.len(), usize::try_from(size).unwrap());
    assert!(lease(&mut transaction, "blue", &pool, &request(99_999)).is_err());
    assert_eq!(transaction.audit().unwrap(), []);
}

/// What happens on a node.
#[derive(Clone, Debug)]
enum Step {
    Lease(u32),
    Ask(u32, u8),
    Release(u32),
    /// A foreign host is found to have the owner's first address.
    Foreign(u32),
    Clock(i64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0_u32..12).prop_map(Step::Lease),
        1 => (0_u32..12, 0_u8..16).prop_map(|(number, low)| Step::Ask(number, low)),
        3 => (0_u32..12).prop_map(Step::Release),
        2 => (0_u32..12).prop_map(Step::Foreign),
        1 => (-500_i64..500).prop_map(Step::Clock),
    ];
    proptest::collection::vec(step, 1..60)
}

fn pools() -> impl Strategy<Value = PoolConfig> {
    let excluded = proptest::collection::btree_set(3_u8..14, 0..4);
    (28_u8..=30, excluded, any::<(bool, bool)>(), prop_oneof![Just(0_u32), Just(60)]).prop_filter_map(
        "exclusions outside, or nothing left",
        |(prefix, excluded, (dual, probes), rest)| {
            let exclude: Vec<String> = excluded.iter().map(|low| format!("10.0.0.{low}")).collect();
            let mut ranges = vec![json!([{"subnet": format!("10.0.0.0/{prefix}")}])];
            if dual {
                ranges.push(json!([{"subnet": "fd00::/125"}]));
            }
            let probe = if probes { json!({"setAsideSeconds": 90}) } else { json!(false) };
            let ipam =
                json!({"ranges": ranges, "exclude": exclude, "restSeconds": rest, "conflictProbe": probe});
            PoolConfig::parse(&ipam, None).ok()
        },
    )
}

/// Whether some set has nothing to give out: all is leased, or was found to be another's at this moment.
fn is_full(node: &Node, pool: &PoolConfig, model: &BTreeMap<u32, Vec<IpAddr>>) -> bool {
    let mut foreign = node.ledger.set_aside().unwrap();
    foreign.retain(|found| found.seen_at == UnixSeconds(node.now));
    let taken: Vec<IpAddr> =
        model.values().flatten().copied().chain(foreign.iter().map(|found| found.address)).collect();
    pool.sets().iter().any(|set| {
        let taken = taken.iter().filter(|address| set.gives_out(**address)).count();
        u128::try_from(taken).unwrap() == set.size()
    })
}

proptest! {
    // Each case writes and syncs some dozens of transactions.
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// The model is a map from owner to addresses. Whatever happens, an address has one owner, an owner one address of
    /// each set, a lease fails only when some set is leased out but for what was found to be another's just now, and nothing
    /// is lost.
    #[test]
    fn no_address_is_given_twice_or_lost(pool in pools(), steps in steps()) {
        let mut node = Node::new();
        let mut model: BTreeMap<u32, Vec<IpAddr>> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Clock(by) => node.now += by,
                Step::Release(number) => {
                    prop_assert_eq!(node.release(number), model.remove(&number).unwrap_or_default());
                }
                Step::Lease(number) => {
                    match node.lease(&pool, number) {
                        Ok(addresses) => {
                            let before = model.insert(number, addresses.clone());
                            prop_assert!(before.is_none_or(|before| before == addresses));
                        }
                        Err(error) => {
                            prop_assert!(matches!(error, IpamError::Exhausted { .. }), "{}", error);
                            prop_assert!(is_full(&node, &pool, &model) && !model.contains_key(&number));
                        }
                    }
                }
                Step::Foreign(number) => {
                    let Some(before) = model.get(&number).cloned() else { continue };
                    match replace(&mut node, &pool, number, &[&before[0].to_string()]) {
                        Ok(addresses) => {
                            prop_assert!(addresses[0] != before[0] && addresses[1..] == before[1..]);
                            model.insert(number, addresses);
                        }
                        Err(error) => {
                            prop_assert!(matches!(error, IpamError::Exhausted { .. }), "{}", error);
                            prop_assert_eq!(node.release(number), &before[1..]);
                            model.remove(&number);
                            prop_assert!(is_full(&node, &pool, &model));
                        }
                    }
                }
                Step::Ask(number, low) => {
                    let asked = IpAddr::from([10, 0, 0, low]);
                    let taken = model.iter().any(|(other, held)| *other != number && held.contains(&asked));
                    match node.lease_requested(&pool, number, &[asked]) {
                        Ok(leased) => {
                            let addresses: Vec<IpAddr> = leased.ips.iter().map(|ip| ip.address.addr()).collect();
                            prop_assert!(addresses[0] == asked && !taken);
                            let before = model.insert(number, addresses.clone());
                            prop_assert!(before.is_none_or(|before| before == addresses));
                        }
                        Err(IpamError::Taken { holder, .. }) => {
                            prop_assert!(taken && holder != owner(number));
                        }
                        Err(_) => {}
                    }
                }
            }
            let given: Vec<&IpAddr> = model.values().flatten().collect();
            prop_assert_eq!(given.iter().collect::<BTreeSet<_>>().len(), given.len());
            let complete = |addresses: &Vec<IpAddr>| {
                let from_their_sets = addresses.iter().zip(pool.sets()).all(|(address, set)| set.gives_out(*address));
                addresses.len() == pool.sets().len() && from_their_sets
            };
            prop_assert!(model.values().all(complete));
            let recorded: BTreeSet<IpAddr> =
                node.ledger.leases().unwrap().into_iter().map(|lease| lease.address).collect();
            prop_assert_eq!(recorded, given.into_iter().copied().collect::<BTreeSet<_>>());
        }
        prop_assert_eq!(node.ledger.audit().unwrap(), []);
    }
}

/// Finds that a foreign host has these addresses of an owner, and leases others in their place, in one transaction.
fn replace(
    node: &mut Node,
    pool: &PoolConfig,
    number: u32,
    foreign: &[&str],
) -> Result<Vec<IpAddr>, IpamError> {
    let found: Vec<Foreign> =
        foreign.iter().map(|text| Foreign { address: ip(text), mac: foreign_mac() }).collect();
    let request = node.request(number, &[]);
    let mut transaction = node.ledger.begin().unwrap();
    set_aside(&mut transaction, &request.owner, "blue", &found, request.now).unwrap();
    let leased = lease(&mut transaction, "blue", pool, &request);
    transaction.commit().unwrap();
    Ok(leased?.ips.iter().map(|ip| ip.address.addr()).collect())
}

fn foreign_mac() -> zerobridge_proto::Mac {
    "02:00:00:00:00:09".parse().unwrap()
}

#[test]
fn an_address_that_a_foreign_host_has_is_replaced_and_kept_back_for_its_time() {
    let pool = pool(json!({"ranges": [[{"subnet": "10.0.0.0/29"}], [{"subnet": "fd00::/64"}]],
        "conflictProbe": {"setAsideSeconds": 600}, "restSeconds": 0}));
    let mut node = Node::new();
    assert_eq!(node.lease(&pool, 1).unwrap(), [ip("10.0.0.2"), ip("fd00::2")]);
    // Only the one that is another's changes.
    assert_eq!(replace(&mut node, &pool, 1, &["10.0.0.2"]).unwrap(), [ip("10.0.0.3"), ip("fd00::2")]);
    let set_aside = node.ledger.set_aside_in("blue").unwrap();
    assert_eq!(
        set_aside.iter().map(|found| (found.address, found.mac, &found.found_for)).collect::<Vec<_>>(),
        [(ip("10.0.0.2"), foreign_mac(), &owner(1))]
    );
    assert_eq!(node.ledger.resting_in("blue").unwrap(), []);
    for (number, address) in [(2, "10.0.0.4"), (3, "10.0.0.5"), (4, "10.0.0.6")] {
        assert_eq!(node.lease_one(&pool, number), address);
    }
    node.now += 599;
    node.release(2);
    // Behind 10.0.0.6 comes 10.0.0.2, which is still kept back.
    assert_eq!(node.lease_one(&pool, 5), "10.0.0.4");
    node.now += 1;
    assert_eq!(node.lease_one(&pool, 6), "10.0.0.2");
    assert_eq!((node.ledger.set_aside().unwrap(), node.ledger.audit().unwrap()), (vec![], vec![]));
}

#[test]
fn an_address_that_a_foreign_host_has_is_used_last_of_all_and_not_in_the_moment_in_which_it_was_found() {
    let pool = pool(json!({"subnet": "10.0.0.0/29", "rangeEnd": "10.0.0.3", "conflictProbe": true}));
    let mut node = Node::new();
    node.lease(&pool, 1).unwrap();
    assert_eq!(replace(&mut node, &pool, 1, &["10.0.0.2"]).unwrap(), [ip("10.0.0.3")]);
    let error = node.lease(&pool, 2).unwrap_err().to_string();
    assert!(
        error.contains("all 2 addresses") && error.contains("in the hands of foreign hosts (1)"),
        "{error}"
    );
    // ADD would try it again in a moment, so it counts as room.
    require_room(&node.ledger, "blue", &pool, "b1").unwrap();
    node.now += 1;
    // One that rests goes before it, and so does one of before a reboot.
    node.release(1);
    assert_eq!(node.lease_one(&pool, 2), "10.0.0.3");
    node.boot_id = "b2";
    assert_eq!(node.lease_one(&pool, 3), "10.0.0.3");
    assert_eq!(node.lease_one(&pool, 4), "10.0.0.2");
    let error = replace(&mut node, &pool, 4, &["10.0.0.2"]).unwrap_err();
    assert!(matches!(error, IpamError::Exhausted { set_aside: 1, .. }), "{error}");
    // The owner lost what was never its own.
    assert_eq!(node.ledger.leases_of(&owner(4)).unwrap(), []);
    assert_eq!(node.ledger.audit().unwrap(), []);
}

#[test]
fn an_address_that_is_asked_for_is_given_though_it_is_set_aside() {
    let pool = pool(json!({"subnet": "10.0.0.0/24", "conflictProbe": true}));
    let mut node = Node::new();
    node.lease(&pool, 1).unwrap();
    replace(&mut node, &pool, 1, &["10.0.0.2"]).unwrap();
    let leased = node.lease_requested(&pool, 2, &[ip("10.0.0.2")]).unwrap();
    assert_eq!(leased.ips[0].address.addr(), ip("10.0.0.2"));
    assert_eq!((node.ledger.set_aside().unwrap(), node.ledger.audit().unwrap()), (vec![], vec![]));
}
