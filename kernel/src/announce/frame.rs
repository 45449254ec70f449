//! The two frames that tell a network where an address now lives, byte for byte.

use std::net::{Ipv4Addr, Ipv6Addr};

use zerobridge_proto::Mac;

const BROADCAST: [u8; 6] = [0xff; 6];
/// Where IPv6's all-nodes multicast goes on Ethernet (RFC 2464, section 7).
const ALL_NODES_MAC: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ETHERTYPE_ARP: [u8; 2] = [0x08, 0x06];
const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];
const NEXT_HEADER_ICMPV6: u8 = 58;
/// Length of the advertisement with its one option, in bytes.
const ADVERTISEMENT_LEN: u8 = 32;

/// A gratuitous ARP request: sender and target are the announced address (RFC 5227, section 3, "ARP Announcement").
pub(super) fn arp_announcement(mac: Mac, address: Ipv4Addr) -> Vec<u8> {
    let mut frame = Vec::with_capacity(42);
    frame.extend(BROADCAST);
    frame.extend(mac.octets());
    frame.extend(ETHERTYPE_ARP);
    // Ethernet, IPv4, 6 and 4 bytes an address, request.
    frame.extend([0, 1, 0x08, 0, 6, 4, 0, 1]);
    frame.extend(mac.octets());
    frame.extend(address.octets());
    frame.extend([0; 6]);
    frame.extend(address.octets());
    frame
}

/// An unsolicited neighbour advertisement with the override flag and the target's link-layer address (RFC 4861,
/// sections 4.4 and 7.2.6).
pub(super) fn neighbour_advertisement(mac: Mac, address: Ipv6Addr) -> Vec<u8> {
    let mut message = vec![136, 0, 0, 0, 0x20, 0, 0, 0];
    message.extend(address.octets());
    message.extend([2, 1]);
    message.extend(mac.octets());
    let checksum = icmpv6_checksum(address, ALL_NODES, &message).to_be_bytes();
    message[2..4].copy_from_slice(&checksum);

    let mut frame = Vec::with_capacity(86);
    frame.extend(ALL_NODES_MAC);
    frame.extend(mac.octets());
    frame.extend(ETHERTYPE_IPV6);
    // A hop limit other than 255 is discarded by every receiver (RFC 4861, section 7.1.2).
    frame.extend([0x60, 0, 0, 0, 0, ADVERTISEMENT_LEN, NEXT_HEADER_ICMPV6, 255]);
    frame.extend(address.octets());
    frame.extend(ALL_NODES.octets());
    frame.extend(message);
    frame
}

/// The Internet checksum over the pseudo-header of RFC 8200, section 8.1, and the message.
fn icmpv6_checksum(source: Ipv6Addr, destination: Ipv6Addr, message: &[u8]) -> u16 {
    let pseudo = [0, 0, 0, ADVERTISEMENT_LEN, 0, 0, 0, NEXT_HEADER_ICMPV6];
    let bytes =
        source.octets().into_iter().chain(destination.octets()).chain(pseudo).chain(message.iter().copied());
    let (mut sum, mut high) = (0_u32, None);
    for byte in bytes {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arp_announcement_is_what_the_rfc_draws() {
        let frame = arp_announcement("02:00:00:00:01:00".parse().unwrap(), "10.1.0.2".parse().unwrap());
        let expected =
            "ffffffffffff 020000000100 0806 0001 0800 06 04 0001 020000000100 0a010002 000000000000 0a010002";
        assert_eq!(hex(&frame), expected.replace(' ', ""));
    }

    #[test]
    fn a_neighbour_advertisement_sums_to_all_ones() {
        let (mac, address) = ("02:00:00:00:01:00".parse().unwrap(), "fd00:1::2".parse().unwrap());
        let frame = neighbour_advertisement(mac, address);
        assert_eq!(frame.len(), 14 + 40 + usize::from(ADVERTISEMENT_LEN));
        // A receiver sums the message with its checksum in place and must get all ones, whose complement is zero.
        assert_eq!(icmpv6_checksum(address, ALL_NODES, &frame[54..]), 0);
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
