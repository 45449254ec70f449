//! The request and answer discipline of netlink: sequence numbers, acknowledgements, dumps, extended acknowledgements.
//!
//! Refuses to know any family. Blocking, one request at a time, and a refusal is never asked again: what it means is the
//! caller's to decide.

use std::io;

use netlink_packet_core::{
    DecodeError, NLM_F_ACK, NLM_F_ACK_TLVS, NLM_F_CAPPED, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST,
    NetlinkDeserializable, NetlinkHeader, NetlinkMessage, NetlinkPayload, NetlinkSerializable, NlaBuffer,
    NlasIterator,
};
use netlink_sys::{Socket, SocketAddr};
use thiserror::Error;

use crate::netns::NetnsError;

pub(crate) mod attributes;

/// Length of a netlink message header, which a capped answer carries in place of the whole request
/// (`struct nlmsghdr`, kernel `linux/netlink.h`).
const HEADER_LEN: usize = 16;

/// `NLMSGERR_ATTR_MSG` of the kernel's `linux/netlink.h`: the attribute that holds a refusal in words.
const EXTENDED_ACK_TEXT: u16 = 1;

/// Room for one datagram. Of lists the kernel writes up to 32 KiB at once when the receiver has the room; the largest single
/// answer is a PF whose list of VFs fills its attribute, 64 KiB, and the rest of the link.
const DATAGRAM_ROOM: usize = 128 * 1024;

/// How often a list is asked for that changes while the kernel writes it down. It takes a few milliseconds to write, so
/// this many changes in a row mean that something is broken.
const DUMP_ATTEMPTS: u32 = 16;

/// Why the kernel was not heard, or what it refused.
#[derive(Debug, Error)]
pub enum NetlinkError {
    /// No socket.
    #[error("cannot open a netlink socket for {family}")]
    Open {
        /// What the socket was to be for.
        family: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The namespace could not be entered to open the socket there.
    #[error("cannot open a netlink socket in another namespace")]
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

impl NetlinkError {
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

/// A conversation with the kernel, in the network namespace that the thread was in when it began it.
#[derive(Debug)]
pub(crate) struct Conversation {
    socket: Socket,
    sequence: u32,
    datagram: Vec<u8>,
}

/// How far an answer has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// More datagrams follow.
    Partial,
    /// It is complete.
    Complete,
}

impl Conversation {
    /// Begins to speak a netlink protocol (`NETLINK_…` of the kernel's `linux/netlink.h`).
    pub(crate) fn open(protocol: isize, family: &'static str) -> Result<Self, NetlinkError> {
        let open = || {
            let mut socket = Socket::new(protocol)?;
            socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            socket.set_ext_ack(true)?;
            socket.set_cap_ack(true)?;
            socket.set_netlink_get_strict_chk(true)?;
            Ok(socket)
        };
        open().map(Self::over).map_err(|source| NetlinkError::Open { family, source })
    }

    /// A conversation with whoever the socket is connected to.
    fn over(socket: Socket) -> Self {
        Self { socket, sequence: 0, datagram: Vec::with_capacity(DATAGRAM_ROOM) }
    }

    /// Sends a request that changes something, and waits for its acknowledgement.
    pub(crate) fn change<M>(
        &mut self,
        message: M,
        flags: u16,
        request: impl Fn() -> String,
    ) -> Result<(), NetlinkError>
    where
        M: NetlinkSerializable + NetlinkDeserializable,
    {
        self.exchange(&mut framed(message, NLM_F_ACK | flags), &request, &mut |_| {}).map(drop)
    }

    /// Sends a request for one object. `None` when the kernel says that there is none.
    pub(crate) fn get<M>(
        &mut self,
        message: M,
        request: impl Fn() -> String,
    ) -> Result<Option<M>, NetlinkError>
    where
        M: NetlinkSerializable + NetlinkDeserializable,
    {
        let mut answer = None;
        let asked = self.exchange(&mut framed(message, NLM_F_ACK), &request, &mut |inner| {
            answer.get_or_insert(inner);
        });
        match asked {
            Ok(_) => Ok(answer),
            Err(error) if error.is_absent() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sends a request for all objects of a kind, and keeps of each what `pick` makes of it: nothing when the kernel says
    /// that their owner does not exist. A list that changed while it was written, of which the kernel warns, is asked for
    /// again.
    pub(crate) fn dump<M, T>(
        &mut self,
        message: M,
        request: impl Fn() -> String,
        mut pick: impl FnMut(M) -> Option<T>,
    ) -> Result<Vec<T>, NetlinkError>
    where
        M: NetlinkSerializable + NetlinkDeserializable,
    {
        let mut message = framed(message, NLM_F_DUMP);
        for _ in 0..DUMP_ATTEMPTS {
            let mut found = Vec::new();
            match self.exchange(&mut message, &request, &mut |inner| found.extend(pick(inner))) {
                Ok(flags) if flags & NLM_F_DUMP_INTR != 0 => {}
                Ok(_) => return Ok(found),
                Err(error) if error.is_absent() => return Ok(Vec::new()),
                Err(error) => return Err(error),
            }
        }
        let detail = format!("it changed {DUMP_ATTEMPTS} times while it was read");
        Err(NetlinkError::Answer { request: request(), detail })
    }

    /// Sends a request and hands on each message of its answer. Returns all flags that these messages bore.
    fn exchange<M>(
        &mut self,
        message: &mut NetlinkMessage<M>,
        request: &dyn Fn() -> String,
        each: &mut dyn FnMut(M),
    ) -> Result<u16, NetlinkError>
    where
        M: NetlinkSerializable + NetlinkDeserializable,
    {
        let transport = |source| NetlinkError::Transport { request: request(), source };
        self.sequence = self.sequence.wrapping_add(1);
        message.header.sequence_number = self.sequence;
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0).map_err(transport)?;

        let mut flags = 0;
        loop {
            self.datagram.clear();
            let length = self.socket.recv(&mut self.datagram, nix::libc::MSG_TRUNC).map_err(transport)?;
            if length > self.datagram.len() {
                let detail = format!("a part of the answer is {length} bytes long");
                return Err(NetlinkError::Answer { request: request(), detail });
            }
            if take(&self.datagram, self.sequence, request, &mut flags, each)? == Progress::Complete {
                return Ok(flags);
            }
        }
    }
}

fn framed<M>(message: M, flags: u16) -> NetlinkMessage<M> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message))
}

/// Takes the messages of one datagram of the answer to request number `sequence`.
pub(crate) fn take<M: NetlinkDeserializable>(
    mut datagram: &[u8],
    sequence: u32,
    request: &dyn Fn() -> String,
    flags: &mut u16,
    each: &mut dyn FnMut(M),
) -> Result<Progress, NetlinkError> {
    let answer_error = |detail: String| NetlinkError::Answer { request: request(), detail };
    while !datagram.is_empty() {
        let decode_error = |error: DecodeError| answer_error(error.to_string());
        let message = NetlinkMessage::<M>::deserialize(datagram).map_err(decode_error)?;
        let length = usize::try_from(message.header.length).unwrap_or(usize::MAX);
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
        if message.header.sequence_number != sequence {
            // The tail of an answer that an earlier, failed exchange did not read to its end.
            continue;
        }
        *flags |= message.header.flags;
        let refused = |source, attributes: Option<&[u8]>| {
            let told = message.header.flags & NLM_F_ACK_TLVS != 0;
            let text = attributes.filter(|_| told).and_then(extended_ack_text);
            let explanation = text.map(|text| format!(" ({text})")).unwrap_or_default();
            NetlinkError::Refused { request: request(), explanation, source }
        };
        match message.payload {
            NetlinkPayload::InnerMessage(inner) => each(inner),
            NetlinkPayload::Done(done) if done.code < 0 => {
                let source = io::Error::from_raw_os_error(done.code.saturating_neg());
                return Err(refused(source, Some(&done.extended_ack)));
            }
            NetlinkPayload::Done(_) => return Ok(Progress::Complete),
            NetlinkPayload::Error(error) if error.code.is_none() => return Ok(Progress::Complete),
            NetlinkPayload::Error(error) => {
                // Not `to_io`, which panics at the least of all numbers.
                let source = io::Error::from_raw_os_error(error.raw_code().saturating_abs());
                return Err(refused(source, behind_the_request(&error.header, message.header.flags)));
            }
            NetlinkPayload::Overrun(_) => return Err(answer_error("the answer overran".to_owned())),
            _ => {}
        }
    }
    Ok(Progress::Partial)
}

/// Where the attributes of a refusal stand: behind the request's header, and behind the request itself when the kernel
/// did not cap it (kernel `Documentation/userspace-api/netlink/intro.rst`, "Ext ACK").
fn behind_the_request(echo: &[u8], flags: u16) -> Option<&[u8]> {
    let echoed = if flags & NLM_F_CAPPED == 0 {
        let length: [u8; 4] = echo.get(..4)?.try_into().ok()?;
        usize::try_from(u32::from_ne_bytes(length)).ok()?.checked_next_multiple_of(4)?
    } else {
        HEADER_LEN
    };
    echo.get(echoed..)
}

/// The kernel's explanation among the attributes of a refusal.
fn extended_ack_text(attributes: &[u8]) -> Option<String> {
    NlasIterator::new(attributes)
        .filter_map(Result::ok)
        .find(|attribute: &NlaBuffer<&[u8]>| attribute.kind() == EXTENDED_ACK_TEXT)
        .map(|attribute| String::from_utf8_lossy(attribute.value()).trim_end_matches('\0').to_owned())
}

#[cfg(test)]
pub(crate) mod stand_in;

#[cfg(test)]
mod tests {
    use netlink_packet_core::NLM_F_MULTIPART;
    use netlink_packet_route::RouteNetlinkMessage;
    use netlink_packet_route::link::LinkMessage;

    use super::stand_in::{done, message, refusal};
    use super::*;

    /// `RTM_NEWLINK` of the kernel's `linux/rtnetlink.h`.
    const NEW_LINK: u16 = 16;

    fn link(index: u32, flags: u16) -> Vec<u8> {
        let mut payload = vec![0; 16];
        payload[4..8].copy_from_slice(&index.to_ne_bytes());
        message(NEW_LINK, NLM_F_MULTIPART | flags, &payload)
    }

    fn dumped(answers: Vec<Vec<Vec<u8>>>) -> (Result<Vec<u32>, NetlinkError>, usize) {
        let (mut conversation, requests) = stand_in::answering(answers);
        let get = RouteNetlinkMessage::GetLink(LinkMessage::default());
        let indexes = conversation.dump(
            get,
            || "list the links".to_owned(),
            |answer| match answer {
                RouteNetlinkMessage::NewLink(link) => Some(link.header.index),
                _ => None,
            },
        );
        drop(conversation);
        (indexes, requests.join().unwrap().len())
    }

    #[test]
    fn several_messages_in_several_datagrams_are_one_answer() {
        let first = [link(1, 0), link(2, 0)].concat();
        let (found, _) = dumped(vec![vec![first, link(3, 0), done(0, &[])]]);
        assert_eq!(found.unwrap(), [1, 2, 3]);
    }

    #[test]
    fn a_list_that_changed_while_it_was_written_is_asked_for_again() {
        let torn = vec![link(1, NLM_F_DUMP_INTR), done(0, &[])];
        let (found, requests) = dumped(vec![torn.clone(), vec![link(1, 0), link(2, 0), done(0, &[])]]);
        assert_eq!((found.unwrap(), requests), (vec![1, 2], 2));
        let (never_whole, requests) = dumped(vec![torn; 16]);
        assert_eq!(requests, 16);
        assert_eq!(
            never_whole.unwrap_err().to_string(),
            "cannot list the links: it changed 16 times while it was read"
        );
    }

    #[test]
    fn a_list_that_fails_at_its_end_is_a_refusal_with_the_kernels_words() {
        let (refused, _) = dumped(vec![vec![link(1, 0), done(-nix::libc::EINVAL, b"Invalid filter\0")]]);
        let error = refused.unwrap_err();
        assert_eq!(error.errno(), Some(nix::libc::EINVAL));
        assert_eq!(error.to_string(), "the kernel refuses to list the links (Invalid filter)");
        let (nobody, _) = dumped(vec![vec![done(-nix::libc::ENODEV, &[])]]);
        assert!(nobody.unwrap().is_empty());
    }

    #[test]
    fn the_rest_of_an_answer_that_failed_is_not_taken_for_the_next() {
        let refused = vec![refusal(nix::libc::EPERM), link(7, 0)];
        let (mut conversation, _requests) =
            stand_in::answering(vec![refused, vec![link(1, 0), done(0, &[])]]);
        let get = || RouteNetlinkMessage::GetLink(LinkMessage::default());
        let request = || "list the links".to_owned();
        conversation.dump(get(), request, Some).unwrap_err();
        assert_eq!(conversation.dump(get(), request, Some).unwrap().len(), 1);
    }
}
