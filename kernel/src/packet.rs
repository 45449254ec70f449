//! Where a packet socket sends to: a link, with its index and its Ethernet address.
//!
//! Refuses to know what is sent.

use std::io;

use nix::ifaddrs::{InterfaceAddress, getifaddrs};
use nix::sys::socket::LinkAddr;
use zerobridge_proto::Mac;

/// The link of this namespace that is meant, and its Ethernet address; `None` when there is none or it has none. Taken from
/// the kernel's own list because that holds name, index and Ethernet address together.
pub(crate) fn link_address(
    is_meant: impl Fn(&InterfaceAddress, &LinkAddr) -> bool,
) -> io::Result<Option<(LinkAddr, Mac)>> {
    let meant = getifaddrs()?.find_map(|entry| {
        let link = entry.address.as_ref()?.as_link_addr().copied()?;
        is_meant(&entry, &link).then_some(link)
    });
    Ok(meant.and_then(|link| Some((link, Mac::from(link.addr()?)))))
}
