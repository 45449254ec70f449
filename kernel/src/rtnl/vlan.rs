//! VLAN interfaces: links on top of others that send and receive the frames with one tag.

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{InfoData, InfoKind, InfoVlan, LinkAttribute, LinkInfo, LinkMessage};

use super::link::{IfIndex, Link, link_of};
use super::socket::{RtnlError, RtnlSocket};
use super::vf::VlanProtocol;

/// A VLAN interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VlanLink {
    /// The interface itself.
    pub link: Link,
    /// The link that its frames leave by, in the same namespace.
    pub lower: IfIndex,
    /// The VLAN, 1 to 4094.
    pub id: u16,
    /// The tag protocol.
    pub protocol: VlanProtocol,
}

impl RtnlSocket {
    /// The VLAN interfaces of the namespace that are on top of links of the same namespace.
    ///
    /// # Errors
    /// [`RtnlError`].
    pub fn vlan_links(&mut self) -> Result<Vec<VlanLink>, RtnlError> {
        Ok(self.dump_links(vlan_of)?.into_iter().flatten().collect())
    }

    /// Makes the interface `name` for the frames of `lower` that are tagged with `id` as 802.1Q has it. It is down.
    ///
    /// # Errors
    /// [`RtnlError::Refused`], with `EEXIST` when there is one for this VLAN, or a link of this name.
    pub fn add_vlan_link(&mut self, lower: IfIndex, id: u16, name: &str) -> Result<(), RtnlError> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        message.attributes.push(LinkAttribute::Link(lower.0));
        let data = InfoData::Vlan(vec![InfoVlan::Id(id)]);
        message
            .attributes
            .push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Vlan), LinkInfo::Data(data)]));
        self.change(RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL, || {
            format!("make the interface {name} for VLAN {id} of interface {}", lower.0)
        })
    }

    /// Deletes a link that is made of software. One that is not there is no error.
    ///
    /// # Errors
    /// [`RtnlError::Refused`], with `EOPNOTSUPP` for hardware.
    pub fn delete_link(&mut self, index: IfIndex) -> Result<(), RtnlError> {
        let mut message = LinkMessage::default();
        message.header.index = index.0;
        let deleted =
            self.change(RouteNetlinkMessage::DelLink(message), 0, || format!("delete interface {}", index.0));
        match deleted {
            Err(error) if error.is_absent() => Ok(()),
            other => other,
        }
    }
}

/// A VLAN interface in a message; `None` for another link, and for one on top of a link of another namespace.
fn vlan_of(message: LinkMessage) -> Option<VlanLink> {
    let (mut lower, mut id, mut protocol) = (None, None, VlanProtocol::default());
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::Link(index) => lower = Some(IfIndex(*index)),
            // The index is then one of that namespace.
            LinkAttribute::LinkNetNsId(_) => return None,
            LinkAttribute::LinkInfo(infos) => {
                for info in infos {
                    let LinkInfo::Data(InfoData::Vlan(data)) = info else { continue };
                    for part in data {
                        match part {
                            InfoVlan::Id(number) => id = Some(*number),
                            InfoVlan::Protocol(tag) => protocol = (*tag).into(),
                            _ => {}
                        }
                    }
                }
            }
            _ => {}
        }
    }
    Some(VlanLink { link: link_of(message), lower: lower?, id: id?, protocol })
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::link::{VlanFlags, VlanProtocol as Tag};
    use nix::libc::EOPNOTSUPP;

    use super::*;
    use crate::testing::TestNetns;

    /// The first request, and whether this kernel has VLAN interfaces at all: one that has none says so.
    fn is_made(rtnl: &mut RtnlSocket, lower: IfIndex, id: u16, name: &str) -> bool {
        match rtnl.add_vlan_link(lower, id, name) {
            Ok(()) => true,
            Err(error) => {
                assert_eq!(error.errno(), Some(EOPNOTSUPP), "{error}");
                assert!(error.to_string().contains(&format!("{name} for VLAN {id}")), "{error}");
                false
            }
        }
    }

    #[test]
    fn one_is_made_found_and_deleted() {
        let host = TestNetns::new();
        host.ip("link add v0 type veth peer name v1");
        let mut rtnl = RtnlSocket::open_in(host.netns()).unwrap();
        let lower = rtnl.link_by_name("v0").unwrap().unwrap().index;
        if !is_made(&mut rtnl, lower, 100, "v0.100") {
            return assert_eq!(rtnl.vlan_links().unwrap(), []);
        }
        host.ip("link add link v1 name service type vlan id 7 protocol 802.1ad");
        assert!(rtnl.add_vlan_link(lower, 100, "other").unwrap_err().is_present());
        assert!(rtnl.add_vlan_link(lower, 101, "v0.100").unwrap_err().is_present());
        let found = rtnl.vlan_links().unwrap();
        let told: Vec<_> =
            found.iter().map(|vlan| (vlan.link.name.as_str(), vlan.id, vlan.protocol)).collect();
        assert_eq!(told, [("v0.100", 100, VlanProtocol::Dot1Q), ("service", 7, VlanProtocol::Dot1Ad)]);
        assert_eq!((found[0].lower, found[0].link.up), (lower, false));
        rtnl.delete_link(found[0].link.index).unwrap();
        rtnl.delete_link(found[0].link.index).unwrap();
        assert_eq!(rtnl.vlan_links().unwrap().len(), 1);
    }

    #[test]
    fn what_is_no_vlan_interface_of_this_namespace_is_passed_over() {
        let message = |attributes: Vec<LinkAttribute>| {
            let mut message = LinkMessage::default();
            message.header.index = 9;
            message.attributes = attributes;
            vlan_of(message).map(|vlan| (vlan.link.index, vlan.lower, vlan.id, vlan.protocol))
        };
        let flags = (VlanFlags::ReorderHdr, VlanFlags::all());
        let data = vec![InfoVlan::Protocol(Tag::Ieee8021Ad), InfoVlan::Flags(flags), InfoVlan::Id(7)];
        let info = LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Vlan),
            LinkInfo::Data(InfoData::Vlan(data)),
        ]);
        let on = LinkAttribute::Link(3);
        let expected = (IfIndex(9), IfIndex(3), 7, VlanProtocol::Dot1Ad);
        assert_eq!(message(vec![on.clone(), info.clone()]), Some(expected));
        assert_eq!(message(vec![on.clone(), info.clone(), LinkAttribute::LinkNetNsId(1)]), None);
        assert_eq!(message(vec![on, LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Veth)])]), None);
        assert_eq!(message(vec![info]), None);
    }
}
