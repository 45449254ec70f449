//! How device nodes get from this node into a container at the moment.

use crate::cdi::NodeMethod;

/// How device nodes reach containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Who carries them.
    pub method: NodeMethod,
    /// Whether an RDMA device is in one network namespace only, and so gets other nodes when it goes into the pod.
    pub rdma_exclusive: bool,
}

impl Delivery {
    /// Whether the nodes of an RDMA device have to be asked for under a name, because nobody knows them before the device
    /// is in the pod.
    pub(super) fn is_late(self) -> bool {
        self.rdma_exclusive && self.method == NodeMethod::Cdi
    }
}

impl From<NodeMethod> for Delivery {
    /// Where every namespace sees every RDMA device.
    fn from(method: NodeMethod) -> Self {
        Self { method, rdma_exclusive: false }
    }
}
