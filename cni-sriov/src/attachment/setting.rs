//! The settings that a PF is asked for, one by one and by the names that they have in the configuration.

use zerobridge_kernel::{VfAdminChange, VfLinkState, VlanProtocol};

/// One of the settings of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Setting {
    /// Its key in the configuration.
    pub(super) key: &'static str,
    /// What it was to be, as the configuration writes it.
    pub(super) value: String,
    /// The change with this setting alone.
    pub(super) change: VfAdminChange,
}

/// The settings of a change in the order in which the kernel asks the driver for them (`do_setvfinfo` in
/// `net/core/rtnetlink.c`).
pub(super) fn each(change: &VfAdminChange) -> Vec<Setting> {
    let none = VfAdminChange::default();
    let &VfAdminChange { mac, vlan, spoof_check, trust, link_state, tx_rate, guids } = change;
    let on_off = |on: bool| if on { "on" } else { "off" }.to_owned();
    let vlan_text = vlan.map(|vlan| match (vlan.qos, vlan.protocol) {
        (0, VlanProtocol::Dot1Q) => vlan.id.to_string(),
        (qos, VlanProtocol::Dot1Q) => format!("{} with vlanQoS {qos}", vlan.id),
        (qos, VlanProtocol::Dot1Ad) => format!("{} with vlanQoS {qos} and vlanProto 802.1ad", vlan.id),
    });
    let link_text = link_state.map(|state| match state {
        VfLinkState::Auto => "auto".to_owned(),
        VfLinkState::Enable => "enable".to_owned(),
        VfLinkState::Disable => "disable".to_owned(),
    });
    let rate_key = if tx_rate.is_some_and(|(min, _)| min > 0) { "min_tx_rate" } else { "max_tx_rate" };
    let rate_text = tx_rate.map(|(min, max)| match min {
        0 => max.to_string(),
        min => format!("{min} with max_tx_rate {max}"),
    });
    [
        ("mac", mac.map(|mac| mac.to_string()), VfAdminChange { mac, ..none }),
        ("vlan", vlan_text, VfAdminChange { vlan, ..none }),
        (rate_key, rate_text, VfAdminChange { tx_rate, ..none }),
        ("spoofchk", spoof_check.map(on_off), VfAdminChange { spoof_check, ..none }),
        ("link_state", link_text, VfAdminChange { link_state, ..none }),
        ("trust", trust.map(on_off), VfAdminChange { trust, ..none }),
        ("guid", guids.map(|guids| guids.node.to_string()), VfAdminChange { guids, ..none }),
    ]
    .into_iter()
    .filter_map(|(key, value, change)| Some(Setting { key, value: value?, change }))
    .collect()
}

#[cfg(test)]
mod tests {
    use zerobridge_kernel::{VfGuids, VlanTag};
    use zerobridge_proto::Guid;

    use super::*;

    #[test]
    fn each_setting_is_named_as_in_the_configuration_and_in_the_kernels_order() {
        let change = VfAdminChange {
            mac: Some([2, 0, 0, 0, 0, 1].into()),
            vlan: Some(VlanTag { id: 100, qos: 3, protocol: VlanProtocol::Dot1Ad }),
            spoof_check: Some(true),
            trust: Some(false),
            link_state: Some(VfLinkState::Enable),
            tx_rate: Some((0, 200)),
            guids: Some(VfGuids { node: Guid(1), port: Guid(1) }),
        };
        let settings = each(&change);
        let named: Vec<_> = settings.iter().map(|setting| (setting.key, setting.value.as_str())).collect();
        assert_eq!(
            named,
            [
                ("mac", "02:00:00:00:00:01"),
                ("vlan", "100 with vlanQoS 3 and vlanProto 802.1ad"),
                ("max_tx_rate", "200"),
                ("spoofchk", "on"),
                ("link_state", "enable"),
                ("trust", "off"),
                ("guid", "00:00:00:00:00:00:00:01"),
            ]
        );
        assert!(settings.iter().all(|setting| each(&setting.change) == [setting.clone()]));
        assert_eq!(each(&VfAdminChange::default()), []);
        let guaranteed = VfAdminChange { tx_rate: Some((100, 200)), ..VfAdminChange::default() };
        assert_eq!(
            (each(&guaranteed)[0].key, each(&guaranteed)[0].value.as_str()),
            ("min_tx_rate", "100 with max_tx_rate 200")
        );
    }
}
