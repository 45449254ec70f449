//! Routes that leave by a link.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteMetric, RouteProtocol, RouteScope,
    RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use serde::{Deserialize, Serialize};

use super::link::IfIndex;
use super::socket::{RtnlError, RtnlSocket};

/// One route that leaves by a given link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Destination; a prefix length of 0 is the default route.
    pub destination: IpNet,
    /// Next hop; `None` when the destination is on the link.
    pub gateway: Option<IpAddr>,
    /// Routing table; `None` means the main table, 254.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<u32>,
    /// Metric: the lowest wins. `None` leaves it to the kernel (0 for IPv4, 1024 for IPv6).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u32>,
    /// Path MTU in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Largest TCP segment to advertise, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advmss: Option<u32>,
    /// Kernel scope number (0 universe, 253 link, 254 host). `None` derives it: link without a gateway, else universe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<u8>,
}

impl Route {
    fn main_table_of(destination: IpNet, gateway: Option<IpAddr>) -> Self {
        Self { destination, gateway, table: None, priority: None, mtu: None, advmss: None, scope: None }
    }

    /// Whether both lead to the same place by the same way: what an observer can compare without knowing which
    /// defaults the kernel filled in.
    #[must_use]
    pub fn leads_like(&self, other: &Self) -> bool {
        let table = |route: &Self| route.table.unwrap_or(u32::from(RouteHeader::RT_TABLE_MAIN));
        self.destination.trunc() == other.destination.trunc()
            && self.gateway == other.gateway
            && table(self) == table(other)
    }
}

impl RtnlSocket {
    /// Unicast routes of all tables that leave by a link and that somebody added: those that came with an address are
    /// left out.
    ///
    /// # Errors
    /// [`RtnlError`].
    pub fn routes(&mut self, index: IfIndex) -> Result<Vec<Route>, RtnlError> {
        self.dump_routes(
            || format!("list the routes of interface {}", index.0),
            |answer| route_of(answer, index),
        )
    }

    /// What `pick` makes of each IPv4 and IPv6 route of the namespace.
    pub(super) fn dump_routes<T>(
        &mut self,
        request: impl Fn() -> String,
        mut pick: impl FnMut(RouteMessage) -> Option<T>,
    ) -> Result<Vec<T>, RtnlError> {
        let mut found = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut message = RouteMessage::default();
            message.header.address_family = family;
            let answers =
                self.dump(RouteNetlinkMessage::GetRoute(message), &request, |answer| match answer {
                    // A kernel without IPv6 answers with the routes of all families that it has.
                    RouteNetlinkMessage::NewRoute(route) if route.header.address_family == family => {
                        pick(route)
                    }
                    _ => None,
                })?;
            found.extend(answers);
        }
        Ok(found)
    }

    /// Adds a route that leaves by a link. One that is there already is no error.
    ///
    /// # Errors
    /// [`RtnlError::Refused`], with `ENETUNREACH` when the gateway is not on the link.
    pub fn add_route(&mut self, index: IfIndex, route: &Route) -> Result<(), RtnlError> {
        let message = message_of(route, index);
        let added = self.change(RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE | NLM_F_EXCL, || {
            let via = route.gateway.map(|gateway| format!(" via {gateway}")).unwrap_or_default();
            format!("add the route to {}{via} by interface {}", route.destination, index.0)
        });
        match added {
            Err(error) if error.is_present() => Ok(()),
            other => other,
        }
    }
}

fn message_of(route: &Route, index: IfIndex) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header = RouteHeader {
        address_family: match route.destination {
            IpNet::V4(_) => AddressFamily::Inet,
            IpNet::V6(_) => AddressFamily::Inet6,
        },
        destination_prefix_length: route.destination.prefix_len(),
        // Larger table numbers do not fit the header; the attribute below carries those.
        table: route.table.map_or(RouteHeader::RT_TABLE_MAIN, |table| {
            u8::try_from(table).unwrap_or(RouteHeader::RT_TABLE_UNSPEC)
        }),
        protocol: RouteProtocol::Static,
        scope: match (route.scope, route.gateway) {
            (Some(scope), _) => scope.into(),
            (None, None) => RouteScope::Link,
            (None, Some(_)) => RouteScope::Universe,
        },
        kind: RouteType::Unicast,
        ..RouteHeader::default()
    };
    let attributes = &mut message.attributes;
    if route.destination.prefix_len() > 0 {
        attributes.push(RouteAttribute::Destination(route.destination.network().into()));
    }
    attributes.push(RouteAttribute::Oif(index.0));
    attributes.extend(route.gateway.map(|gateway| RouteAttribute::Gateway(gateway.into())));
    attributes.extend(route.table.map(RouteAttribute::Table));
    attributes.extend(route.priority.map(RouteAttribute::Priority));
    let metrics: Vec<RouteMetric> = [route.mtu.map(RouteMetric::Mtu), route.advmss.map(RouteMetric::Advmss)]
        .into_iter()
        .flatten()
        .collect();
    if !metrics.is_empty() {
        attributes.push(RouteAttribute::Metrics(metrics));
    }
    message
}

/// Where a route leads to; the whole address space when the message names nothing, as for a default route.
pub(super) fn destination_of(message: &RouteMessage) -> Option<IpNet> {
    let any: IpAddr = match message.header.address_family {
        AddressFamily::Inet => IpAddr::from([0; 4]),
        AddressFamily::Inet6 => IpAddr::from([0; 16]),
        _ => return None,
    };
    let named = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(address) => Some(ip_of(address)),
        _ => None,
    });
    IpNet::new(named.unwrap_or(Some(any))?, message.header.destination_prefix_length).ok()
}

pub(super) fn route_of(message: RouteMessage, index: IfIndex) -> Option<Route> {
    if message.header.kind != RouteType::Unicast || message.header.protocol == RouteProtocol::Kernel {
        return None;
    }
    let mut route = Route::main_table_of(destination_of(&message)?, None);
    let mut leaves_by = None;
    for attribute in message.attributes {
        match attribute {
            RouteAttribute::Gateway(address) => route.gateway = Some(ip_of(&address)?),
            RouteAttribute::Oif(oif) => leaves_by = Some(oif),
            RouteAttribute::Table(table) => route.table = Some(table),
            RouteAttribute::Priority(priority) => route.priority = Some(priority),
            RouteAttribute::Metrics(metrics) => {
                for metric in metrics {
                    match metric {
                        RouteMetric::Mtu(mtu) => route.mtu = Some(mtu),
                        RouteMetric::Advmss(advmss) => route.advmss = Some(advmss),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    route.scope = Some(message.header.scope.into());
    (leaves_by == Some(index.0)).then_some(route)
}

fn ip_of(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestNetns;

    fn route(destination: &str, gateway: Option<&str>) -> Route {
        Route::main_table_of(destination.parse().unwrap(), gateway.map(|text| text.parse().unwrap()))
    }

    #[test]
    fn what_was_added_is_found_again() {
        let pod = TestNetns::new();
        for command in [
            "link add v0 type veth peer name v1",
            "link set v0 up",
            "link set v1 up",
            "addr add 10.1.0.2/24 dev v0",
            "addr add fd00:1::2/64 dev v0 nodad",
        ] {
            pod.ip(command);
        }
        let mut rtnl = RtnlSocket::open_in(pod.netns()).unwrap();
        let index = rtnl.link_by_name("v0").unwrap().unwrap().index;
        assert_eq!(rtnl.routes(index).unwrap(), []);
        let wanted = [
            route("0.0.0.0/0", Some("10.1.0.1")),
            route("192.0.2.0/24", None),
            Route { table: Some(1000), ..route("198.51.100.0/24", Some("10.1.0.1")) },
            Route {
                mtu: Some(1400),
                advmss: Some(1300),
                priority: Some(7),
                ..route("203.0.113.0/24", Some("10.1.0.3"))
            },
            route("::/0", Some("fd00:1::1")),
        ];
        for route in wanted.iter().chain(&wanted) {
            rtnl.add_route(index, route).unwrap();
        }
        let found = rtnl.routes(index).unwrap();
        assert_eq!(found.len(), wanted.len(), "{found:?}");
        for route in &wanted {
            assert!(found.iter().any(|other| other.leads_like(route)), "{route:?} is not in {found:?}");
        }
        let detailed = found.iter().find(|route| route.priority == Some(7)).unwrap();
        assert_eq!((detailed.mtu, detailed.advmss), (Some(1400), Some(1300)));
    }

    #[test]
    fn a_gateway_off_the_link_is_refused_with_the_route_in_words() {
        let pod = TestNetns::new();
        pod.ip("link add v0 type veth peer name v1");
        pod.ip("link set v0 up");
        let mut rtnl = RtnlSocket::open_in(pod.netns()).unwrap();
        let index = rtnl.link_by_name("v0").unwrap().unwrap().index;
        let error = rtnl.add_route(index, &route("0.0.0.0/0", Some("10.9.0.1"))).unwrap_err();
        assert_eq!(error.errno(), Some(nix::libc::ENETUNREACH));
        assert!(error.to_string().contains("the route to 0.0.0.0/0 via 10.9.0.1"), "{error}");
    }
}
