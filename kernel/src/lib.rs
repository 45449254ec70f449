//! Everything this project asks of Linux, as one typed view: sysfs, rtnetlink, RDMA netlink, devlink, uevents, network namespaces,
//! announcements and probes of addresses.
//!
//! The roots of file systems are passed in, so that a tree of files can stand in for a machine. Nothing here decides
//! what should be: no policy, no Kubernetes, no state of its own on disk.

mod announce;
mod boot;
mod devlink;
#[cfg(feature = "events")]
mod events;
mod frame;
mod netlink;
mod netns;
mod open_files;
mod packet;
mod probe;
mod rdma;
mod rtnl;
mod sysctl;
mod sysfs;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod uevent;

pub use announce::{AnnounceError, announce};
pub use boot::{BootIdError, boot_id};
pub use devlink::{Devlink, DevlinkError, EswitchMode, HealthReporter};
#[cfg(feature = "events")]
pub use events::{DeviceEvent, DeviceEvents, watch_devices};
pub use netlink::NetlinkError;
pub use netns::{Netns, NetnsError, NetnsId};
pub use open_files::{OpenFilesError, open_files};
pub use probe::{Holder, ProbeError, ProbePace, answering_gateways, foreign_holders};
pub use rdma::{RdmaIndex, RdmaLink, RdmaNetnsMode, RdmaNode, RdmaPortLink, RdmaProtocol, RdmaSocket};
pub use rtnl::{
    HostLink, HostNetwork, IfIndex, Link, LinkChange, Route, RtnlError, RtnlSocket, VfAdmin, VfAdminChange,
    VfCounters, VfGuids, VfLinkState, VlanLink, VlanProtocol, VlanTag,
};
pub use sysctl::enable_ipv6;
pub use sysfs::{
    AuxDevice, CharacterDevices, DevFolder, FunctionRole, LinkType, Machine, MountSysfsError, MountedSysfs,
    Netdev, PciFunction, RDMA_CM, RdmaDevice, RdmaNodes, RdmaPort, Scanner, Sysfs, SysfsError, VdpaDevice,
    VdpaNodes, VfPosition, VfioGroup, VfioNodes, VlanTrunk, VlanTrunkError,
};
pub use uevent::{Uevent, UeventAction, UeventError, UeventNotice, UeventSocket};
