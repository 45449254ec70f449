//! The answers of a pool: joins what is known at the moment of the question, and asks the pure functions.
//!
//! Refuses to know the kubelet's protocol beyond the messages themselves.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::{Notify, watch};
use tonic::Status;
use tracing::info;
use zerobridge_proto::deviceplugin::ContainerAllocateResponse;
use zerobridge_proto::{PciAddress, chain};

use crate::allocation::{AllocationError, Allocator, AllocatorError, Delivery, requested};
use crate::cdi::NodeMethod;
use crate::device::{Device, DeviceId};
use crate::inventory::{Look, Offer};
use crate::kubelet::Answers;
use crate::pod_resources::Held;
use crate::preference::{Neighbour, Place, Preference, neighbours, prefer};

/// What the pools of a node share when they give devices away.
#[derive(Debug)]
pub(crate) struct Giving {
    /// Reads nodes, writes files.
    pub(crate) allocator: Allocator,
    /// How device nodes reach a container.
    pub(crate) method: watch::Receiver<NodeMethod>,
    /// The latest look at the machine.
    pub(crate) looks: watch::Receiver<Arc<Look>>,
    /// What pods hold.
    pub(crate) held: watch::Receiver<Option<Arc<Held>>>,
    /// Told after something was given.
    pub(crate) given: Notify,
}

impl Giving {
    /// How device nodes reach a container at the moment.
    pub(crate) fn delivery(&self) -> Delivery {
        let rdma_exclusive = self.looks.borrow().around.rdma.exclusive;
        Delivery { method: *self.method.borrow(), rdma_exclusive }
    }
}

/// The answers of one pool.
#[derive(Debug)]
pub(crate) struct PoolAnswers {
    offer: Offer,
    giving: Arc<Giving>,
}

impl PoolAnswers {
    pub(crate) fn new(offer: Offer, giving: Arc<Giving>) -> Self {
        Self { offer, giving }
    }
}

impl Answers for PoolAnswers {
    fn has_preference(&self) -> bool {
        true
    }

    fn allocate(&self, ids: &[String]) -> Result<ContainerAllocateResponse, Status> {
        let pool = Arc::clone(&self.offer.config.borrow());
        let devices = Arc::clone(&self.offer.devices.borrow());
        let delivery = self.giving.delivery();
        let given = requested(&pool.resource, &devices, ids)
            .map_err(AllocatorError::from)
            .and_then(|devices| self.giving.allocator.give(&pool, &devices, delivery));
        let response = given.map_err(|error| refusal(&error))?;
        info!(pool = %pool.resource, devices = ids.join(","), "allocated");
        self.giving.given.notify_one();
        Ok(response)
    }

    fn prefer(&self, available: &[String], required: &[String], size: usize) -> Vec<String> {
        let preference = self.offer.config.borrow().preference;
        let devices = Arc::clone(&self.offer.devices.borrow());
        // What is not ours is passed over: an error would fail the pod.
        let known = |id: &String| devices.get(&id.parse::<DeviceId>().ok()?);
        let available: Vec<&Device> = available.iter().filter_map(known).collect();
        let required: Vec<DeviceId> =
            required.iter().filter_map(known).map(|device| device.id.clone()).collect();
        let near = match preference {
            Preference::Near(kind) => self.neighbours(kind),
            _ => Vec::new(),
        };
        let preferred = prefer(preference, &available, &required, size, &near);
        preferred.iter().map(ToString::to_string).collect()
    }
}

impl PoolAnswers {
    fn neighbours(&self, kind: Neighbour) -> Vec<Place> {
        let look = Arc::clone(&self.giving.looks.borrow());
        let held = self.giving.held.borrow().clone();
        let ids = held.iter().flat_map(|held| held.devices()).map(|(_, id)| id);
        let taken: BTreeSet<PciAddress> = ids.filter_map(|id| id.parse().ok()).collect();
        neighbours(&look.around.machine, kind, &taken)
    }
}

fn refusal(error: &AllocatorError) -> Status {
    let message = chain(error);
    match error {
        AllocatorError::Allocation(AllocationError::UnknownDevice { .. }) => Status::not_found(message),
        AllocatorError::Allocation(AllocationError::NoDevice { .. }) => Status::invalid_argument(message),
        AllocatorError::Allocation(_) => Status::failed_precondition(message),
        AllocatorError::Nodes { .. }
        | AllocatorError::DeviceInfo(_)
        | AllocatorError::Resources(_)
        | AllocatorError::Cdi(_) => Status::internal(message),
    }
}

#[cfg(test)]
mod tests {
    use zerobridge_kernel::testing::SysfsTree;
    use zerobridge_kernel::{DevFolder, Sysfs};

    use super::*;

    /// The mode may change between two looks, and kubelet and runtime may be updated.
    #[test]
    fn devices_are_given_as_the_latest_look_and_the_node_say() {
        let folder = tempfile::tempdir().unwrap();
        let tree = SysfsTree::new(folder.path().join("sys"));
        let [dev, infos, specs, run] = ["dev", "infos", "cdi", "run"].map(|name| folder.path().join(name));
        let (method, looks) = (watch::Sender::new(NodeMethod::Plain), watch::Sender::default());
        let giving = Giving {
            allocator: Allocator::new(Sysfs::new(tree.root()), DevFolder::new(dev), infos, specs, run),
            method: method.subscribe(),
            looks: looks.subscribe(),
            held: watch::Sender::default().subscribe(),
            given: Notify::new(),
        };
        assert_eq!(giving.delivery(), Delivery { method: NodeMethod::Plain, rdma_exclusive: false });
        let mut look = Look::default();
        look.around.rdma.exclusive = true;
        looks.send_replace(Arc::new(look));
        method.send_replace(NodeMethod::Cdi);
        assert_eq!(giving.delivery(), Delivery { method: NodeMethod::Cdi, rdma_exclusive: true });
    }
}
