//! The device nodes of one device at the moment at which it is given away.
//!
//! Refuses to know which of them its container should have.

use std::collections::BTreeSet;

use zerobridge_kernel::{CharacterDevices, DevFolder, RDMA_CM, RdmaNodes, Sysfs, SysfsError};

use crate::device::Hardware;

/// Opened to make a container of VFIO groups (`Documentation/driver-api/vfio.rst` in the kernel). Like all names here
/// relative to `/dev`.
pub(super) const VFIO_CONTAINER: &str = "vfio/vfio";

/// Opened for an I/O address space to which VFIO devices are bound (`Documentation/userspace-api/iommufd.rst`).
pub(super) const IOMMUFD: &str = "iommu";

/// The vhost back end for network queues.
pub(super) const VHOST_NET: &str = "vhost-net";

/// Opened to make a tap device.
pub(super) const TUN: &str = "net/tun";

/// What the nodes of a device are called, and which of them, and of those that all devices share, exist.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Nodes {
    /// What the kernel says.
    pub(super) characters: CharacterDevices,
    existing: BTreeSet<String>,
}

impl Nodes {
    /// The nodes that the kernel names for a device, as far as `exists` finds them below `/dev`. The kernel names a node
    /// before it is made, and some that are never made.
    pub fn new(characters: CharacterDevices, exists: impl Fn(&str) -> bool) -> Self {
        let CharacterDevices { vfio, uio, rdma, vdpa } = &characters;
        let mut names: Vec<String> =
            [VFIO_CONTAINER, IOMMUFD, RDMA_CM, VHOST_NET, TUN].map(str::to_owned).to_vec();
        if let Some(vfio) = vfio {
            names.extend(vfio.group.map(|group| group.node()));
            names.extend(vfio.device.clone());
        }
        names.extend(uio.clone());
        names.extend(vdpa.iter().filter_map(|vdpa| vdpa.vhost.clone()));
        for RdmaNodes { uverbs, umads, issms, ucm, .. } in rdma {
            names.extend(uverbs.iter().chain(umads).chain(issms).chain(ucm).cloned());
        }
        Self { existing: names.into_iter().filter(|name| exists(name)).collect(), characters }
    }

    /// Reads the nodes of a device.
    ///
    /// # Errors
    ///
    /// [`SysfsError`], among them that the device is gone.
    pub fn read(sysfs: &Sysfs, dev: &DevFolder, device: &Hardware) -> Result<Self, SysfsError> {
        let characters = match device {
            Hardware::Function(address) => sysfs.character_devices(*address)?,
            Hardware::Auxiliary(name) => sysfs.auxiliary_character_devices(name)?,
        };
        Ok(Self::new(characters, |name| dev.exists(name)))
    }

    /// Whether a node exists.
    pub(super) fn has(&self, name: &str) -> bool {
        self.existing.contains(name)
    }
}

/// The absolute path of a node.
pub(super) fn path(name: &str) -> String {
    format!("/dev/{name}")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use zerobridge_kernel::testing::{FakeFunction, FakeRdma, SysfsTree};

    use super::*;

    #[test]
    fn the_nodes_of_a_device_are_those_that_exist() {
        let root = tempfile::tempdir().unwrap();
        let tree = SysfsTree::new(root.path().join("sys"));
        tree.add_igb(0, 2);
        let vf = FakeFunction::igb_vf(0, 0).address;
        tree.show_rdma(vf, &FakeRdma { name: "rocep1s0".to_owned(), number: 3, infiniband: true });
        let dev = root.path().join("dev");
        for node in ["infiniband/uverbs3", "infiniband/uverbs4", "infiniband/rdma_cm", "net/tun"] {
            fs::create_dir_all(dev.join(node).parent().unwrap()).unwrap();
            fs::write(dev.join(node), "").unwrap();
        }
        let read = |device| Nodes::read(&Sysfs::new(tree.root()), &DevFolder::new(&dev), &device);
        let nodes = read(Hardware::Function(vf)).unwrap();
        assert_eq!(nodes.characters.rdma[0].umads, ["infiniband/umad3"]);
        for (name, exists) in [
            ("infiniband/uverbs3", true),
            ("infiniband/umad3", false),
            ("infiniband/uverbs4", false),
            ("infiniband/rdma_cm", true),
            ("net/tun", true),
            ("vhost-net", false),
        ] {
            assert_eq!(nodes.has(name), exists, "{name}");
        }
        let gone = read(Hardware::Auxiliary("mlx5_core.sf.9".to_owned())).unwrap_err();
        assert!(gone.to_string().contains("mlx5_core.sf.9"), "{gone}");
    }
}
