//! Whether the host itself needs a device: pure judgement over what the host's network consists of.
//!
//! A network card that the node lives on must not end in a pod because a selector was too wide. Only what a pool names by
//! its address is given away regardless.

use std::fmt;

use ipnet::IpNet;
use zerobridge_kernel::{HostNetwork, Netdev};

/// What the host uses a device for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HostUse {
    /// A route leads over its netdev.
    Route {
        /// The netdev.
        netdev: String,
        /// The route's destination.
        destination: IpNet,
    },
    /// Its netdev has an address.
    Address {
        /// The netdev.
        netdev: String,
        /// The address.
        address: IpNet,
    },
    /// Its netdev is part of a bond, a bridge, or the like.
    Master {
        /// The netdev.
        netdev: String,
        /// What it is a part of.
        master: String,
    },
    /// Another link is made on top of its netdev.
    Child {
        /// The netdev.
        netdev: String,
        /// The link on top.
        child: String,
    },
    /// A process that is in no pod has its VFIO group open.
    VfioGroup {
        /// The group.
        group: u32,
    },
}

/// What the host uses one of these netdevs for; `None` if it uses none of them.
#[must_use]
pub fn host_use(netdevs: &[Netdev], host: &HostNetwork) -> Option<HostUse> {
    netdevs.iter().find_map(|netdev| {
        let link = host.links.get(&netdev.name)?;
        let netdev = netdev.name.clone();
        if let Some(&destination) = link.routes.first() {
            return Some(HostUse::Route { netdev, destination });
        }
        if let Some(&address) = link.addresses.first() {
            return Some(HostUse::Address { netdev, address });
        }
        if let Some(master) = link.master.clone() {
            return Some(HostUse::Master { netdev, master });
        }
        link.children.first().cloned().map(|child| HostUse::Child { netdev, child })
    })
}

impl fmt::Display for HostUse {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Route { netdev, destination } => {
                write!(out, "the host's route to {destination} leads over {netdev}")
            }
            Self::Address { netdev, address } => write!(out, "{netdev} has the host's address {address}"),
            Self::Master { netdev, master } => write!(out, "{netdev} is a part of {master}"),
            Self::Child { netdev, child } => write!(out, "{child} is made on top of {netdev}"),
            Self::VfioGroup { group } => {
                write!(out, "a process that is in no pod has VFIO group {group} open")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use zerobridge_kernel::testing::idle_link;
    use zerobridge_kernel::{HostLink, LinkType};

    use super::*;

    fn netdev() -> Netdev {
        Netdev { name: "ens1".to_owned(), link_type: LinkType::Ethernet, port_name: None }
    }

    fn idle() -> HostLink {
        idle_link("ens1")
    }

    fn judged(link: HostLink) -> Option<String> {
        let host = HostNetwork { links: BTreeMap::from([("ens1".to_owned(), link)]) };
        host_use(&[netdev()], &host).map(|used| used.to_string())
    }

    #[test]
    fn a_link_that_is_only_up_is_not_in_use() {
        assert_eq!(judged(idle()), None);
        assert_eq!(host_use(&[netdev()], &HostNetwork::default()), None);
        assert_eq!(host_use(&[], &HostNetwork::default()), None);
    }

    #[test]
    fn each_use_is_named() {
        let net = |text: &str| text.parse().unwrap();
        for (link, said) in [
            (
                HostLink { routes: vec![net("0.0.0.0/0")], ..idle() },
                "the host's route to 0.0.0.0/0 leads over ens1",
            ),
            (
                HostLink { routes: vec![net("fd00::/64")], ..idle() },
                "the host's route to fd00::/64 leads over ens1",
            ),
            (
                HostLink { addresses: vec![net("10.0.0.7/24")], ..idle() },
                "ens1 has the host's address 10.0.0.7/24",
            ),
            (HostLink { master: Some("bond0".to_owned()), ..idle() }, "ens1 is a part of bond0"),
            (HostLink { children: vec!["ens1.7".to_owned()], ..idle() }, "ens1.7 is made on top of ens1"),
        ] {
            assert_eq!(judged(link).as_deref(), Some(said));
        }
    }
}
