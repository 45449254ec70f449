//! A VF's admin state: what the PF imposes on it, read and written through the PF's link.

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    LinkAttribute, LinkExtentMask, LinkMessage, LinkVfInfo, VfInfo, VfInfoLinkState, VfInfoMac, VfInfoRate,
    VfInfoSpoofCheck, VfInfoTrust, VfVlan, VfVlanInfo,
};
use serde::{Deserialize, Serialize};
use zerobridge_proto::Mac;

use super::link::IfIndex;
use super::socket::{RtnlError, RtnlSocket};

/// Which tag the NIC inserts: the customer tag of IEEE 802.1Q or the service tag of 802.1ad.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum VlanProtocol {
    /// EtherType 0x8100.
    #[default]
    #[serde(rename = "802.1q")]
    Dot1Q,
    /// EtherType 0x88a8.
    #[serde(rename = "802.1ad")]
    Dot1Ad,
}

/// The VLAN that the NIC tags a VF's traffic with. ID 0 means untagged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VlanTag {
    /// 0 to 4094.
    pub id: u16,
    /// Priority code point, 0 to 7.
    pub qos: u8,
    /// Tag protocol.
    pub protocol: VlanProtocol,
}

/// What the PF says of a VF's link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VfLinkState {
    /// It follows the PF's.
    #[default]
    Auto,
    /// Always up, so that VFs of one PF reach each other when the cable is out.
    Enable,
    /// Always down.
    Disable,
}

/// A VF's admin state as the PF's driver reports it.
///
/// `spoof_check` and `trust` are `false` for a driver that has no such thing: the kernel does not tell the two apart
/// to this library.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VfAdmin {
    /// The address that the PF imposes; [`Mac::ZERO`] when it imposes none.
    pub mac: Mac,
    /// The VLAN that the NIC inserts and strips.
    pub vlan: VlanTag,
    /// Frames from another source address are dropped.
    pub spoof_check: bool,
    /// The VF may ask for promiscuous mode and change its own address.
    pub trust: bool,
    /// Link state.
    pub link_state: VfLinkState,
    /// Guaranteed rate in Mbit/s, 0 for none.
    pub min_tx_rate: u32,
    /// Largest rate in Mbit/s, 0 for no limit.
    pub max_tx_rate: u32,
}

/// What to change of a VF's admin state, all in one request. The default changes nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VfAdminChange {
    /// New imposed address; [`Mac::ZERO`] lifts it.
    pub mac: Option<Mac>,
    /// New VLAN.
    pub vlan: Option<VlanTag>,
    /// Spoof check on or off.
    pub spoof_check: Option<bool>,
    /// Trust on or off.
    pub trust: Option<bool>,
    /// New link state.
    pub link_state: Option<VfLinkState>,
    /// New smallest and largest rate in Mbit/s; one request sets both.
    pub tx_rate: Option<(u32, u32)>,
}

impl RtnlSocket {
    /// The admin state of VF `index` of the PF that `pf` is the link of. `None` when the PF is gone or has no such VF.
    ///
    /// The kernel reports all VFs of a PF or none, some 200 bytes each without statistics; only the one asked for is
    /// looked at.
    ///
    /// # Errors
    /// [`RtnlError`].
    pub fn vf_admin(&mut self, pf: IfIndex, index: u16) -> Result<Option<VfAdmin>, RtnlError> {
        let mut message = LinkMessage::default();
        message.header.index = pf.0;
        message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::Vf, LinkExtentMask::SkipStats]));
        let answer = self.get(RouteNetlinkMessage::GetLink(message), || {
            format!("read the state of VF {index} from the PF, interface {}", pf.0)
        })?;
        let Some(RouteNetlinkMessage::NewLink(link)) = answer else { return Ok(None) };
        Ok(link.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::VfInfoList(list) => list.iter().find_map(|vf| admin_of(vf, index)),
            _ => None,
        }))
    }

    /// Makes `change` of VF `index` in one request to its PF.
    ///
    /// The kernel asks the driver for address, VLAN, rate, spoof check, link state and trust in this order; when the
    /// driver refuses one, those before it stay (`do_setvfinfo` in `net/core/rtnetlink.c`).
    ///
    /// # Errors
    /// [`RtnlError::Refused`], with `EOPNOTSUPP` for what the driver does not have.
    pub fn change_vf_admin(
        &mut self,
        pf: IfIndex,
        index: u16,
        change: &VfAdminChange,
    ) -> Result<(), RtnlError> {
        let mut message = LinkMessage::default();
        message.header.index = pf.0;
        message.attributes.push(LinkAttribute::VfInfoList(vec![LinkVfInfo(attributes_of(change, index))]));
        self.change(RouteNetlinkMessage::SetLink(message), 0, || {
            format!("set VF {index} of the PF, interface {}, to {}", pf.0, in_words(change))
        })
    }
}

fn attributes_of(change: &VfAdminChange, index: u16) -> Vec<VfInfo> {
    let vf = u32::from(index);
    let mut attributes = Vec::new();
    attributes.extend(change.mac.map(|mac| VfInfo::Mac(VfInfoMac::new(vf, &mac.octets()))));
    attributes.extend(change.vlan.map(|vlan| {
        let (id, qos) = (u32::from(vlan.id), u32::from(vlan.qos));
        VfInfo::VlanList(vec![VfVlan::Info(VfVlanInfo::new(vf, id, qos, vlan.protocol.into()))])
    }));
    attributes.extend(change.tx_rate.map(|(min, max)| VfInfo::Rate(VfInfoRate::new(vf, min, max))));
    attributes.extend(change.spoof_check.map(|on| VfInfo::SpoofCheck(VfInfoSpoofCheck::new(vf, on))));
    attributes
        .extend(change.link_state.map(|state| VfInfo::LinkState(VfInfoLinkState::new(vf, state.into()))));
    attributes.extend(change.trust.map(|on| VfInfo::Trust(VfInfoTrust::new(vf, on))));
    attributes
}

/// The admin state in one entry of the PF's list, when the entry is that of VF `index`.
fn admin_of(entry: &LinkVfInfo, index: u16) -> Option<VfAdmin> {
    let mut admin = VfAdmin::default();
    let mut found = false;
    for attribute in &entry.0 {
        match attribute {
            // Every entry has an address (`rtnl_fill_vfinfo`), so that is where its index is read.
            VfInfo::Mac(mac) => {
                found = mac.vf_id == u32::from(index);
                admin.mac = Mac::try_from(&mac.mac[..6]).unwrap_or_default();
            }
            VfInfo::VlanList(list) => {
                if let Some(VfVlan::Info(vlan)) = list.first() {
                    admin.vlan = VlanTag {
                        id: u16::try_from(vlan.vlan_id).ok()?,
                        qos: u8::try_from(vlan.qos).ok()?,
                        protocol: vlan.protocol.into(),
                    };
                }
            }
            VfInfo::SpoofCheck(check) => admin.spoof_check = check.enabled,
            VfInfo::Trust(trust) => admin.trust = trust.enabled,
            VfInfo::LinkState(state) => admin.link_state = state.state.into(),
            VfInfo::Rate(rate) => {
                admin.min_tx_rate = rate.min_tx_rate;
                admin.max_tx_rate = rate.max_tx_rate;
            }
            _ => {}
        }
    }
    found.then_some(admin)
}

fn in_words(change: &VfAdminChange) -> String {
    let on_off = |on: bool| if on { "on" } else { "off" };
    let mut words = Vec::new();
    words.extend(change.mac.map(|mac| format!("admin address {mac}")));
    words.extend(change.vlan.map(|vlan| format!("VLAN {} QoS {}", vlan.id, vlan.qos)));
    words.extend(change.tx_rate.map(|(min, max)| format!("transmit rate {min} to {max} Mbit/s")));
    words.extend(change.spoof_check.map(|on| format!("spoof check {}", on_off(on))));
    words.extend(change.link_state.map(|state| format!("link state {state:?}").to_lowercase()));
    words.extend(change.trust.map(|on| format!("trust {}", on_off(on))));
    words.join(", ")
}

impl From<VlanProtocol> for netlink_packet_route::link::VlanProtocol {
    fn from(protocol: VlanProtocol) -> Self {
        match protocol {
            VlanProtocol::Dot1Q => Self::Ieee8021Q,
            VlanProtocol::Dot1Ad => Self::Ieee8021Ad,
        }
    }
}

impl From<netlink_packet_route::link::VlanProtocol> for VlanProtocol {
    fn from(protocol: netlink_packet_route::link::VlanProtocol) -> Self {
        match protocol {
            netlink_packet_route::link::VlanProtocol::Ieee8021Ad => Self::Dot1Ad,
            _ => Self::Dot1Q,
        }
    }
}

impl From<VfLinkState> for netlink_packet_route::link::VfLinkState {
    fn from(state: VfLinkState) -> Self {
        match state {
            VfLinkState::Auto => Self::Auto,
            VfLinkState::Enable => Self::Enable,
            VfLinkState::Disable => Self::Disable,
        }
    }
}

impl From<netlink_packet_route::link::VfLinkState> for VfLinkState {
    fn from(state: netlink_packet_route::link::VfLinkState) -> Self {
        match state {
            netlink_packet_route::link::VfLinkState::Enable => Self::Enable,
            netlink_packet_route::link::VfLinkState::Disable => Self::Disable,
            _ => Self::Auto,
        }
    }
}
