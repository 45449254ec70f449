//! The request and answer discipline of netlink: sequence numbers, acknowledgements, dumps, extended acknowledgements.

use std::io;

use netlink_packet_core::{
    ErrorMessage, NLM_F_ACK, NLM_F_ACK_TLVS, NLM_F_CAPPED, NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage,
    NetlinkPayload, NlaBuffer, NlasIterator,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use thiserror::Error;

use crate::netns::{Netns, NetnsError};

/// Length of a netlink message header, which a capped answer carries in place of the whole request
/// (`struct nlmsghdr`, kernel `linux/netlink.h`).
const HEADER_LEN: usize = 16;

/// `NLMSGERR_ATTR_MSG` of the kernel's `linux/netlink.h`: the attribute that holds a refusal in words.
const EXTENDED_ACK_TEXT: u16 = 1;

/// A conversation with the routing family of one network namespace: the one that the thread was in when it opened it.
#[derive(Debug)]
pub struct RtnlSocket {
    socket: Socket,
    sequence: u32,
}

/// Why the kernel was not heard, or what it refused.
#[derive(Debug, Error)]
pub enum RtnlError {
    /// No socket.
    #[error("cannot open a rtnetlink socket")]
    Open {
        /// Why.
        source: io::Error,
    },
    /// The namespace could not be entered to open the socket there.
    #[error("cannot open a rtnetlink socket in another namespace")]
    Namespace {
        /// Why.
        source: NetnsError,
    },
    /// The request did not reach the kernel or the answer did not arrive.
    #[error("cannot {request}: the kernel was not heard")]
    Transport {
        /// What was asked, as a verb phrase with its object.
        request: String,
        /// Why.
        source: io::Error,
    },
    /// The kernel answered with an error.
    #[error("the kernel refuses to {request}{explanation}")]
    Refused {
        /// What was asked, as a verb phrase with its object.
        request: String,
        /// The kernel's own words from the extended acknowledgement, with a leading separator; often empty.
        explanation: String,
        /// The error number.
        source: io::Error,
    },
    /// The answer is not what this family speaks.
    #[error("cannot {request}: {detail}")]
    Answer {
        /// What was asked, as a verb phrase with its object.
        request: String,
        /// What is wrong with the answer.
        detail: String,
    },
}

impl RtnlError {
    /// The error number of a refusal.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Refused { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }

    /// Whether the kernel says that the object of the request does not exist.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        self.errno() == Some(nix::libc::ENODEV)
    }

    /// Whether the kernel says that the object of the request exists already.
    #[must_use]
    pub fn is_present(&self) -> bool {
        self.errno() == Some(nix::libc::EEXIST)
    }
}

impl RtnlSocket {
    /// Opens a socket in the calling thread's network namespace.
    ///
    /// # Errors
    /// [`RtnlError::Open`].
    pub fn open() -> Result<Self, RtnlError> {
        let open = || {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            socket.set_ext_ack(true)?;
            socket.set_cap_ack(true)?;
            socket.set_netlink_get_strict_chk(true)?;
            Ok(socket)
        };
        open().map(|socket| Self { socket, sequence: 0 }).map_err(|source| RtnlError::Open { source })
    }

    /// Opens a socket in `netns`.
    ///
    /// # Errors
    /// [`RtnlError::Namespace`] and [`RtnlError::Open`].
    pub fn open_in(netns: &Netns) -> Result<Self, RtnlError> {
        netns.enter(Self::open).map_err(|source| RtnlError::Namespace { source })?
    }

    /// Sends a request that changes something, and waits for its acknowledgement.
    pub(super) fn change(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
        request: impl Fn() -> String,
    ) -> Result<(), RtnlError> {
        self.exchange(message, NLM_F_REQUEST | NLM_F_ACK | flags, &request).map(drop)
    }

    /// Sends a request for one object. `None` when the kernel says that there is none.
    pub(super) fn get(
        &mut self,
        message: RouteNetlinkMessage,
        request: impl Fn() -> String,
    ) -> Result<Option<RouteNetlinkMessage>, RtnlError> {
        match self.exchange(message, NLM_F_REQUEST | NLM_F_ACK, &request) {
            Ok(answers) => Ok(answers.into_iter().next()),
            Err(error) if error.is_absent() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sends a request for all objects of a kind.
    pub(super) fn dump(
        &mut self,
        message: RouteNetlinkMessage,
        request: impl Fn() -> String,
    ) -> Result<Vec<RouteNetlinkMessage>, RtnlError> {
        self.exchange(message, NLM_F_REQUEST | NLM_F_DUMP, &request)
    }

    fn exchange(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
        request: &dyn Fn() -> String,
    ) -> Result<Vec<RouteNetlinkMessage>, RtnlError> {
        let transport = |source| RtnlError::Transport { request: request(), source };
        self.sequence = self.sequence.wrapping_add(1);
        let mut message = NetlinkMessage::from(message);
        message.header.flags = flags;
        message.header.sequence_number = self.sequence;
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0).map_err(transport)?;

        let mut answers = Vec::new();
        loop {
            let (datagram, _) = self.socket.recv_from_full().map_err(transport)?;
            if self.take(&datagram, &mut answers, request)? {
                return Ok(answers);
            }
        }
    }

    /// Takes the messages of one datagram. `true` when the answer is complete.
    fn take(
        &self,
        mut datagram: &[u8],
        answers: &mut Vec<RouteNetlinkMessage>,
        request: &dyn Fn() -> String,
    ) -> Result<bool, RtnlError> {
        let answer_error = |detail: String| RtnlError::Answer { request: request(), detail };
        while !datagram.is_empty() {
            let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(datagram)
                .map_err(|error| answer_error(error.to_string()))?;
            let length = usize::try_from(message.header.length).unwrap_or(usize::MAX).next_multiple_of(4);
            datagram = datagram.get(length..).unwrap_or_default();
            if message.header.sequence_number != self.sequence {
                // The tail of an answer that an earlier, failed exchange did not read to its end.
                continue;
            }
            match message.payload {
                NetlinkPayload::InnerMessage(inner) => answers.push(inner),
                NetlinkPayload::Done(_) => return Ok(true),
                NetlinkPayload::Error(error) if error.code.is_none() => return Ok(true),
                NetlinkPayload::Error(error) => {
                    return Err(RtnlError::Refused {
                        request: request(),
                        explanation: extended_ack_text(&error, message.header.flags)
                            .map(|text| format!(" ({text})"))
                            .unwrap_or_default(),
                        source: error.to_io(),
                    });
                }
                NetlinkPayload::Overrun(_) => return Err(answer_error("the answer overran".to_owned())),
                _ => {}
            }
        }
        Ok(false)
    }
}

/// The kernel's explanation of a refusal. The attributes stand behind the request's header, and behind the request
/// itself when the kernel did not cap it (kernel `Documentation/userspace-api/netlink/intro.rst`, "Ext ACK").
fn extended_ack_text(error: &ErrorMessage, flags: u16) -> Option<String> {
    if flags & NLM_F_ACK_TLVS == 0 {
        return None;
    }
    let echoed = if flags & NLM_F_CAPPED == 0 {
        let length: [u8; 4] = error.header.get(..4)?.try_into().ok()?;
        usize::try_from(u32::from_ne_bytes(length)).ok()?.next_multiple_of(4)
    } else {
        HEADER_LEN
    };
    NlasIterator::new(error.header.get(echoed..)?)
        .filter_map(Result::ok)
        .find(|attribute: &NlaBuffer<&[u8]>| attribute.kind() == EXTENDED_ACK_TEXT)
        .map(|attribute| String::from_utf8_lossy(attribute.value()).trim_end_matches('\0').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rtnl::{IfIndex, LinkChange};
    use crate::testing::TestNetns;

    #[test]
    fn a_refusal_carries_errno_and_the_request_in_words() {
        let sandbox = TestNetns::new();
        let mut rtnl = RtnlSocket::open_in(sandbox.netns()).unwrap();
        let error = rtnl
            .change_link(IfIndex(4711), &LinkChange { up: Some(true), ..LinkChange::default() })
            .unwrap_err();
        assert!(error.is_absent());
        assert_eq!(error.to_string(), "the kernel refuses to set interface 4711 up");
    }

    #[test]
    fn the_kernels_own_words_reach_the_caller() {
        let sandbox = TestNetns::new();
        sandbox.ip("link add v0 mtu 1500 type veth peer name v1");
        let mut rtnl = RtnlSocket::open_in(sandbox.netns()).unwrap();
        let link = rtnl.link_by_name("v0").unwrap().unwrap();
        let change = LinkChange { mtu: Some(10), ..LinkChange::default() };
        let error = rtnl.change_link(link.index, &change).unwrap_err();
        assert_eq!(error.errno(), Some(nix::libc::EINVAL));
        assert!(error.to_string().ends_with("(mtu less than device minimum)"), "{error}");
    }

    #[test]
    fn an_answer_larger_than_one_datagram_is_read_to_its_end() {
        let sandbox = TestNetns::new();
        for number in 0..120 {
            sandbox.ip(&format!("link add left{number} type veth peer name right{number}"));
        }
        let mut rtnl = RtnlSocket::open_in(sandbox.netns()).unwrap();
        assert_eq!(rtnl.links().unwrap().len(), 241);
    }
}
