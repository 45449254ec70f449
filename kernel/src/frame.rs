//! Ethernet frames of ARP and of IPv6 neighbour discovery, byte for byte, to send and to read. Pure.
//!
//! Refuses to know why something is sent, and what follows from what was heard.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use zerobridge_proto::Mac;

/// All nodes of a link (RFC 4291, section 2.7.1).
pub(crate) const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

const BROADCAST: [u8; 6] = [0xff; 6];
const ETHERTYPE_ARP: [u8; 2] = [0x08, 0x06];
const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];
/// Ethernet, IPv4, 6 and 4 bytes an address (RFC 826).
const ARP_FORMAT: [u8; 6] = [0, 1, 0x08, 0, 6, 4];
const ARP_REQUEST: [u8; 2] = [0, 1];
const ARP_REPLY: [u8; 2] = [0, 2];
const NEXT_HEADER_ICMPV6: u8 = 58;
/// Another hop limit is discarded by every receiver (RFC 4861, section 7.1).
pub(crate) const HOP_LIMIT: u8 = 255;
/// RFC 4861, sections 4.3 and 4.4.
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
const OVERRIDE: u8 = 0x20;
const SOLICITED: u8 = 0x40;
/// The options with a link-layer address (RFC 4861, section 4.6.1), each one unit of 8 bytes long.
const SOURCE_ADDRESS: u8 = 1;
const TARGET_ADDRESS: u8 = 2;

const ETHERNET_LEN: usize = 14;
const IPV6_LEN: usize = 40;
/// A solicitation or advertisement without options.
const MESSAGE_LEN: usize = 24;

/// What a frame says about who has an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// `mac` says that it has `address`.
    Claim {
        /// The address.
        address: IpAddr,
        /// Whose it is.
        mac: Mac,
    },
    /// `mac` wants `address`, and asks whether anybody has it.
    Probe {
        /// The address.
        address: IpAddr,
        /// Who wants it.
        mac: Mac,
    },
}

/// An ARP request to everybody. From the unspecified address it is a probe (RFC 5227, section 2.1.1), from its own target
/// an announcement (section 2.3), from another address a question.
pub(crate) fn arp_request(mac: Mac, sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let mut frame = Vec::with_capacity(42);
    frame.extend(BROADCAST);
    frame.extend(mac.octets());
    frame.extend(ETHERTYPE_ARP);
    frame.extend(ARP_FORMAT);
    frame.extend(ARP_REQUEST);
    frame.extend(mac.octets());
    frame.extend(sender.octets());
    frame.extend([0; 6]);
    frame.extend(target.octets());
    frame
}

/// An unsolicited neighbour advertisement with the override flag and the target's link-layer address (RFC 4861, sections 4.4
/// and 7.2.6), without what carries it and without its checksum.
pub(crate) fn neighbour_advertisement(mac: Mac, address: Ipv6Addr) -> Vec<u8> {
    let mut message = vec![ADVERTISEMENT, 0, 0, 0, OVERRIDE, 0, 0, 0];
    message.extend(address.octets());
    message.extend([TARGET_ADDRESS, 1]);
    message.extend(mac.octets());
    message
}

/// A neighbour solicitation (RFC 4861, section 4.3). From the unspecified address it is a probe and does not say who sent it
/// (RFC 4862, section 5.4.2), from another a question.
pub(crate) fn neighbour_solicitation(mac: Mac, sender: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    let mut message = vec![SOLICITATION, 0, 0, 0, 0, 0, 0, 0];
    message.extend(target.octets());
    if !sender.is_unspecified() {
        message.extend([SOURCE_ADDRESS, 1]);
        message.extend(mac.octets());
    }
    to_group(mac, sender, solicited_node(target), message)
}

/// The group that whoever has `address`, or wants it, listens to (RFC 4291, section 2.7.1).
pub(crate) fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., high, low] = address.segments();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | high & 0xff, low)
}

/// What a frame says about who has an address; `None` for one that says nothing of that, or that a receiver must discard
/// (RFC 5227, section 2.1.1; RFC 4861, sections 7.1.1 and 7.1.2; RFC 4862, section 5.4.3).
pub(crate) fn read(frame: &[u8]) -> Option<Heard> {
    match array(frame, 12)? {
        ETHERTYPE_ARP => read_arp(frame.get(ETHERNET_LEN..)?),
        ETHERTYPE_IPV6 => read_icmpv6(sender(frame)?, frame.get(ETHERNET_LEN..)?),
        _ => None,
    }
}

/// Who sent a frame.
pub(crate) fn sender(frame: &[u8]) -> Option<Mac> {
    array::<6>(frame, 6).map(Mac::from)
}

fn read_arp(packet: &[u8]) -> Option<Heard> {
    if array(packet, 0)? != ARP_FORMAT {
        return None;
    }
    let operation: [u8; 2] = array(packet, 6)?;
    let mac = Mac::from(array::<6>(packet, 8)?);
    let sender = Ipv4Addr::from(array::<4>(packet, 14)?);
    let target = Ipv4Addr::from(array::<4>(packet, 24)?);
    match (operation, sender.is_unspecified()) {
        (ARP_REQUEST | ARP_REPLY, false) => Some(Heard::Claim { address: sender.into(), mac }),
        (ARP_REQUEST, true) if !target.is_unspecified() => Some(Heard::Probe { address: target.into(), mac }),
        _ => None,
    }
}

fn read_icmpv6(from: Mac, packet: &[u8]) -> Option<Heard> {
    let [version, ..] = *packet else { return None };
    if version >> 4 != 6 || array(packet, 6)? != [NEXT_HEADER_ICMPV6, HOP_LIMIT] {
        return None;
    }
    let length = usize::from(u16::from_be_bytes(array(packet, 4)?));
    let [source, destination] = [8, 24].map(|at| array::<16>(packet, at).map(Ipv6Addr::from));
    let (source, destination) = (source?, destination?);
    let message = packet.get(IPV6_LEN..IPV6_LEN + length)?;
    if checksum(source, destination, message) != 0 {
        return None;
    }
    let [kind, code] = array(message, 0)?;
    let target = Ipv6Addr::from(array::<16>(message, 8)?);
    let options = options(message.get(MESSAGE_LEN..)?)?;
    let option = |kind| options.iter().find(|(found, _)| *found == kind).map(|(_, mac)| *mac);
    if code != 0 || target.is_multicast() {
        return None;
    }
    match kind {
        ADVERTISEMENT if !(destination.is_multicast() && message.get(4)? & SOLICITED != 0) => {
            let mac = option(TARGET_ADDRESS).flatten().unwrap_or(from);
            Some(Heard::Claim { address: target.into(), mac })
        }
        // One from an address is a question of somebody who is not concerned.
        SOLICITATION
            if source.is_unspecified()
                && destination == solicited_node(target)
                && option(SOURCE_ADDRESS).is_none() =>
        {
            Some(Heard::Probe { address: target.into(), mac: from })
        }
        _ => None,
    }
}

/// The options' kinds, with the address that one of 8 bytes can hold. `None` when they do not fill their room.
fn options(mut rest: &[u8]) -> Option<Vec<(u8, Option<Mac>)>> {
    let mut options = Vec::new();
    while let [kind, units, ..] = *rest {
        let length = usize::from(units) * 8;
        let option = rest.get(..length).filter(|option| !option.is_empty())?;
        let address = if units == 1 { array::<6>(option, 2).map(Mac::from) } else { None };
        options.push((kind, address));
        rest = rest.get(length..)?;
    }
    rest.is_empty().then_some(options)
}

/// A message of neighbour discovery, its checksum still zero, as a frame to a group.
fn to_group(mac: Mac, source: Ipv6Addr, group: Ipv6Addr, mut message: Vec<u8>) -> Vec<u8> {
    let sum = checksum(source, group, &message).to_be_bytes();
    message[2..4].copy_from_slice(&sum);
    let [.., a, b, c, d] = group.octets();
    let mut frame = Vec::with_capacity(ETHERNET_LEN + IPV6_LEN + message.len());
    // How a group is addressed on Ethernet: RFC 2464, section 7.
    frame.extend([0x33, 0x33, a, b, c, d]);
    frame.extend(mac.octets());
    frame.extend(ETHERTYPE_IPV6);
    frame.extend([0x60, 0, 0, 0]);
    frame.extend(length_of(&message).to_be_bytes());
    frame.extend([NEXT_HEADER_ICMPV6, HOP_LIMIT]);
    frame.extend(source.octets());
    frame.extend(group.octets());
    frame.extend(message);
    frame
}

/// The Internet checksum over the pseudo-header of RFC 8200, section 8.1, and the message; zero for a message that has the
/// right one in its place.
fn checksum(source: Ipv6Addr, destination: Ipv6Addr, message: &[u8]) -> u16 {
    let [high, low] = length_of(message).to_be_bytes();
    let pseudo = [0, 0, high, low, 0, 0, 0, NEXT_HEADER_ICMPV6];
    let bytes =
        source.octets().into_iter().chain(destination.octets()).chain(pseudo).chain(message.iter().copied());
    let (mut sum, mut high) = (0_u32, None);
    // A message of an odd length is summed as if a zero followed.
    for byte in bytes.chain((message.len() % 2 == 1).then_some(0)) {
        match high.take() {
            None => high = Some(byte),
            Some(high) => sum += u32::from(u16::from_be_bytes([high, byte])),
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).map_or(0, |sum| !sum)
}

/// A packet cannot be longer.
fn length_of(message: &[u8]) -> u16 {
    u16::try_from(message.len()).unwrap_or(u16::MAX)
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

#[cfg(test)]
mod tests;
