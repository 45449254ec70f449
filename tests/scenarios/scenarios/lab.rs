//! The lab itself: when one of these fails, the emulated hardware is not what the other scenarios take it for.

use zerobridge_lab::{CARDS, Guest, Lab, VFS_PER_CARD};
use zerobridge_proto::PciAddress;

use crate::expect;
use crate::group::{Group, Outcome};

pub(crate) const GROUP: Group = Group {
    name: "lab",
    vm: "pods",
    scenarios: &[
        ("every_vf_has_a_driver_and_a_link", every_vf_has_a_driver_and_a_link),
        ("a_vlan_separates_vfs_on_one_card_and_across_the_wire", a_vlan_separates_vfs),
        ("a_vf_is_refused_another_senders_address", a_vf_is_refused_another_senders_address),
        ("a_snapshot_sees_what_a_vf_went_through", a_snapshot_sees_what_a_vf_went_through),
    ],
};

fn every_vf_has_a_driver_and_a_link(lab: &mut Lab) -> Outcome {
    let guest = &mut lab.vm.guest;
    let places = guest.vf_places()?;
    expect::equal("the number of VFs", &places.len(), &usize::from(CARDS * VFS_PER_CARD))?;
    let links = guest.links()?;
    for place in places {
        let link = links.iter().find(|link| link.pci() == Some(place.pci));
        let name = &expect::some(link, &format!("{} has no link", place.pci))?.ifname;
        expect::equal("the VF's name", name, &format!("{}v{}", place.pf, place.index))?;
    }
    Ok(())
}

/// A VF in a namespace of its own, in a VLAN, with an address; given back by [`Station::remove`].
pub(crate) struct Station {
    name: &'static str,
    card: u8,
    index: u32,
}

impl Station {
    /// Gives it the address 10.9.0.`host`.
    pub(crate) fn add(
        guest: &mut Guest,
        name: &'static str,
        card: u8,
        index: u32,
        vlan: u16,
        host: u8,
    ) -> Result<Self, Box<dyn std::error::Error>> {
        let link = format!("enp{card}s0v{index}");
        guest.shell(&format!(
            "ip link set enp{card}s0 vf {index} vlan {vlan}
             ip netns add {name}
             ip link set {link} netns {name}
             ip -n {name} address add 10.9.0.{host}/24 dev {link}
             ip -n {name} link set {link} up"
        ))?;
        Ok(Self { name, card, index })
    }

    fn reaches(&self, guest: &mut Guest, host: u8) -> Result<bool, Box<dyn std::error::Error>> {
        let argv = [
            "ip",
            "netns",
            "exec",
            self.name,
            "ping",
            "-c",
            "3",
            "-i",
            "0.2",
            "-W",
            "2",
            &format!("10.9.0.{host}"),
        ];
        Ok(guest.output(zerobridge_lab::program(&argv), std::time::Duration::from_secs(30))?.code == 0)
    }

    pub(crate) fn remove(self, guest: &mut Guest) -> Outcome {
        let (name, card, index) = (self.name, self.card, self.index);
        let link = format!("enp{card}s0v{index}");
        guest.shell(&format!(
            "ip -n {name} link set {link} down
             ip -n {name} link set {link} netns 1
             ip netns del {name}
             ip link set enp{card}s0 vf {index} vlan 0"
        ))?;
        Ok(())
    }
}

fn a_vlan_separates_vfs(lab: &mut Lab) -> Outcome {
    let guest = &mut lab.vm.guest;
    let before = guest.snapshot()?;
    let first = Station::add(guest, "first", 1, 0, 100, 1)?;
    let same_card = Station::add(guest, "same-card", 1, 1, 100, 2)?;
    let other_card = Station::add(guest, "other-card", 2, 1, 100, 3)?;
    let other_vlan = Station::add(guest, "other-vlan", 1, 2, 200, 4)?;
    // The carrier comes up some time after the link does.
    guest.wait_for("the first answer on the same card", std::time::Duration::from_secs(60), |guest| {
        Ok(if first.reaches(guest, 2).unwrap_or(false) { Ok(()) } else { Err("no answer".to_owned()) })
    })?;
    expect::that(same_card.reaches(guest, 1)?, || "no answer the other way".into())?;
    expect::that(first.reaches(guest, 3)?, || "no answer across the wire".into())?;
    expect::that(!first.reaches(guest, 4)?, || "VLAN 200 is reached from VLAN 100".into())?;
    expect::that(!other_vlan.reaches(guest, 3)?, || {
        "VLAN 100 is reached from VLAN 200 across the wire".into()
    })?;
    for station in [first, same_card, other_card, other_vlan] {
        station.remove(guest)?;
    }
    expect::as_before(guest, &before)
}

fn a_vf_is_refused_another_senders_address(lab: &mut Lab) -> Outcome {
    let guest = &mut lab.vm.guest;
    let honest = Station::add(guest, "honest", 1, 0, 100, 1)?;
    // One whose address the PF imposed: the emulated card lets any sender pass on a VF that chose its own.
    let liar = Station::add(guest, "liar", 1, 2, 100, 2)?;
    guest.wait_for("the first answer", std::time::Duration::from_secs(60), |guest| {
        Ok(if honest.reaches(guest, 2).unwrap_or(false) { Ok(()) } else { Err("no answer".to_owned()) })
    })?;
    guest.shell(
        "ip -n liar link add link enp1s0v2 name lie type macvlan mode bridge
         ip -n liar address add 10.9.0.9/24 dev lie
         ip -n liar link set lie up",
    )?;
    let argv =
        ["ip", "netns", "exec", "liar", "ping", "-I", "lie", "-c", "3", "-i", "0.2", "-W", "2", "10.9.0.1"];
    let output = guest.output(zerobridge_lab::program(&argv), std::time::Duration::from_secs(30))?;
    expect::that(output.code != 0, || {
        format!("a second sender's address passed the spoof check: {}", output.stdout)
    })?;
    guest.run(&["ip", "-n", "liar", "link", "del", "lie"])?;
    honest.remove(guest)?;
    liar.remove(guest)
}

fn a_snapshot_sees_what_a_vf_went_through(lab: &mut Lab) -> Outcome {
    let guest = &mut lab.vm.guest;
    let before = guest.snapshot()?;
    let vf = guest.vf(1, 3)?;
    guest.shell("ip link set enp1s0v3 mtu 1400; ip link set enp1s0 vf 3 vlan 7 spoofchk off")?;
    let differences = guest.snapshot()?.differences(&before);
    let expected: Vec<String> = [("mtu", "1500", "1400"), ("spoof check", "on", "off"), ("vlan", "0", "7")]
        .map(|(field, was, is)| format!("{vf}: {field} was {was} and is {is}"))
        .to_vec();
    expect::equal("what the snapshot saw", &differences, &expected)?;
    guest.run(&["ip", "netns", "add", "away"])?;
    guest.run(&["ip", "link", "set", "enp1s0v3", "netns", "away"])?;
    expect_away(guest, vf)?;
    guest.shell(
        "ip -n away link set enp1s0v3 mtu 1500
         ip -n away link set enp1s0v3 netns 1
         ip netns del away
         ip link set enp1s0 vf 3 vlan 0 spoofchk on",
    )?;
    expect::as_before(guest, &before)
}

fn expect_away(guest: &mut Guest, vf: PciAddress) -> Outcome {
    let snapshot = guest.snapshot()?;
    expect::equal("the name", &snapshot.field(vf, "name"), &Some("(not on the host)"))
}
