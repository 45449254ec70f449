//! A socket that stands in for the kernel, for answers that this machine's kernel does not give.

use std::thread::{self, JoinHandle};

use netlink_packet_core::{NLM_F_ACK_TLVS, NLM_F_MULTIPART};
use netlink_sys::protocols::NETLINK_USERSOCK;
use netlink_sys::{Socket, SocketAddr};

use super::{Conversation, EXTENDED_ACK_TEXT, HEADER_LEN};

/// `NLMSG_ERROR` and `NLMSG_DONE` of the kernel's `linux/netlink.h`.
const ERROR: u16 = 2;
const DONE: u16 = 3;

/// A conversation in which request number `i` is answered with the datagrams `answers[i]`. The thread returns the
/// requests.
pub(crate) fn answering(answers: Vec<Vec<Vec<u8>>>) -> (Conversation, JoinHandle<Vec<Vec<u8>>>) {
    let mut kernel = Socket::new(NETLINK_USERSOCK).unwrap();
    let port = kernel.bind_auto().unwrap();
    let mut client = Socket::new(NETLINK_USERSOCK).unwrap();
    let client_port = client.bind_auto().unwrap();
    client.connect(&port).unwrap();
    let answer = move || {
        let mut requests = Vec::new();
        for datagrams in answers {
            let (request, _) = kernel.recv_from_full().unwrap();
            let sequence = &request[8..12];
            for mut datagram in datagrams {
                number(&mut datagram, sequence);
                kernel.send_to(&datagram, &SocketAddr::new(client_port.port_number(), 0), 0).unwrap();
            }
            requests.push(request);
        }
        requests
    };
    (Conversation::over(client), thread::spawn(answer))
}

/// A message with its header (`struct nlmsghdr`), numbered when it is sent.
pub(crate) fn message(kind: u16, flags: u16, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(HEADER_LEN + payload.len()).unwrap();
    let mut bytes = Vec::new();
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend(payload);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// The end of a list, with the kernel's words if there are any.
pub(crate) fn done(code: i32, words: &[u8]) -> Vec<u8> {
    let mut payload = code.to_ne_bytes().to_vec();
    let flags = if words.is_empty() {
        0
    } else {
        payload.extend(attribute(EXTENDED_ACK_TEXT, words));
        NLM_F_ACK_TLVS
    };
    message(DONE, NLM_F_MULTIPART | flags, &payload)
}

/// The acknowledgement of a request.
pub(crate) fn acknowledgement() -> Vec<u8> {
    refusal(0)
}

/// A refusal with this error number.
pub(crate) fn refusal(errno: i32) -> Vec<u8> {
    let mut payload = (-errno).to_ne_bytes().to_vec();
    payload.extend([0; HEADER_LEN]);
    message(ERROR, 0, &payload)
}

/// An attribute with its header (`struct nlattr`) and padding.
pub(crate) fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).unwrap();
    let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn number(datagram: &mut [u8], sequence: &[u8]) {
    let mut start = 0;
    while start < datagram.len() {
        let length = u32::from_ne_bytes(datagram[start..start + 4].try_into().unwrap());
        datagram[start + 8..start + 12].copy_from_slice(sequence);
        start += usize::try_from(length).unwrap().next_multiple_of(4);
    }
}
