//! Making the kernel speak of an address on a link, through its table of neighbours.

use std::net::Ipv4Addr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::link::IfIndex;
use super::socket::{RtnlError, RtnlSocket};

impl RtnlSocket {
    /// Has the kernel tell everybody on a link that it has `address`, once: an ARP request for the address itself, which is
    /// what RFC 5227 (section 2.3) calls an announcement.
    ///
    /// The kernel asks from its first address in the subnet of the one that it asks for (`arp_solicit` in `net/ipv4/arp.c`,
    /// `inet_select_addr` in `net/ipv4/devinet.c`), so this announces the first of several in one subnet, whichever of them
    /// is meant.
    ///
    /// # Errors
    /// [`RtnlError`]; the link must be up.
    pub fn announce_ipv4(&mut self, index: IfIndex, address: Ipv4Addr) -> Result<(), RtnlError> {
        let request = || format!("announce {address} on interface {}", index.0);
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.ifindex = index.0;
        message.header.state = NeighbourState::None;
        message.attributes.push(NeighbourAttribute::Destination(NeighbourAddress::Inet(address)));
        let entry = message.clone();
        message.header.flags = NeighbourFlags::Use;
        let ask = RouteNetlinkMessage::NewNeighbour(message);
        self.change(ask, NLM_F_CREATE | NLM_F_REPLACE, request)?;
        // Else it would be asked for twice more, a second apart, and stay in the table as a neighbour that is not there.
        self.change(RouteNetlinkMessage::DelNeighbour(entry), 0, request)
    }
}
