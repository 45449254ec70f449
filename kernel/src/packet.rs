//! Where a packet socket sends to: a link, with its index and its Ethernet address.
//!
//! Refuses to know what is sent.

use std::io;

use nix::ifaddrs::getifaddrs;
use nix::sys::socket::LinkAddr;
use zerobridge_proto::Mac;

use crate::rtnl::IfIndex;

/// The link of this namespace with this number, and its Ethernet address; `None` when there is none or it has none. Taken
/// from the kernel's own list because that holds number and Ethernet address together.
pub(crate) fn link_address(index: IfIndex) -> io::Result<Option<(LinkAddr, Mac)>> {
    let mut links = getifaddrs()?.filter_map(|entry| entry.address.as_ref()?.as_link_addr().copied());
    let meant = links.find(|link| u32::try_from(link.ifindex()) == Ok(index.0));
    Ok(meant.and_then(|link| Some((link, Mac::from(link.addr()?)))))
}
