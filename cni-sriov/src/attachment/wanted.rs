//! What a VF should be for one pod, from what it is and what the network asks. Pure.

use ipnet::IpNet;
use zerobridge_kernel::Route;

use super::state::{LinkState, Place, VfState};
use crate::config::Network;

/// The state that `network` asks of a VF that is `original` now: everything the network does not name stays.
#[must_use]
pub fn wanted(
    original: &VfState,
    network: &Network,
    ifname: &str,
    addresses: Vec<IpNet>,
    routes: Vec<Route>,
) -> VfState {
    let settings = &network.settings;
    let mut admin = original.admin;
    admin.vlan = settings.vlan.unwrap_or(admin.vlan);
    admin.spoof_check = settings.spoof_check.unwrap_or(admin.spoof_check);
    admin.trust = settings.trust.unwrap_or(admin.trust);
    admin.link_state = settings.link_state.unwrap_or(admin.link_state);
    admin.min_tx_rate = settings.min_tx_rate.unwrap_or(admin.min_tx_rate);
    admin.max_tx_rate = settings.max_tx_rate.unwrap_or(admin.max_tx_rate);
    admin.mac = settings.mac.unwrap_or(admin.mac);
    // An imposed address that the VF does not carry is a wire that drops everything (igbvf keeps its old one when the
    // PF imposes another while it is bound), so the VF takes on what is imposed.
    let mac = if admin.mac.is_zero() { original.link.mac } else { admin.mac };
    VfState {
        admin,
        link: LinkState {
            place: Place::Sandbox,
            name: ifname.to_owned(),
            alt_names: original.link.alt_names.clone(),
            mac,
            mtu: settings.mtu.unwrap_or(original.link.mtu),
            up: true,
        },
        addresses,
        routes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attachment::model::at_home;
    use crate::config::VfSettings;
    use zerobridge_proto::Mac;

    fn network(settings: VfSettings) -> Network {
        Network { name: "blue".to_owned(), resource_name: None, settings, pool: None }
    }

    #[test]
    fn what_the_network_does_not_name_stays() {
        let state = wanted(&at_home(), &network(VfSettings::default()), "eth0", Vec::new(), Vec::new());
        assert_eq!(state.admin, at_home().admin);
        assert_eq!((state.link.mac, state.link.mtu), (at_home().link.mac, at_home().link.mtu));
        assert!(state.link.up && state.link.place == Place::Sandbox);
    }

    #[test]
    fn an_address_asked_for_is_imposed_and_carried() {
        let mac: Mac = "02:00:00:00:00:09".parse().unwrap();
        let settings = VfSettings { mac: Some(mac), ..VfSettings::default() };
        let state = wanted(&at_home(), &network(settings), "eth0", Vec::new(), Vec::new());
        assert_eq!((state.admin.mac, state.link.mac), (mac, mac));
    }

    #[test]
    fn a_vf_that_does_not_carry_what_its_pf_imposes_is_mended() {
        let mut original = at_home();
        original.link.mac = "02:00:00:00:00:77".parse().unwrap();
        let state = wanted(&original, &network(VfSettings::default()), "eth0", Vec::new(), Vec::new());
        assert_eq!(state.link.mac, original.admin.mac);
    }

    #[test]
    fn without_an_imposed_address_none_is_imposed() {
        let mut original = at_home();
        original.admin.mac = Mac::ZERO;
        let state = wanted(&original, &network(VfSettings::default()), "eth0", Vec::new(), Vec::new());
        assert_eq!((state.admin.mac, state.link.mac), (Mac::ZERO, original.link.mac));
    }
}
