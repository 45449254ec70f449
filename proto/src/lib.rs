//! Contracts that others defined: CNI's JSON, the kubelet's gRPC services, the files that Multus and
//! container runtimes read about devices.
//!
//! Everything here is a value with an encoding. Nothing here opens a file or a socket, and nothing here decides.
#![forbid(unsafe_code)]

pub mod cdi;
mod chain;
pub mod cni;
mod deviceinfo;
#[cfg(feature = "grpc")]
pub mod deviceplugin;
mod guid;
mod mac;
mod pci;
#[cfg(feature = "grpc")]
pub mod podresources;
mod text;

pub use chain::chain;
pub use deviceinfo::{DEVICE_INFO_VERSION, DeviceInfo, PciDeviceInfo, VdpaDeviceInfo, VdpaDriver};
pub use guid::{Guid, GuidError};
pub use mac::{Mac, MacError};
pub use pci::{PciAddress, PciAddressError};
