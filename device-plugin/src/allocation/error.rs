//! Why a request cannot be answered.

use thiserror::Error;

use crate::device::DeviceId;
use crate::resource::ResourceName;

/// A request that cannot be answered. Each names the device and the pool; nothing is given then.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AllocationError {
    /// No device has this ID.
    #[error("\"{id}\" is not a device of pool {pool}; it may have been removed or bound to another driver")]
    UnknownDevice {
        /// The ID asked for.
        id: String,
        /// The pool that was asked.
        pool: ResourceName,
    },
    /// No device at all was asked for.
    #[error("a request to pool {pool} names no device")]
    NoDevice {
        /// The pool that was asked.
        pool: ResourceName,
    },
    /// The kernel knows no way by which a program could use the device as its pool is meant to be used.
    #[error("{device} of pool {pool} has no {what}; {remedy}")]
    Unusable {
        /// The device.
        device: DeviceId,
        /// Its pool.
        pool: ResourceName,
        /// What it lacks.
        what: &'static str,
        /// What can be done about that.
        remedy: &'static str,
    },
    /// A device node without which the device is of no use does not exist.
    #[error("{device} of pool {pool} cannot be used without {node}, which does not exist; {remedy}")]
    NoNode {
        /// The device.
        device: DeviceId,
        /// Its pool.
        pool: ResourceName,
        /// Path of the node.
        node: String,
        /// What can be done about that.
        remedy: &'static str,
    },
}
