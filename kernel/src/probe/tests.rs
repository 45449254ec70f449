use super::*;
use crate::rtnl::RtnlSocket;
use crate::testing::TestNetns;

const POD_MAC: &str = "02:00:00:00:01:00";
const HOST_MAC: &str = "02:00:00:00:00:01";
const PACE: ProbePace =
    ProbePace { count: 3, interval: Duration::from_millis(100), wait: Duration::from_millis(100) };
/// Long enough that whatever is to be heard is heard, and a test that ends early has heard it.
const LONG: ProbePace =
    ProbePace { count: 50, interval: Duration::from_millis(100), wait: Duration::from_millis(100) };

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn mac(text: &str) -> Mac {
    text.parse().unwrap()
}

/// Another host, and a pod whose link to it is up and has no address yet.
struct World {
    host: TestNetns,
    pod: TestNetns,
    link: IfIndex,
}

impl World {
    fn new() -> Self {
        let (host, pod) = (TestNetns::new(), TestNetns::new());
        let peer = pod.name();
        host.ip(&format!(
            "link add v0 address {HOST_MAC} type veth peer name net1 address {POD_MAC} netns {peer}"
        ));
        host.ip("link set v0 up");
        pod.ip("link set net1 up");
        let link = index(&pod, "net1");
        Self { host, pod, link }
    }

    fn holders(&self, addresses: &[&str], pace: &ProbePace) -> Vec<Holder> {
        let addresses: Vec<IpAddr> = addresses.iter().map(|text| ip(text)).collect();
        foreign_holders(self.pod.netns(), self.link, &addresses, pace).unwrap()
    }

    /// Probes for `address` while the host sends `frame` again and again, and returns what was found.
    fn holders_while_sent(&self, address: &str, frame: &[u8], pace: &ProbePace) -> Vec<Holder> {
        let from = index(&self.host, "v0");
        let open = || packet_socket(&link_address(from).unwrap().unwrap().0, false).unwrap();
        let socket = self.host.netns().enter(open).unwrap();
        thread::scope(|scope| {
            let probing = scope.spawn(|| self.holders(&[address], pace));
            while !probing.is_finished() {
                socket.send(frame).unwrap();
                thread::sleep(Duration::from_millis(5));
            }
            probing.join().unwrap()
        })
    }
}

fn index(netns: &TestNetns, name: &str) -> IfIndex {
    RtnlSocket::open_in(netns.netns()).unwrap().link_by_name(name).unwrap().unwrap().index
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let begun = Instant::now();
    (work(), begun.elapsed())
}

#[test]
fn an_address_that_nobody_has_is_probed_for_the_whole_time_and_no_longer() {
    let world = World::new();
    let least = PACE.interval * 2 + PACE.wait;
    let (holders, took) = timed(|| world.holders(&["10.1.0.2", "10.1.0.3", "fd00:1::2", "fd00:1::3"], &PACE));
    assert_eq!(holders, []);
    // Four addresses of two families take the time of one.
    assert!((least..least * 3).contains(&took), "{took:?}");
    let shown = world.pod.ip("addr show dev net1");
    assert!(!shown.contains("10.1.0.2") && !shown.contains("fd00:1::2"), "{shown}");
    // Nobody learnt anything of the pod from it.
    assert_eq!(world.host.ip("neigh show 10.1.0.2"), "");
}

#[test]
fn whoever_has_an_address_is_named_at_once() {
    let world = World::new();
    world.host.ip("addr add 10.1.0.2/24 dev v0");
    let (holders, took) = timed(|| world.holders(&["10.1.0.2"], &LONG));
    assert_eq!(holders, [Holder { address: ip("10.1.0.2"), mac: mac(HOST_MAC) }]);
    assert!(took < Duration::from_secs(1), "{took:?}");

    world.host.ip("addr add fd00:1::2/64 dev v0 nodad");
    let (holders, took) = timed(|| world.holders(&["fd00:1::2"], &LONG));
    assert_eq!(holders, [Holder { address: ip("fd00:1::2"), mac: mac(HOST_MAC) }]);
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[test]
fn of_several_addresses_the_foreign_ones_are_told_and_the_others_probed_to_the_end() {
    let world = World::new();
    world.host.ip("addr add 10.1.0.3/24 dev v0");
    world.host.ip("addr add fd00:1::3/64 dev v0 nodad");
    let (mut holders, took) =
        timed(|| world.holders(&["10.1.0.2", "10.1.0.3", "fd00:1::2", "fd00:1::3"], &PACE));
    holders.sort_by_key(|holder| holder.address);
    assert_eq!(
        holders,
        ["10.1.0.3", "fd00:1::3"].map(|text| Holder { address: ip(text), mac: mac(HOST_MAC) })
    );
    assert!(took >= PACE.interval * 2 + PACE.wait, "{took:?}");
}

#[test]
fn somebody_who_wants_the_same_address_is_told() {
    let world = World::new();
    let other = frame::arp_request(mac(HOST_MAC), Ipv4Addr::UNSPECIFIED, "10.1.0.2".parse().unwrap());
    assert_eq!(
        world.holders_while_sent("10.1.0.2", &other, &LONG),
        [Holder { address: ip("10.1.0.2"), mac: mac(HOST_MAC) }]
    );
    let address = "fd00:1::2".parse().unwrap();
    let other = frame::neighbour_solicitation(mac(HOST_MAC), Ipv6Addr::UNSPECIFIED, address);
    assert_eq!(
        world.holders_while_sent("fd00:1::2", &other, &LONG),
        [Holder { address: ip("fd00:1::2"), mac: mac(HOST_MAC) }]
    );
}

#[test]
fn of_two_that_want_an_address_at_least_one_hears_of_the_other() {
    let world = World::new();
    let addresses = [ip("10.1.0.2"), ip("fd00:1::2")];
    let other = index(&world.host, "v0");
    let (here, there) = thread::scope(|scope| {
        let there = scope.spawn(|| foreign_holders(world.host.netns(), other, &addresses, &PACE).unwrap());
        (foreign_holders(world.pod.netns(), world.link, &addresses, &PACE).unwrap(), there.join().unwrap())
    });
    for address in addresses {
        let named =
            |holders: &[Holder]| holders.iter().find(|holder| holder.address == address).map(|one| one.mac);
        let pair = (named(&here), named(&there));
        assert!(pair != (None, None), "{address}");
        assert!(pair.0.is_none_or(|found| found == mac(HOST_MAC)), "{pair:?}");
        assert!(pair.1.is_none_or(|found| found == mac(POD_MAC)), "{pair:?}");
    }
}

#[test]
fn ones_own_frames_that_come_back_say_nothing() {
    let world = World::new();
    let address = "10.1.0.2".parse().unwrap();
    let own_probe = frame::arp_request(mac(POD_MAC), Ipv4Addr::UNSPECIFIED, address);
    assert_eq!(world.holders_while_sent("10.1.0.2", &own_probe, &PACE), []);
    let own_claim = frame::arp_request(mac(POD_MAC), address, address);
    assert_eq!(world.holders_while_sent("10.1.0.2", &own_claim, &PACE), []);
}

#[test]
fn what_is_said_in_another_vlan_or_to_another_host_says_nothing() {
    let world = World::new();
    let address = "10.1.0.2".parse().unwrap();
    let claim = frame::arp_request(mac(HOST_MAC), address, address);
    // The tag of IEEE 802.1Q, with VLAN 5, stands behind the two Ethernet addresses.
    let tagged = [&claim[..12], &[0x81, 0, 0, 5], &claim[12..]].concat();
    assert_eq!(world.holders_while_sent("10.1.0.2", &tagged, &PACE), []);
    // Another host's question to a third one is sent to everybody on a wire without switches.
    let mut to_another = claim.clone();
    to_another[..6].copy_from_slice(&[2, 0, 0, 0, 9, 9]);
    assert_eq!(world.holders_while_sent("10.1.0.2", &to_another, &PACE), []);
    assert_eq!(world.holders_while_sent("10.1.0.2", &claim, &LONG).len(), 1);
}

#[test]
fn a_gateway_that_is_there_answers_and_another_is_waited_for() {
    let world = World::new();
    for address in ["10.1.0.1/24", "fd00:1::1/64"] {
        world.host.ip(&format!("addr add {address} dev v0 nodad"));
    }
    for address in ["10.1.0.2/24", "fd00:1::2/64"] {
        world.pod.ip(&format!("addr add {address} dev net1 nodad"));
    }
    let ask = |pairs: &[[&str; 2]], pace| {
        let pairs: Vec<_> = pairs.iter().map(|[own, gateway]| (ip(own), ip(gateway))).collect();
        let (mut found, took) =
            timed(|| answering_gateways(world.pod.netns(), world.link, &pairs, pace).unwrap());
        found.sort_by_key(|holder| holder.address);
        assert!(found.iter().all(|holder| holder.mac == mac(HOST_MAC)), "{found:?}");
        (found.iter().map(|holder| holder.address.to_string()).collect::<Vec<_>>(), took)
    };
    let (found, took) = ask(&[["10.1.0.2", "10.1.0.1"], ["fd00:1::2", "fd00:1::1"]], &LONG);
    assert_eq!(found, ["10.1.0.1", "fd00:1::1"]);
    assert!(took < Duration::from_secs(1), "{took:?}");
    let (found, took) = ask(&[["10.1.0.2", "10.1.0.9"], ["fd00:1::2", "fd00:1::1"]], &PACE);
    assert_eq!(found, ["fd00:1::1"]);
    assert!(took >= PACE.interval * 2 + PACE.wait, "{took:?}");
}

#[test]
fn an_interface_that_is_absent_or_down_is_an_error() {
    let world = World::new();
    let ask = |index| foreign_holders(world.pod.netns(), index, &[ip("10.1.0.2")], &PACE).unwrap_err();
    let absent = ask(IfIndex(4711));
    assert!(absent.to_string().contains("interface 4711"), "{absent}");
    world.pod.ip("link set net1 down");
    let down = ask(world.link);
    assert_eq!(down.errno(), Some(libc::ENETDOWN), "{down}");
}
