//! Through which device nodes a program reaches a device.
//!
//! Their numbers change whenever a device is bound anew, so they are read at the moment they are given away. Names are
//! relative to `/dev`. Refuses to know whether the nodes exist there (see [`super::DevFolder`]) and who may have them.

use std::path::Path;

use zerobridge_proto::PciAddress;

use super::owner::AuxName;
use super::{Sysfs, SysfsError, attribute, rdma};

/// How the character device of a vDPA device is called, which is a part of its folder (`vhost_vdpa_probe` in the kernel's
/// drivers/vhost/vdpa.c).
pub(super) const VHOST_VDPA: &str = "vhost-vdpa-";

/// The character devices of a PCI function or an auxiliary device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CharacterDevices {
    /// With a VFIO driver only.
    pub vfio: Option<VfioNodes>,
    /// With a UIO driver only: such as `uio0`.
    pub uio: Option<String>,
    /// One per RDMA device.
    pub rdma: Vec<RdmaNodes>,
    /// With a vDPA device only, the first if there are several.
    pub vdpa: Option<VdpaNodes>,
}

/// How VFIO gives access to a function: through its group (drivers/vfio/group.c), and since Linux 6.6 also through a
/// device of its own (drivers/vfio/device_cdev.c).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VfioNodes {
    /// `None` only while the driver is being bound.
    pub group: Option<VfioGroup>,
    /// Such as `vfio/devices/vfio0`. The name exists since Linux 6.1, the node only with
    /// `CONFIG_VFIO_DEVICE_CDEV`.
    pub device: Option<String>,
    /// The other functions of its IOMMU group, in order: whoever has the group has these too. Bridges count.
    pub companions: Vec<PciAddress>,
}

/// A VFIO group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VfioGroup {
    /// Number of the IOMMU group.
    pub number: u32,
    /// Whether no IOMMU stands behind it (`vfio.enable_unsafe_noiommu_mode`).
    pub noiommu: bool,
}

/// The character devices of an RDMA device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RdmaNodes {
    /// Name of the RDMA device, such as `mlx5_0`.
    pub device: String,
    /// Such as `infiniband/uverbs0`.
    pub uverbs: Option<String>,
    /// One per port, such as `infiniband/umad0`.
    pub umads: Vec<String>,
    /// One per port, such as `infiniband/issm0`. RoCE may have none.
    pub issms: Vec<String>,
    /// Such as `infiniband/ucm0`; with an old kernel only.
    pub ucm: Option<String>,
}

/// How a program reaches a vDPA device: by the one or the other, after the driver it is bound to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VdpaNodes {
    /// Its name on the vDPA bus, such as `vdpa0`.
    pub device: String,
    /// With the driver `vhost_vdpa`: such as `vhost-vdpa-0`.
    pub vhost: Option<String>,
    /// With the driver `virtio_vdpa`: its name on the virtio bus, such as `virtio3`. That is no node.
    pub virtio: Option<String>,
}

impl VfioGroup {
    /// Its node, `vfio/7` or `vfio/noiommu-7`.
    #[must_use]
    pub fn node(self) -> String {
        format!("vfio/{}{}", if self.noiommu { "noiommu-" } else { "" }, self.number)
    }
}

impl Sysfs {
    /// The character devices of a PCI function as they are now.
    ///
    /// # Errors
    ///
    /// [`SysfsError::NoSuchFunction`], [`SysfsError::Read`], [`SysfsError::Malformed`].
    pub fn character_devices(&self, address: PciAddress) -> Result<CharacterDevices, SysfsError> {
        let function = self.existing(address)?;
        Ok(CharacterDevices { vfio: self.vfio_nodes(address)?, ..self.nodes_in(function.path())? })
    }

    /// The character devices of an auxiliary device as they are now. VFIO has none of these.
    ///
    /// # Errors
    ///
    /// [`SysfsError::NoSuchAuxiliary`], [`SysfsError::Read`].
    pub fn auxiliary_character_devices(&self, name: &str) -> Result<CharacterDevices, SysfsError> {
        let path = self.root.join("bus/auxiliary/devices").join(name);
        if name.parse::<AuxName>().is_err() || !path.exists() {
            return Err(SysfsError::NoSuchAuxiliary { name: name.to_owned(), path });
        }
        self.nodes_in(&path)
    }

    fn nodes_in(&self, device: &Path) -> Result<CharacterDevices, SysfsError> {
        Ok(CharacterDevices {
            vfio: None,
            uio: attribute::first(&device.join("uio"), "uio")?,
            rdma: self.rdma_nodes(device)?,
            vdpa: self.vdpa_nodes(device)?,
        })
    }

    fn vfio_nodes(&self, address: PciAddress) -> Result<Option<VfioNodes>, SysfsError> {
        let function = self.function(address);
        let device = attribute::first(&function.file("vfio-dev"), "vfio")?;
        // Before Linux 6.1 only the driver's name tells; those of all that are in the kernel have the word in it.
        let bound = || Ok(self.driver_of(address)?.is_some_and(|driver| driver.contains("vfio")));
        if device.is_none() && !bound()? {
            return Ok(None);
        }
        let folder = function.file("iommu_group");
        let group = match function.iommu_group()? {
            None => None,
            Some(number) => {
                let name = attribute::optional_text(&folder.join("name"))?;
                Some(VfioGroup { number, noiommu: name.as_deref() == Some("vfio-noiommu") })
            }
        };
        let members = attribute::entries(&folder.join("devices"))?.unwrap_or_default();
        let members = members.iter().filter_map(|name| name.parse().ok());
        Ok(Some(VfioNodes {
            group,
            device: device.map(|name| format!("vfio/devices/{name}")),
            companions: members.filter(|&member| member != address).collect(),
        }))
    }

    fn rdma_nodes(&self, device: &Path) -> Result<Vec<RdmaNodes>, SysfsError> {
        let mut found = Vec::new();
        for name in attribute::entries(&device.join("infiniband"))?.unwrap_or_default() {
            let mut nodes = rdma_nodes_in(device, &name)?;
            if nodes.uverbs.is_none() {
                nodes = rdma_nodes_in(&self.root.join("class"), &name)?;
            }
            found.push(nodes);
        }
        // A software device is a part of no hardware, and names the netdev that it sits on.
        let software = self.root.join("devices/virtual");
        let names = attribute::entries(&software.join("infiniband"))?.unwrap_or_default();
        if !names.is_empty() {
            let netdevs = attribute::entries(&device.join("net"))?.unwrap_or_default();
            for name in names {
                let parent = rdma::software_parent(&software.join("infiniband").join(&name))?;
                if parent.is_some_and(|parent| netdevs.contains(&parent)) {
                    found.push(rdma_nodes_in(&software, &name)?);
                }
            }
        }
        Ok(found)
    }

    /// A vDPA device has a name of its administrator's choice, so it is known by being on the bus.
    fn vdpa_nodes(&self, device: &Path) -> Result<Option<VdpaNodes>, SysfsError> {
        let bus = self.root.join("bus/vdpa/devices");
        if !bus.exists() {
            return Ok(None);
        }
        let parts = attribute::entries(device)?.unwrap_or_default();
        let Some(name) = parts.into_iter().find(|name| bus.join(name).is_symlink()) else { return Ok(None) };
        let folder = device.join(&name);
        let (vhost, virtio) = (attribute::first(&folder, VHOST_VDPA)?, attribute::first(&folder, "virtio")?);
        Ok(Some(VdpaNodes { device: name, vhost, virtio }))
    }
}

/// The nodes of one RDMA device that are listed below `parent`: each says in `ibdev` whose it is
/// (drivers/infiniband/core/uverbs_main.c, user_mad.c).
fn rdma_nodes_in(parent: &Path, device: &str) -> Result<RdmaNodes, SysfsError> {
    let of_device = |class: &str| -> Result<Vec<String>, SysfsError> {
        let folder = parent.join(class);
        let mut nodes = Vec::new();
        for name in attribute::entries(&folder)?.unwrap_or_default() {
            if attribute::optional_text(&folder.join(&name).join("ibdev"))?.as_deref() == Some(device) {
                nodes.push(name);
            }
        }
        Ok(nodes)
    };
    let named = |nodes: &[String], kind: &str| -> Vec<String> {
        nodes.iter().filter(|name| name.starts_with(kind)).map(|name| format!("infiniband/{name}")).collect()
    };
    let mads = of_device("infiniband_mad")?;
    Ok(RdmaNodes {
        device: device.to_owned(),
        uverbs: named(&of_device("infiniband_verbs")?, "uverbs").pop(),
        umads: named(&mads, "umad"),
        issms: named(&mads, "issm"),
        ucm: named(&of_device("infiniband_cm")?, "ucm").pop(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::{FakeFunction, FakeRdma, SysfsTree};
    use super::*;

    fn tree() -> (tempfile::TempDir, SysfsTree, Sysfs) {
        let folder = tempfile::tempdir().unwrap();
        let tree = SysfsTree::new(folder.path());
        let sysfs = Sysfs::new(folder.path());
        (folder, tree, sysfs)
    }

    fn at(text: &str) -> PciAddress {
        text.parse().unwrap()
    }

    fn nodes(number: u32, issm: bool) -> RdmaNodes {
        RdmaNodes {
            device: format!("mlx5_{number}"),
            uverbs: Some(format!("infiniband/uverbs{number}")),
            umads: vec![format!("infiniband/umad{number}")],
            issms: if issm { vec![format!("infiniband/issm{number}")] } else { Vec::new() },
            ucm: None,
        }
    }

    #[test]
    fn a_function_with_a_kernel_driver_has_none() {
        let (_folder, tree, sysfs) = tree();
        tree.add_igb(0, 1);
        assert_eq!(sysfs.character_devices(at("0000:01:10.0")).unwrap(), CharacterDevices::default());
    }

    #[test]
    fn vfio_has_a_group_and_a_device_and_tells_who_comes_along() {
        let (_folder, tree, sysfs) = tree();
        tree.add_igb(0, 2);
        let (vf, other) = (at("0000:01:10.0"), at("0000:01:10.2"));
        tree.bind(vf, Some("vfio-pci"));
        let group = VfioGroup { number: 100, noiommu: false };
        let mut expected = VfioNodes { group: Some(group), device: None, companions: Vec::new() };
        let vfio = || sysfs.character_devices(vf).unwrap().vfio.unwrap();
        assert_eq!(vfio(), expected, "before Linux 6.1");

        tree.show_vfio(vf, 3);
        tree.leave_iommu_group(other);
        tree.join_iommu_group(other, 100);
        (expected.device, expected.companions) = (Some("vfio/devices/vfio3".to_owned()), vec![other]);
        assert_eq!(vfio(), expected);
        assert_eq!(group.node(), "vfio/100");

        // A driver of the vendor's own.
        tree.bind(vf, Some("vendor_migration"));
        assert_eq!(vfio(), expected);
        tree.hide_userspace(vf);
        tree.bind(vf, Some("igbvf"));
        assert_eq!(sysfs.character_devices(vf).unwrap().vfio, None);
    }

    #[test]
    fn vfio_without_an_iommu_has_a_group_of_another_name() {
        let (_folder, tree, sysfs) = tree();
        let vf = FakeFunction { iommu_group: None, ..FakeFunction::igb_vf(0, 0) };
        tree.add(&vf);
        tree.bind(vf.address, Some("vfio-pci"));
        let vfio = || sysfs.character_devices(vf.address).unwrap().vfio.unwrap();
        assert_eq!(vfio(), VfioNodes::default(), "while it is being bound");
        tree.show_vfio_noiommu(vf.address, 0, 7);
        let group = VfioGroup { number: 7, noiommu: true };
        assert_eq!((vfio().group, group.node()), (Some(group), "vfio/noiommu-7".to_owned()));
    }

    #[test]
    fn uio_has_one_node() {
        let (_folder, tree, sysfs) = tree();
        tree.add_igb(0, 1);
        let vf = at("0000:01:10.0");
        tree.bind(vf, Some("uio_pci_generic"));
        tree.show_uio(vf, 2);
        let expected = CharacterDevices { uio: Some("uio2".to_owned()), ..CharacterDevices::default() };
        assert_eq!(sysfs.character_devices(vf).unwrap(), expected);
    }

    #[test]
    fn rdma_nodes_are_those_that_name_the_device() {
        let (_folder, tree, sysfs) = tree();
        tree.add_mlx5_infiniband(0, 2);
        let rdma = || sysfs.character_devices(at("0000:3d:00.3")).unwrap().rdma;
        assert_eq!(rdma(), [nodes(3, true)]);

        // Two devices on one function, and numbers that changed places.
        tree.hide_rdma("mlx5_3");
        for (name, number) in [("mlx5_3", 9), ("mlx5_9", 3)] {
            tree.show_rdma("0000:3d:00.3", &FakeRdma { name: name.to_owned(), number, infiniband: false });
        }
        let swapped = [("mlx5_3", 9), ("mlx5_9", 3)]
            .map(|(name, number)| RdmaNodes { device: name.to_owned(), ..nodes(number, false) });
        assert_eq!(rdma(), swapped);

        tree.hide_rdma("mlx5_3");
        tree.hide_rdma("mlx5_9");
        assert_eq!(rdma(), []);
    }

    #[test]
    fn rdma_nodes_that_are_not_beside_the_device_are_searched_for() {
        let (_folder, tree, sysfs) = tree();
        tree.add_mlx5(0, 1);
        std::fs::write(tree.root().join("class/infiniband_verbs/abi_version"), "6\n").unwrap();
        let vf = tree.root().join("bus/pci/devices/0000:3d:00.2");
        let elsewhere = tree.root().join("devices/elsewhere");
        std::fs::rename(vf.join("infiniband_verbs/uverbs2"), &elsewhere).unwrap();
        let link = tree.root().join("class/infiniband_verbs/uverbs2");
        std::fs::remove_file(&link).unwrap();
        std::os::unix::fs::symlink("../../devices/elsewhere", link).unwrap();
        assert_eq!(sysfs.character_devices(at("0000:3d:00.2")).unwrap().rdma, [nodes(2, false)]);
    }

    #[test]
    fn software_rdma_is_found_by_its_netdev() {
        let (_folder, tree, sysfs) = tree();
        tree.add_igb(0, 2);
        let rxe = FakeRdma { name: "rxe0".to_owned(), number: 5, infiniband: false };
        tree.show_soft_rdma("enp1s0f0v1", &rxe);
        let of = |text| sysfs.character_devices(at(text)).unwrap().rdma;
        assert_eq!(of("0000:01:10.0"), []);
        assert_eq!(of("0000:01:10.2"), [RdmaNodes { device: "rxe0".to_owned(), ..nodes(5, false) }]);
    }

    #[test]
    fn a_scalable_function_has_its_own_nodes() {
        let (_folder, tree, sysfs) = tree();
        tree.add_mlx5(0, 0);
        let name = tree.add_mlx5_sf(0, 4, 88);
        tree.add_vdpa(&name, "blue", Some("vhost_vdpa"), 1);
        let vdpa =
            VdpaNodes { device: "blue".to_owned(), vhost: Some("vhost-vdpa-1".to_owned()), virtio: None };
        let expected =
            CharacterDevices { vfio: None, uio: None, rdma: vec![nodes(104, false)], vdpa: Some(vdpa) };
        assert_eq!(sysfs.auxiliary_character_devices(&name).unwrap(), expected);

        for name in ["mlx5_core.sf.5", "mlx5_core.eth.0", "../../pci/devices/0000:3d:00.0", ""] {
            let error = sysfs.auxiliary_character_devices(name).unwrap_err();
            assert!(matches!(&error, SysfsError::NoSuchAuxiliary { name: n, .. } if n == name), "{error}");
        }
    }

    #[test]
    fn vdpa_is_reached_by_what_its_driver_makes() {
        let (_folder, tree, sysfs) = tree();
        tree.add_mlx5(0, 3);
        tree.add_vdpa(at("0000:3d:00.2"), "red", Some("virtio_vdpa"), 0);
        tree.add_vdpa(at("0000:3d:00.3"), "blue", Some("vhost_vdpa"), 4);
        tree.add_vdpa(at("0000:3d:00.4"), "unbound", None, 0);
        for (vf, device, vhost, virtio) in [
            ("0000:3d:00.2", "red", None, Some("virtio0")),
            ("0000:3d:00.3", "blue", Some("vhost-vdpa-4"), None),
            ("0000:3d:00.4", "unbound", None, None),
        ] {
            let [vhost, virtio] = [vhost, virtio].map(|name| name.map(str::to_owned));
            let expected = VdpaNodes { device: device.to_owned(), vhost, virtio };
            assert_eq!(sysfs.character_devices(at(vf)).unwrap().vdpa, Some(expected));
        }
        assert_eq!(sysfs.character_devices(at("0000:3d:00.0")).unwrap().vdpa, None);
    }
}
