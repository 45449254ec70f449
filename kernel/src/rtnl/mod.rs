//! Links, VF admin state, addresses and routes over rtnetlink, one request at a time.
//!
//! Blocking, because its callers are short processes that have nothing else to do meanwhile. Refuses to know why
//! something is asked, and never retries: what a refusal means is the caller's to decide.

mod address;
mod host;
mod link;
mod neighbour;
#[cfg(any(test, feature = "testing"))]
mod reading;
mod route;
mod socket;
mod vf;
mod vlan;

pub use host::{HostLink, HostNetwork};
#[cfg(feature = "events")]
pub(crate) use host::{used_address, used_routes};
pub use link::{IfIndex, Link, LinkChange};
#[cfg(any(test, feature = "testing"))]
pub(crate) use reading::read_all_of;
pub use route::Route;
pub use socket::{RtnlError, RtnlSocket};
pub use vf::{VfAdmin, VfAdminChange, VfCounters, VfGuids, VfLinkState, VlanProtocol, VlanTag};
pub use vlan::VlanLink;
