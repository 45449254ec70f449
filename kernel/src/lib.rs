//! Everything this project asks of Linux, as one typed view: sysfs, rtnetlink, network namespaces, announcements.
//!
//! The roots of file systems are passed in, so that a tree of files can stand in for a machine. Nothing here decides
//! what should be: no policy, no Kubernetes, no state of its own on disk.

mod announce;
mod boot;
mod netns;
mod rtnl;
mod sysctl;
mod sysfs;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use announce::{AnnounceError, announce};
pub use boot::{BootIdError, boot_id};
pub use netns::{Netns, NetnsError, NetnsId};
pub use rtnl::{
    IfIndex, Link, LinkChange, Route, RtnlError, RtnlSocket, VfAdmin, VfAdminChange, VfLinkState,
    VlanProtocol, VlanTag,
};
pub use sysctl::enable_ipv6;
pub use sysfs::{FunctionRole, PciFunction, Sysfs, SysfsError, VfPosition};
