//! From what is to what should be: the ordered operations that lead there. Pure.
//!
//! The order is what makes a VF safe to use at every step between:
//!
//! * into a pod: VLAN, spoof check and addresses are set while the VF is still on the host, so that a pod never sees
//!   an untagged wire; out of a pod: the VF leaves first, so that the pod loses it before its isolation is lifted;
//! * an address changes as the VF's driver demands, see [`mac`];
//! * a tag that the NIC inserts and a list of tags that the VF gives exclude each other, so the list is shortened before
//!   the tag changes and lengthened after;
//! * a GUID comes first, see [`guid`];
//! * an RDMA device moves before or after its netdev, see [`rdma`];
//! * addresses before the link goes up, routes after, because the kernel refuses a route by a link that is down.

use ipnet::IpNet;
use zerobridge_kernel::{Route, VfAdmin, VfAdminChange, VlanTrunk};
use zerobridge_proto::Mac;

use super::state::{LinkState, Place, VfState};
use super::{guid, mac, rdma};

/// One request to the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Change admin state through the PF.
    ChangeAdmin(VfAdminChange),
    /// Let more VLANs through with the VF's own tags.
    AllowVlans(VlanTrunk),
    /// Let these VLANs through no more.
    ForbidVlans(VlanTrunk),
    /// Set the netdev's own address.
    SetMac(Mac),
    /// Wait until the netdev's driver has taken this address from the PF's.
    AwaitMac(Mac),
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
    /// Write down something about it, or nothing.
    SetAlias(String),
    /// Let it take frames for every multicast group, or no more.
    SetAllMulticast(bool),
    /// Let it take every frame, or no more.
    SetPromiscuous(bool),
    /// Set it up or down.
    SetUp(bool),
    /// Move the RDMA device.
    MoveRdma(Place),
    /// Rename the RDMA device where it is.
    RenameRdma(String),
    /// Make a software RDMA device on the netdev where that is, under a name of its own.
    AddSoftRdma,
    /// Remove the software RDMA device.
    RemoveSoftRdma,
    /// Wait until the RDMA device is back from a namespace that died.
    AwaitRdma,
    /// Give it an address.
    AddAddress(IpNet),
    /// Add a route by it.
    AddRoute(Route),
    /// Take the device from its driver and give it back, for what the driver reads only then.
    BindAnew,
    /// Bind the device to the driver that it had, because a netdev is missing or should not be there. Only who changed the
    /// driver can say whether that is right, so nobody here does it.
    Rebind {
        /// The driver, when it is known.
        driver: Option<String>,
    },
}

/// The operations that lead from `observed` to `wanted`, in order; empty when nothing is missing.
#[must_use]
pub fn diff(observed: &VfState, wanted: &VfState) -> Vec<Operation> {
    if let Some(operations) = guid::operations(observed, wanted) {
        return operations;
    }
    let mut operations = Vec::new();
    let (now, then) = match (&observed.link, &wanted.link) {
        (Some(now), Some(then)) => (now, then),
        (now, then) => {
            administer(observed, wanted, &mut operations);
            if now.is_some() != then.is_some() {
                operations.push(Operation::Rebind { driver: wanted.driver.clone() });
            }
            return operations;
        }
    };
    let rdma = rdma::operations(observed, wanted, then.place);
    operations.extend(rdma.before);
    if then.place == Place::Sandbox {
        administer(observed, wanted, &mut operations);
        place_and_name(now, then, &mut operations);
        operations.extend(rdma.after);
    } else {
        place_and_name(now, then, &mut operations);
        notes(now, then, &mut operations);
        administer(observed, wanted, &mut operations);
    }
    reception(now, then, &mut operations);
    addresses_and_routes(observed, wanted, (now, then), &mut operations);
    operations
}

/// Everything that the PF is asked, and the address of the netdev, which depends on it.
fn administer(observed: &VfState, wanted: &VfState, operations: &mut Vec<Operation>) {
    let [forbidden, allowed] = trunk_change(observed.vlan_trunk.as_ref(), wanted.vlan_trunk.as_ref());
    operations.extend(forbidden.map(Operation::ForbidVlans));
    let macs = observed.link.as_ref().zip(wanted.link.as_ref()).map(|(now, then)| (now.mac, then.mac));
    match (observed.admin.as_ref().zip(wanted.admin.as_ref()), macs) {
        (Some((now, then)), Some((carried, to_carry))) => {
            let change = admin_change(now, then);
            let driver = observed.driver.as_deref();
            operations.extend(mac::operations(driver, (now, carried), (then, to_carry), change));
        }
        (Some((now, then)), None) => {
            let mac = (now.mac != then.mac).then_some(then.mac);
            let change = VfAdminChange { mac, ..admin_change(now, then) };
            let differs = change != VfAdminChange::default();
            operations.extend(differs.then_some(Operation::ChangeAdmin(change)));
        }
        (None, Some((carried, to_carry))) if carried != to_carry => {
            operations.push(Operation::SetMac(to_carry));
        }
        (None, _) => {}
    }
    operations.extend(allowed.map(Operation::AllowVlans));
}

/// What differs of the admin state but for the address and the GUIDs.
fn admin_change(observed: &VfAdmin, wanted: &VfAdmin) -> VfAdminChange {
    let rate = |admin: &VfAdmin| (admin.min_tx_rate, admin.max_tx_rate);
    VfAdminChange {
        mac: None,
        vlan: (observed.vlan != wanted.vlan).then_some(wanted.vlan),
        spoof_check: (observed.spoof_check != wanted.spoof_check).then_some(wanted.spoof_check),
        trust: (observed.trust != wanted.trust).then_some(wanted.trust),
        link_state: (observed.link_state != wanted.link_state).then_some(wanted.link_state),
        guids: None,
        tx_rate: (rate(observed) != rate(wanted)).then_some(rate(wanted)),
    }
}

/// What must go from a list of VLANs, and what must come.
fn trunk_change(observed: Option<&VlanTrunk>, wanted: Option<&VlanTrunk>) -> [Option<VlanTrunk>; 2] {
    let Some((now, then)) = observed.zip(wanted) else { return [None, None] };
    [now.without(then), then.without(now)].map(|change| Some(change).filter(|change| !change.is_empty()))
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

fn notes(observed: &LinkState, wanted: &LinkState, operations: &mut Vec<Operation>) {
    let extra = observed.alt_names.difference(&wanted.alt_names).filter(|name| **name != wanted.name);
    operations.extend(extra.cloned().map(Operation::DeleteAltName));
    let missing = wanted.alt_names.difference(&observed.alt_names);
    operations.extend(missing.cloned().map(Operation::AddAltName));
    let alias = wanted.alias.as_ref().filter(|alias| observed.alias.as_ref() != Some(*alias));
    operations.extend(alias.cloned().map(Operation::SetAlias));
}

/// In the pod, only what is missing: a later plugin may have asked for more.
fn reception(observed: &LinkState, wanted: &LinkState, operations: &mut Vec<Operation>) {
    let differs = |now: bool, then: bool| now != then && (then || wanted.place == Place::Host);
    if differs(observed.all_multicast, wanted.all_multicast) {
        operations.push(Operation::SetAllMulticast(wanted.all_multicast));
    }
    if differs(observed.promiscuous, wanted.promiscuous) {
        operations.push(Operation::SetPromiscuous(wanted.promiscuous));
    }
}

fn addresses_and_routes(
    observed: &VfState,
    wanted: &VfState,
    (now, then): (&LinkState, &LinkState),
    operations: &mut Vec<Operation>,
) {
    // A netdev that changes its namespace is closed by the kernel and loses what it had.
    let stays = now.place == then.place;
    let has_address = |address: &&IpNet| !(stays && observed.addresses.contains(address));
    let has_route = |route: &&Route| !(stays && observed.routes.iter().any(|other| other.leads_like(route)));
    operations.extend(wanted.addresses.iter().filter(has_address).copied().map(Operation::AddAddress));
    if then.up != (stays && now.up) {
        operations.push(Operation::SetUp(then.up));
    }
    operations.extend(wanted.routes.iter().filter(has_route).cloned().map(Operation::AddRoute));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attachment::model::{
        Modelled, any_rdma, any_state, at_home, in_pod, whole_function, with_vfio,
    };
    use Operation::{
        AddAddress, AddAltName, AddRoute, AwaitMac, ChangeAdmin, DeleteAltName, Move, Rebind, Rename,
        SetAlias, SetAllMulticast, SetMac, SetPromiscuous, SetUp,
    };
    use proptest::prelude::*;

    fn admin(change: impl FnOnce(&mut VfAdminChange)) -> Operation {
        let mut all = VfAdminChange::default();
        change(&mut all);
        ChangeAdmin(all)
    }

    fn admin_of(state: &VfState) -> VfAdmin {
        state.admin.unwrap()
    }

    fn link_of(state: &VfState) -> LinkState {
        state.link.clone().unwrap()
    }

    fn with_driver(driver: &str, state: VfState) -> VfState {
        VfState { driver: Some(driver.to_owned()), ..state }
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
                change.vlan = Some(admin_of(&wanted).vlan);
                change.spoof_check = Some(admin_of(&wanted).spoof_check);
                change.mac = Some(Mac::ZERO);
            }),
            SetMac(link_of(&wanted).mac),
            admin(|change| change.mac = Some(admin_of(&wanted).mac)),
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
            Move { to: Place::Host, name: link_of(&home).name, mtu: Some(link_of(&home).mtu) },
            admin(|change| {
                change.vlan = Some(admin_of(&home).vlan);
                change.spoof_check = Some(admin_of(&home).spoof_check);
                change.mac = Some(Mac::ZERO);
            }),
            SetMac(link_of(&home).mac),
            admin(|change| change.mac = Some(admin_of(&home).mac)),
        ];
        assert_eq!(diff(&pod, &home), expected);
    }

    #[test]
    fn a_vf_that_came_back_by_itself_gets_its_name_from_udevs_alternative_one() {
        let name = link_of(&at_home()).name;
        let stray = VfState {
            link: Some(LinkState {
                name: "eth0".to_owned(),
                alt_names: [name, "udev-extra".to_owned()].into(),
                ..link_of(&at_home())
            }),
            ..at_home()
        };
        let mut home = at_home();
        home.link.as_mut().unwrap().alt_names = ["rail0".to_owned()].into();
        let expected = [
            DeleteAltName(link_of(&home).name),
            Rename(link_of(&home).name),
            DeleteAltName("udev-extra".to_owned()),
            AddAltName("rail0".to_owned()),
        ];
        assert_eq!(diff(&stray, &home), expected);
    }

    #[test]
    fn an_admin_mac_is_not_touched_when_nothing_changes_it() {
        let mut wanted = in_pod();
        wanted.admin.as_mut().unwrap().mac = admin_of(&at_home()).mac;
        wanted.link.as_mut().unwrap().mac = link_of(&at_home()).mac;
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
        let link = observed.link.as_mut().unwrap();
        link.alt_names.insert("given-by-somebody".to_owned());
        link.alias = Some("a plugin's notebook".to_owned());
        (link.all_multicast, link.promiscuous) = (true, true);
        assert_eq!(diff(&observed, &in_pod()), []);
    }

    #[test]
    fn what_others_left_on_a_vf_that_comes_home_is_taken_away() {
        let mut observed = at_home();
        let link = observed.link.as_mut().unwrap();
        link.alias = Some("a plugin's notebook".to_owned());
        (link.all_multicast, link.promiscuous) = (true, true);
        let expected = [SetAlias(String::new()), SetAllMulticast(false), SetPromiscuous(false)];
        assert_eq!(diff(&observed, &at_home()), expected);
        let mut older = at_home();
        older.link.as_mut().unwrap().alias = None;
        assert_eq!(diff(&observed, &older), expected[1..], "what was there before is not known");
    }

    #[test]
    fn an_address_changes_as_the_vfs_driver_demands() {
        let (home, pod) = (at_home(), in_pod());
        let change = |mac| {
            admin(|change| {
                change.vlan = Some(admin_of(&pod).vlan);
                change.spoof_check = Some(false);
                change.mac = Some(mac);
            })
        };
        let imposed = admin_of(&pod).mac;
        for (driver, expected) in [
            ("igbvf", vec![change(Mac::ZERO), SetMac(imposed), admin(|change| change.mac = Some(imposed))]),
            ("iavf", vec![change(imposed), AwaitMac(imposed)]),
            ("mlx5_core", vec![change(imposed), SetMac(imposed)]),
        ] {
            let operations = diff(&with_driver(driver, home.clone()), &pod);
            assert_eq!(operations[..expected.len()], expected, "{driver}");
        }
        // A VF of iavf that did not come back with the address in time is told.
        let mut late = with_driver("iavf", pod.clone());
        late.link.as_mut().unwrap().mac = link_of(&home).mac;
        assert_eq!(diff(&late, &pod), [SetMac(imposed)]);
    }

    #[test]
    fn a_device_without_a_netdev_is_asked_of_its_pf_only() {
        let wanted = VfState { admin: in_pod().admin, ..with_vfio() };
        let expected = admin(|change| {
            change.mac = Some(admin_of(&wanted).mac);
            change.vlan = Some(admin_of(&wanted).vlan);
            change.spoof_check = Some(false);
        });
        assert_eq!(diff(&with_vfio(), &wanted), [expected]);
    }

    #[test]
    fn a_whole_function_is_asked_of_nobody_else() {
        let wanted = VfState { admin: None, ..in_pod() };
        let expected = [
            SetMac(link_of(&wanted).mac),
            Move { to: Place::Sandbox, name: "eth0".to_owned(), mtu: Some(9000) },
            AddAddress(wanted.addresses[0]),
            SetUp(true),
            AddRoute(wanted.routes[0].clone()),
        ];
        assert_eq!(diff(&whole_function(), &wanted), expected);
    }

    #[test]
    fn another_kind_of_driver_is_seen_and_left_to_who_changed_it() {
        for (observed, wanted, driver) in
            [(with_vfio(), at_home(), "igbvf"), (at_home(), with_vfio(), "vfio-pci")]
        {
            assert_eq!(diff(&observed, &wanted), [Rebind { driver: Some(driver.to_owned()) }]);
        }
    }

    /// From any state to any other, the operations lead there within a few looks, no driver refuses one, and no step on
    /// the way shows a pod the wire without its VLAN.
    fn arrives(observed: VfState, wanted: &VfState) -> Result<(), TestCaseError> {
        let mut vf = Modelled::new(observed);
        for _ in 0..4 {
            let operations = diff(&vf.state, wanted);
            if operations.is_empty() {
                return Ok(());
            }
            for operation in operations {
                vf.operate(&operation).map_err(TestCaseError::fail)?;
                if matches!(operation, Move { to: Place::Sandbox, .. }) {
                    prop_assert_eq!(admin_of(&vf.state).vlan, admin_of(wanted).vlan);
                }
            }
            vf.settle();
        }
        Err(TestCaseError::fail(format!("still to do: {:?}", diff(&vf.state, wanted))))
    }

    macro_rules! every_diff_arrives {
        ($($name:ident: $driver:literal),*) => {
            proptest! {$(
                #[test]
                fn $name(observed in any_state($driver), wanted in any_state($driver)) {
                    arrives(observed, &wanted)?;
                }
            )*}
        };
    }

    proptest! {
        #[test]
        fn every_diff_arrives_with_rdma(
            observed in any_state("mlx5_core"),
            wanted in any_state("mlx5_core"),
            (now, then) in any_rdma()
        ) {
            let [observed, mut wanted] = [observed, wanted].map(|state| VfState { addresses: Vec::new(), ..state });
            wanted.rdma = then(&wanted);
            let rdma = now(&observed);
            arrives(VfState { rdma, ..observed }, &wanted)?;
        }
    }

    every_diff_arrives! {
        every_diff_arrives_with_igbvf: "igbvf",
        every_diff_arrives_with_iavf: "iavf",
        every_diff_arrives_with_ixgbevf: "ixgbevf",
        every_diff_arrives_with_mlx5: "mlx5_core"
    }
}
