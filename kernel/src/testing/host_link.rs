//! A link of the host as a value, for tests of what follows from it.

use crate::{HostLink, IfIndex, Link};

/// A link that is up and has a carrier, and that the host uses for nothing.
#[must_use]
pub fn idle_link(name: &str) -> HostLink {
    HostLink {
        link: Link {
            index: IfIndex(7),
            name: name.to_owned(),
            alt_names: Vec::new(),
            mac: None,
            mtu: 1500,
            up: true,
            carrier: true,
            parent: None,
            alias: String::new(),
            all_multicast: false,
            promiscuous: false,
        },
        master: None,
        children: Vec::new(),
        addresses: Vec::new(),
        routes: Vec::new(),
    }
}
