//! IP addresses of a link.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::link::IfIndex;
use super::socket::{RtnlError, RtnlSocket};

impl RtnlSocket {
    /// Addresses of a link that somebody gave it: those that the kernel derives itself (link-local, router
    /// advertisement) are left out.
    ///
    /// # Errors
    /// [`RtnlError`].
    pub fn addresses(&mut self, index: IfIndex) -> Result<Vec<IpNet>, RtnlError> {
        let mut message = AddressMessage::default();
        message.header.index = index.0;
        let request = || format!("list the addresses of interface {}", index.0);
        self.dump(RouteNetlinkMessage::GetAddress(message), request, |answer| match answer {
            RouteNetlinkMessage::NewAddress(address) => given_to(&address, index),
            _ => None,
        })
    }

    /// Gives a link an address, and the route to its prefix with it. An address that is there already is no error.
    ///
    /// IPv6 duplicate address detection is off for it: the address comes from a pool that gives each out once, and a
    /// second of waiting would be a second of every pod's start.
    ///
    /// # Errors
    /// [`RtnlError`].
    pub fn add_address(&mut self, index: IfIndex, address: IpNet) -> Result<(), RtnlError> {
        let mut message = message_of(index, address);
        match address {
            IpNet::V4(net) => {
                // A /31 or /32 has no broadcast address (RFC 3021).
                if net.prefix_len() < 31 {
                    message.attributes.push(AddressAttribute::Broadcast(net.broadcast()));
                }
            }
            IpNet::V6(_) => message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad)),
        }
        self.change(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_REPLACE, || {
            format!("give interface {} the address {address}", index.0)
        })
    }

    /// Takes an address from a link, and the route to its prefix with it. One that is not there is no error.
    ///
    /// # Errors
    /// [`RtnlError`].
    pub fn delete_address(&mut self, index: IfIndex, address: IpNet) -> Result<(), RtnlError> {
        let message = message_of(index, address);
        let deleted = self.change(RouteNetlinkMessage::DelAddress(message), 0, || {
            format!("take the address {address} from interface {}", index.0)
        });
        match deleted {
            Err(error) if error.errno() == Some(nix::libc::EADDRNOTAVAIL) => Ok(()),
            other => other,
        }
    }
}

/// What names an address of a link in a request.
fn message_of(index: IfIndex, address: IpNet) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.index = index.0;
    message.header.prefix_len = address.prefix_len();
    message.header.family = match address {
        IpNet::V4(_) => AddressFamily::Inet,
        IpNet::V6(_) => AddressFamily::Inet6,
    };
    message.attributes.push(AddressAttribute::Local(address.addr()));
    message.attributes.push(AddressAttribute::Address(address.addr()));
    message
}

/// The address in a message, with the length of its prefix.
pub(super) fn address_of(message: &AddressMessage) -> Option<IpNet> {
    let mut found: Option<IpAddr> = None;
    for attribute in &message.attributes {
        match attribute {
            // On a point-to-point link, `Address` is the other end's.
            AddressAttribute::Local(address) => found = Some(*address),
            AddressAttribute::Address(address) => found = found.or(Some(*address)),
            _ => {}
        }
    }
    IpNet::new(found?, message.header.prefix_len).ok()
}

/// The address in a message, when somebody gave it to link `index`.
fn given_to(message: &AddressMessage, index: IfIndex) -> Option<IpNet> {
    let flags = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Flags(flags) => Some(*flags),
        _ => None,
    });
    let header_flags = AddressFlags::from_bits_retain(u32::from(message.header.flags.bits()));
    let given = flags.unwrap_or(header_flags).contains(AddressFlags::Permanent)
        && message.header.scope != AddressScope::Link;
    (message.header.index == index.0 && given).then(|| address_of(message))?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rtnl::LinkChange;
    use crate::testing::TestNetns;

    #[test]
    fn both_families_are_usable_at_once_and_adding_twice_is_fine() {
        let pod = TestNetns::new();
        pod.ip("link add v0 type veth peer name v1");
        pod.ip("link set v1 up");
        let mut rtnl = RtnlSocket::open_in(pod.netns()).unwrap();
        let index = rtnl.link_by_name("v0").unwrap().unwrap().index;
        let wanted: Vec<IpNet> =
            ["10.1.0.2/24", "10.2.0.1/32", "fd00:1::2/64"].map(|text| text.parse().unwrap()).to_vec();
        for address in wanted.iter().chain(&wanted) {
            rtnl.add_address(index, *address).unwrap();
        }
        rtnl.change_link(index, &LinkChange { up: Some(true), ..LinkChange::default() }).unwrap();
        assert_eq!(rtnl.addresses(index).unwrap(), wanted);
        let shown = pod.ip("-6 addr show dev v0 scope global");
        assert!(!shown.contains("tentative"), "{shown}");
        assert!(pod.ip("-4 addr show dev v0").contains("brd 10.1.0.255"));
        for address in [wanted[0], wanted[2], wanted[0], wanted[2]] {
            rtnl.delete_address(index, address).unwrap();
        }
        assert_eq!(rtnl.addresses(index).unwrap(), wanted[1..2]);
    }
}
