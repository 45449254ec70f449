//! Which device nodes there are.
//!
//! Refuses to open any.

use std::path::{Path, PathBuf};

/// The RDMA connection manager, one for all RDMA devices of a network namespace; below `/dev`.
pub const RDMA_CM: &str = "infiniband/rdma_cm";

/// A folder of device nodes, usually `/dev`.
#[derive(Clone, Debug)]
pub struct DevFolder {
    root: PathBuf,
}

impl DevFolder {
    /// A view of the device nodes in `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Where it is.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Whether there is a node, by its name within the folder, such as `infiniband/rdma_cm` or `vhost-net`.
    #[must_use]
    pub fn exists(&self, name: &str) -> bool {
        self.root.join(name).exists()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_found_by_its_name() {
        let dev = DevFolder::new("/dev");
        assert_eq!((dev.exists("null"), dev.exists("no/such-node")), (true, false));
    }
}
