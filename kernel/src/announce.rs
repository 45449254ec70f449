//! Telling neighbours and switches that an address now lives at a link: gratuitous ARP and unsolicited neighbour
//! advertisements.
//!
//! Without it, peers that spoke to the address's last holder keep sending to that holder's MAC until their caches age.
//! Refuses to know whether anybody listened.

use std::io;
use std::net::IpAddr;
use std::os::fd::AsRawFd;

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, sendto, socket};
use thiserror::Error;

use crate::frame;
use crate::netns::{Netns, NetnsError};
use crate::packet::link_address;

/// Why an address was not announced.
#[derive(Debug, Error)]
pub enum AnnounceError {
    /// The namespace could not be entered.
    #[error("cannot announce addresses of interface {interface}")]
    Namespace {
        /// The interface.
        interface: String,
        /// Why.
        source: NetnsError,
    },
    /// The interface is not there, or has no Ethernet address.
    #[error("cannot announce addresses of interface {interface}: it has no Ethernet address")]
    NoLink {
        /// The interface.
        interface: String,
    },
    /// The packet socket failed.
    #[error("cannot announce addresses of interface {interface}")]
    Send {
        /// The interface.
        interface: String,
        /// Why.
        source: io::Error,
    },
}

/// Sends one announcement for each address from `interface` in `netns`.
///
/// # Errors
/// [`AnnounceError`]; addresses before the one that failed have been announced.
pub fn announce(netns: &Netns, interface: &str, addresses: &[IpAddr]) -> Result<(), AnnounceError> {
    netns
        .enter(|| announce_here(interface, addresses))
        .map_err(|source| AnnounceError::Namespace { interface: interface.to_owned(), source })?
}

fn announce_here(interface: &str, addresses: &[IpAddr]) -> Result<(), AnnounceError> {
    let send_error = |source| AnnounceError::Send { interface: interface.to_owned(), source };
    let no_link = || AnnounceError::NoLink { interface: interface.to_owned() };
    let link = link_address(|entry, _| entry.interface_name == interface).map_err(send_error)?;
    let (link, mac) = link.ok_or_else(no_link)?;
    // Protocol 0 (none): it only sends, so the kernel need not deliver every frame of the link to it.
    let packet = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None)
        .map_err(|errno| send_error(errno.into()))?;
    for address in addresses {
        let frame = match address {
            IpAddr::V4(address) => frame::arp_request(mac, *address, *address),
            IpAddr::V6(address) => frame::neighbour_advertisement(mac, *address),
        };
        sendto(packet.as_raw_fd(), &frame, &link, MsgFlags::empty())
            .map_err(|errno| send_error(errno.into()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestNetns;

    #[test]
    fn a_neighbour_that_knew_another_holder_learns_the_new_one() {
        let (host, pod) = (TestNetns::new(), TestNetns::new());
        host.ip(&format!("link add v0 type veth peer name net1 netns {}", pod.name()));
        for command in ["link set v0 up", "addr add 10.1.0.1/24 dev v0", "addr add fd00:1::1/64 dev v0 nodad"]
        {
            host.ip(command);
        }
        for command in ["link set net1 address 02:00:00:00:01:00", "link set net1 up"] {
            pod.ip(command);
        }
        for address in ["10.1.0.2", "fd00:1::2"] {
            host.ip(&format!("neigh add {address} dev v0 lladdr 02:00:00:00:00:01 nud stale"));
        }
        let addresses = ["10.1.0.2", "fd00:1::2"].map(|text| text.parse().unwrap());
        announce(pod.netns(), "net1", &addresses).unwrap();
        for address in addresses {
            let entry = host.ip(&format!("neigh show {address} dev v0"));
            assert!(entry.contains("lladdr 02:00:00:00:01:00"), "{entry}");
        }
    }

    #[test]
    fn an_absent_interface_is_named() {
        let pod = TestNetns::new();
        let error = announce(pod.netns(), "net1", &[]).unwrap_err();
        assert!(error.to_string().contains("net1"), "{error}");
    }
}
