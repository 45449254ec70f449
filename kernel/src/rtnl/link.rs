//! Links: what one looks like, and changing several of its properties in one request.

use std::os::fd::{AsFd, AsRawFd};

use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkExtentMask, LinkFlags, LinkMessage, Prop};
use zerobridge_proto::Mac;

use super::socket::{RtnlError, RtnlSocket};
use crate::netns::Netns;

/// A link's number within its namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IfIndex(pub u32);

/// One link as its namespace sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its number in the namespace.
    pub index: IfIndex,
    /// Its name.
    pub name: String,
    /// Its alternative names, in the kernel's order.
    pub alt_names: Vec<String>,
    /// Its Ethernet address. `None` for a link that has none or one of another length.
    pub mac: Option<Mac>,
    /// MTU in bytes.
    pub mtu: u32,
    /// Administratively up.
    pub up: bool,
    /// It has a carrier.
    pub carrier: bool,
    /// The bus device behind it, such as a PCI address (`IFLA_PARENT_DEV_NAME`, since Linux 5.14).
    pub parent: Option<String>,
    /// What somebody wrote down about it (`ifalias`); empty for nothing.
    pub alias: String,
    /// It takes frames for every multicast group, because it was told to.
    pub all_multicast: bool,
    /// It takes every frame, because it was told to; not because somebody listens, as `tcpdump` does.
    pub promiscuous: bool,
}

/// What to change of a link, all in one request. The default changes nothing.
#[derive(Clone, Debug, Default)]
pub struct LinkChange<'a> {
    /// Move it to this namespace; the other properties then take effect there.
    pub netns: Option<&'a Netns>,
    /// New name, at most 15 bytes.
    pub name: Option<&'a str>,
    /// New Ethernet address.
    pub mac: Option<Mac>,
    /// New MTU in bytes.
    pub mtu: Option<u32>,
    /// Administratively up or down.
    pub up: Option<bool>,
    /// New note; an empty one takes the old one away.
    pub alias: Option<&'a str>,
    /// Frames for every multicast group or not.
    pub all_multicast: Option<bool>,
    /// Every frame or not.
    pub promiscuous: Option<bool>,
}

impl RtnlSocket {
    /// The link called `name`, whether that is its name or an alternative name. At most 15 bytes.
    ///
    /// # Errors
    /// [`RtnlError`].
    pub fn link_by_name(&mut self, name: &str) -> Result<Option<Link>, RtnlError> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        self.get_link(message, || format!("look up interface {name}"))
    }

    /// The link with this number.
    ///
    /// # Errors
    /// [`RtnlError`].
    pub fn link_by_index(&mut self, index: IfIndex) -> Result<Option<Link>, RtnlError> {
        let mut message = LinkMessage::default();
        message.header.index = index.0;
        self.get_link(message, || format!("look up interface {}", index.0))
    }

    fn get_link(
        &mut self,
        mut message: LinkMessage,
        request: impl Fn() -> String,
    ) -> Result<Option<Link>, RtnlError> {
        message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        Ok(match self.get(RouteNetlinkMessage::GetLink(message), request)? {
            Some(RouteNetlinkMessage::NewLink(answer)) => Some(link_of(answer)),
            _ => None,
        })
    }

    /// All links of the namespace.
    ///
    /// # Errors
    /// [`RtnlError`].
    pub fn links(&mut self) -> Result<Vec<Link>, RtnlError> {
        self.dump_links(link_of)
    }

    /// What `pick` makes of each link of the namespace.
    pub(super) fn dump_links<T>(
        &mut self,
        mut pick: impl FnMut(LinkMessage) -> T,
    ) -> Result<Vec<T>, RtnlError> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        let request = || "list the interfaces".to_owned();
        self.dump(RouteNetlinkMessage::GetLink(message), request, |answer| match answer {
            RouteNetlinkMessage::NewLink(link) => Some(pick(link)),
            _ => None,
        })
    }

    /// Makes `change` in one request.
    ///
    /// The kernel applies the parts in this order: namespace, address, MTU, name, alias, flags, all under one lock; when
    /// it refuses one, those before it stay (`do_setlink` in `net/core/rtnetlink.c`).
    ///
    /// # Errors
    /// [`RtnlError::Refused`], with `EEXIST` when the target namespace has the name already. The link is then in the
    /// target namespace under its old name: the kernel looks at the new name only after the move.
    pub fn change_link(&mut self, index: IfIndex, change: &LinkChange<'_>) -> Result<(), RtnlError> {
        let mut message = LinkMessage::default();
        message.header.index = index.0;
        for (flag, value) in [
            (LinkFlags::Up, change.up),
            (LinkFlags::Allmulti, change.all_multicast),
            (LinkFlags::Promisc, change.promiscuous),
        ] {
            message.header.change_mask.set(flag, value.is_some());
            message.header.flags.set(flag, value == Some(true));
        }
        let attributes = &mut message.attributes;
        attributes.extend(change.netns.map(|netns| LinkAttribute::NetNsFd(netns.as_fd().as_raw_fd())));
        attributes.extend(change.name.map(|name| LinkAttribute::IfName(name.to_owned())));
        attributes.extend(change.mac.map(|mac| LinkAttribute::Address(mac.octets().to_vec())));
        attributes.extend(change.mtu.map(LinkAttribute::Mtu));
        attributes.extend(change.alias.map(|alias| LinkAttribute::IfAlias(alias.to_owned())));
        self.change(RouteNetlinkMessage::SetLink(message), 0, || {
            format!("set interface {} {}", index.0, in_words(change))
        })
    }

    /// Gives a link another name beside its own.
    ///
    /// # Errors
    /// [`RtnlError::Refused`] with `EEXIST` when a link of the namespace has that name.
    pub fn add_alt_name(&mut self, index: IfIndex, name: &str) -> Result<(), RtnlError> {
        let message = alt_name_message(index, name);
        self.change(
            RouteNetlinkMessage::NewLinkProp(message),
            NLM_F_EXCL | NLM_F_CREATE | NLM_F_APPEND,
            || format!("give interface {} the alternative name {name}", index.0),
        )
    }

    /// Takes an alternative name away.
    ///
    /// # Errors
    /// [`RtnlError`].
    pub fn delete_alt_name(&mut self, index: IfIndex, name: &str) -> Result<(), RtnlError> {
        let message = alt_name_message(index, name);
        self.change(RouteNetlinkMessage::DelLinkProp(message), 0, || {
            format!("take the alternative name {name} from interface {}", index.0)
        })
    }
}

fn alt_name_message(index: IfIndex, name: &str) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index.0;
    message.attributes.push(LinkAttribute::PropList(vec![Prop::AltIfName(name.to_owned())]));
    message
}

pub(super) fn link_of(message: LinkMessage) -> Link {
    let flags = message.header.flags;
    let mut link = Link {
        index: IfIndex(message.header.index),
        name: String::new(),
        alt_names: Vec::new(),
        mac: None,
        mtu: 0,
        up: flags.contains(LinkFlags::Up),
        carrier: flags.contains(LinkFlags::LowerUp),
        parent: None,
        alias: String::new(),
        all_multicast: flags.contains(LinkFlags::Allmulti),
        promiscuous: flags.contains(LinkFlags::Promisc),
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::Address(bytes) => link.mac = Mac::try_from(bytes.as_slice()).ok(),
            LinkAttribute::ParentDevName(name) => link.parent = Some(name),
            LinkAttribute::IfAlias(alias) => link.alias = alias,
            LinkAttribute::PropList(properties) => {
                link.alt_names.extend(properties.into_iter().filter_map(|property| match property {
                    Prop::AltIfName(name) => Some(name),
                    _ => None,
                }));
            }
            _ => {}
        }
    }
    link
}

fn in_words(change: &LinkChange<'_>) -> String {
    let mut words = Vec::new();
    words.extend(change.netns.map(|netns| format!("into namespace {}", netns.path().display())));
    words.extend(change.name.map(|name| format!("name {name}")));
    words.extend(change.mac.map(|mac| format!("address {mac}")));
    words.extend(change.mtu.map(|mtu| format!("mtu {mtu}")));
    words.extend(change.alias.map(|alias| format!("alias \"{alias}\"")));
    words.extend(change.up.map(|up| if up { "up".to_owned() } else { "down".to_owned() }));
    let on_off = |on: bool| if on { "on" } else { "off" };
    words.extend(change.all_multicast.map(|on| format!("allmulticast {}", on_off(on))));
    words.extend(change.promiscuous.map(|on| format!("promiscuous {}", on_off(on))));
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestNetns;

    #[test]
    fn one_request_moves_renames_and_sets_the_mtu() {
        let (host, pod) = (TestNetns::new(), TestNetns::new());
        host.ip("link add v0 type veth peer name v1");
        let mut rtnl = RtnlSocket::open_in(host.netns()).unwrap();
        let link = rtnl.link_by_name("v0").unwrap().unwrap();
        let change = LinkChange {
            netns: Some(pod.netns()),
            name: Some("net1"),
            mtu: Some(1400),
            ..LinkChange::default()
        };
        rtnl.change_link(link.index, &change).unwrap();
        assert_eq!(rtnl.link_by_name("v0").unwrap(), None);
        let moved = RtnlSocket::open_in(pod.netns()).unwrap().link_by_name("net1").unwrap().unwrap();
        assert_eq!((moved.mtu, moved.mac), (1400, link.mac));
    }

    #[test]
    fn a_link_whose_new_name_is_taken_arrives_under_its_old_one() {
        let (host, pod) = (TestNetns::new(), TestNetns::new());
        host.ip("link add v0 type veth peer name v1");
        pod.ip("link add net1 type veth peer name other");
        let mut rtnl = RtnlSocket::open_in(host.netns()).unwrap();
        let link = rtnl.link_by_name("v0").unwrap().unwrap();
        let change = LinkChange { netns: Some(pod.netns()), name: Some("net1"), ..LinkChange::default() };
        let error = rtnl.change_link(link.index, &change).unwrap_err();
        assert!(error.is_present(), "{error}");
        assert_eq!(rtnl.link_by_name("v0").unwrap(), None);
        let arrived = RtnlSocket::open_in(pod.netns()).unwrap().link_by_name("v0").unwrap().unwrap();
        assert_eq!(arrived.mac, link.mac);
    }

    #[test]
    fn alternative_names_come_and_go_and_find_the_link() {
        let host = TestNetns::new();
        host.ip("link add v0 type veth peer name v1");
        let mut rtnl = RtnlSocket::open_in(host.netns()).unwrap();
        let index = rtnl.link_by_name("v0").unwrap().unwrap().index;
        rtnl.add_alt_name(index, "rail0").unwrap();
        assert!(rtnl.add_alt_name(index, "v1").unwrap_err().is_present());
        assert_eq!(rtnl.link_by_name("rail0").unwrap().unwrap().alt_names, ["rail0"]);
        rtnl.delete_alt_name(index, "rail0").unwrap();
        assert_eq!(rtnl.link_by_name("rail0").unwrap(), None);
    }

    #[test]
    fn address_and_admin_state_change_together() {
        let host = TestNetns::new();
        host.ip("link add v0 type veth peer name v1");
        let mut rtnl = RtnlSocket::open_in(host.netns()).unwrap();
        let index = rtnl.link_by_name("v0").unwrap().unwrap().index;
        let mac: Mac = "02:00:00:00:01:00".parse().unwrap();
        rtnl.change_link(index, &LinkChange { mac: Some(mac), up: Some(true), ..LinkChange::default() })
            .unwrap();
        let link = rtnl.link_by_index(index).unwrap().unwrap();
        assert_eq!((link.mac, link.up, link.carrier), (Some(mac), true, false));
    }

    #[test]
    fn what_a_link_takes_and_what_is_written_on_it_come_and_go() {
        let host = TestNetns::new();
        host.ip("link add v0 type veth peer name v1");
        let mut rtnl = RtnlSocket::open_in(host.netns()).unwrap();
        let index = rtnl.link_by_name("v0").unwrap().unwrap().index;
        for (on, alias) in [(true, "enp1s0v0"), (false, "")] {
            let change = LinkChange {
                all_multicast: Some(on),
                promiscuous: Some(on),
                alias: Some(alias),
                ..LinkChange::default()
            };
            rtnl.change_link(index, &change).unwrap();
            let link = rtnl.link_by_index(index).unwrap().unwrap();
            assert_eq!((link.all_multicast, link.promiscuous, link.alias.as_str()), (on, on, alias));
            assert!(!link.up, "what is not named stays");
        }
    }
}
