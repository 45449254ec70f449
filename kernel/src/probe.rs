//! Asking a link who has an address: whether somebody else has one that is about to be used (RFC 5227 for IPv4, duplicate
//! address detection of RFC 4862 for IPv6), and whether a gateway is there.
//!
//! All addresses of both families are asked for at once, so two cost the time of one. Nothing is assigned here: whoever
//! asks before it assigns never has the kernel answer for an address that is another's. Refuses to know what follows from
//! an answer.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{LinkAddr, bind, recvfrom};
use socket2::{Domain, Protocol, Socket, Type};
use thiserror::Error;
use zerobridge_proto::Mac;

use crate::frame::{self, Heard};
use crate::netns::{Netns, NetnsError};
use crate::packet::link_address;
use crate::rtnl::IfIndex;

/// Longest frame that is looked at. Those of ARP and neighbour discovery are far shorter.
const FRAME_ROOM: usize = 1600;

/// How often is asked and how long is listened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbePace {
    /// How many times is asked for each address; zero only listens.
    pub count: u32,
    /// Between two questions.
    pub interval: Duration,
    /// For an answer to the last one.
    pub wait: Duration,
}

/// Who has an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The address.
    pub address: IpAddr,
    /// The Ethernet address that it lives at.
    pub mac: Mac,
}

/// Why a link could not be asked.
#[derive(Debug, Error)]
pub enum ProbeError {
    /// The namespace could not be entered.
    #[error("cannot ask interface {} who has an address", index.0)]
    Namespace {
        /// The interface.
        index: IfIndex,
        /// Why.
        source: NetnsError,
    },
    /// The interface is not there, or has no Ethernet address.
    #[error("cannot ask interface {} who has an address: it has no Ethernet address", index.0)]
    NoLink {
        /// The interface.
        index: IfIndex,
    },
    /// A socket failed.
    #[error("cannot ask interface {} who has an address", index.0)]
    Socket {
        /// The interface.
        index: IfIndex,
        /// Why.
        source: io::Error,
    },
}

impl ProbeError {
    /// The kernel's error number, when it gave one.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Socket { source, .. } => source.raw_os_error(),
            Self::Namespace { .. } | Self::NoLink { .. } => None,
        }
    }
}

/// Which of `addresses` somebody else has, or wants at this very moment: probes as whoever is about to use them, from the
/// link `index` in `netns`, which must be up and have a carrier and none of the addresses.
///
/// Takes `count - 1` intervals and the wait where nobody answers, and ends at once when all are found to be others'. Found
/// ones are not asked for any more, so that of two that want an address at the same time one is left alone with it, unless
/// both began within the same instant.
///
/// # Errors
/// [`ProbeError`]; nobody knows anything about the addresses then.
pub fn foreign_holders(
    netns: &Netns,
    index: IfIndex,
    addresses: &[IpAddr],
    pace: &ProbePace,
) -> Result<Vec<Holder>, ProbeError> {
    let inquiry = |mac, address: &IpAddr| Inquiry {
        address: *address,
        question: match *address {
            IpAddr::V4(address) => frame::arp_request(mac, Ipv4Addr::UNSPECIFIED, address),
            IpAddr::V6(address) => frame::neighbour_solicitation(mac, Ipv6Addr::UNSPECIFIED, address),
        },
        wanted_counts: true,
    };
    ask(netns, index, addresses, inquiry, pace)
}

/// Which gateways are there: each pair is an address of the link and the gateway that it is to ask for. Both are of one
/// family. Ends as soon as all have answered.
///
/// # Errors
/// [`ProbeError`].
pub fn answering_gateways(
    netns: &Netns,
    index: IfIndex,
    pairs: &[(IpAddr, IpAddr)],
    pace: &ProbePace,
) -> Result<Vec<Holder>, ProbeError> {
    let inquiry = |mac, (own, gateway): &(IpAddr, IpAddr)| Inquiry {
        address: *gateway,
        question: match (*own, *gateway) {
            (IpAddr::V4(own), IpAddr::V4(gateway)) => frame::arp_request(mac, own, gateway),
            (IpAddr::V6(own), IpAddr::V6(gateway)) => frame::neighbour_solicitation(mac, own, gateway),
            (_, IpAddr::V4(gateway)) => frame::arp_request(mac, Ipv4Addr::UNSPECIFIED, gateway),
            (_, IpAddr::V6(gateway)) => frame::neighbour_solicitation(mac, Ipv6Addr::UNSPECIFIED, gateway),
        },
        wanted_counts: false,
    };
    ask(netns, index, pairs, inquiry, pace)
}

/// One address that is asked for.
struct Inquiry {
    address: IpAddr,
    /// The frame that asks.
    question: Vec<u8>,
    /// Whether somebody who wants the address is an answer, as well as one who has it.
    wanted_counts: bool,
}

fn ask<T: Sync>(
    netns: &Netns,
    index: IfIndex,
    subjects: &[T],
    inquiry: impl Fn(Mac, &T) -> Inquiry + Sync,
    pace: &ProbePace,
) -> Result<Vec<Holder>, ProbeError> {
    let socket_error = |source| ProbeError::Socket { index, source };
    let ask_here = || {
        let (link, mac) = link_address(index).map_err(socket_error)?.ok_or(ProbeError::NoLink { index })?;
        let inquiries: Vec<Inquiry> = subjects.iter().map(|subject| inquiry(mac, subject)).collect();
        let addresses = inquiries.iter().map(|inquiry| inquiry.address);
        let wire = Wire::open(&link, mac, addresses).map_err(socket_error)?;
        wire.ask(inquiries, pace).map_err(socket_error)
    };
    netns.enter(ask_here).map_err(|source| ProbeError::Namespace { index, source })?
}

/// A link, as whoever asks and listens has it.
struct Wire {
    index: usize,
    mac: Mac,
    /// One for each family that is asked for. Not one for all protocols: that would show frames of the link's VLANs with
    /// their tags taken off, and what goes out as well as what comes in.
    sockets: Vec<(bool, Socket)>,
    /// Holds the memberships in the groups of IPv6 addresses, which a card, and a switch that watches who listens to what,
    /// must know of before anything is asked (RFC 4862, section 5.4.2).
    _groups: Option<UdpSocket>,
}

impl Wire {
    /// Listens on `link` from now on to whatever concerns `addresses`.
    fn open(link: &LinkAddr, mac: Mac, addresses: impl Iterator<Item = IpAddr>) -> io::Result<Self> {
        let (mut families, mut groups) = (BTreeSet::new(), BTreeSet::new());
        for address in addresses {
            families.insert(address.is_ipv6());
            if let IpAddr::V6(address) = address {
                groups.insert(frame::solicited_node(address));
            }
        }
        let index = link.ifindex();
        let open = |is_ipv6| Ok((is_ipv6, packet_socket(link, is_ipv6)?));
        Ok(Self {
            index,
            mac,
            sockets: families.into_iter().map(open).collect::<io::Result<_>>()?,
            _groups: if groups.is_empty() { None } else { Some(join(index, &groups)?) },
        })
    }

    fn ask(&self, inquiries: Vec<Inquiry>, pace: &ProbePace) -> io::Result<Vec<Holder>> {
        let (mut open, mut found) = (inquiries, Vec::new());
        let (mut asked, mut next) = (0, Instant::now());
        loop {
            self.listen(|heard| {
                if let Some(place) = open.iter().position(|inquiry| inquiry.is_answered_by(&heard)) {
                    let (Heard::Claim { mac, .. } | Heard::Probe { mac, .. }) = heard;
                    found.push(Holder { address: open.remove(place).address, mac });
                }
            })?;
            if open.is_empty() {
                return Ok(found);
            }
            let now = Instant::now();
            if now < next {
                self.wait_until(next, now)?;
            } else if asked < pace.count {
                for inquiry in &open {
                    self.send(inquiry)?;
                }
                asked += 1;
                // Counted from when it was really asked: a process that was kept waiting asks later, not faster.
                next = now + if asked < pace.count { pace.interval } else { pace.wait };
            } else {
                return Ok(found);
            }
        }
    }

    fn send(&self, inquiry: &Inquiry) -> io::Result<()> {
        for (is_ipv6, socket) in &self.sockets {
            if *is_ipv6 == inquiry.address.is_ipv6() {
                socket.send(&inquiry.question)?;
            }
        }
        Ok(())
    }

    /// Waits for a frame, until `next` at the latest. An interrupted wait is one that was short.
    fn wait_until(&self, next: Instant, now: Instant) -> io::Result<()> {
        let mut descriptors: Vec<PollFd<'_>> =
            self.sockets.iter().map(|(_, socket)| PollFd::new(socket.as_fd(), PollFlags::POLLIN)).collect();
        // poll(2) counts whole milliseconds, and the rest would be many short waits.
        let timeout = next.duration_since(now) + Duration::from_micros(999);
        let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
        if descriptors.is_empty() {
            thread::sleep(next.duration_since(now));
            return Ok(());
        }
        match poll(&mut descriptors, timeout) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Hands over what has been heard of others.
    fn listen(&self, mut hear: impl FnMut(Heard)) -> io::Result<()> {
        let mut room = [0; FRAME_ROOM];
        for (_, socket) in &self.sockets {
            loop {
                let (length, from) = match recvfrom::<LinkAddr>(socket.as_raw_fd(), &mut room) {
                    Ok(received) => received,
                    Err(Errno::EAGAIN) => break,
                    Err(Errno::EINTR) => continue,
                    Err(errno) => return Err(errno.into()),
                };
                let Some(frame) = room.get(..length).filter(|_| self.concerns_us(from.as_ref())) else {
                    continue;
                };
                let is_own = |mac: Option<Mac>| mac == Some(self.mac);
                if let Some(heard) = frame::read(frame)
                    && let Heard::Claim { mac, .. } | Heard::Probe { mac, .. } = heard
                    && !is_own(Some(mac))
                    && !is_own(frame::sender(frame))
                {
                    hear(heard);
                }
            }
        }
        Ok(())
    }

    /// Whether a frame came in by this link, for this host or for everybody. One of a VLAN that nobody here is in is
    /// marked as another host's, and so is what only a promiscuous link hears.
    fn concerns_us(&self, from: Option<&LinkAddr>) -> bool {
        from.is_some_and(|from| {
            from.ifindex() == self.index
                && matches!(
                    from.pkttype(),
                    libc::PACKET_HOST | libc::PACKET_BROADCAST | libc::PACKET_MULTICAST
                )
        })
    }
}

impl Inquiry {
    fn is_answered_by(&self, heard: &Heard) -> bool {
        match heard {
            Heard::Claim { address, .. } => *address == self.address,
            Heard::Probe { address, .. } => self.wanted_counts && *address == self.address,
        }
    }
}

/// A socket for the frames of ARP, or of IPv6, on one link.
fn packet_socket(link: &LinkAddr, is_ipv6: bool) -> io::Result<Socket> {
    let ethertype = if is_ipv6 { libc::ETH_P_IPV6 } else { libc::ETH_P_ARP };
    // In network byte order (packet(7)).
    let protocol = u16::try_from(ethertype).map_err(io::Error::other)?.to_be();
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(i32::from(protocol))))?;
    socket.set_nonblocking(true)?;
    // The address names no protocol: the socket's own stays. What came by other links before this is told by its index.
    bind(socket.as_raw_fd(), link)?;
    Ok(socket)
}

fn join(index: usize, groups: &BTreeSet<Ipv6Addr>) -> io::Result<UdpSocket> {
    let index = u32::try_from(index).map_err(io::Error::other)?;
    let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))?;
    groups.iter().try_for_each(|group| socket.join_multicast_v6(group, index))?;
    Ok(socket)
}

#[cfg(test)]
mod tests;
