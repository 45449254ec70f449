//! A tree of files that looks like the PCI part of a sysfs, for tests: the shapes are those of a machine with Intel
//! 82576 network cards (`igb`), as QEMU emulates them.
//!
//! Attribute folders are real folders below `devices/`, everything in `bus/` and `class/` is a relative link, as in the
//! kernel: code that follows the wrong link fails here too.
#![allow(
    clippy::unwrap_used,
    reason = "only tests link this module, and a test that cannot build its tree has failed"
)]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use zerobridge_proto::PciAddress;

/// A sysfs tree in a folder that the test owns.
#[derive(Clone, Debug)]
pub struct SysfsTree {
    root: PathBuf,
}

/// A PCI function to be put into a [`SysfsTree`].
#[derive(Clone, Debug)]
pub struct FakeFunction {
    /// Its address.
    pub address: PciAddress,
    /// Its vendor ID.
    pub vendor: u16,
    /// Its device ID.
    pub device: u16,
    /// Its class code.
    pub class: u32,
    /// The driver it is bound to.
    pub driver: Option<String>,
    /// Content of `numa_node`, -1 for unknown.
    pub numa_node: i32,
    /// Its IOMMU group.
    pub iommu_group: Option<u32>,
    /// Its netdevs.
    pub netdevs: Vec<String>,
}

impl FakeFunction {
    /// Port `port` (0 or 1) of an 82576: `enp1s0f<port>`, driver `igb`, NUMA node 0.
    #[must_use]
    pub fn igb_pf(port: u8) -> Self {
        Self {
            address: format!("0000:01:00.{port}").parse().unwrap(),
            vendor: 0x8086,
            device: 0x10c9,
            class: 0x02_0000,
            driver: Some("igb".to_owned()),
            numa_node: 0,
            iommu_group: Some(1),
            netdevs: vec![format!("enp1s0f{port}")],
        }
    }

    /// VF `index` (0 to 6) of that port, driver `igbvf`, NUMA node 0. The addresses are those of the hardware: first VF
    /// offset 0x80, VF stride 2.
    #[must_use]
    pub fn igb_vf(port: u8, index: u8) -> Self {
        let routing = 0x80 + 2 * u16::from(index) + u16::from(port);
        let (slot, function) = (routing >> 3, routing & 7);
        Self {
            address: format!("0000:01:{slot:02x}.{function}").parse().unwrap(),
            device: 0x10ca,
            driver: Some("igbvf".to_owned()),
            iommu_group: Some(100 + u32::from(index) + 10 * u32::from(port)),
            netdevs: vec![format!("enp1s0f{port}v{index}")],
            ..Self::igb_pf(port)
        }
    }
}

impl SysfsTree {
    /// An empty tree below `root`, which is made if it does not exist.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        let tree = Self { root: root.into() };
        for folder in
            ["bus/pci/devices", "bus/pci/drivers", "class/net", "devices/pci0000:00", "kernel/iommu_groups"]
        {
            fs::create_dir_all(tree.root.join(folder)).unwrap();
        }
        tree
    }

    /// Where the tree is.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Puts a function into the tree.
    pub fn add(&self, function: &FakeFunction) {
        let address = function.address;
        fs::create_dir_all(self.folder(address)).unwrap();
        self.write(address, "vendor", &format!("0x{:04x}\n", function.vendor));
        self.write(address, "device", &format!("0x{:04x}\n", function.device));
        self.write(address, "class", &format!("0x{:06x}\n", function.class));
        self.write(address, "numa_node", &format!("{}\n", function.numa_node));
        let target = format!("../../../devices/pci0000:00/{address}");
        symlink(target, self.root.join("bus/pci/devices").join(address.to_string())).unwrap();
        if let Some(group) = function.iommu_group {
            fs::create_dir_all(self.root.join(format!("kernel/iommu_groups/{group}"))).unwrap();
            self.link(address, "iommu_group", &format!("../../../kernel/iommu_groups/{group}"));
        }
        self.bind(address, function.driver.as_deref());
        for netdev in &function.netdevs {
            self.show_netdev(address, netdev);
        }
    }

    /// Takes a function out of the tree, and out of the list of its PF.
    pub fn remove(&self, address: PciAddress) {
        for netdev in self.netdevs(address) {
            self.hide_netdev(address, &netdev);
        }
        if let Ok(pf) = fs::canonicalize(self.folder(address).join("physfn")) {
            for entry in fs::read_dir(&pf).unwrap().map(Result::unwrap) {
                let target = fs::read_link(entry.path()).unwrap_or_default();
                if target.ends_with(address.to_string()) {
                    fs::remove_file(entry.path()).unwrap();
                }
            }
        }
        fs::remove_file(self.root.join("bus/pci/devices").join(address.to_string())).unwrap();
        fs::remove_dir_all(self.folder(address)).unwrap();
    }

    /// Makes a function a PF that can have `total` VFs.
    pub fn enable_sriov(&self, pf: PciAddress, total: u16) {
        self.write(pf, "sriov_totalvfs", &format!("{total}\n"));
        self.write(pf, "sriov_numvfs", "0\n");
    }

    /// Makes one function a VF of another.
    pub fn link_vf(&self, pf: PciAddress, index: u16, vf: PciAddress) {
        self.link(vf, "physfn", &format!("../{pf}"));
        self.link(pf, &format!("virtfn{index}"), &format!("../{vf}"));
    }

    /// Adds port `port` of an 82576 with `vfs` of its 7 VFs.
    pub fn add_igb(&self, port: u8, vfs: u8) {
        let pf = FakeFunction::igb_pf(port);
        self.add(&pf);
        self.enable_sriov(pf.address, 7);
        for index in 0..vfs {
            self.add_igb_vf(port, index);
        }
    }

    /// Adds one VF to an 82576 port that [`SysfsTree::add_igb`] made. Returns its address.
    pub fn add_igb_vf(&self, port: u8, index: u8) -> PciAddress {
        let vf = FakeFunction::igb_vf(port, index);
        self.add(&vf);
        self.link_vf(FakeFunction::igb_pf(port).address, u16::from(index), vf.address);
        vf.address
    }

    /// Binds a function to a driver, or to none.
    pub fn bind(&self, address: PciAddress, driver: Option<&str>) {
        let link = self.folder(address).join("driver");
        if link.is_symlink() {
            fs::remove_file(&link).unwrap();
        }
        if let Some(driver) = driver {
            fs::create_dir_all(self.root.join("bus/pci/drivers").join(driver)).unwrap();
            self.link(address, "driver", &format!("../../../bus/pci/drivers/{driver}"));
        }
    }

    /// Shows a netdev of a function, as when it is in the namespace of the mount.
    pub fn show_netdev(&self, address: PciAddress, netdev: &str) {
        let folder = self.folder(address).join("net").join(netdev);
        fs::create_dir_all(&folder).unwrap();
        symlink(format!("../../../{address}"), folder.join("device")).unwrap();
        let target = format!("../../devices/pci0000:00/{address}/net/{netdev}");
        symlink(target, self.root.join("class/net").join(netdev)).unwrap();
    }

    /// Hides a netdev of a function, as when it was moved into a pod. The kernel takes the empty `net` folder away too.
    pub fn hide_netdev(&self, address: PciAddress, netdev: &str) {
        fs::remove_file(self.root.join("class/net").join(netdev)).unwrap();
        fs::remove_dir_all(self.folder(address).join("net").join(netdev)).unwrap();
        if self.netdevs(address).is_empty() {
            fs::remove_dir(self.folder(address).join("net")).unwrap();
        }
    }

    /// Gives an attribute of a function the content `text`.
    pub fn write(&self, address: PciAddress, attribute: &str, text: &str) {
        fs::write(self.folder(address).join(attribute), text).unwrap();
    }

    fn netdevs(&self, address: PciAddress) -> Vec<String> {
        let listing = fs::read_dir(self.folder(address).join("net"));
        listing.map_or_else(
            |_| Vec::new(),
            |entries| entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect(),
        )
    }

    fn link(&self, address: PciAddress, name: &str, target: &str) {
        symlink(target, self.folder(address).join(name)).unwrap();
    }

    fn folder(&self, address: PciAddress) -> PathBuf {
        self.root.join("devices/pci0000:00").join(address.to_string())
    }
}
