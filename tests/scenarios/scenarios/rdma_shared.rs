//! RDMA devices that every namespace sees, which is how kernels come: what that separates, and what it does not.

use std::error::Error;

use zerobridge_lab::{Guest, HOST, Lab, RdmaMode};

use crate::expect;
use crate::group::{Group, Outcome};
use crate::rdma_station::RdmaStation;

pub(crate) const GROUP: Group = Group {
    name: "rdma_shared",
    vm: "rdma_shared",
    scenarios: &[
        ("rdma_does_not_cross_vlans", rdma_does_not_cross_vlans),
        ("a_device_is_in_every_namespace_and_cannot_be_moved", a_device_is_in_every_namespace),
    ],
};

fn ready(lab: &mut Lab) -> Result<&mut Guest, Box<dyn Error>> {
    lab.vm.guest.load_rdma(RdmaMode::Shared)?;
    Ok(&mut lab.vm.guest)
}

/// The programs agree over a pair of virtual links, and each VF knows the other's address for good, so that only the VFs'
/// VLANs decide whether the messages arrive. rdma_rxe does not give up: the client is ended while it waits. A message to an
/// address that nobody answers for would keep it from ending, too.
fn rdma_does_not_cross_vlans(lab: &mut Lab) -> Outcome {
    let guest = ready(lab)?;
    let before = guest.snapshot()?;
    let first = RdmaStation::add(guest, "first", 0, 100, 1)?;
    let second = RdmaStation::add(guest, "second", 1, 100, 2)?;
    guest.shell(
        "ip link add meet netns first type veth peer name meet netns second
         ip -n first address add 10.8.0.1/24 dev meet; ip -n first link set meet up
         ip -n second address add 10.8.0.2/24 dev meet; ip -n second link set meet up
         knows() {
             mac=$(ip netns exec $4 cat /sys/class/net/$5/address)
             ip -n $1 neighbour replace $3 lladdr $mac dev $2 nud permanent
         }
         knows first enp1s0v0 10.9.0.2 second enp1s0v1
         knows second enp1s0v1 10.9.0.1 first enp1s0v0",
    )?;
    let same = guest.ping_pong(&first.end, &second.end, "10.8.0.1")?;
    expect::that(same.code == 0, || format!("nothing arrives in one VLAN: {same:?}"))?;
    guest.run(&["ip", "link", "set", "enp1s0", "vf", "1", "vlan", "200"])?;
    let other = guest.ping_pong(&first.end, &second.end, "10.8.0.1")?;
    // Without this the programs might not even have met.
    expect::that(other.stdout.contains("remote address"), || {
        format!("the programs did not agree: {other:?}")
    })?;
    expect::that(other.code != 0, || "messages from VLAN 200 arrive in VLAN 100".into())?;
    first.remove(guest)?;
    second.remove(guest)?;
    expect::as_before(guest, &before)
}

fn a_device_is_in_every_namespace(lab: &mut Lab) -> Outcome {
    let guest = ready(lab)?;
    let before = guest.snapshot()?;
    let first = RdmaStation::add(guest, "first", 0, 100, 1)?;
    guest.run(&["ip", "netns", "add", "empty"])?;
    let seen = guest.rdma_seen_by(&first.device, &[HOST, "first", "empty"])?;
    expect::equal("who sees the device", &seen, &vec![HOST, "first", "empty"])?;
    let ports = guest.rdma_ports(HOST)?;
    expect::that(ports.iter().all(|port| port.netdev.is_none()), || {
        format!("the node sees a netdev that is in a namespace: {ports:?}")
    })?;
    let refusal = guest.move_rdma(&first.device, "empty").err().map(|error| error.to_string());
    expect::that(refusal.as_ref().is_some_and(|text| text.contains("shared netns mode")), || {
        format!("the move was not refused for the mode: {refusal:?}")
    })?;
    guest.run(&["ip", "netns", "del", "empty"])?;
    first.remove(guest)?;
    expect::as_before(guest, &before)
}
