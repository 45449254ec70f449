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
    /// A software RDMA device is made of a network interface, which a userspace driver leaves none of.
    #[error(
        "{device} of pool {pool} is bound to {driver}, and \"rdma\": \"soft\" of the pool makes an RDMA device of a \
         network interface, which only a network driver makes; bind it to one, such as iavf or igbvf, or leave \"rdma\" \
         out of the pool"
    )]
    SoftRdmaOfUserspace {
        /// The device.
        device: DeviceId,
        /// Its pool.
        pool: ResourceName,
        /// What it is bound to.
        driver: String,
    },
    /// The nodes of a software RDMA device are not there before the container is made.
    #[error(
        "pool {pool} says \"rdma\": \"soft\", and the nodes of a software RDMA device can reach a container by CDI only, \
         which this node does not use; use kubelet 1.31 or later with containerd 2.0 or CRI-O 1.23 or later, or write \
         \"cdi\": \"on\" where the runtime has CDI switched on"
    )]
    SoftRdmaWithoutCdi {
        /// The pool.
        pool: ResourceName,
    },
}
