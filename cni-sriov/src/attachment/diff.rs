//! From what is to what should be: the ordered operations that lead there. Pure.
//!
//! The order is what makes a VF safe to use at every step between:
//!
//! * into a pod: VLAN, spoof check and addresses are set while the VF is still on the host, so that a pod never sees
//!   an untagged wire; out of a pod: the VF leaves first, so that the pod loses it before its isolation is lifted;
//! * a VF driver that has been given an admin MAC by its PF keeps its old address until it is bound again, and drops
//!   everything meanwhile (igbvf); one that already has an imposed address refuses another (igbvf, iavf). So an
//!   address changes in three steps: lift the imposed one, set the VF's own, impose the new one;
//! * addresses before the link goes up, routes after, because the kernel refuses a route by a link that is down.

use ipnet::IpNet;
use zerobridge_kernel::{Route, VfAdmin, VfAdminChange};
use zerobridge_proto::Mac;

use super::state::{LinkState, Place, VfState};

/// One request to the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Change admin state through the PF.
    ChangeAdmin(VfAdminChange),
    /// Set the netdev's own address.
    SetMac(Mac),
    /// Move the netdev, under its new name and with its new MTU.
    Move {
        /// Where to.
        to: Place,
        /// Its name there.
        name: String,
        /// Its new MTU, when that changes.
        mtu: Option<u32>,
    },
    /// Rename the netdev where it is.
    Rename(String),
    /// Set the MTU where it is.
    SetMtu(u32),
    /// Give it an alternative name.
    AddAltName(String),
    /// Take an alternative name away.
    DeleteAltName(String),
    /// Set it up or down.
    SetUp(bool),
    /// Give it an address.
    AddAddress(IpNet),
    /// Add a route by it.
    AddRoute(Route),
}

/// The operations that lead from `observed` to `wanted`, in order; empty when nothing is missing.
#[must_use]
pub fn diff(observed: &VfState, wanted: &VfState) -> Vec<Operation> {
    let mut operations = Vec::new();
    if wanted.link.place == Place::Sandbox {
        admin_and_mac(observed, wanted, &mut operations);
        place_and_name(&observed.link, &wanted.link, &mut operations);
    } else {
        place_and_name(&observed.link, &wanted.link, &mut operations);
        alt_names(&observed.link, &wanted.link, &mut operations);
        admin_and_mac(observed, wanted, &mut operations);
    }
    addresses_and_routes(observed, wanted, &mut operations);
    operations
}

/// What leads from one admin state to another when there is no netdev whose address would have to follow.
#[must_use]
pub(super) fn admin_diff(observed: &VfAdmin, wanted: &VfAdmin) -> Option<VfAdminChange> {
    let mac = (observed.mac != wanted.mac).then_some(wanted.mac);
    let change = VfAdminChange { mac, ..admin_change(observed, wanted) };
    (change != VfAdminChange::default()).then_some(change)
}

fn admin_and_mac(observed: &VfState, wanted: &VfState, operations: &mut Vec<Operation>) {
    let mut change = admin_change(&observed.admin, &wanted.admin);
    if observed.link.mac == wanted.link.mac {
        change.mac = (observed.admin.mac != wanted.admin.mac).then_some(wanted.admin.mac);
    } else {
        change.mac = (!observed.admin.mac.is_zero()).then_some(Mac::ZERO);
    }
    if change != VfAdminChange::default() {
        operations.push(Operation::ChangeAdmin(change));
    }
    if observed.link.mac != wanted.link.mac {
        operations.push(Operation::SetMac(wanted.link.mac));
        if !wanted.admin.mac.is_zero() {
            let mac = Some(wanted.admin.mac);
            operations.push(Operation::ChangeAdmin(VfAdminChange { mac, ..VfAdminChange::default() }));
        }
    }
}

/// What differs of the admin state but for the address.
fn admin_change(observed: &VfAdmin, wanted: &VfAdmin) -> VfAdminChange {
    let rate = |admin: &VfAdmin| (admin.min_tx_rate, admin.max_tx_rate);
    VfAdminChange {
        mac: None,
        vlan: (observed.vlan != wanted.vlan).then_some(wanted.vlan),
        spoof_check: (observed.spoof_check != wanted.spoof_check).then_some(wanted.spoof_check),
        trust: (observed.trust != wanted.trust).then_some(wanted.trust),
        link_state: (observed.link_state != wanted.link_state).then_some(wanted.link_state),
        tx_rate: (rate(observed) != rate(wanted)).then_some(rate(wanted)),
    }
}

fn place_and_name(observed: &LinkState, wanted: &LinkState, operations: &mut Vec<Operation>) {
    let mtu = (observed.mtu != wanted.mtu).then_some(wanted.mtu);
    // A netdev that returned by itself has been given its own old name as an alternative one by udev, which would be in
    // the way of that very name.
    if observed.alt_names.contains(&wanted.name) {
        operations.push(Operation::DeleteAltName(wanted.name.clone()));
    }
    if observed.place != wanted.place {
        operations.push(Operation::Move { to: wanted.place, name: wanted.name.clone(), mtu });
        return;
    }
    if observed.name != wanted.name {
        operations.push(Operation::Rename(wanted.name.clone()));
    }
    operations.extend(mtu.map(Operation::SetMtu));
}

fn alt_names(observed: &LinkState, wanted: &LinkState, operations: &mut Vec<Operation>) {
    let extra = observed.alt_names.difference(&wanted.alt_names).filter(|name| **name != wanted.name);
    operations.extend(extra.cloned().map(Operation::DeleteAltName));
    let missing = wanted.alt_names.difference(&observed.alt_names);
    operations.extend(missing.cloned().map(Operation::AddAltName));
}

fn addresses_and_routes(observed: &VfState, wanted: &VfState, operations: &mut Vec<Operation>) {
    // A netdev that changes its namespace is closed by the kernel and loses what it had.
    let stays = observed.link.place == wanted.link.place;
    let has_address = |address: &&IpNet| !(stays && observed.addresses.contains(address));
    let has_route = |route: &&Route| !(stays && observed.routes.iter().any(|other| other.leads_like(route)));
    operations.extend(wanted.addresses.iter().filter(has_address).copied().map(Operation::AddAddress));
    if wanted.link.up != (stays && observed.link.up) {
        operations.push(Operation::SetUp(wanted.link.up));
    }
    operations.extend(wanted.routes.iter().filter(has_route).cloned().map(Operation::AddRoute));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attachment::model::{at_home, in_pod, operate};
    use Operation::{
        AddAddress, AddAltName, AddRoute, ChangeAdmin, DeleteAltName, Move, Rename, SetMac, SetUp,
    };
    use proptest::prelude::*;

    fn admin(change: impl FnOnce(&mut VfAdminChange)) -> Operation {
        let mut all = VfAdminChange::default();
        change(&mut all);
        ChangeAdmin(all)
    }

    #[test]
    fn what_is_as_wanted_needs_nothing() {
        assert_eq!(diff(&at_home(), &at_home()), []);
        assert_eq!(diff(&in_pod(), &in_pod()), []);
    }

    #[test]
    fn into_a_pod_the_vlan_comes_before_the_move_and_routes_come_last() {
        let wanted = in_pod();
        let expected = [
            admin(|change| {
                change.vlan = Some(wanted.admin.vlan);
                change.spoof_check = Some(wanted.admin.spoof_check);
                change.mac = Some(Mac::ZERO);
            }),
            SetMac(wanted.link.mac),
            admin(|change| change.mac = Some(wanted.admin.mac)),
            Move { to: Place::Sandbox, name: "eth0".to_owned(), mtu: Some(9000) },
            AddAddress(wanted.addresses[0]),
            SetUp(true),
            AddRoute(wanted.routes[0].clone()),
        ];
        assert_eq!(diff(&at_home(), &wanted), expected);
    }

    #[test]
    fn out_of_a_pod_the_move_comes_before_the_vlan_is_lifted() {
        let (home, pod) = (at_home(), in_pod());
        let expected = [
            Move { to: Place::Host, name: home.link.name.clone(), mtu: Some(home.link.mtu) },
            admin(|change| {
                change.vlan = Some(home.admin.vlan);
                change.spoof_check = Some(home.admin.spoof_check);
                change.mac = Some(Mac::ZERO);
            }),
            SetMac(home.link.mac),
            admin(|change| change.mac = Some(home.admin.mac)),
        ];
        assert_eq!(diff(&pod, &home), expected);
    }

    #[test]
    fn a_vf_that_came_back_by_itself_gets_its_name_from_udevs_alternative_one() {
        let mut stray = at_home();
        stray.link.name = "eth0".to_owned();
        stray.link.alt_names = [at_home().link.name, "udev-extra".to_owned()].into();
        let mut home = at_home();
        home.link.alt_names = ["rail0".to_owned()].into();
        let expected = [
            DeleteAltName(home.link.name.clone()),
            Rename(home.link.name.clone()),
            DeleteAltName("udev-extra".to_owned()),
            AddAltName("rail0".to_owned()),
        ];
        assert_eq!(diff(&stray, &home), expected);
    }

    #[test]
    fn an_admin_mac_is_not_touched_when_nothing_changes_it() {
        let mut wanted = in_pod();
        (wanted.admin.mac, wanted.link.mac) = (at_home().admin.mac, at_home().link.mac);
        let touches_mac = |operation: &Operation| match operation {
            ChangeAdmin(change) => change.mac.is_some(),
            SetMac(_) => true,
            _ => false,
        };
        assert!(!diff(&at_home(), &wanted).iter().any(touches_mac));
    }

    #[test]
    fn what_others_added_in_the_pod_is_left_alone() {
        let mut observed = in_pod();
        observed.addresses.push("192.0.2.7/32".parse().unwrap());
        observed.link.alt_names.insert("given-by-somebody".to_owned());
        assert_eq!(diff(&observed, &in_pod()), []);
    }

    proptest! {
        /// From any state to any other, the operations lead there, and no step on the way shows a pod the wire
        /// without its VLAN.
        #[test]
        fn every_diff_arrives(observed in crate::attachment::model::any_state(), wanted in crate::attachment::model::any_state()) {
            let mut state = observed;
            for operation in diff(&state, &wanted) {
                operate(&mut state, &operation).map_err(TestCaseError::fail)?;
                if state.link.place == Place::Sandbox && wanted.link.place == Place::Sandbox && operation_moves(&operation) {
                    prop_assert_eq!(state.admin.vlan, wanted.admin.vlan);
                }
            }
            prop_assert_eq!(diff(&state, &wanted), []);
        }
    }

    fn operation_moves(operation: &Operation) -> bool {
        matches!(operation, Move { .. })
    }
}
