//! A model of what the kernel and an igbvf-like driver make of each operation, for tests of the diff.

use proptest::prelude::*;
use zerobridge_kernel::{Route, VfAdmin, VlanProtocol, VlanTag};
use zerobridge_proto::Mac;

use super::diff::Operation;
use super::state::{LinkState, Place, VfState};

/// A VF as it lies on the host.
pub(crate) fn at_home() -> VfState {
    VfState {
        admin: VfAdmin { mac: mac(1), spoof_check: true, ..VfAdmin::default() },
        link: LinkState {
            place: Place::Host,
            name: "enp1s0v0".to_owned(),
            alt_names: [].into(),
            mac: mac(1),
            mtu: 1500,
            up: false,
        },
        addresses: Vec::new(),
        routes: Vec::new(),
    }
}

/// The same VF as a pod wants it.
pub(crate) fn in_pod() -> VfState {
    VfState {
        admin: VfAdmin {
            mac: mac(2),
            vlan: VlanTag { id: 100, qos: 0, protocol: VlanProtocol::Dot1Q },
            ..VfAdmin::default()
        },
        link: LinkState {
            place: Place::Sandbox,
            name: "eth0".to_owned(),
            mac: mac(2),
            mtu: 9000,
            up: true,
            ..at_home().link
        },
        addresses: vec!["10.1.0.2/24".parse().unwrap()],
        routes: vec![route("0.0.0.0/0")],
    }
}

fn mac(last: u8) -> Mac {
    [2, 0, 0, 0, 0, last].into()
}

fn route(destination: &str) -> Route {
    Route {
        destination: destination.parse().unwrap(),
        gateway: Some("10.1.0.1".parse().unwrap()),
        table: None,
        priority: None,
        mtu: None,
        advmss: None,
        scope: None,
    }
}

/// Any state that a VF can be in. Where an admin MAC is imposed, the VF carries it, as every driver enforces.
pub(crate) fn any_state() -> impl Strategy<Value = VfState> {
    let names = prop::sample::select(vec!["enp1s0v0", "eth0", "net1"]);
    let alt_names =
        prop::collection::btree_set(prop::sample::select(vec!["enp1s0v0", "eth0", "rail0"]), 0..3);
    let settings = (any::<bool>(), any::<bool>(), 0_u16..3, any::<bool>(), 0_u32..2);
    (any::<bool>(), names, alt_names, 1_u8..4, settings).prop_map(
        |(home, name, mut alt_names, octet, (up, spoof_check, vlan, imposed, rate))| {
            alt_names.remove(name);
            let mut state = if home { at_home() } else { in_pod() };
            state.admin = VfAdmin {
                mac: if imposed { mac(octet) } else { Mac::ZERO },
                vlan: VlanTag { id: vlan, ..VlanTag::default() },
                spoof_check,
                max_tx_rate: rate,
                ..VfAdmin::default()
            };
            state.link.name = name.to_owned();
            state.link.alt_names = alt_names.into_iter().map(str::to_owned).collect();
            state.link.mac = mac(octet);
            state.link.up = up || !home;
            state
        },
    )
}

/// What the kernel makes of one operation, or why it refuses.
pub(crate) fn operate(state: &mut VfState, operation: &Operation) -> Result<(), String> {
    let link = &mut state.link;
    let refuse_taken_name = |link: &LinkState, name: &String| {
        let taken = link.alt_names.contains(name);
        if taken { Err(format!("EEXIST: {name} is an alternative name of the link")) } else { Ok(()) }
    };
    match operation {
        Operation::ChangeAdmin(change) => {
            state.admin.mac = change.mac.unwrap_or(state.admin.mac);
            state.admin.vlan = change.vlan.unwrap_or(state.admin.vlan);
            state.admin.spoof_check = change.spoof_check.unwrap_or(state.admin.spoof_check);
            state.admin.trust = change.trust.unwrap_or(state.admin.trust);
            if let Some((min, max)) = change.tx_rate {
                (state.admin.min_tx_rate, state.admin.max_tx_rate) = (min, max);
            }
            if !state.admin.mac.is_zero() && state.admin.mac != link.mac {
                return Err("the VF keeps its old address and drops everything".to_owned());
            }
        }
        Operation::SetMac(mac) => {
            if !state.admin.mac.is_zero() && *mac != state.admin.mac {
                return Err("EADDRNOTAVAIL: the PF imposes another address".to_owned());
            }
            link.mac = *mac;
        }
        Operation::Move { to, name, mtu } => {
            refuse_taken_name(link, name)?;
            (link.place, link.name, link.up) = (*to, name.clone(), false);
            link.mtu = mtu.unwrap_or(link.mtu);
            state.addresses.clear();
            state.routes.clear();
        }
        Operation::Rename(name) => {
            refuse_taken_name(link, name)?;
            link.name.clone_from(name);
        }
        Operation::SetMtu(mtu) => link.mtu = *mtu,
        Operation::AddAltName(name) => {
            link.alt_names.insert(name.clone());
        }
        Operation::DeleteAltName(name) => {
            link.alt_names.remove(name);
        }
        Operation::SetUp(up) => {
            link.up = *up;
            if !up {
                state.routes.clear();
            }
        }
        Operation::AddAddress(address) => state.addresses.push(*address),
        Operation::AddRoute(route) => {
            if !link.up {
                return Err("ENETDOWN".to_owned());
            }
            state.routes.push(route.clone());
        }
    }
    Ok(())
}
