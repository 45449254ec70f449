//! The one kernel parameter that an attachment depends on.

use std::fs;
use std::io;

use crate::netns::{Netns, NetnsError};

/// Turns IPv6 on for `interface` in `netns`. Without effect where the kernel has no IPv6 at all: an address would be
/// refused there anyway, and with a better reason.
///
/// # Errors
/// [`NetnsError::Enter`] when the namespace cannot be entered or the parameter not be written.
pub fn enable_ipv6(netns: &Netns, interface: &str) -> Result<(), NetnsError> {
    // /proc/sys/net shows the parameters of the reading thread's namespace.
    let file = format!("/proc/sys/net/ipv6/conf/{interface}/disable_ipv6");
    let write = || match fs::write(&file, "0") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    };
    netns.enter(write)?.map_err(|source| NetnsError::Enter { path: netns.path().to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rtnl::RtnlSocket;
    use crate::testing::TestNetns;

    #[test]
    fn an_address_is_accepted_where_ipv6_was_off() {
        let pod = TestNetns::new();
        pod.ip("link add v0 type veth peer name v1");
        pod.netns().enter(|| fs::write("/proc/sys/net/ipv6/conf/v0/disable_ipv6", "1")).unwrap().unwrap();
        let mut rtnl = RtnlSocket::open_in(pod.netns()).unwrap();
        let index = rtnl.link_by_name("v0").unwrap().unwrap().index;
        let address = "fd00::1/64".parse().unwrap();
        rtnl.add_address(index, address).unwrap_err();
        enable_ipv6(pod.netns(), "v0").unwrap();
        rtnl.add_address(index, address).unwrap();
        enable_ipv6(pod.netns(), "absent").unwrap();
    }
}
