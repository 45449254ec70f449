//! What a pool answers when the kubelet asks for devices, behind one trait: the service carries the answers, and knows
//! neither how they are made nor what has to be written before they are given.

use tonic::Status;
use zerobridge_proto::deviceplugin::{ContainerAllocateResponse, DevicePluginOptions};

/// The answers of one pool. They may take as long as a file system does: they are asked for outside of the async workers,
/// and the kubelet is told when one takes too long.
pub(crate) trait Answers: Send + Sync + 'static {
    /// Whether the pool has a preference. Told to the kubelet in its options; it asks for none otherwise.
    fn has_preference(&self) -> bool;

    /// What a container needs that is given the devices `ids`. Everything that has to exist for it does when this returns.
    ///
    /// The kubelet asks again for a device that it has given to an init container before.
    ///
    /// # Errors
    ///
    /// A status whose message names the device and the pool: the kubelet fails the pod with it.
    fn allocate(&self, ids: &[String]) -> Result<ContainerAllocateResponse, Status>;

    /// Which `size` of the `available` devices a container had best be given, among them all of `required`. Any that are
    /// missing are chosen by the kubelet. There is no error: it would fail the pod.
    fn prefer(&self, available: &[String], required: &[String], size: usize) -> Vec<String>;
}

/// What the kubelet may ask of a pool. Given in the registration and on request, and the same in both.
#[must_use]
pub(super) fn options(answers: &dyn Answers) -> DevicePluginOptions {
    DevicePluginOptions {
        pre_start_required: false,
        get_preferred_allocation_available: answers.has_preference(),
    }
}
