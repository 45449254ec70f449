//! Telling neighbours and switches that an address now lives at a link: gratuitous ARP and unsolicited neighbour
//! advertisements.
//!
//! Without it, peers that spoke to the address's last holder keep sending to that holder's MAC until their caches age.
//! Refuses to know whether anybody listened.
//!
//! A packet socket could send all of it, but its closing waits until no processor handles a frame any more (`packet_release`
//! in `net/packet/af_packet.c`), which is a tenth of a pod's start. So the kernel is asked to send the ARP, an ICMPv6 socket
//! sends the advertisements, and a packet socket only what the kernel cannot be asked for.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV6};
use std::os::fd::AsRawFd;

use ipnet::IpNet;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn6, bind, sendto, setsockopt, socket,
    sockopt,
};
use thiserror::Error;
use tracing::debug;
use zerobridge_proto::Mac;

use crate::frame;
use crate::netns::{Netns, NetnsError};
use crate::packet::link_address;
use crate::rtnl::{IfIndex, Link, RtnlSocket};

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
    /// A socket failed.
    #[error("cannot announce addresses of interface {interface}")]
    Send {
        /// The interface.
        interface: String,
        /// Why.
        source: io::Error,
    },
}

/// Announces each address once from `link` of `netns`, with which `rtnl` is a conversation. The link has the addresses, and a
/// carrier.
///
/// # Errors
/// [`AnnounceError`]; others than the one that failed may have been announced.
pub fn announce(
    netns: &Netns,
    rtnl: &mut RtnlSocket,
    link: &Link,
    addresses: &[IpNet],
) -> Result<(), AnnounceError> {
    let Voices { kernel, mut arp, icmpv6 } = voices(addresses);
    for address in kernel {
        // All namespaces share one table of neighbours, which may be full.
        if let Err(error) = rtnl.announce_ipv4(link.index, address) {
            debug!(%error, "the kernel does not announce it; a packet socket does");
            arp.push(address);
        }
    }
    if arp.is_empty() && icmpv6.is_empty() {
        return Ok(());
    }
    let mac = link.mac.ok_or_else(|| AnnounceError::NoLink { interface: link.name.clone() })?;
    let speak = || advertise(link.index, mac, &icmpv6).and_then(|()| send_arp(link.index, mac, &arp));
    netns
        .enter(speak)
        .map_err(|source| AnnounceError::Namespace { interface: link.name.clone(), source })?
        .map_err(|source| AnnounceError::Send { interface: link.name.clone(), source })
}

/// Who announces which addresses.
#[derive(Debug, Default, PartialEq, Eq)]
struct Voices {
    /// The kernel, asked for it.
    kernel: Vec<Ipv4Addr>,
    /// A packet socket.
    arp: Vec<Ipv4Addr>,
    /// An ICMPv6 socket.
    icmpv6: Vec<Ipv6Addr>,
}

/// The kernel can be asked for the first address of each subnet.
fn voices(addresses: &[IpNet]) -> Voices {
    let mut voices = Voices::default();
    for (place, net) in addresses.iter().enumerate() {
        let is_covered = |other: &IpNet| other.contains(&net.addr()) || net.contains(&other.addr());
        match net.addr() {
            IpAddr::V6(address) => voices.icmpv6.push(address),
            IpAddr::V4(address) if addresses[..place].iter().any(is_covered) => voices.arp.push(address),
            IpAddr::V4(address) => voices.kernel.push(address),
        }
    }
    voices
}

fn advertise(index: IfIndex, mac: Mac, addresses: &[Ipv6Addr]) -> io::Result<()> {
    let all_nodes = SockaddrIn6::from(SocketAddrV6::new(frame::ALL_NODES, 0, 0, index.0));
    for address in addresses {
        // One socket for each, since its sender is the address. The kernel adds the checksum (RFC 3542, section 3.1).
        let socket =
            socket(AddressFamily::Inet6, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::IcmpV6)?;
        setsockopt(&socket, sockopt::Ipv6MulticastHops, &frame::HOP_LIMIT.into())?;
        bind(socket.as_raw_fd(), &SockaddrIn6::from(SocketAddrV6::new(*address, 0, 0, 0)))?;
        let message = frame::neighbour_advertisement(mac, *address);
        sendto(socket.as_raw_fd(), &message, &all_nodes, MsgFlags::empty())?;
    }
    Ok(())
}

fn send_arp(index: IfIndex, mac: Mac, addresses: &[Ipv4Addr]) -> io::Result<()> {
    if addresses.is_empty() {
        return Ok(());
    }
    let link = link_address(index)?;
    let (link, _) = link.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
    // Protocol 0 (none): it only sends, so the kernel need not deliver every frame of the link to it.
    let packet = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None)?;
    for address in addresses {
        let frame = frame::arp_request(mac, *address, *address);
        sendto(packet.as_raw_fd(), &frame, &link, MsgFlags::empty())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestNetns;

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    /// A host whose `v0` leads to `net1` of a pod, which is up with an address of its own.
    fn wire() -> (TestNetns, TestNetns) {
        let (host, pod) = (TestNetns::new(), TestNetns::new());
        host.ip(&format!("link add v0 type veth peer name net1 netns {}", pod.name()));
        for command in ["link set v0 up", "addr add 10.1.0.1/24 dev v0", "addr add fd00:1::1/64 dev v0 nodad"]
        {
            host.ip(command);
        }
        for command in ["link set net1 address 02:00:00:00:01:00", "link set net1 up"] {
            pod.ip(command);
        }
        (host, pod)
    }

    #[test]
    fn what_the_kernel_refuses_to_announce_is_sent_all_the_same() {
        let (host, pod) = wire();
        let link = RtnlSocket::open_in(pod.netns()).unwrap().link_by_name("net1").unwrap().unwrap();
        host.ip("neigh add 10.1.0.2 dev v0 lladdr 02:00:00:00:00:01 nud stale");
        // Of a namespace that has no such link.
        let mut elsewhere = RtnlSocket::open_in(TestNetns::new().netns()).unwrap();
        announce(pod.netns(), &mut elsewhere, &link, &nets(&["10.1.0.2/24"])).unwrap();
        let entry = host.ip("neigh show 10.1.0.2 dev v0");
        assert!(entry.contains("lladdr 02:00:00:00:01:00"), "{entry}");
    }

    #[test]
    fn neighbours_that_knew_another_holder_learn_the_new_one_of_each_address() {
        let (host, pod) = wire();
        let nets = nets(&["10.1.0.2/24", "10.1.0.3/24", "10.2.0.2/32", "fd00:1::2/64", "fd00:1::3/64"]);
        let mut rtnl = RtnlSocket::open_in(pod.netns()).unwrap();
        let link = rtnl.link_by_name("net1").unwrap().unwrap();
        for net in &nets {
            rtnl.add_address(link.index, *net).unwrap();
            let address = net.addr();
            host.ip(&format!("neigh add {address} dev v0 lladdr 02:00:00:00:00:01 nud stale"));
        }
        announce(pod.netns(), &mut rtnl, &link, &nets).unwrap();
        for address in nets.iter().map(IpNet::addr) {
            let entry = host.ip(&format!("neigh show {address} dev v0"));
            assert!(entry.contains("lladdr 02:00:00:00:01:00"), "{entry}");
        }
        // Nothing of it is left behind.
        assert_eq!(pod.ip("neigh show dev net1"), "");
    }

    #[test]
    fn the_kernel_announces_the_first_address_of_a_subnet_and_no_other() {
        let found = voices(&nets(&[
            "10.1.0.2/24",
            "10.1.0.3/24",
            "10.2.0.2/32",
            "10.1.9.9/16",
            "fd00:1::2/64",
            "10.3.0.1/31",
        ]));
        let expected = Voices {
            kernel: ["10.1.0.2", "10.2.0.2", "10.3.0.1"].map(|text| text.parse().unwrap()).to_vec(),
            arp: ["10.1.0.3", "10.1.9.9"].map(|text| text.parse().unwrap()).to_vec(),
            icmpv6: vec!["fd00:1::2".parse().unwrap()],
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn a_link_that_is_gone_is_named() {
        let pod = TestNetns::new();
        pod.ip("link add net1 type veth peer name other");
        let mut rtnl = RtnlSocket::open_in(pod.netns()).unwrap();
        let link = rtnl.link_by_name("net1").unwrap().unwrap();
        pod.ip("link del net1");
        for net in ["10.1.0.2/24", "fd00:1::2/64"] {
            let error = announce(pod.netns(), &mut rtnl, &link, &nets(&[net])).unwrap_err();
            assert!(error.to_string().contains("net1"), "{error}");
        }
    }
}
