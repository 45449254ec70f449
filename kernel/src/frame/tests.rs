use super::*;

/// What Linux answers to a probe for 10.1.0.2 (`arp_process` in `net/ipv4/arp.c`).
const ARP_ANSWER: &str =
    "020000000100 020000000001 0806 0001 0800 06 04 0002 020000000001 0a010002 020000000100 00000000";

fn mac(last: u8) -> Mac {
    Mac::from([2, 0, 0, 0, 1, last])
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn v6(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn advertisement_frame(mac: Mac, address: Ipv6Addr) -> Vec<u8> {
    to_group(mac, address, ALL_NODES, neighbour_advertisement(mac, address))
}

/// A frame of neighbour discovery with its checksum made right again after a change.
fn changed(mut frame: Vec<u8>, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    change(&mut frame);
    let length = length_of(&frame[54..]).to_be_bytes();
    frame[18..20].copy_from_slice(&length);
    frame[56..58].fill(0);
    let address = |at: usize| Ipv6Addr::from(array::<16>(&frame, at).unwrap());
    let sum = checksum(address(22), address(38), &frame[54..]).to_be_bytes();
    frame[56..58].copy_from_slice(&sum);
    frame
}

#[test]
fn an_arp_announcement_is_what_the_rfc_draws() {
    let address = "10.1.0.2".parse().unwrap();
    let expected =
        "ffffffffffff 020000000100 0806 0001 0800 06 04 0001 020000000100 0a010002 000000000000 0a010002";
    assert_eq!(hex(&arp_request(mac(0), address, address)), expected.replace(' ', ""));
}

#[test]
fn an_arp_probe_has_no_sender_and_no_target_hardware_address() {
    let frame = arp_request(mac(0), Ipv4Addr::UNSPECIFIED, "10.1.0.2".parse().unwrap());
    let expected =
        "ffffffffffff 020000000100 0806 0001 0800 06 04 0001 020000000100 00000000 000000000000 0a010002";
    assert_eq!(hex(&frame), expected.replace(' ', ""));
    assert_eq!(read(&frame), Some(Heard::Probe { address: ip("10.1.0.2"), mac: mac(0) }));
}

#[test]
fn a_neighbour_probe_is_what_the_rfc_draws() {
    let frame = neighbour_solicitation(mac(0), Ipv6Addr::UNSPECIFIED, v6("fd00:1::12:3456"));
    let expected = "3333ff123456 020000000100 86dd 60000000 0018 3a ff
        00000000000000000000000000000000 ff0200000000000000000001ff123456
        87 00 14d6 00000000 fd000001000000000000000000123456";
    assert_eq!(hex(&frame), hex(&bytes(expected)));
    assert_eq!(read(&frame), Some(Heard::Probe { address: ip("fd00:1::12:3456"), mac: mac(0) }));
}

#[test]
fn a_neighbour_advertisement_sums_to_all_ones_and_is_a_claim() {
    let frame = advertisement_frame(mac(0), v6("fd00:1::2"));
    assert_eq!(frame.len(), 14 + 40 + 32);
    // A receiver sums the message with its checksum in place and must get all ones, whose complement is zero.
    assert_eq!(checksum(v6("fd00:1::2"), ALL_NODES, &frame[54..]), 0);
    assert_eq!(read(&frame), Some(Heard::Claim { address: ip("fd00:1::2"), mac: mac(0) }));
}

#[test]
fn whoever_sends_arp_from_an_address_claims_it() {
    let claim = Heard::Claim { address: ip("10.1.0.2"), mac: "02:00:00:00:00:01".parse().unwrap() };
    assert_eq!(read(&bytes(ARP_ANSWER)), Some(claim));
    let question = arp_request(mac(7), "10.1.0.9".parse().unwrap(), "10.1.0.2".parse().unwrap());
    assert_eq!(read(&question), Some(Heard::Claim { address: ip("10.1.0.9"), mac: mac(7) }));
}

#[test]
fn an_advertisement_without_its_option_is_the_frames_senders() {
    let without = changed(advertisement_frame(mac(3), v6("fd00:1::2")), |frame| frame.truncate(78));
    assert_eq!(read(&without), Some(Heard::Claim { address: ip("fd00:1::2"), mac: mac(3) }));
}

#[test]
fn an_unknown_option_is_passed_over() {
    // A nonce (RFC 7527), which Linux sends with its own probes.
    let probe = neighbour_solicitation(mac(0), Ipv6Addr::UNSPECIFIED, v6("fd00:1::2"));
    let with_nonce = changed(probe, |frame| frame.extend([14, 1, 1, 2, 3, 4, 5, 6]));
    assert_eq!(read(&with_nonce), Some(Heard::Probe { address: ip("fd00:1::2"), mac: mac(0) }));
}

#[test]
fn what_a_receiver_must_discard_says_nothing() {
    let answer = bytes(ARP_ANSWER);
    let advertisement = || advertisement_frame(mac(0), v6("fd00:1::2"));
    let probe = || neighbour_solicitation(mac(0), Ipv6Addr::UNSPECIFIED, v6("fd00:1::2"));
    assert!(read(&answer).is_some() && read(&advertisement()).is_some() && read(&probe()).is_some());
    let arp = |at: usize, value: u8| {
        let mut frame = answer.clone();
        frame[at] = value;
        frame
    };
    for (why, frame) in [
        ("another kind of hardware", arp(15, 6)),
        ("another protocol", arp(16, 9)),
        ("another operation", arp(21, 9)),
        ("a reply of nobody", {
            let mut frame = answer.clone();
            frame[28..32].fill(0);
            frame
        }),
        ("another ethertype", arp(13, 0)),
        ("a hop limit that a router has touched", changed(advertisement(), |frame| frame[21] = 254)),
        ("another protocol behind IPv6", changed(advertisement(), |frame| frame[20] = 17)),
        ("a wrong checksum", {
            let mut frame = advertisement();
            frame[57] ^= 1;
            frame
        }),
        ("a code", changed(advertisement(), |frame| frame[55] = 1)),
        ("a target that is a group", changed(advertisement(), |frame| frame[62] = 0xff)),
        (
            "an answer to a question, sent to a group",
            changed(advertisement(), |frame| frame[58] |= SOLICITED),
        ),
        ("an option of no length", changed(advertisement(), |frame| frame[79] = 0)),
        ("an option longer than its room", changed(advertisement(), |frame| frame[79] = 2)),
        ("half an option", changed(advertisement(), |frame| frame.push(2))),
        ("a question from an address", neighbour_solicitation(mac(0), v6("fd00:1::9"), v6("fd00:1::2"))),
        ("a probe that names its sender", changed(probe(), |frame| frame.extend([1, 1, 2, 0, 0, 0, 1, 0]))),
        ("a probe to another group", changed(probe(), |frame| frame[53] ^= 1)),
    ] {
        assert_eq!(read(&frame), None, "{why}");
    }
}

#[test]
fn a_frame_cut_anywhere_is_read_or_not_and_never_a_panic() {
    for frame in [bytes(ARP_ANSWER), advertisement_frame(mac(0), v6("fd00:1::2"))] {
        for length in 0..frame.len() {
            assert_eq!(read(&frame[..length]), None, "{length}");
        }
    }
}
