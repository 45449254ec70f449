//! Passes in real network namespaces, with one end of a cable as the PF.

use std::collections::BTreeMap;

use serde_json::json;
use zerobridge_kernel::testing::{SysfsTree, TestNetns};
use zerobridge_kernel::{Scanner, Sysfs};
use zerobridge_ledger::Resting;
use zerobridge_proto::podresources::{ContainerDevices, ContainerResources, PodResources};

use super::*;
use crate::config::{LegAddresses, PortName};
use crate::leg::LegStanding;

const PF: &str = "enp1s0f0";

/// A node with a card as a tree of files, whose PF's interface is an end of a cable, and whoever has the other end.
struct World {
    folder: tempfile::TempDir,
    tree: SysfsTree,
    host: TestNetns,
    wire: TestNetns,
    keeper: Keeper,
    held: Option<Held>,
    offered: BTreeSet<Hardware>,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let tree = SysfsTree::new(folder.path().join("sys"));
        tree.add_igb(0, 2);
        let (host, wire) = (TestNetns::new(), TestNetns::new());
        let repairer = Repairer {
            sysfs: Sysfs::new(tree.root()),
            run_dir: folder.path().join("run"),
            cdi_dir: folder.path().join("cdi"),
            boot_id: "this".to_owned(),
            on_behalf_of: "a test".to_owned(),
            patience: Duration::ZERO,
        };
        let keeper = Keeper::new(folder.path().join("state"), repairer);
        let held = Some(Held::default());
        let world = Self { folder, tree, host, wire, keeper, held, offered: BTreeSet::new() };
        world.plug();
        world
    }

    /// Makes the cable, as a PF that appears does.
    fn plug(&self) {
        self.host.ip(&format!("link add {PF} type veth peer name cable netns {}", self.wire.name()));
        self.wire.ip("link set cable up");
    }

    fn pass(&mut self, legs: &[LegConfig]) -> Vec<LegStatus> {
        let machine = Scanner::new(Sysfs::new(self.tree.root())).scan().unwrap();
        let Self { host, keeper, held, offered, .. } = self;
        let moment = Moment { machine: &machine, held: held.as_ref(), offered, now: UnixSeconds(1_000) };
        host.netns().enter(|| keeper.pass(legs, &moment)).unwrap().unwrap()
    }

    fn ledger(&self) -> Ledger {
        Ledger::open(&self.folder.path().join("state")).unwrap()
    }

    /// The IPv4 addresses of the PF.
    fn addresses(&self) -> Vec<String> {
        let shown = self.host.ip(&format!("-o -4 address show dev {PF}"));
        let words = shown.split_whitespace().collect::<Vec<_>>();
        words.windows(2).filter(|pair| pair[0] == "inet").map(|pair| pair[1].to_owned()).collect()
    }
}

fn leg(kind: LegKind, addresses: LegAddresses) -> LegConfig {
    let port = PortName::Netdev(PF.to_owned());
    LegConfig { name: "pods".to_owned(), kind, port, mtu: None, network: "blue".to_owned(), addresses }
}

fn pool(keys: serde_json::Value) -> LegAddresses {
    let mut ipam = json!({"ranges": [[{"subnet": "10.0.0.0/24"}]]});
    ipam.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
    LegAddresses::Pool(ipam)
}

fn fixed(addresses: &[&str]) -> LegAddresses {
    LegAddresses::Fixed(addresses.iter().map(|net| net.parse().unwrap()).collect())
}

fn shown(statuses: &[LegStatus]) -> Vec<(&'static str, String, String)> {
    let shown = |status: &LegStatus| {
        let addresses: Vec<String> = status.addresses.iter().map(ToString::to_string).collect();
        (status.state.name(), addresses.join(","), status.problem.clone().unwrap_or_default())
    };
    statuses.iter().map(shown).collect()
}

#[test]
fn a_leg_comes_stays_and_goes_and_nothing_else_is_touched() {
    let mut world = World::new();
    assert_eq!(world.pass(&[]), []);
    assert!(!world.folder.path().join("state").exists(), "a node without legs needs no ledger");

    world.host.ip(&format!("address add 192.0.2.7/24 dev {PF}"));
    let legs = [leg(LegKind::Pf, pool(json!({})))];
    let up = [("up", "10.0.0.2/24".to_owned(), String::new())];
    for _ in 0..2 {
        assert_eq!(shown(&world.pass(&legs)), up);
    }
    assert!(world.host.ip("route show").contains("10.0.0.0/24"));
    // A daemon that has just started knows only what it reads.
    world.keeper.told = BTreeMap::new();
    assert_eq!(shown(&world.pass(&legs)), up);

    assert_eq!(world.pass(&[]), []);
    assert_eq!(world.addresses(), ["192.0.2.7/24"]);
    let ledger = world.ledger();
    let resting: Vec<Resting> = ledger.resting().unwrap();
    assert_eq!((ledger.leases_of_legs().unwrap(), resting.len()), (vec![], 1));
}

#[test]
fn what_somebody_takes_away_is_put_back() {
    let mut world = World::new();
    let legs = [leg(LegKind::Pf, fixed(&["10.0.0.1/24", "fd00::1/64"]))];
    let up = [("up", "10.0.0.1/24,fd00::1/64".to_owned(), String::new())];
    assert_eq!(shown(&world.pass(&legs)), up);
    for command in
        [format!("address del 10.0.0.1/24 dev {PF}"), format!("link set {PF} down"), format!("link del {PF}")]
    {
        world.host.ip(&command);
        if command.starts_with("link del") {
            let [status] = &world.pass(&legs)[..] else { panic!("one leg") };
            assert_eq!(status.state, LegStanding::Down, "{status:?}");
            world.plug();
        }
        assert_eq!(shown(&world.pass(&legs)), up, "{command}");
    }
}

#[test]
fn another_configuration_takes_away_what_was() {
    let mut world = World::new();
    world.pass(&[leg(LegKind::Pf, fixed(&["10.0.0.1/24"]))]);
    // The same address with another prefix, and then another one.
    world.pass(&[leg(LegKind::Pf, fixed(&["10.0.0.1/16"]))]);
    assert_eq!(world.addresses(), ["10.0.0.1/16"]);
    world.pass(&[leg(LegKind::Pf, fixed(&["10.0.0.9/24"]))]);
    assert_eq!(world.addresses(), ["10.0.0.9/24"]);
    // Another network, and another name.
    let green = LegConfig { network: "green".to_owned(), ..leg(LegKind::Pf, fixed(&["10.1.0.9/24"])) };
    world.pass(std::slice::from_ref(&green));
    assert_eq!(world.addresses(), ["10.1.0.9/24"]);
    world.pass(&[LegConfig { name: "other".to_owned(), ..green }]);
    assert_eq!(world.addresses(), ["10.1.0.9/24"]);
    let leases = world.ledger().leases_of_legs().unwrap();
    assert_eq!(leases.iter().map(|lease| lease.owner.ifname.as_str()).collect::<Vec<_>>(), ["other"]);
}

#[test]
fn two_legs_change_their_addresses_for_each_others() {
    let mut world = World::new();
    world.tree.add_igb(1, 0);
    let other = world.wire.name().to_owned();
    world.host.ip(&format!("link add enp1s0f1 type veth peer name cable1 netns {other}"));
    world.wire.ip("link set cable1 up");
    let legs = |first: &str, second: &str| {
        let port = PortName::Netdev("enp1s0f1".to_owned());
        [
            leg(LegKind::Pf, fixed(&[first])),
            LegConfig { name: "other".to_owned(), port, ..leg(LegKind::Pf, fixed(&[second])) },
        ]
    };
    for (first, second) in [("10.0.0.1/24", "10.0.0.2/25"), ("10.0.0.2/24", "10.0.0.1/25")] {
        let up = |net: &str| ("up", net.to_owned(), String::new());
        assert_eq!(shown(&world.pass(&legs(first, second))), [up(first), up(second)]);
    }
}

#[test]
fn a_foreign_hosts_address_is_passed_over_or_told() {
    let mut world = World::new();
    world.wire.ip("address add 10.0.0.2/24 dev cable");
    let quick = json!({"conflictProbe": {"probes": 2, "intervalMilliseconds": 50, "waitMilliseconds": 100}});
    let legs = [leg(LegKind::Pf, pool(quick))];
    assert_eq!(shown(&world.pass(&legs)), [("up", "10.0.0.3/24".to_owned(), String::new())]);
    let found = world.ledger().set_aside().unwrap();
    assert_eq!((found.len(), found[0].address), (1, "10.0.0.2".parse().unwrap()));

    let mut world = World::new();
    world.wire.ip("address add 10.0.0.2/24 dev cable");
    let [(state, addresses, problem)] = &shown(&world.pass(&[leg(LegKind::Pf, fixed(&["10.0.0.2/24"]))]))[..]
    else {
        panic!("one leg")
    };
    assert_eq!((*state, addresses.as_str()), ("down", ""));
    assert!(problem.contains("has its address 10.0.0.2 on the link"), "{problem}");
}

#[test]
fn a_vf_is_taken_from_nobody() {
    let mut world = World::new();
    let legs = [leg(LegKind::Vf { index: 0, vlan: Some(100) }, fixed(&["10.0.0.1/24"]))];
    let vf = "0000:01:10.0";
    let problem = |world: &mut World| {
        let statuses = shown(&world.pass(&legs));
        assert_eq!(world.ledger().attachments().unwrap(), []);
        statuses[0].2.clone()
    };
    world.held = None;
    assert!(problem(&mut world).contains("the kubelet does not say"));
    let devices = ContainerDevices {
        resource_name: "acme.com/x".to_owned(),
        device_ids: vec![vf.to_owned()],
        topology: None,
    };
    let container = ContainerResources { devices: vec![devices], ..ContainerResources::default() };
    world.held = Some(Held::new(&[PodResources { containers: vec![container], ..PodResources::default() }]));
    assert!(problem(&mut world).contains("is in a pod"));
    world.held = Some(Held::default());
    world.offered = [Hardware::Function(vf.parse().unwrap())].into();
    assert!(problem(&mut world).contains("still offered to pods"));
    // Nothing is in the way but that these files are no VF that a kernel would know.
    world.offered = BTreeSet::new();
    let told = problem(&mut world);
    assert!(told.contains(&format!("VF {vf} is neither on the host")), "{told}");
}

/// Where the kernel has no VLAN interfaces it says so, and the other legs stand all the same.
#[test]
fn an_interface_for_a_vlan_is_made_and_deleted() {
    let mut world = World::new();
    let wire = LegConfig { name: "wire".to_owned(), ..leg(LegKind::Pf, fixed(&["10.9.0.1/24"])) };
    let legs = [leg(LegKind::Vlan { vlan: 100 }, fixed(&["10.0.0.1/24"])), wire.clone()];
    let statuses = shown(&world.pass(&legs));
    let of_wire = ("up", "10.9.0.1/24".to_owned(), String::new());
    assert_eq!(statuses[1], of_wire);
    if statuses[0].0 == "down" {
        assert!(statuses[0].2.contains("for VLAN 100"), "{statuses:?}");
        return assert_eq!(shown(&world.pass(&[wire])), [of_wire]);
    }
    assert_eq!(statuses[0], ("up", "10.0.0.1/24".to_owned(), String::new()));
    let link = world.host.ip(&format!("-d link show {PF}.100"));
    assert!(
        link.contains("alias zerobridge leg pods") && link.contains("vlan protocol 802.1Q id 100"),
        "{link}"
    );
    // One that died before it was marked is finished.
    world.host.ip(&format!("link del {PF}.100"));
    world.host.ip(&format!("link add link {PF} name zbl3.64 type vlan id 100"));
    assert_eq!(shown(&world.pass(&legs)), statuses);
    assert!(world.host.ip("link show").contains(&format!("{PF}.100")));
    assert_eq!(shown(&world.pass(&legs[1..])), std::slice::from_ref(&of_wire));
    assert!(!world.host.ip("link show").contains(".100"));
    // One that somebody else made is used, and stays.
    world.host.ip(&format!("link add link {PF} name mine type vlan id 100"));
    assert_eq!(shown(&world.pass(&legs)), statuses);
    assert_eq!(shown(&world.pass(&legs[1..])), [of_wire]);
    let mine = world.host.ip("address show mine");
    assert!(!mine.contains("inet 10.0.0.1"), "{mine}");
}
