//! Everything that this crate reads out of a message of the routing family, for a fuzzer to try.

use std::hint::black_box;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::LinkAttribute;

use super::address::address_of;
use super::host::{used_address, used_routes};
use super::link::{IfIndex, link_of};
use super::route::route_of;
use super::vf::{admin_of, counters_of};

/// Reads a message in every way.
pub(crate) fn read_all_of(message: RouteNetlinkMessage) {
    match message {
        RouteNetlinkMessage::NewLink(link) => {
            for attribute in &link.attributes {
                if let LinkAttribute::VfInfoList(list) = attribute {
                    let index = |number| u16::try_from(number).unwrap_or(u16::MAX);
                    for (number, entry) in list.iter().enumerate() {
                        black_box((admin_of(entry, index(number)), counters_of(entry)));
                    }
                }
            }
            black_box(link_of(link));
        }
        RouteNetlinkMessage::NewAddress(address) => {
            black_box((address_of(&address), used_address(&address)));
        }
        RouteNetlinkMessage::NewRoute(route) => {
            let index = used_routes(&route).first().map_or(IfIndex(1), |leg| leg.0);
            black_box(route_of(route, index));
        }
        _ => {}
    }
}
