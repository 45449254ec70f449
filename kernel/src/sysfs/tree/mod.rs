//! A tree of files that looks like a sysfs, for tests.
//!
//! The shapes are those of real machines: attribute folders are real folders below `devices/`, a function's below that of
//! the bridge above it; everything in `bus/` and `class/` is a relative link, as in the kernel, so that code that follows
//! the wrong link fails here too. Whatever is taken out of the tree keeps its inode number to itself, as in the kernel,
//! where none is used a second time. Each kind of hardware has a file of its own.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "only tests link this module, and a test that cannot build its tree has failed"
)]

mod accelerator;
mod bnxt;
mod e810;
mod igb;
mod large;
mod mlx5;
mod nodes;
mod rdma;

use std::fmt::Display;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use zerobridge_proto::PciAddress;

pub use rdma::FakeRdma;

/// A sysfs tree in a folder that the test owns.
///
/// Where a method takes the `owner` of something, that is a PCI address or the name of an auxiliary device.
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
    /// Content of `acpi_index`.
    pub acpi_index: Option<u32>,
    /// The bridges above it, from the root port down. Those that the tree lacks are put into it.
    pub upstream: Vec<PciAddress>,
    /// Its netdevs, of Ethernet.
    pub netdevs: Vec<String>,
}

impl FakeFunction {
    /// A PCIe bridge of Intel's, driver `pcieport`, with an IOMMU group of its own.
    #[must_use]
    pub fn bridge(address: PciAddress, numa_node: i32) -> Self {
        Self {
            address,
            vendor: 0x8086,
            device: 0x3420,
            class: 0x06_0400,
            driver: Some("pcieport".to_owned()),
            numa_node,
            iommu_group: None,
            acpi_index: None,
            upstream: Vec::new(),
            netdevs: Vec::new(),
        }
    }
}

/// The address that a text names.
pub(crate) fn at(text: &str) -> PciAddress {
    text.parse().unwrap()
}

impl SysfsTree {
    /// An empty tree below `root`, which is made if it does not exist.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        let tree = Self { root: root.into() };
        for folder in ["bus/pci/devices", "bus/pci/drivers", "class/net", "kernel/iommu_groups"] {
            fs::create_dir_all(tree.root.join(folder)).unwrap();
        }
        tree
    }

    /// Where the tree is.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Puts a function into the tree, with the bridges above it.
    pub fn add(&self, function: &FakeFunction) {
        let address = function.address;
        for (above, &bridge) in function.upstream.iter().enumerate() {
            if !self.exists(&format!("bus/pci/devices/{bridge}")) {
                let upstream = function.upstream[..above].to_vec();
                self.add(&FakeFunction { upstream, ..FakeFunction::bridge(bridge, function.numa_node) });
            }
        }
        let parent = function.upstream.last().map_or_else(|| root_bus(address), |bridge| self.place(bridge));
        let place = format!("{parent}/{address}");
        self.link(&format!("bus/pci/devices/{address}"), &place);
        self.write(address, "vendor", &format!("0x{:04x}\n", function.vendor));
        self.write(address, "device", &format!("0x{:04x}\n", function.device));
        self.write(address, "class", &format!("0x{:06x}\n", function.class));
        self.write(address, "modalias", &modalias(function));
        self.write(address, "numa_node", &format!("{}\n", function.numa_node));
        if let Some(index) = function.acpi_index {
            self.write(address, "acpi_index", &format!("{index}\n"));
        }
        if let Some(group) = function.iommu_group {
            self.join_iommu_group(address, group);
        }
        self.bind(address, function.driver.as_deref());
        for netdev in &function.netdevs {
            self.show_netdev(address, netdev);
        }
    }

    /// Takes a function out of the tree, and out of the list of its PF.
    pub fn remove(&self, address: PciAddress) {
        self.bind(address, None);
        for netdev in self.names(&format!("{}/net", self.place(address))) {
            self.hide_netdev(address, &netdev);
        }
        for device in self.names(&format!("{}/infiniband", self.place(address))) {
            self.hide_rdma(&device);
        }
        self.leave_iommu_group(address);
        self.unlink_vf(address);
        let place = self.place(address);
        self.retire(&format!("bus/pci/devices/{address}"));
        self.retire(&place);
    }

    /// Makes a function a PF that can have `total` VFs.
    pub fn enable_sriov(&self, pf: PciAddress, total: u16) {
        self.write(pf, "sriov_totalvfs", &format!("{total}\n"));
        self.write(pf, "sriov_numvfs", "0\n");
    }

    /// Makes one function a VF of another.
    pub fn link_vf(&self, pf: PciAddress, index: u16, vf: PciAddress) {
        let (pf, vf) = (self.place(pf), self.place(vf));
        self.link(&format!("{vf}/physfn"), &pf);
        self.link(&format!("{pf}/virtfn{index}"), &vf);
    }

    /// Takes the links between a VF and its PF away, which the kernel does before it unbinds and removes the VF.
    pub fn unlink_vf(&self, vf: PciAddress) {
        let place = self.place(vf);
        let Ok(pf) = fs::read_link(self.root.join(&place).join("physfn")) else { return };
        let pf = self.place(pf.file_name().unwrap().to_str().unwrap());
        for name in self.names(&pf) {
            let target = fs::read_link(self.root.join(&pf).join(&name)).unwrap_or_default();
            if name.starts_with("virtfn") && target.ends_with(vf.to_string()) {
                self.retire(&format!("{pf}/{name}"));
            }
        }
        self.retire(&format!("{place}/physfn"));
    }

    /// Binds a device to a driver, or to none.
    pub fn bind(&self, owner: impl Display, driver: Option<&str>) {
        let bus = self.bus(&owner);
        let place = self.place(&owner);
        let link = format!("{place}/driver");
        if let Ok(bound) = fs::read_link(self.root.join(&link)) {
            let driver = bound.file_name().unwrap().to_str().unwrap();
            self.retire(&format!("bus/{bus}/drivers/{driver}/{owner}"));
            self.retire(&link);
        }
        if let Some(driver) = driver {
            let driver = format!("bus/{bus}/drivers/{driver}");
            self.link(&link, &driver);
            self.link(&format!("{driver}/{owner}"), &place);
        }
    }

    /// Shows a netdev of Ethernet on its device, as when it is in the namespace of the mount.
    pub fn show_netdev(&self, owner: impl Display, netdev: &str) {
        let place = self.place(owner);
        let folder = format!("{place}/net/{netdev}");
        self.link(&format!("class/net/{netdev}"), &folder);
        self.link(&format!("{folder}/device"), &place);
        fs::write(self.root.join(&folder).join("type"), "1\n").unwrap();
    }

    /// Hides a netdev of a device, as when it was moved into a pod. The kernel takes the empty `net` folder away too.
    pub fn hide_netdev(&self, owner: impl Display, netdev: &str) {
        let folder = format!("{}/net", self.place(owner));
        self.retire(&format!("class/net/{netdev}"));
        self.retire(&format!("{folder}/{netdev}"));
        if self.names(&folder).is_empty() {
            self.retire(&folder);
        }
    }

    /// Gives an attribute of a device the content `text`.
    pub fn write(&self, owner: impl Display, attribute: &str, text: &str) {
        fs::write(self.root.join(self.place(owner)).join(attribute), text).unwrap();
    }

    /// Shows the list of VLANs of a PF's VF, as Intel's and NVIDIA's own drivers do.
    pub fn show_vlan_trunk(&self, pf: PciAddress, index: u16, text: &str) {
        let folder = self.root.join(self.place(pf)).join(format!("sriov/{index}"));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("trunk"), text).unwrap();
    }

    /// Sets the number of fatal errors that AER counted on a function.
    pub fn aer(&self, address: PciAddress, fatal: u64) {
        self.write(address, "aer_dev_fatal", &format!("Undefined 0\nDLP {fatal}\nTOTAL_ERR_FATAL {fatal}\n"));
    }

    /// Puts a device into the tree as a part of another, with its link on a bus.
    fn add_on_bus(&self, bus: &str, parent: impl Display, name: &str) {
        let place = format!("{}/{name}", self.place(parent));
        self.link(&format!("bus/{bus}/devices/{name}"), &place);
    }

    /// The folder of a device below the root.
    fn place(&self, owner: impl Display) -> String {
        let link = self.root.join(format!("bus/{}/devices/{owner}", self.bus(&owner)));
        let target = fs::read_link(link).unwrap();
        target.to_str().unwrap().trim_start_matches("../").to_owned()
    }

    fn bus(&self, owner: impl Display) -> &'static str {
        let on = |bus: &&&str| self.root.join(format!("bus/{bus}/devices/{owner}")).is_symlink();
        ["auxiliary", "vdpa", "pci"]
            .iter()
            .find(on)
            .unwrap_or_else(|| panic!("no device {owner} in the tree"))
    }

    /// Makes a link to a folder, which is made too; both are named from the root.
    fn link(&self, link: &str, target: &str) {
        fs::create_dir_all(self.root.join(target)).unwrap();
        fs::create_dir_all(self.root.join(link).parent().unwrap()).unwrap();
        // As in the kernel, the last part of the target is always named (`kernfs_get_target_path` in fs/kernfs/symlink.c).
        let (above, name) = target.rsplit_once('/').unwrap();
        let common = link.split('/').zip(above.split('/')).take_while(|(a, b)| a == b).count();
        let up = "../".repeat(link.split('/').count() - 1 - common);
        let down: String = above.split('/').skip(common).map(|part| format!("{part}/")).collect();
        symlink(format!("{up}{down}{name}"), self.root.join(link)).unwrap();
    }

    /// Takes a file, link or folder out of sight, and keeps its inode number from being used again.
    fn retire(&self, path: &str) {
        let retired = self.root.join(".retired");
        fs::create_dir_all(&retired).unwrap();
        let place = retired.join(fs::read_dir(&retired).unwrap().count().to_string());
        fs::rename(self.root.join(path), place).unwrap();
    }

    fn names(&self, folder: &str) -> Vec<String> {
        let listing = fs::read_dir(self.root.join(folder));
        listing.map_or_else(
            |_| Vec::new(),
            |entries| entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect(),
        )
    }

    fn exists(&self, path: &str) -> bool {
        self.root.join(path).exists()
    }
}

fn modalias(function: &FakeFunction) -> String {
    let FakeFunction { vendor, device, class, .. } = function;
    let [_, base, sub, interface] = class.to_be_bytes();
    format!("pci:v{vendor:08X}d{device:08X}sv{vendor:08X}sd00000000bc{base:02X}sc{sub:02X}i{interface:02X}\n")
}

/// The folder of the root bus that a function without a bridge is on.
fn root_bus(address: PciAddress) -> String {
    let text = address.to_string();
    let (bus, _) = text.rsplit_once(':').unwrap();
    format!("devices/pci{bus}")
}
