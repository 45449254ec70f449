//! RDMA devices that are in one namespace each: how one follows its VF there, and what comes of it afterwards.

use std::error::Error;
use std::time::Duration;

use zerobridge_lab::{Guest, HOST, Lab, RdmaMode};

use crate::expect;
use crate::group::{Group, Outcome};
use crate::rdma_station::{RdmaStation, netdev};

pub(crate) const GROUP: Group = Group {
    name: "rdma_exclusive",
    vm: "rdma_exclusive",
    scenarios: &[
        ("a_device_is_made_on_the_node_and_moved_to_its_vf", a_device_is_made_on_the_node),
        ("a_deleted_namespace_gives_the_vf_back_without_its_device", a_deleted_namespace),
    ],
};

const LIMIT: Duration = Duration::from_secs(30);

fn ready(lab: &mut Lab) -> Result<&mut Guest, Box<dyn Error>> {
    lab.vm.guest.load_rdma(RdmaMode::Exclusive)?;
    Ok(&mut lab.vm.guest)
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
