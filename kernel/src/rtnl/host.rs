//! What the host's own network consists of, as one value: which links are in use, and by what.
//!
//! Refuses to judge: whether a link in use may become a pod's is the daemon's to decide.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use netlink_packet_route::route::{RouteAttribute, RouteFlags, RouteMessage};

use super::address::address_of;
use super::link::{IfIndex, Link, link_of};
use super::route::destination_of;
use super::socket::{RtnlError, RtnlSocket};

/// `RT_TABLE_LOCAL` of the kernel's `linux/rtnetlink.h`: the host's own addresses and the broadcasts, kept by the kernel.
const LOCAL_TABLE: u32 = 255;

/// Links, addresses and routes of one network namespace at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostNetwork {
    /// The links, by name.
    pub links: BTreeMap<String, HostLink>,
}

/// A link and what the host does with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostLink {
    /// The link.
    pub link: Link,
    /// Name of the bond, bridge, or other device that it is enslaved to (`IFLA_MASTER`).
    pub master: Option<String>,
    /// Names of the links of this namespace that are made on top of it (`IFLA_LINK` of a VLAN or macvlan) or enslaved to
    /// it, sorted. The two ends of a veth pair are not on top of each other.
    pub children: Vec<String>,
    /// Its addresses, leased and autoconfigured ones included, without the IPv6 link-local ones (`fe80::/10`) that the
    /// kernel gives to every link.
    pub addresses: Vec<IpNet>,
    /// Destinations of the routes that lead over it, in every table but `local`: IPv4, IPv6, each leg of a multipath
    /// route, without the IPv6 link-local and multicast ones that the kernel makes for every link.
    pub routes: Vec<IpNet>,
}

impl HostNetwork {
    /// The link with this name or alternative name.
    #[must_use]
    pub fn link(&self, name: &str) -> Option<&HostLink> {
        let by_alt_name =
            || self.links.values().find(|host| host.link.alt_names.iter().any(|alt| alt == name));
        self.links.get(name).or_else(by_alt_name)
    }
}

impl RtnlSocket {
    /// The links of the socket's namespace with their addresses and routes. One list each of links and addresses, and one
    /// of routes for each of the two families.
    ///
    /// # Errors
    /// [`RtnlError`].
    pub fn host_network(&mut self) -> Result<HostNetwork, RtnlError> {
        let links = self.dump_links(LinkInUse::from)?;
        let get_addresses = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let addresses = self.dump(
            get_addresses,
            || "list the addresses of all interfaces".to_owned(),
            |answer| match answer {
                RouteNetlinkMessage::NewAddress(address) => used_address(&address),
                _ => None,
            },
        )?;
        let routes = self.dump_routes(
            || "list the routes".to_owned(),
            |route| Some(used_routes(&route)).filter(|legs| !legs.is_empty()),
        )?;
        Ok(join(links, addresses, routes.into_iter().flatten()))
    }
}

/// What one message says of a link and its neighbours.
struct LinkInUse {
    link: Link,
    master: Option<IfIndex>,
    /// The link of the same namespace that it is made on top of.
    lower: Option<IfIndex>,
}

impl From<LinkMessage> for LinkInUse {
    fn from(message: LinkMessage) -> Self {
        let (mut master, mut lower, mut elsewhere) = (None, None, false);
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::Controller(index) => master = Some(IfIndex(*index)),
                LinkAttribute::Link(index) => lower = Some(IfIndex(*index)),
                // The number is then one of another namespace (`rtnl_fill_link_netnsid` in `net/core/rtnetlink.c`).
                LinkAttribute::LinkNetNsId(_) => elsewhere = true,
                _ => {}
            }
        }
        Self { link: link_of(message), master, lower: lower.filter(|_| !elsewhere) }
    }
}

/// The address in a message and its link, unless it is one that every link has.
pub(crate) fn used_address(message: &AddressMessage) -> Option<(IfIndex, IpNet)> {
    let address = address_of(message)?;
    let of_every_link = matches!(address, IpNet::V6(net) if net.addr().is_unicast_link_local());
    (!of_every_link).then_some((IfIndex(message.header.index), address))
}

/// The links that a route leads over, each with the destination. Empty for a route that the kernel keeps for itself.
pub(crate) fn used_routes(message: &RouteMessage) -> Vec<(IfIndex, IpNet)> {
    let mut table = u32::from(message.header.table);
    let mut legs = Vec::new();
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Table(number) => table = *number,
            RouteAttribute::Oif(index) => legs.push(IfIndex(*index)),
            RouteAttribute::MultiPath(hops) => {
                legs.extend(hops.iter().map(|hop| IfIndex(hop.interface_index)));
            }
            _ => {}
        }
    }
    // A cloned route is the cached result of a lookup.
    if table == LOCAL_TABLE || message.header.flags.contains(RouteFlags::Cloned) {
        return Vec::new();
    }
    let Some(destination) = destination_of(message).filter(|net| !of_every_link(net)) else {
        return Vec::new();
    };
    legs.into_iter().map(|index| (index, destination)).collect()
}

/// Whether the kernel makes a route to this destination for every link that is up.
fn of_every_link(destination: &IpNet) -> bool {
    match destination {
        IpNet::V4(_) => false,
        IpNet::V6(net) => {
            net.prefix_len() > 0 && (net.addr().is_unicast_link_local() || net.addr().is_multicast())
        }
    }
}

fn join(
    links: Vec<LinkInUse>,
    addresses: impl IntoIterator<Item = (IfIndex, IpNet)>,
    routes: impl IntoIterator<Item = (IfIndex, IpNet)>,
) -> HostNetwork {
    let names: BTreeMap<IfIndex, String> =
        links.iter().map(|seen| (seen.link.index, seen.link.name.clone())).collect();
    let lowers: BTreeMap<IfIndex, IfIndex> =
        links.iter().filter_map(|seen| Some((seen.link.index, seen.lower?))).collect();
    let mut children: BTreeMap<IfIndex, BTreeSet<String>> = BTreeMap::new();
    for seen in &links {
        // The ends of a pair name each other, and neither carries the other.
        let lower = seen.lower.filter(|lower| lowers.get(lower) != Some(&seen.link.index));
        for below in seen.master.into_iter().chain(lower) {
            children.entry(below).or_default().insert(seen.link.name.clone());
        }
    }
    let (mut addresses, mut routes) = (by_link(addresses), by_link(routes));
    let links = links.into_iter().map(|LinkInUse { link, master, .. }| {
        let index = link.index;
        let host = HostLink {
            master: master.and_then(|master| names.get(&master).cloned()),
            children: children.remove(&index).into_iter().flatten().collect(),
            addresses: addresses.remove(&index).unwrap_or_default(),
            routes: routes.remove(&index).unwrap_or_default(),
            link,
        };
        (host.link.name.clone(), host)
    });
    HostNetwork { links: links.collect() }
}

fn by_link(pairs: impl IntoIterator<Item = (IfIndex, IpNet)>) -> BTreeMap<IfIndex, Vec<IpNet>> {
    let mut grouped: BTreeMap<IfIndex, Vec<IpNet>> = BTreeMap::new();
    for (index, net) in pairs {
        grouped.entry(index).or_default().push(net);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestNetns;

    fn host_network(netns: &TestNetns) -> HostNetwork {
        RtnlSocket::open_in(netns.netns()).unwrap().host_network().unwrap()
    }

    fn shown(nets: &[IpNet]) -> BTreeSet<String> {
        nets.iter().map(ToString::to_string).collect()
    }

    fn set<const N: usize>(words: [&str; N]) -> BTreeSet<String> {
        words.map(str::to_owned).into()
    }

    #[test]
    fn masters_and_links_on_top_are_joined_and_the_ends_of_a_pair_are_not() {
        let (host, pod) = (TestNetns::new(), TestNetns::new());
        for command in [
            "link add v0 type veth peer name v1",
            "link add br0 type bridge",
            "link set v1 master br0",
            "link add top1 link v0 type macvlan",
            "link add top0 link v0 type macvlan",
            "link add away link v0 type macvlan",
            "link property add dev v0 altname rail0",
        ] {
            host.ip(command);
        }
        pod.ip("link add p0 type veth peer name p1");
        host.ip(&format!("link set away netns {}", pod.name()));
        let network = host_network(&host);
        let v0 = &network.links["v0"];
        assert_eq!(
            (&v0.master, v0.children.as_slice()),
            (&None, ["top0", "top1"].map(str::to_owned).as_slice())
        );
        assert_eq!(network.links["v1"].master.as_deref(), Some("br0"));
        assert!(network.links["v1"].children.is_empty());
        assert_eq!(network.links["br0"].children, ["v1"]);
        assert_eq!(network.link("rail0"), Some(v0));
        // In the pod, the number of the link below is that of another link.
        let there = host_network(&pod);
        assert!(there.links.values().any(|other| other.link.index == v0.link.index));
        assert!(there.links.values().all(|other| other.children.is_empty()), "{there:?}");
    }

    #[test]
    fn routes_of_every_kind_are_found_on_the_links_they_lead_over() {
        let host = TestNetns::new();
        for command in [
            "link set lo up",
            "link add v0 type veth peer name v1",
            "link add w0 type veth peer name w1",
            "link add idle type veth peer name idle1",
            "link set v0 up",
            "link set v1 up",
            "link set w0 up",
            "link set w1 up",
            "link set idle up",
            "link set idle1 up",
            "addr add 10.1.0.2/24 dev v0",
            "addr add 10.2.0.2/24 dev w0",
            "addr add fd00:1::2/64 dev v0 nodad",
            "addr add fd00:2::2/64 dev w0 nodad valid_lft 600 preferred_lft 600",
            "route add 203.0.113.0/24 via 10.1.0.1 metric 7",
            "route add 198.51.100.0/24 via 10.2.0.1 table 1000",
            "route add default nexthop via 10.1.0.1 dev v0 nexthop via 10.2.0.1 dev w0",
            "-6 route add default nexthop via fd00:1::1 dev v0 nexthop via fd00:2::1 dev w0",
            "nexthop add id 5 via 10.2.0.9 dev w0",
            "route add 192.0.2.0/24 nhid 5",
            "route add unreachable 192.0.3.0/24",
        ] {
            host.ip(command);
        }
        let network = host_network(&host);
        let (v0, w0) = (&network.links["v0"], &network.links["w0"]);
        assert_eq!(shown(&v0.addresses), set(["10.1.0.2/24", "fd00:1::2/64"]));
        assert_eq!(shown(&w0.addresses), set(["10.2.0.2/24", "fd00:2::2/64"]));
        let both = ["0.0.0.0/0", "::/0"];
        assert_eq!(
            shown(&v0.routes),
            set([both[0], both[1], "10.1.0.0/24", "203.0.113.0/24", "fd00:1::/64"])
        );
        assert_eq!(
            shown(&w0.routes),
            set([both[0], both[1], "10.2.0.0/24", "192.0.2.0/24", "198.51.100.0/24", "fd00:2::/64"])
        );
        // It is up and has what the kernel gives to every link; that is no use.
        let idle = &network.links["idle"];
        assert_eq!((idle.addresses.as_slice(), idle.routes.as_slice()), (&[][..], &[][..]));
    }
}
