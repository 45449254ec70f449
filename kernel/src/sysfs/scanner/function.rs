//! What is remembered of a PCI function.
//!
//! Refuses to know what its driver makes of it.

use std::path::Path;
use std::str::FromStr;

use zerobridge_proto::PciAddress;

use super::super::memory::Memory;
use super::super::rooted::{Identity, RootedFunction};
use super::super::{SysfsError, attribute, owner};

/// A PCI function, without what its driver makes of it.
#[derive(Clone, Debug)]
pub(super) struct KnownFunction {
    pub(super) identity: Identity,
    pub(super) numa_node: Option<u32>,
    pub(super) acpi_index: Option<u32>,
    pub(super) upstream: Vec<PciAddress>,
    pub(super) sriov: Sriov,
    pub(super) iommu_group: Option<KnownGroup>,
}

/// An IOMMU group, and which of those that have had the number.
#[derive(Clone, Copy, Debug)]
pub(super) struct KnownGroup {
    pub(super) number: u32,
    inode: u64,
}

#[derive(Clone, Debug)]
pub(super) enum Sriov {
    Physical(Memory<VirtFn, PciAddress>),
    Virtual,
    /// As far as is known: a VF that is just being made looks like this for a moment on an old kernel.
    Plain,
}

/// The name of a PF's link to a VF.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct VirtFn(pub(super) u16);

impl FromStr for VirtFn {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        name.strip_prefix("virtfn").and_then(|index| index.parse().ok()).map(Self).ok_or(())
    }
}

impl VirtFn {
    pub(super) fn name(self) -> String {
        format!("virtfn{}", self.0)
    }
}

impl KnownFunction {
    /// A group is found anew when it is not the same any more: VFIO without an IOMMU makes one when it is bound, and
    /// takes it away afterwards (`vfio_noiommu_group_alloc` in drivers/vfio/group.c). One that is missing is looked for
    /// each time, because the kernel shows a function before its group.
    pub(super) fn find_group(
        &mut self,
        root: &Path,
        address: PciAddress,
        groups: &Memory<u32, ()>,
    ) -> Result<(), SysfsError> {
        let same = |known: &KnownGroup| groups.inode(&known.number) == Some(known.inode);
        if groups.is_empty() {
            self.iommu_group = None;
        } else if !self.iommu_group.as_ref().is_some_and(same) {
            let number = RootedFunction::new(root, address).iommu_group()?;
            self.iommu_group =
                number.and_then(|number| Some(KnownGroup { number, inode: groups.inode(&number)? }));
        }
        Ok(())
    }
}

/// Reads what does not change during a function's life; `None` if it is gone.
pub(super) fn known(root: &Path, address: PciAddress) -> Result<Option<KnownFunction>, SysfsError> {
    let function = RootedFunction::new(root, address);
    match read(root, &function) {
        Err(_) if !function.exists() => Ok(None),
        known => known,
    }
}

fn read(root: &Path, function: &RootedFunction) -> Result<Option<KnownFunction>, SysfsError> {
    // All that is read here is there before the link (`bus_add_device` in the kernel's drivers/base/bus.c).
    let Some(target) = attribute::link(function.path())? else { return Ok(None) };
    let function = function.located(root, &target);
    let sriov = if is_vf(&function)? {
        Sriov::Virtual
    } else if function.total_vfs()?.is_some() {
        Sriov::Physical(Memory::default())
    } else {
        Sriov::Plain
    };
    // A VF is on no board.
    let acpi_index = if matches!(sriov, Sriov::Virtual) { None } else { function.acpi_index()? };
    Ok(Some(KnownFunction {
        identity: function.identity()?,
        numa_node: function.numa_node()?,
        acpi_index,
        upstream: owner::upstream(&target),
        sriov,
        iommu_group: None,
    }))
}

/// Whether a function is a VF. The kernel takes `physfn` away long before a VF that is being removed, and sets it after
/// a new one is shown (`pci_iov_remove_virtfn`, `pci_iov_add_virtfn` in drivers/pci/iov.c); since Linux 5.13 every VF
/// also has an attribute that is there for all of its life.
pub(super) fn is_vf(function: &RootedFunction) -> Result<bool, SysfsError> {
    Ok(attribute::link(&function.file("physfn"))?.is_some() || function.file("sriov_vf_msix_count").exists())
}
