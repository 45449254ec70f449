//! The conversation with the routing family.

use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;

use crate::netlink::{Conversation, NetlinkError};
use crate::netns::Netns;

/// Why the routing family was not heard, or what it refused.
pub type RtnlError = NetlinkError;

/// A conversation with the routing family of one network namespace: the one that the thread was in when it opened it.
#[derive(Debug)]
pub struct RtnlSocket {
    conversation: Conversation,
}

impl RtnlSocket {
    /// Opens a socket in the calling thread's network namespace.
    ///
    /// # Errors
    /// [`RtnlError::Open`].
    pub fn open() -> Result<Self, RtnlError> {
        Ok(Self { conversation: Conversation::open(NETLINK_ROUTE, "rtnetlink")? })
    }

    /// Opens a socket in `netns`.
    ///
    /// # Errors
    /// [`RtnlError::Namespace`] and [`RtnlError::Open`].
    pub fn open_in(netns: &Netns) -> Result<Self, RtnlError> {
        netns.enter(Self::open).map_err(|source| RtnlError::Namespace { source })?
    }

    /// A conversation with a socket that stands in for the kernel.
    #[cfg(test)]
    pub(super) fn with(conversation: Conversation) -> Self {
        Self { conversation }
    }

    /// Sends a request that changes something, and waits for its acknowledgement.
    pub(super) fn change(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
        request: impl Fn() -> String,
    ) -> Result<(), RtnlError> {
        self.conversation.change(message, flags, request)
    }

    /// Sends a request for one object. `None` when the kernel says that there is none.
    pub(super) fn get(
        &mut self,
        message: RouteNetlinkMessage,
        request: impl Fn() -> String,
    ) -> Result<Option<RouteNetlinkMessage>, RtnlError> {
        self.conversation.get(message, request)
    }

    /// Sends a request for all objects of a kind, and keeps of each what `pick` makes of it.
    pub(super) fn dump<T>(
        &mut self,
        message: RouteNetlinkMessage,
        request: impl Fn() -> String,
        pick: impl FnMut(RouteNetlinkMessage) -> Option<T>,
    ) -> Result<Vec<T>, RtnlError> {
        self.conversation.dump(message, request, pick)
    }
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
