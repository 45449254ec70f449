//! A VF's admin state: what the PF imposes on it, read and written through the PF's link.

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    LinkAttribute, LinkExtentMask, LinkMessage, LinkVfInfo, VfInfo, VfInfoGuid, VfInfoLinkState, VfInfoMac,
    VfInfoRate, VfInfoSpoofCheck, VfInfoTrust, VfStats, VfVlan, VfVlanInfo,
};
use serde::{Deserialize, Serialize};
use zerobridge_proto::{Guid, Mac};

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
    /// The GUIDs that an InfiniBand PF imposes; `None` where there are none to impose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guids: Option<VfGuids>,
}

/// The GUIDs of an InfiniBand VF. It takes them when its driver is bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VfGuids {
    /// That of the node; [`Guid::ZERO`] when none is imposed.
    pub node: Guid,
    /// That of the port; [`Guid::ZERO`] when none is imposed.
    pub port: Guid,
}

/// What a VF has sent and received, as its PF's driver counts it; all zero with a driver that does not count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VfCounters {
    /// Frames received.
    pub rx_packets: u64,
    /// Frames sent.
    pub tx_packets: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Broadcast frames received.
    pub broadcast: u64,
    /// Multicast frames received.
    pub multicast: u64,
    /// Frames for the VF that were dropped.
    pub rx_dropped: u64,
    /// Frames of the VF that were dropped.
    pub tx_dropped: u64,
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
    /// New GUIDs; [`Guid::ZERO`] lifts one.
    pub guids: Option<VfGuids>,
}

/// What a driver is sent to lift a GUID: it refuses zero (`mlx5_ib_set_vf_guid` and what is above it take any other).
const LIFTED: Guid = Guid(u64::MAX);

impl RtnlSocket {
    /// The admin state of VF `index` of the PF that `pf` is the link of. `None` when the PF is gone or has no such VF.
    ///
    /// The kernel reports all VFs of a PF or none (`RTEXT_FILTER_VF`), some 200 bytes each without statistics; only the one
    /// asked for is looked at. It counts the bytes of the list in 16 bits, so that from some 330 VFs on the list is cut.
    ///
    /// # Errors
    /// [`RtnlError`], with [`RtnlError::Answer`] for a VF that the list should have and has not.
    pub fn vf_admin(&mut self, pf: IfIndex, index: u16) -> Result<Option<VfAdmin>, RtnlError> {
        let mut message = LinkMessage::default();
        message.header.index = pf.0;
        message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::Vf, LinkExtentMask::SkipStats]));
        let request = || format!("read the state of VF {index} from the PF, interface {}", pf.0);
        let answer = self.get(RouteNetlinkMessage::GetLink(message), request)?;
        let Some(RouteNetlinkMessage::NewLink(link)) = answer else { return Ok(None) };
        let mut count = 0;
        let mut listed = 0;
        for attribute in &link.attributes {
            match attribute {
                LinkAttribute::NumVf(number) => count = *number,
                LinkAttribute::VfInfoList(list) => {
                    if let Some(admin) = list.iter().find_map(|vf| admin_of(vf, index)) {
                        return Ok(Some(admin));
                    }
                    listed = list.len();
                }
                _ => {}
            }
        }
        if u32::from(index) < count {
            let detail = format!(
                "the PF has {count} VFs and the kernel's list {listed}, since it holds 64 KiB at most; make fewer VFs"
            );
            return Err(RtnlError::Answer { request: request(), detail });
        }
        Ok(None)
    }

    /// The counters of all VFs of the PF that `pf` is the link of, by VF index. Empty when the PF is gone or has no VFs.
    ///
    /// Some 300 bytes a VF. The kernel counts the bytes of the whole list in 16 bits, so that with more than some 220 VFs
    /// the answer is malformed.
    ///
    /// # Errors
    /// [`RtnlError`], with [`RtnlError::Answer`] for more VFs than one answer can hold.
    pub fn vf_counters(&mut self, pf: IfIndex) -> Result<Vec<(u16, VfCounters)>, RtnlError> {
        let mut message = LinkMessage::default();
        message.header.index = pf.0;
        message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::Vf]));
        let answer = self.get(RouteNetlinkMessage::GetLink(message), || {
            format!("read the counters of the VFs of the PF, interface {}", pf.0)
        })?;
        let Some(RouteNetlinkMessage::NewLink(link)) = answer else { return Ok(Vec::new()) };
        Ok(link
            .attributes
            .iter()
            .filter_map(|attribute| match attribute {
                LinkAttribute::VfInfoList(list) => Some(list.iter().filter_map(counters_of)),
                _ => None,
            })
            .flatten()
            .collect())
    }

    /// Makes `change` of VF `index` in one request to its PF.
    ///
    /// The kernel asks the driver for address, VLAN, rate, spoof check, link state and trust in this order, and for GUIDs last; when
    /// the driver refuses one, those before it stay (`do_setvfinfo` in `net/core/rtnetlink.c`).
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
    attributes.extend(change.guids.into_iter().flat_map(|VfGuids { node, port }| {
        let [node, port] = [node, port].map(|guid| if guid.is_zero() { LIFTED } else { guid });
        [VfInfo::IbNodeGuid(VfInfoGuid::new(vf, node.0)), VfInfo::IbPortGuid(VfInfoGuid::new(vf, port.0))]
    }));
    attributes
}

/// The admin state in one entry of the PF's list, when the entry is that of VF `index`.
pub(super) fn admin_of(entry: &LinkVfInfo, index: u16) -> Option<VfAdmin> {
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
            VfInfo::IbNodeGuid(guid) => admin.guids.get_or_insert_default().node = imposed(guid.guid),
            VfInfo::IbPortGuid(guid) => admin.guids.get_or_insert_default().port = imposed(guid.guid),
            _ => {}
        }
    }
    found.then_some(admin)
}

/// A GUID as a driver tells it, one that was lifted being none.
fn imposed(guid: u64) -> Guid {
    Some(Guid(guid)).filter(|guid| *guid != LIFTED).unwrap_or_default()
}

/// A VF's index and counters in one entry of the PF's list.
pub(super) fn counters_of(entry: &LinkVfInfo) -> Option<(u16, VfCounters)> {
    let mut index = None;
    let mut counters = VfCounters::default();
    for attribute in &entry.0 {
        match attribute {
            VfInfo::Mac(mac) => index = u16::try_from(mac.vf_id).ok(),
            VfInfo::Stats(stats) => {
                for stat in stats {
                    match stat {
                        VfStats::RxPackets(count) => counters.rx_packets = *count,
                        VfStats::TxPackets(count) => counters.tx_packets = *count,
                        VfStats::RxBytes(count) => counters.rx_bytes = *count,
                        VfStats::TxBytes(count) => counters.tx_bytes = *count,
                        VfStats::Broadcast(count) => counters.broadcast = *count,
                        VfStats::Multicast(count) => counters.multicast = *count,
                        VfStats::RxDropped(count) => counters.rx_dropped = *count,
                        VfStats::TxDropped(count) => counters.tx_dropped = *count,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    Some((index?, counters))
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
    words.extend(change.guids.map(|guids| format!("GUIDs {} and {}", guids.node, guids.port)));
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

#[cfg(test)]
mod tests {
    use netlink_packet_core::Emitable;

    use super::*;
    use crate::netlink::stand_in::{self, acknowledgement, message};
    use crate::testing::TestNetns;

    /// What the kernel answers of a PF with `vfs` VFs, with counters: `rtnl_fill_vfinfo` of `net/core/rtnetlink.c`.
    fn pf_with_counters(vfs: u16) -> Vec<u8> {
        let entry = |vf: u16| {
            let count = |of: u64| of + 1_000_000 * u64::from(vf);
            let stats = [
                VfStats::RxPackets(count(1)),
                VfStats::TxPackets(count(2)),
                VfStats::RxBytes(count(3)),
                VfStats::TxBytes(count(4)),
                VfStats::Broadcast(count(5)),
                VfStats::Multicast(count(6)),
                VfStats::RxDropped(count(7)),
                VfStats::TxDropped(count(8)),
            ];
            let mac = VfInfoMac::new(vf.into(), &[0x02, 0, 0, 0, 0, 1]);
            // The rest of what an entry has, so that it is as long as a real one.
            let vlan = VfVlanInfo::new(vf.into(), 0, 0, netlink_packet_route::link::VlanProtocol::Ieee8021Q);
            LinkVfInfo(vec![
                VfInfo::Mac(mac),
                VfInfo::SpoofCheck(VfInfoSpoofCheck::new(vf.into(), true)),
                VfInfo::VlanList(vec![VfVlan::Info(vlan)]),
                VfInfo::Rate(VfInfoRate::new(vf.into(), 0, 0)),
                VfInfo::Trust(VfInfoTrust::new(vf.into(), false)),
                VfInfo::Stats(stats.to_vec()),
            ])
        };
        let mut pf = LinkMessage::default();
        pf.header.index = 7;
        pf.attributes.push(LinkAttribute::VfInfoList((0..vfs).map(entry).collect()));
        let mut payload = vec![0; pf.buffer_len()];
        pf.emit(&mut payload);
        message(RouteNetlinkMessage::NewLink(pf).message_type(), 0, &payload)
    }

    #[test]
    fn the_counters_of_every_vf_arrive_in_one_answer() {
        let (conversation, _requests) =
            stand_in::answering(vec![vec![pf_with_counters(200), acknowledgement()]]);
        let counters = RtnlSocket::with(conversation).vf_counters(IfIndex(7)).unwrap();
        assert!((0..200).eq(counters.iter().map(|(vf, _)| *vf)));
        let expected = VfCounters {
            rx_packets: 199_000_001,
            tx_packets: 199_000_002,
            rx_bytes: 199_000_003,
            tx_bytes: 199_000_004,
            broadcast: 199_000_005,
            multicast: 199_000_006,
            rx_dropped: 199_000_007,
            tx_dropped: 199_000_008,
        };
        assert_eq!(counters[199].1, expected);
    }

    #[test]
    fn a_vf_that_a_cut_list_lacks_is_an_error_and_not_absent() {
        let answer = |vfs: u16, count: u32| {
            let vfs = (0..vfs).map(|vf| LinkVfInfo(vec![VfInfo::Mac(VfInfoMac::new(vf.into(), &[2; 6]))]));
            let mut pf = LinkMessage::default();
            pf.attributes = vec![LinkAttribute::NumVf(count), LinkAttribute::VfInfoList(vfs.collect())];
            let mut payload = vec![0; pf.buffer_len()];
            pf.emit(&mut payload);
            message(RouteNetlinkMessage::NewLink(pf).message_type(), 0, &payload)
        };
        let asked = |answer: Vec<u8>, index| {
            let (conversation, _requests) = stand_in::answering(vec![vec![answer, acknowledgement()]]);
            RtnlSocket::with(conversation).vf_admin(IfIndex(7), index)
        };
        assert_eq!(asked(answer(256, 256), 255).unwrap().unwrap().mac, [2; 6].into());
        assert_eq!(asked(answer(4, 4), 4).unwrap(), None);
        let error = asked(answer(10, 400), 399).unwrap_err().to_string();
        assert!(error.contains("400 VFs") && error.contains("list 10"), "{error}");
    }

    #[test]
    fn guids_are_numbers_with_their_first_octet_highest_and_zero_lifts_them() {
        let guids = VfGuids { node: Guid(0x0200_0000_0000_0001), port: Guid::ZERO };
        let (conversation, requests) = stand_in::answering(vec![vec![acknowledgement()]]);
        let change = VfAdminChange { guids: Some(guids), ..VfAdminChange::default() };
        RtnlSocket::with(conversation).change_vf_admin(IfIndex(7), 3, &change).unwrap();
        // `IFLA_VF_IB_NODE_GUID` and `IFLA_VF_IB_PORT_GUID` of the kernel's `linux/if_link.h`: `struct ifla_vf_guid`.
        let attribute = |kind, guid: u64| {
            let value = [3_u32.to_ne_bytes(), [0; 4]].concat();
            stand_in::attribute(kind, &[value, guid.to_ne_bytes().to_vec()].concat())
        };
        let expected = [attribute(10, 0x0200_0000_0000_0001), attribute(11, u64::MAX)].concat();
        let asked = requests.join().unwrap().remove(0);
        assert_eq!(asked[asked.len() - expected.len()..], expected);
        let entry = |vf, node, port| {
            let mac = VfInfo::Mac(VfInfoMac::new(vf, &[0; 6]));
            LinkVfInfo(vec![
                mac,
                VfInfo::IbNodeGuid(VfInfoGuid::new(vf, node)),
                VfInfo::IbPortGuid(VfInfoGuid::new(vf, port)),
            ])
        };
        assert_eq!(admin_of(&entry(3, guids.node.0, u64::MAX), 3).unwrap().guids, Some(guids));
    }

    #[test]
    fn a_link_without_vfs_and_a_link_that_is_gone_have_no_counters() {
        let host = TestNetns::new();
        let mut rtnl = RtnlSocket::open_in(host.netns()).unwrap();
        let lo = rtnl.link_by_name("lo").unwrap().unwrap().index;
        for link in [lo, IfIndex(4711)] {
            assert!(rtnl.vf_counters(link).unwrap().is_empty());
        }
    }
}
