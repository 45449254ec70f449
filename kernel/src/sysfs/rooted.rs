//! A `sysfs-class` PCI device below a root of our choice.
//!
//! The crate's safe constructors accept `/sys` only. Its trait has one that takes any path, and that is the only unsafe
//! call of Zerobridge. The crate's hexadecimal reads (`vendor()`, `device()`, `class()`) slice the text behind `0x`
//! without looking, which panics on a file of one byte; so its typed reads are used for decimal numbers only.
#![allow(unsafe_code, reason = "sysfs-class has no safe constructor for another root than /sys")]

use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use sysfs_class::{PciDevice, SysClass};
use zerobridge_proto::PciAddress;

use super::SysfsError;
use super::attribute::{self, is_absent, link_target};

/// The folder of all PCI functions below a sysfs root.
pub(super) const PCI_DEVICES: &str = "bus/pci/devices";

/// Who made a function, and what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) vendor: u16,
    pub(super) device: u16,
    pub(super) class: u32,
}

impl Identity {
    /// `pci:v%08Xd%08Xsv%08Xsd%08Xbc%02Xsc%02Xi%02X` (`modalias_show` in the kernel's drivers/pci/pci-sysfs.c).
    fn from_modalias(text: &str) -> Option<Self> {
        let (vendor, rest) = text.strip_prefix("pci:v")?.split_once('d')?;
        let (device, rest) = rest.split_once("sv")?;
        let (_, class) = rest.split_once("bc")?;
        let (base, rest) = class.split_once("sc")?;
        let (sub, interface) = rest.split_once('i')?;
        let id = |digits| hex(digits, 8).and_then(|id| u16::try_from(id).ok());
        let class = hex(base, 2)? << 16 | hex(sub, 2)? << 8 | hex(interface, 2)?;
        Some(Self { vendor: id(vendor)?, device: id(device)?, class })
    }
}

fn hex(digits: &str, count: usize) -> Option<u32> {
    let sound = digits.len() == count && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    sound.then(|| u32::from_str_radix(digits, 16).ok())?
}

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

    /// The same function by its folder among the devices, which is what its link above points to.
    pub(super) fn located(&self, root: &Path, target: &Path) -> Self {
        // SAFETY: as above. The target of the link ends with the name of the function as well.
        Self(unsafe { PciDevice::from_path_unchecked(attribute::destination(root, target)) })
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

    /// Vendor, device and class, which one file has together: a third of the reads on a machine with a thousand VFs.
    /// `uevent` has them too, but some kernels let its reader wait until the driver's probe is done.
    pub(super) fn identity(&self) -> Result<Identity, SysfsError> {
        let file = self.file("modalias");
        let text = attribute::text(&file).map_err(|source| SysfsError::read(&file, source))?;
        Identity::from_modalias(&text).ok_or_else(|| {
            SysfsError::malformed(&file, &text, "a modalias such as pci:v00008086d000010CAsv…sd…bc02sc00i00")
        })
    }

    /// `None` for -1, which is how the kernel says that it does not know (`NUMA_NO_NODE`).
    ///
    /// Every function has it, so it is read with one system call, where the trait's readers take four.
    pub(super) fn numa_node(&self) -> Result<Option<u32>, SysfsError> {
        let file = self.file("numa_node");
        let Some(text) = attribute::optional_text(&file)? else { return Ok(None) };
        let node: i32 =
            text.parse().map_err(|_| SysfsError::malformed(&file, &text, "a NUMA node number or -1"))?;
        Ok(u32::try_from(node).ok())
    }

    /// Only an on-board device that the firmware numbers has this attribute (the kernel's drivers/pci/pci-label.c).
    pub(super) fn acpi_index(&self) -> Result<Option<u32>, SysfsError> {
        self.number("acpi_index", "the number of an on-board device")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_modalias_is_understood_or_refused() {
        let vf = Identity { vendor: 0x8086, device: 0x10ca, class: 0x02_0001 };
        for (text, identity) in [
            ("pci:v00008086d000010CAsv00001AF4sd00001100bc02sc00i01", Some(vf)),
            ("pci:v00018086d000010CAsv00001AF4sd00001100bc02sc00i01", None),
            ("pci:v8086d000010CAsv00001AF4sd00001100bc02sc00i01", None),
            ("pci:v00008086d000010CAsv00001AF4sd00001100bc02sc00i0", None),
            ("pci:v00008086d000010CAsv00001AF4sd00001100bc02sc00i0é", None),
            ("pci:v00008086d+00010CAsv00001AF4sd00001100bc02sc00i01", None),
            ("pci:v00008086d000010CAsv00001AF4sd00001100", None),
            ("virtio:d00000001v00001AF4", None),
            ("", None),
        ] {
            assert_eq!(Identity::from_modalias(text), identity, "{text}");
        }
    }
}
