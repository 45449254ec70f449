//! How legs stand, for people and Prometheus: read from the kernel and the ledger, whoever keeps the legs.

use std::path::Path;

use ipnet::IpNet;
use serde::Serialize;
use thiserror::Error;
use zerobridge_kernel::{Machine, RtnlError, RtnlSocket};
use zerobridge_ledger::{Attachment, Lease, Ledger, LedgerError};
use zerobridge_proto::{PciAddress, chain};

use super::access::{Interface, LegAccess};
use super::place::{Place, PlaceError, places};
use super::state::LegState;
use crate::config::{LegConfig, LegKind};

/// How one leg stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LegStatus {
    /// Its name.
    pub name: String,
    /// `pf`, `vlan` or `vf`; `None` for one that is no longer configured.
    pub kind: Option<&'static str>,
    /// The network that its addresses are leased in.
    pub network: String,
    /// The PF, or the VF, that carries it; `None` while it is not found.
    pub device: Option<PciAddress>,
    /// Its interface; `None` while there is none.
    pub interface: Option<String>,
    /// The VLAN of its frames, 1 to 4094.
    pub vlan: Option<u16>,
    /// Its own addresses, as far as the interface has them.
    pub addresses: Vec<IpNet>,
    /// Whether it is of use.
    pub state: LegStanding,
    /// What is in the way.
    pub problem: Option<String>,
}

/// Whether a leg is of use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum LegStanding {
    /// It has its addresses and a carrier.
    Up,
    /// It has its addresses and no carrier.
    NoCarrier,
    /// It lacks its interface, or an address.
    Down,
    /// It is no longer configured, and something of it is left.
    Leaving,
}

/// Why legs cannot be looked at.
#[derive(Debug, Error)]
pub enum LegsError {
    /// The kernel does not answer.
    #[error("cannot read the interfaces of the host")]
    Kernel(#[from] RtnlError),
    /// The ledger does not.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl LegStanding {
    /// What it is called.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::NoCarrier => "no carrier",
            Self::Down => "down",
            Self::Leaving => "leaving",
        }
    }
}

/// How the configured legs stand, and those of which something is left. `machine` must be the one that this program runs on.
/// A ledger that is not there is not made.
///
/// # Errors
/// [`LegsError`].
pub fn look_at_legs(
    legs: &[LegConfig],
    machine: &Machine,
    state_dir: &Path,
) -> Result<Vec<LegStatus>, LegsError> {
    let (leases, records) = if Ledger::exists(state_dir) {
        let ledger = Ledger::open(state_dir)?;
        (ledger.leases_of_legs()?, ledger.attachments_of_legs()?)
    } else {
        (Vec::new(), Vec::new())
    };
    if legs.is_empty() && leases.is_empty() && records.is_empty() {
        return Ok(Vec::new());
    }
    let mut rtnl = RtnlSocket::open()?;
    let places = find_places(legs, machine, &mut rtnl)?;
    let placed = legs.iter().zip(&places);
    let mut statuses: Vec<LegStatus> = placed
        .map(|(leg, place)| {
            let of_leg: Vec<&Lease> = leases.iter().filter(|lease| is_of(leg, lease)).collect();
            status(leg, place, machine, &of_leg, &mut rtnl)
        })
        .collect();
    statuses.extend(leaving(legs, &leases, &records));
    Ok(statuses)
}

/// The places of all legs, in their order.
pub(super) fn find_places(
    legs: &[LegConfig],
    machine: &Machine,
    rtnl: &mut RtnlSocket,
) -> Result<Vec<Result<Place, PlaceError>>, RtnlError> {
    let links = rtnl.links()?;
    let name_of = |name: &str| {
        let has_name = |alt: &String| alt == name;
        links.iter().find(|link| link.alt_names.iter().any(has_name)).map(|link| link.name.clone())
    };
    Ok(places(legs, machine, name_of))
}

fn is_of(leg: &LegConfig, lease: &Lease) -> bool {
    lease.owner.ifname == leg.name && lease.network == leg.network
}

fn status(
    leg: &LegConfig,
    place: &Result<Place, PlaceError>,
    machine: &Machine,
    leases: &[&Lease],
    rtnl: &mut RtnlSocket,
) -> LegStatus {
    let mut status = LegStatus {
        name: leg.name.clone(),
        kind: Some(leg.kind.name()),
        network: leg.network.clone(),
        device: None,
        interface: None,
        vlan: leg.kind.vlan(),
        addresses: Vec::new(),
        state: LegStanding::Down,
        problem: None,
    };
    let place = match place {
        Ok(place) => place,
        Err(error) => return LegStatus { problem: Some(error.to_string()), ..status },
    };
    status.device = Some(place.device);
    let Some(interface) = interface(leg, place, machine) else {
        return LegStatus { problem: Some("the VF has no interface on the host".to_owned()), ..status };
    };
    match (LegAccess { rtnl, port: &place.port, interface }.observe()) {
        Ok(observed) => judge(status, &observed, leases),
        Err(error) => LegStatus { problem: Some(chain(&error)), ..status },
    }
}

/// Which interface the leg has, as far as that can be told without its VF's record.
fn interface(leg: &LegConfig, place: &Place, machine: &Machine) -> Option<Interface> {
    match leg.kind {
        LegKind::Pf => Some(Interface::Named(place.port.clone())),
        LegKind::Vlan { vlan } => Some(Interface::Vlan(vlan)),
        LegKind::Vf { .. } => {
            let netdev = machine.functions.get(&place.device)?.netdevs.first()?;
            Some(Interface::Named(netdev.name.clone()))
        }
    }
}

/// What follows from what the kernel and the ledger say.
fn judge(status: LegStatus, observed: &LegState, leases: &[&Lease]) -> LegStatus {
    let Some(link) = &observed.link else {
        return LegStatus { problem: Some("its interface is not there".to_owned()), ..status };
    };
    let is_leased = |net: &&IpNet| leases.iter().any(|lease| lease.address == net.addr());
    let addresses: Vec<IpNet> = observed.addresses.iter().filter(is_leased).copied().collect();
    let lacks = leases.iter().find(|lease| !addresses.iter().any(|net| net.addr() == lease.address));
    let (state, problem) = match lacks {
        _ if leases.is_empty() => (LegStanding::Down, Some("it has no address yet".to_owned())),
        Some(lease) => (LegStanding::Down, Some(format!("the interface lacks {}", lease.address))),
        None if !link.up => (LegStanding::Down, Some("the interface is down".to_owned())),
        None if !link.carrier => (LegStanding::NoCarrier, None),
        None => (LegStanding::Up, None),
    };
    LegStatus { interface: Some(link.name.clone()), addresses, state, problem, ..status }
}

/// Those that are no longer configured, one for each network of each.
fn leaving(legs: &[LegConfig], leases: &[Lease], records: &[Attachment]) -> Vec<LegStatus> {
    let of_leases =
        leases.iter().map(|lease| (&lease.owner.ifname, &lease.network, lease.device, lease.vlan));
    let of_records =
        records.iter().map(|record| (&record.owner.ifname, &record.network, Some(record.device), None));
    let mut found: Vec<LegStatus> = Vec::new();
    for (name, network, device, vlan) in of_leases.chain(of_records) {
        if legs.iter().any(|leg| leg.name == *name && leg.network == *network)
            || found.iter().any(|status| status.name == *name && status.network == *network)
        {
            continue;
        }
        found.push(LegStatus {
            name: name.clone(),
            kind: None,
            network: network.clone(),
            device,
            interface: None,
            vlan,
            addresses: Vec::new(),
            state: LegStanding::Leaving,
            problem: Some("it is no longer configured, and something of it is left".to_owned()),
        });
    }
    found
}

#[cfg(test)]
mod tests {
    use zerobridge_ledger::{Owner, UnixSeconds};

    use super::super::state::{LinkState, Maker};
    use super::*;
    use crate::config::{LegAddresses, PortName};

    fn lease(name: &str, address: &str) -> Lease {
        Lease {
            network: "blue".to_owned(),
            address: address.parse().unwrap(),
            owner: Owner::leg(name),
            pod: None,
            device: Some("0000:01:00.0".parse().unwrap()),
            mac: None,
            vlan: Some(100),
            rdma: None,
            boot_id: "b1".to_owned(),
            created_at: UnixSeconds(1),
        }
    }

    fn leg() -> LegConfig {
        LegConfig {
            name: "pods".to_owned(),
            kind: LegKind::Vlan { vlan: 100 },
            port: PortName::Netdev("ens1f0".to_owned()),
            mtu: None,
            network: "blue".to_owned(),
            addresses: LegAddresses::Fixed(vec!["10.0.0.5/24".parse().unwrap()]),
        }
    }

    #[test]
    fn a_leg_is_up_with_its_addresses_and_a_carrier_and_others_addresses_are_not_its_own() {
        let link = LinkState {
            name: "ens1f0.100".to_owned(),
            mtu: 1500,
            up: true,
            carrier: true,
            maker: Maker::Own { leg: "pods".to_owned() },
        };
        let addresses = ["10.0.0.5/24", "192.0.2.7/24"].map(|net| net.parse().unwrap()).to_vec();
        let whole = LegState { port_up: true, link: Some(link.clone()), addresses };
        let of = |state: LegState, leases: &[&str]| {
            let leases: Vec<Lease> = leases.iter().map(|address| lease("pods", address)).collect();
            let empty = LegStatus {
                name: "pods".to_owned(),
                kind: Some("vlan"),
                network: "blue".to_owned(),
                device: None,
                interface: None,
                vlan: Some(100),
                addresses: Vec::new(),
                state: LegStanding::Down,
                problem: None,
            };
            let judged = judge(empty, &state, &leases.iter().collect::<Vec<_>>());
            let addresses: Vec<String> = judged.addresses.iter().map(ToString::to_string).collect();
            (judged.state.name(), addresses.join(","), judged.problem.unwrap_or_default())
        };
        let dark = LegState { link: Some(LinkState { carrier: false, ..link.clone() }), ..whole.clone() };
        let down = LegState { link: Some(LinkState { up: false, ..link }), ..whole.clone() };
        let bare = LegState { link: None, addresses: Vec::new(), port_up: true };
        for (state, leases, standing, addresses, problem) in [
            (whole.clone(), vec!["10.0.0.5"], "up", "10.0.0.5/24", ""),
            (dark, vec!["10.0.0.5"], "no carrier", "10.0.0.5/24", ""),
            (down, vec!["10.0.0.5"], "down", "10.0.0.5/24", "the interface is down"),
            (
                whole.clone(),
                vec!["10.0.0.5", "fd00::5"],
                "down",
                "10.0.0.5/24",
                "the interface lacks fd00::5",
            ),
            (whole, vec![], "down", "", "it has no address yet"),
            (bare, vec!["10.0.0.5"], "down", "", "its interface is not there"),
        ] {
            assert_eq!(of(state, &leases), (standing, addresses.to_owned(), problem.to_owned()));
        }
    }

    #[test]
    fn what_is_left_of_a_leg_is_shown_once() {
        let leases = [lease("pods", "10.0.0.5"), lease("old", "10.0.0.6"), lease("old", "fd00::6")];
        let found = leaving(&[leg()], &leases, &[]);
        let names: Vec<_> = found.iter().map(|status| (status.name.as_str(), status.state.name())).collect();
        assert_eq!(names, [("old", "leaving")]);
    }
}
