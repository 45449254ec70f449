//! What a device should be for one pod, from what it is and what the network asks. Pure.

use ipnet::IpNet;
use zerobridge_kernel::{RdmaNetnsMode, Route, VfGuids, VfLinkState};
use zerobridge_proto::PciAddress;

use super::error::AttachmentError;
use super::rdma_wanted::wanted_rdma;
use super::state::{LinkState, Place, VfState};
use crate::config::{Network, VfSettings};

/// What an attachment asks of a device beside its addresses.
#[derive(Clone, Copy, Debug)]
pub struct Wish<'a> {
    /// The device.
    pub device: PciAddress,
    /// What it is to be set to.
    pub network: &'a Network,
    /// The name of its netdev in the pod.
    pub ifname: &'a str,
    /// Whether the namespaces of the machine share RDMA devices; `None` without the RDMA subsystem.
    pub rdma_mode: Option<RdmaNetnsMode>,
}

/// What `wish` makes of a device that is `original` now: everything the network does not name stays.
///
/// A device without a netdev gets no addresses: the pod's program is told them and uses them itself.
///
/// # Errors
/// [`AttachmentError::NoSuchSetting`] and [`AttachmentError::RdmaUnavailable`] for what a device of this kind, or the
/// machine, does not have.
pub fn wanted(
    wish: Wish<'_>,
    original: &VfState,
    addresses: Vec<IpNet>,
    routes: Vec<Route>,
) -> Result<VfState, AttachmentError> {
    let Wish { device, network, ifname, .. } = wish;
    let settings = &network.settings;
    if let Some((key, why)) = unavailable(original, settings) {
        return Err(AttachmentError::NoSuchSetting { device, key, why });
    }
    let rdma = wanted_rdma(wish, original)?;
    let mut state = VfState { rdma, addresses, routes, ..original.clone() };
    if let Some(admin) = &mut state.admin {
        admin.vlan = settings.vlan.unwrap_or(admin.vlan);
        admin.spoof_check = settings.spoof_check.unwrap_or(admin.spoof_check);
        admin.trust = settings.trust.unwrap_or(admin.trust);
        admin.link_state = settings.link_state.unwrap_or(admin.link_state);
        admin.min_tx_rate = settings.min_tx_rate.unwrap_or(admin.min_tx_rate);
        admin.max_tx_rate = settings.max_tx_rate.unwrap_or(admin.max_tx_rate);
        admin.mac = settings.mac.unwrap_or(admin.mac);
        let guids = |guid| VfGuids { node: guid, port: guid };
        admin.guids = admin.guids.map(|present| settings.guid.map_or(present, guids));
    }
    state.vlan_trunk = settings.vlan_trunk.clone().or(state.vlan_trunk);
    let imposed = state.admin.map(|admin| admin.mac).filter(|mac| !mac.is_zero());
    match &mut state.link {
        None => {
            state.addresses.clear();
            state.routes.clear();
        }
        Some(link) => {
            // An imposed address that the VF does not carry is a wire that drops everything (igbvf keeps its old one when
            // the PF imposes another while it is bound), so the VF takes on what is imposed.
            let mac = imposed.or(settings.mac).unwrap_or(link.mac);
            *link = LinkState {
                place: Place::Sandbox,
                name: ifname.to_owned(),
                mac,
                mtu: settings.mtu.unwrap_or(link.mtu),
                all_multicast: settings.all_multicast || link.all_multicast,
                promiscuous: settings.promiscuous || link.promiscuous,
                up: true,
                ..link.clone()
            };
        }
    }
    Ok(state)
}

/// The first setting that the device does not have, and why. A whole function has nobody above it who would tag, check or
/// limit it, so asking for that absence is no asking.
fn unavailable(original: &VfState, settings: &VfSettings) -> Option<(&'static str, String)> {
    let no_vf = [
        ("vlan", settings.vlan.is_some_and(|vlan| vlan.id != 0)),
        ("spoofchk", settings.spoof_check == Some(true)),
        ("trust", settings.trust == Some(false)),
        ("link_state", settings.link_state.is_some_and(|state| state != VfLinkState::Auto)),
        ("min_tx_rate", settings.min_tx_rate.is_some_and(|rate| rate > 0)),
        ("max_tx_rate", settings.max_tx_rate.is_some_and(|rate| rate > 0)),
        ("mac", settings.mac.is_some() && original.link.is_none()),
        ("guid", settings.guid.is_some()),
    ];
    let no_netdev = [
        ("mtu", settings.mtu.is_some()),
        ("allmulti", settings.all_multicast),
        ("promisc", settings.promiscuous),
    ];
    let asked =
        |settings: &[(&'static str, bool)]| settings.iter().find(|(_, asked)| *asked).map(|(key, _)| *key);
    if let (None, Some(key)) = (&original.admin, asked(&no_vf)) {
        return Some((key, "is no virtual function, so no PF can set it".to_owned()));
    }
    if let (None, Some(key)) = (&original.link, asked(&no_netdev)) {
        let driver = original.driver.as_deref().unwrap_or("no driver");
        return Some((key, format!("has no network interface, since it is bound to {driver}")));
    }
    if settings.guid.is_some() && original.admin.is_some_and(|admin| admin.guids.is_none()) {
        return Some(("guid", "is no InfiniBand VF, and only those have one; is infinibandGUID among the network's capabilities?".to_owned()));
    }
    if let (true, Some(link)) = (settings.vfio, &original.link) {
        return Some(("vfioPciMode", format!("has a network interface, {}; bind it to vfio-pci", link.name)));
    }
    let no_trunk = settings.vlan_trunk.is_some() && original.vlan_trunk.is_none();
    let why = "belongs to a PF whose driver has no list of VLANs for its VFs; the drivers of Intel (i40e, ice) and NVIDIA \
               that are installed beside the kernel's have one";
    no_trunk.then(|| ("vlanTrunk", why.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attachment::model::{at_home, whole_function, with_vfio};
    use zerobridge_kernel::VlanTag;
    use zerobridge_proto::{Guid, Mac};

    fn network(settings: VfSettings) -> Network {
        Network { name: "blue".to_owned(), resource_name: None, settings, ipam: None }
    }

    fn wanted_of(original: &VfState, settings: VfSettings) -> Result<VfState, AttachmentError> {
        let addresses = vec!["10.1.0.2/24".parse().unwrap()];
        let device = "0000:01:10.0".parse().unwrap();
        let network = &network(settings);
        wanted(Wish { device, network, ifname: "eth0", rdma_mode: None }, original, addresses, Vec::new())
    }

    fn link_of(state: &VfState) -> &LinkState {
        state.link.as_ref().unwrap()
    }

    #[test]
    fn what_the_network_does_not_name_stays() {
        let state = wanted_of(&at_home(), VfSettings::default()).unwrap();
        assert_eq!(state.admin, at_home().admin);
        assert_eq!(
            (link_of(&state).mac, link_of(&state).mtu),
            (link_of(&at_home()).mac, link_of(&at_home()).mtu)
        );
        assert!(link_of(&state).up && link_of(&state).place == Place::Sandbox);
    }

    #[test]
    fn an_address_asked_for_is_imposed_and_carried() {
        let mac: Mac = "02:00:00:00:00:09".parse().unwrap();
        let settings = VfSettings { mac: Some(mac), ..VfSettings::default() };
        let state = wanted_of(&at_home(), settings.clone()).unwrap();
        assert_eq!((state.admin.unwrap().mac, link_of(&state).mac), (mac, mac));
        let whole = wanted_of(&whole_function(), settings).unwrap();
        assert_eq!((whole.admin, link_of(&whole).mac), (None, mac));
    }

    #[test]
    fn a_vf_that_does_not_carry_what_its_pf_imposes_is_mended() {
        let mut original = at_home();
        original.link.as_mut().unwrap().mac = "02:00:00:00:00:77".parse().unwrap();
        let state = wanted_of(&original, VfSettings::default()).unwrap();
        assert_eq!(link_of(&state).mac, original.admin.unwrap().mac);
    }

    #[test]
    fn without_an_imposed_address_none_is_imposed() {
        let mut original = at_home();
        original.admin.as_mut().unwrap().mac = Mac::ZERO;
        let state = wanted_of(&original, VfSettings::default()).unwrap();
        assert_eq!((state.admin.unwrap().mac, link_of(&state).mac), (Mac::ZERO, link_of(&original).mac));
    }

    #[test]
    fn a_vf_without_a_netdev_has_its_admin_state_set_and_no_addresses() {
        let vlan = VlanTag { id: 100, ..VlanTag::default() };
        let state =
            wanted_of(&with_vfio(), VfSettings { vlan: Some(vlan), ..VfSettings::default() }).unwrap();
        assert_eq!((state.admin.unwrap().vlan, state.link, state.addresses), (vlan, None, Vec::new()));
    }

    #[test]
    fn what_a_device_does_not_have_is_named_with_the_reason() {
        let none = VfSettings::default;
        let vlan = |id| Some(VlanTag { id, ..VlanTag::default() });
        for (original, settings, parts) in [
            (with_vfio(), VfSettings { mtu: Some(9000), ..none() }, Some(["mtu", "vfio-pci"])),
            (with_vfio(), VfSettings { promiscuous: true, ..none() }, Some(["promisc", "vfio-pci"])),
            (with_vfio(), VfSettings { vlan: vlan(7), trust: Some(true), ..none() }, None),
            (whole_function(), VfSettings { vlan: vlan(7), ..none() }, Some(["vlan", "no PF"])),
            (whole_function(), VfSettings { trust: Some(false), ..none() }, Some(["trust", "no PF"])),
            (whole_function(), VfSettings { spoof_check: Some(true), ..none() }, Some(["spoofchk", "no PF"])),
            (whole_function(), VfSettings { max_tx_rate: Some(5), ..none() }, Some(["max_tx_rate", "no PF"])),
            // What sriov-network-operator writes into every network.
            (whole_function(), VfSettings { vlan: vlan(0), trust: Some(true), ..none() }, None),
            (at_home(), VfSettings { guid: Some(Guid(7)), ..none() }, Some(["guid", "no InfiniBand VF"])),
            (at_home(), VfSettings { vfio: true, ..none() }, Some(["vfioPciMode", "enp1s0v0"])),
            (
                at_home(),
                VfSettings { vlan_trunk: "2-4".parse().ok(), ..none() },
                Some(["vlanTrunk", "Intel"]),
            ),
        ] {
            let result = wanted_of(&original, settings.clone());
            match (result, parts) {
                (Ok(_), None) => {}
                (Err(error), Some(parts)) => {
                    let error = error.to_string();
                    assert!(parts.iter().all(|part| error.contains(part)), "{error}");
                }
                (result, parts) => panic!("{settings:?}: {result:?}, expected {parts:?}"),
            }
        }
    }
}
