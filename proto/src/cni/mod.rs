//! The Container Network Interface, specification 1.1.0: what a runtime hands to a plugin and what it gets back.
//!
//! Environment variables, the network configuration on standard input, results and errors on standard output, each with
//! its decoding and encoding and the checks that the specification itself demands. Nothing here reads the process's
//! environment, opens a namespace, or knows a key that belongs to one plugin.
//!
//! Rules marked "SPEC" are from <https://github.com/containernetworking/cni/blob/spec-v1.1.0/SPEC.md>, those marked
//! "CONVENTIONS" from the `CONVENTIONS.md` beside it.

mod args;
mod config;
mod environment;
mod error;
mod keys;
mod legacy;
mod name;
mod result;
mod version;

pub use args::Args;
pub use config::{NetworkConfig, RuntimeConfig, ValidAttachment};
pub use environment::{Command, Environment};
pub use error::{CniError, ErrorCode};
pub use keys::{nearest, reject_unknown_keys};
pub use name::{is_container_id, is_interface_name, is_network_name};
pub use result::{AddResult, Dns, Gid, Interface, InterfaceRdma, Ip, Route};
pub use version::{Version, VersionError, supported_versions, version_answer};
