//! RDMA devices that are in one namespace each: how one follows its VF there, and what comes of it afterwards.

use std::error::Error;
use std::time::Duration;

use zerobridge_lab::{Guest, HOST, Lab, RdmaMode, program};

use crate::expect;
use crate::group::{Group, Outcome};
use crate::rdma_station::{RdmaStation, netdev};

pub(crate) const GROUP: Group = Group {
    name: "rdma_exclusive",
    vm: "rdma_exclusive",
    scenarios: &[
        ("a_device_is_made_on_the_node_and_moved_to_its_vf", a_device_is_made_on_the_node),
        ("verbs_work_between_two_namespaces", verbs_work),
        ("another_namespaces_device_cannot_be_opened", another_namespaces_device_cannot_be_opened),
        ("two_namespaces_may_use_one_name", two_namespaces_may_use_one_name),
        ("a_deleted_namespace_gives_the_vf_back_without_its_device", a_deleted_namespace),
    ],
};

const LIMIT: Duration = Duration::from_secs(30);

fn ready(lab: &mut Lab) -> Result<&mut Guest, Box<dyn Error>> {
    lab.vm.guest.load_rdma(RdmaMode::Exclusive)?;
    Ok(&mut lab.vm.guest)
}

/// Two stations in one VLAN whose devices have followed.
fn two(guest: &mut Guest) -> Result<[RdmaStation; 2], Box<dyn Error>> {
    let stations =
        [RdmaStation::add(guest, "first", 0, 100, 1)?, RdmaStation::add(guest, "second", 1, 100, 2)?];
    for station in &stations {
        guest.move_rdma(&station.device, station.namespace)?;
    }
    Ok(stations)
}

fn a_device_is_made_on_the_node(lab: &mut Lab) -> Outcome {
    let guest = ready(lab)?;
    let before = guest.snapshot()?;
    let first = RdmaStation::add(guest, "first", 0, 100, 1)?;
    guest.run(&["ip", "netns", "add", "empty"])?;
    let everywhere = [HOST, "first", "empty"];
    let seen = guest.rdma_seen_by(&first.device, &everywhere)?;
    expect::equal("who sees a new device", &seen, &vec![HOST])?;
    guest.move_rdma(&first.device, "first")?;
    let seen = guest.rdma_seen_by(&first.device, &everywhere)?;
    expect::equal("who sees the moved device", &seen, &vec!["first"])?;
    let netdevs: Vec<Option<String>> =
        guest.rdma_ports("first")?.into_iter().map(|port| port.netdev).collect();
    expect::equal("its netdev", &netdevs, &vec![Some(netdev(0))])?;
    guest.run(&["ip", "netns", "del", "empty"])?;
    first.remove(guest)?;
    expect::as_before(guest, &before)
}

fn verbs_work(lab: &mut Lab) -> Outcome {
    let guest = ready(lab)?;
    let before = guest.snapshot()?;
    let [first, second] = two(guest)?;
    let verbs = guest.ping_pong(&first.end, &second.end, "10.9.0.1")?;
    expect::that(verbs.code == 0, || format!("no verbs: {verbs:?}"))?;
    first.remove(guest)?;
    second.remove(guest)?;
    expect::as_before(guest, &before)
}

fn another_namespaces_device_cannot_be_opened(lab: &mut Lab) -> Outcome {
    let guest = ready(lab)?;
    let before = guest.snapshot()?;
    let [first, second] = two(guest)?;
    let own = guest.uverbs(&first.device)?;
    let other = guest.uverbs(&second.device)?;
    // Opening it is what the kernel refuses: the nodes themselves are open to everybody.
    let mut open = |name: &str| {
        let script = format!("exec 3<>/dev/infiniband/{name}");
        guest.output(program(&["ip", "netns", "exec", "first", "sh", "-c", &script]), LIMIT)
    };
    let output = open(&own)?;
    expect::that(output.code == 0, || format!("its own device cannot be opened: {output:?}"))?;
    let output = open(&other)?;
    expect::that(output.stderr.contains("Operation not permitted"), || {
        format!("opening another's device: {output:?}")
    })?;
    first.remove(guest)?;
    second.remove(guest)?;
    expect::as_before(guest, &before)
}

fn two_namespaces_may_use_one_name(lab: &mut Lab) -> Outcome {
    let guest = ready(lab)?;
    let before = guest.snapshot()?;
    let [first, second] = two(guest)?;
    for station in [&first, &second] {
        guest.run(&[
            "ip",
            "netns",
            "exec",
            station.namespace,
            "rdma",
            "dev",
            "set",
            &station.device,
            "name",
            "roce0",
        ])?;
    }
    for namespace in ["first", "second"] {
        expect::equal("its devices", &guest.rdma_devices(namespace)?, &vec!["roce0".to_owned()])?;
    }
    first.remove(guest)?;
    second.remove(guest)?;
    guest.wait_rdma_gone("roce0", &[HOST])?;
    expect::as_before(guest, &before)
}

/// What a runtime leaves that was killed before DEL.
fn a_deleted_namespace(lab: &mut Lab) -> Outcome {
    let guest = ready(lab)?;
    let before = guest.snapshot()?;
    let first = RdmaStation::add(guest, "first", 0, 100, 1)?;
    guest.move_rdma(&first.device, "first")?;
    guest.run(&["ip", "netns", "del", "first"])?;
    let vf = netdev(0);
    guest.wait_for("the VF on the node", LIMIT, |guest| {
        let back = guest.links()?.into_iter().any(|link| link.ifname == vf);
        Ok(if back { Ok(()) } else { Err("it is away".into()) })
    })?;
    guest.wait_rdma_gone(&first.device, &[HOST])?;
    guest.run(&["ip", "link", "set", "enp1s0", "vf", "0", "vlan", "0"])?;
    expect::as_before(guest, &before)
}
