//! What no leg wants any more: leases, records of VFs, and interfaces that were made. Pure.
//!
//! Whatever cannot be judged stays: a leg whose PF is not there at this moment may be back in the next.

use zerobridge_kernel::VlanLink;
use zerobridge_ledger::{Attachment, Lease, Owner};

use super::access::maker_of;
use super::place::{Place, PlaceError};
use super::state::Maker;
use crate::config::{LegAddresses, LegConfig, LegKind};

/// What a leg was that is no more, or is another by now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Leftover {
    /// The leg.
    pub(crate) owner: Owner,
    /// Its leases. Those of another network too, which has to be told apart no more: an owner is one leg.
    pub(crate) leases: Vec<Lease>,
    /// The record of its VF.
    pub(crate) record: Option<Attachment>,
}

/// A configured leg, and where it is.
pub(crate) type Placed<'a> = (&'a LegConfig, &'a Result<Place, PlaceError>);

/// What is left over, by leg.
pub(crate) fn leftovers(legs: &[Placed<'_>], leases: &[Lease], records: &[Attachment]) -> Vec<Leftover> {
    let mut owners: Vec<&Owner> =
        leases.iter().map(|lease| &lease.owner).chain(records.iter().map(|record| &record.owner)).collect();
    owners.sort();
    owners.dedup();
    let of = |owner: &Owner| {
        let leg = legs.iter().find(|(leg, _)| leg.name == owner.ifname);
        let leases = leases.iter().filter(|lease| lease.owner == *owner);
        let record = records.iter().find(|record| record.owner == *owner);
        let record = record.filter(|record| leg.is_none_or(|leg| !is_record_of(leg, record)));
        // With its VF go all of the leg's addresses.
        let is_left = |lease: &&Lease| record.is_some() || leg.is_none_or(|leg| !is_lease_of(leg, lease));
        let leases: Vec<Lease> = leases.filter(is_left).cloned().collect();
        let leftover = Leftover { owner: owner.clone(), leases, record: record.cloned() };
        (!leftover.leases.is_empty() || leftover.record.is_some()).then_some(leftover)
    };
    owners.into_iter().filter_map(of).collect()
}

fn is_lease_of((leg, place): &Placed<'_>, lease: &Lease) -> bool {
    let is_there = place.as_ref().map_or(true, |place| lease.device == Some(place.device));
    let is_written = match &leg.addresses {
        // Before any leg is given others, so that two can change theirs for each other's.
        LegAddresses::Fixed(nets) => nets.iter().any(|net| net.addr() == lease.address),
        LegAddresses::Pool(_) => true,
    };
    lease.network == leg.network && lease.vlan == leg.kind.vlan() && is_there && is_written
}

fn is_record_of((leg, place): &Placed<'_>, record: &Attachment) -> bool {
    let is_there = place.as_ref().map_or(true, |place| record.device == place.device);
    matches!(leg.kind, LegKind::Vf { .. }) && record.network == leg.network && is_there
}

/// Whether nobody wants a VLAN interface that was made here. `port` is the name of the link that it is on.
pub(crate) fn is_stray(legs: &[Placed<'_>], vlan: &VlanLink, port: Option<&str>) -> bool {
    let maker = maker_of(&vlan.link);
    if maker == Maker::Other {
        return false;
    }
    let wants = |(leg, place): &Placed<'_>| {
        if leg.kind != (LegKind::Vlan { vlan: vlan.id }) {
            return false;
        }
        match place {
            Ok(place) => Some(place.port.as_str()) == port,
            Err(_) => maker == Maker::Own { leg: leg.name.clone() },
        }
    };
    !legs.iter().any(wants)
}

#[cfg(test)]
mod tests {
    use zerobridge_kernel::testing::idle_link;
    use zerobridge_kernel::{IfIndex, VlanProtocol};
    use zerobridge_ledger::{Sandbox, UnixSeconds};

    use super::super::place::note;
    use super::*;
    use crate::config::PortName;

    const PF: &str = "0000:01:00.0";
    const VF: &str = "0000:01:10.0";

    fn leg(kind: LegKind) -> LegConfig {
        let addresses = LegAddresses::Fixed(vec!["10.0.0.5/24".parse().unwrap()]);
        let port = PortName::Netdev("ens1f0".to_owned());
        LegConfig { name: "pods".to_owned(), kind, port, mtu: None, network: "blue".to_owned(), addresses }
    }

    fn place(device: &str) -> Result<Place, PlaceError> {
        let device = device.parse().unwrap();
        Ok(Place { pf: PF.parse().unwrap(), port: "ens1f0".to_owned(), device })
    }

    fn away() -> Result<Place, PlaceError> {
        Err(PlaceError::NoSuchPf { name: "ens1f0".to_owned() })
    }

    fn lease(device: &str, vlan: Option<u16>) -> Lease {
        Lease {
            network: "blue".to_owned(),
            address: "10.0.0.5".parse().unwrap(),
            owner: Owner::leg("pods"),
            pod: None,
            device: Some(device.parse().unwrap()),
            mac: None,
            vlan,
            rdma: None,
            boot_id: "b1".to_owned(),
            created_at: UnixSeconds(1),
        }
    }

    fn record() -> Attachment {
        Attachment {
            device: VF.parse().unwrap(),
            owner: Owner::leg("pods"),
            network: "blue".to_owned(),
            sandbox: Sandbox { path: "/proc/self/ns/net".into(), dev: 4, ino: 5 },
            pod: None,
            original: "{}".to_owned(),
            wanted: "{}".to_owned(),
            boot_id: "b1".to_owned(),
            created_at: UnixSeconds(1),
        }
    }

    /// How many leases are left over, and whether the record is.
    fn left(
        legs: &[(LegConfig, Result<Place, PlaceError>)],
        lease: Lease,
        record: Option<Attachment>,
    ) -> Option<(usize, bool)> {
        let legs: Vec<Placed<'_>> = legs.iter().map(|(leg, place)| (leg, place)).collect();
        let mut found = leftovers(&legs, &[lease], &Vec::from_iter(record));
        assert!(found.len() < 2, "{found:?}");
        found.pop().map(|left| (left.leases.len(), left.record.is_some()))
    }

    #[test]
    fn what_is_as_configured_or_cannot_be_judged_stays() {
        let (vlan, vf) = (LegKind::Vlan { vlan: 100 }, LegKind::Vf { index: 0, vlan: Some(100) });
        for (leg, lease, record) in [
            ((leg(vlan), place(PF)), lease(PF, Some(100)), None),
            ((leg(vlan), away()), lease(PF, Some(100)), None),
            ((leg(LegKind::Pf), place(PF)), lease(PF, None), None),
            ((leg(vf), place(VF)), lease(VF, Some(100)), Some(record())),
            ((leg(vf), away()), lease(VF, Some(100)), Some(record())),
        ] {
            assert_eq!(left(&[leg], lease, record), None);
        }
    }

    #[test]
    fn what_is_configured_otherwise_goes() {
        let (vlan, vf) = (LegKind::Vlan { vlan: 100 }, LegKind::Vf { index: 0, vlan: Some(100) });
        let addresses = LegAddresses::Fixed(vec!["10.0.0.6/24".parse().unwrap()]);
        let renumbered = LegConfig { addresses, ..leg(vlan) };
        let elsewhere = LegConfig { network: "green".to_owned(), ..leg(vlan) };
        for (legs, lease, record, expected) in [
            (vec![], lease(PF, Some(100)), None, (1, false)),
            (vec![], lease(VF, Some(100)), Some(record()), (1, true)),
            (vec![(elsewhere, place(PF))], lease(PF, Some(100)), None, (1, false)),
            (vec![(leg(vlan), place("0000:02:00.0"))], lease(PF, Some(100)), None, (1, false)),
            (vec![(leg(LegKind::Vlan { vlan: 101 }), away())], lease(PF, Some(100)), None, (1, false)),
            (vec![(leg(LegKind::Pf), place(PF))], lease(PF, Some(100)), None, (1, false)),
            (vec![(renumbered, place(PF))], lease(PF, Some(100)), None, (1, false)),
            (vec![(leg(vf), place("0000:01:10.2"))], lease(VF, Some(100)), Some(record()), (1, true)),
            (vec![(leg(vlan), away())], lease(VF, Some(100)), Some(record()), (1, true)),
        ] {
            assert_eq!(left(&legs, lease, record), Some(expected), "{legs:?}");
        }
    }

    #[test]
    fn an_interface_is_stray_when_it_was_made_here_and_no_leg_wants_it() {
        let vlan = |name: &str, alias: &str| {
            let mut link = idle_link(name).link;
            alias.clone_into(&mut link.alias);
            VlanLink { link, lower: IfIndex(3), id: 100, protocol: VlanProtocol::Dot1Q }
        };
        let made = vlan("ens1f0.100", &note("pods"));
        let configured = leg(LegKind::Vlan { vlan: 100 });
        let other = leg(LegKind::Vlan { vlan: 101 });
        let (here, away) = (place(PF), away());
        let stray = |legs: &[Placed<'_>], vlan: &VlanLink, port| is_stray(legs, vlan, Some(port));
        assert!(!stray(&[(&configured, &here)], &made, "ens1f0"));
        assert!(stray(&[(&configured, &here)], &made, "ens2f0"));
        assert!(stray(&[(&other, &here)], &made, "ens1f0"));
        assert!(stray(&[], &made, "ens1f0"));
        assert!(
            !stray(&[(&configured, &away)], &made, "ens1f0"),
            "its PF may have another name for a moment"
        );
        assert!(!stray(&[], &vlan("ens1f0.100", "mine"), "ens1f0"));
        assert!(stray(&[], &vlan("zbl3.64", ""), "ens1f0"));
    }
}
