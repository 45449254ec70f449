//! A `sysfs-class` PCI device below a root of our choice.
//!
//! The crate's safe constructors accept `/sys` only. Its trait has one that takes any path, and that is the only unsafe
//! call of Zerobridge. The crate's hexadecimal reads (`vendor()`, `device()`, `class()`) slice the text behind `0x`
//! without looking, which panics on a file of one byte; so its typed line reads are used, and the number is parsed here.
#![allow(unsafe_code, reason = "sysfs-class has no safe constructor for another root than /sys")]

use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use sysfs_class::{PciDevice, SysClass};
use zerobridge_proto::PciAddress;

use super::SysfsError;
use super::attribute::{is_absent, link_target};

/// The folder of all PCI functions below a sysfs root.
pub(super) const PCI_DEVICES: &str = "bus/pci/devices";

/// One PCI function's folder. It may not exist: every read says so.
pub(super) struct RootedFunction(PciDevice);

impl RootedFunction {
    pub(super) fn new(root: &Path, address: PciAddress) -> Self {
        let folder = root.join(PCI_DEVICES).join(address.to_string());
        // SAFETY: `from_path_unchecked` stores the path and does nothing else; no memory depends on it. What the trait
        // leaves unchecked is that the path is a child of the class folder, and that its last component exists and is
        // UTF-8 (its `id()` unwraps both). The lines above build it so, whatever `root` is. That the folder exists is
        // not part of it: the safe constructor looks once, but a device may go at any time, and each read reports that.
        Self(unsafe { PciDevice::from_path_unchecked(folder) })
    }

    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    pub(super) fn exists(&self) -> bool {
        self.path().exists()
    }

    pub(super) fn vendor(&self) -> Result<u16, SysfsError> {
        self.hex("vendor", "a vendor ID such as 0x8086")
    }

    pub(super) fn device(&self) -> Result<u16, SysfsError> {
        self.hex("device", "a device ID such as 0x10ca")
    }

    pub(super) fn class(&self) -> Result<u32, SysfsError> {
        self.hex("class", "a class code such as 0x020000")
    }

    /// `None` for -1, which is how the kernel says that it does not know (`NUMA_NO_NODE`).
    pub(super) fn numa_node(&self) -> Result<Option<u32>, SysfsError> {
        let node: Option<i32> = self.number("numa_node", "a NUMA node number or -1")?;
        Ok(node.and_then(|node| u32::try_from(node).ok()))
    }

    /// Only a PF has this attribute.
    pub(super) fn total_vfs(&self) -> Result<Option<u16>, SysfsError> {
        self.number("sriov_totalvfs", "a number of VFs")
    }

    pub(super) fn iommu_group(&self) -> Result<Option<u32>, SysfsError> {
        let link = self.file("iommu_group");
        link_target(&link)?
            .map(|name| {
                name.parse().map_err(|_| SysfsError::malformed(&link, &name, "the number of a group"))
            })
            .transpose()
    }

    fn hex<T: TryFrom<u32>>(&self, name: &'static str, expected: &'static str) -> Result<T, SysfsError> {
        let text = self.0.trim_file(name).map_err(|source| SysfsError::read(&self.file(name), source))?;
        text.strip_prefix("0x")
            .and_then(|digits| u32::from_str_radix(digits, 16).ok())
            .and_then(|number| T::try_from(number).ok())
            .ok_or_else(|| SysfsError::malformed(&self.file(name), &text, expected))
    }

    fn number<T: FromStr>(&self, name: &'static str, expected: &'static str) -> Result<Option<T>, SysfsError>
    where
        T::Err: std::fmt::Display,
    {
        match self.0.parse_file(name) {
            Ok(number) => Ok(Some(number)),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                let text = self.0.trim_file(name).unwrap_or_default();
                Err(SysfsError::malformed(&self.file(name), &text, expected))
            }
            Err(source) => Err(SysfsError::read(&self.file(name), source)),
        }
    }
}
