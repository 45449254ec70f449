//! What userspace drivers make of a function: IOMMU groups, VFIO, UIO and vDPA devices.

use std::fmt::Display;
use std::fs;

use zerobridge_proto::PciAddress;

use super::SysfsTree;

impl SysfsTree {
    /// Puts a function into an IOMMU group.
    pub fn join_iommu_group(&self, address: PciAddress, group: u32) {
        let (place, group) = (self.place(address), format!("kernel/iommu_groups/{group}"));
        self.link(&format!("{place}/iommu_group"), &group);
        self.link(&format!("{group}/devices/{address}"), &place);
    }

    /// Takes a function out of its IOMMU group, and the group away if it is empty then.
    pub fn leave_iommu_group(&self, address: PciAddress) {
        let link = format!("{}/iommu_group", self.place(address));
        let Ok(group) = fs::read_link(self.root.join(&link)) else { return };
        let group = format!("kernel/iommu_groups/{}", group.file_name().unwrap().to_str().unwrap());
        self.retire(&link);
        self.retire(&format!("{group}/devices/{address}"));
        if self.names(&format!("{group}/devices")).is_empty() {
            self.retire(&group);
        }
    }

    /// Shows the VFIO device `vfio<number>` of a function, as a VFIO driver does when it is bound.
    pub fn show_vfio(&self, address: PciAddress, number: u32) {
        self.show_part(address, &format!("vfio-dev/vfio{number}"));
    }

    /// Shows a function as VFIO does on a machine without an IOMMU: its device is `vfio<number>`, in a group that VFIO
    /// made for it.
    pub fn show_vfio_noiommu(&self, address: PciAddress, number: u32, group: u32) {
        self.show_vfio(address, number);
        self.join_iommu_group(address, group);
        let name = self.root.join(format!("kernel/iommu_groups/{group}/name"));
        fs::write(name, "vfio-noiommu\n").unwrap();
    }

    /// Shows the UIO device `uio<number>` of a function.
    pub fn show_uio(&self, address: PciAddress, number: u32) {
        self.show_part(address, &format!("uio/uio{number}"));
    }

    /// Hides what [`SysfsTree::show_vfio`] or [`SysfsTree::show_uio`] showed.
    pub fn hide_userspace(&self, address: PciAddress) {
        for folder in ["vfio-dev", "uio"] {
            let folder = format!("{}/{folder}", self.place(address));
            if self.exists(&folder) {
                self.retire(&folder);
            }
        }
    }

    /// Makes a vDPA device of a device, bound to `vhost_vdpa`, `virtio_vdpa` or nothing. Its node is
    /// `vhost-vdpa-<number>` with the former, and its virtio device `virtio<number>` with the latter.
    pub fn add_vdpa(&self, owner: impl Display, name: &str, driver: Option<&str>, number: u32) {
        self.add_on_bus("vdpa", owner, name);
        self.bind(name, driver);
        match driver {
            Some("vhost_vdpa") => self.show_part(name, &format!("vhost-vdpa-{number}")),
            Some("virtio_vdpa") => self.show_part(name, &format!("virtio{number}")),
            _ => {}
        }
    }

    fn show_part(&self, owner: impl Display, part: &str) {
        fs::create_dir_all(self.root.join(self.place(owner)).join(part)).unwrap();
    }
}
