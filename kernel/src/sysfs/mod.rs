//! What `/sys` says about devices: who they are, which driver has them, which VF belongs to which PF, and through which
//! netdevs, RDMA devices and device nodes they are reached.
//!
//! Read only, but for a VF's list of VLANs and for binding drivers, which have no other way. A [`Sysfs`] answers one question at a time and caches nothing; a [`Scanner`] looks at everything, and
//! remembers what cannot change. Both have a root, so that a tree of files can stand in for a machine. Refuses to know
//! netlink (what a netdev is configured to) and Kubernetes (what a device is for).
//!
//! A sysfs mount shows the netdevs of one network namespace, the one it was mounted from (`net_namespace` tags in the
//! kernel's `fs/kernfs`). A VF that was moved into a pod therefore has no netdev here, while everything else about it,
//! its driver included, stays visible.

mod aer;
mod attribute;
mod bind;
mod character;
mod dev;
mod error;
mod function;
mod gid;
mod machine;
mod memory;
mod mounted;
mod owner;
mod rdma;
mod rooted;
mod scanner;
#[cfg(any(test, feature = "testing"))]
mod tree;
mod trunk;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use zerobridge_proto::PciAddress;

pub use character::{CharacterDevices, RdmaNodes, VdpaNodes, VfioGroup, VfioNodes};
pub use dev::{DevFolder, RDMA_CM};
pub use error::SysfsError;
pub use function::{FunctionRole, PciFunction, VfPosition};
pub use machine::{AuxDevice, LinkType, Machine, Netdev, RdmaDevice, RdmaPort, VdpaDevice};
pub use mounted::{MountSysfsError, MountedSysfs};
pub use scanner::Scanner;
#[cfg(any(test, feature = "testing"))]
pub use tree::{FakeFunction, FakeRdma, SysfsTree};
pub use trunk::{VlanTrunk, VlanTrunkError};

use attribute::{entries, link_target};
use rooted::RootedFunction;

/// A mounted sysfs, usually `/sys`.
#[derive(Clone, Debug)]
pub struct Sysfs {
    root: PathBuf,
}

impl Sysfs {
    /// A view of the sysfs mounted at `root`. Nothing is read until a question is asked.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Where this sysfs is mounted.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The netdevs of a function that this sysfs mount shows, sorted by name; see the module's note on namespaces.
    ///
    /// A function has none without a driver, with a userspace driver, or while its netdev is in another namespace.
    /// It has several if it is the PF of an embedded switch (see [`Sysfs::uplinks`]) or a two-port ConnectX-3.
    ///
    /// # Errors
    ///
    /// [`SysfsError::NoSuchFunction`], [`SysfsError::Read`].
    pub fn netdevs_of(&self, address: PciAddress) -> Result<Vec<String>, SysfsError> {
        let function = self.existing(address)?;
        Ok(entries(&function.file("net"))?.unwrap_or_default())
    }

    /// The RDMA devices of a function that this sysfs mount shows, sorted by name. One that is in another RDMA namespace is
    /// not shown.
    ///
    /// # Errors
    ///
    /// [`SysfsError::NoSuchFunction`], [`SysfsError::Read`].
    pub fn rdma_devices_of(&self, address: PciAddress) -> Result<Vec<String>, SysfsError> {
        let function = self.existing(address)?;
        Ok(entries(&function.file("infiniband"))?.unwrap_or_default())
    }

    /// The netdevs of a PF that stand for its port, sorted by name: through one of them the VFs are administered.
    ///
    /// With an embedded switch in switchdev mode the PF's function also carries a representor per VF. The kernel tells
    /// them apart by `phys_port_name` (`__devlink_port_phys_port_name_get` in `net/devlink/port.c`): absent, or `p0`,
    /// `p0s1` for a port, but `pf0vf3`, `c1pf0`, `pf0sf88` for a representor.
    ///
    /// # Errors
    ///
    /// [`SysfsError::NoSuchFunction`], [`SysfsError::Read`].
    pub fn uplinks(&self, pf: PciAddress) -> Result<Vec<String>, SysfsError> {
        let folder = self.function(pf).file("net");
        let mut uplinks = Vec::new();
        for netdev in self.netdevs_of(pf)? {
            let port = attribute::optional_text(&folder.join(&netdev).join("phys_port_name"))?;
            if port.as_deref().is_none_or(function::names_a_port) {
                uplinks.push(netdev);
            }
        }
        Ok(uplinks)
    }

    /// The netdev through which the VFs of a PF are administered: the first of [`Sysfs::uplinks`].
    ///
    /// # Errors
    ///
    /// [`SysfsError::NoPfNetdev`] if there is none, otherwise as for [`Sysfs::uplinks`].
    pub fn pf_netdev(&self, pf: PciAddress) -> Result<String, SysfsError> {
        self.uplinks(pf)?.into_iter().next().ok_or(SysfsError::NoPfNetdev { pf })
    }

    /// The netdev through which one VF is administered. As [`Sysfs::pf_netdev`], but for a function with two ports: the
    /// one of the port that the VF's netdev says it is behind (`dev_port`, which `mlx4_en` counts from 0). While the VF has
    /// no netdev here, nothing says which, and it is the first.
    ///
    /// # Errors
    ///
    /// As [`Sysfs::pf_netdev`].
    pub fn pf_netdev_of(&self, vf: PciAddress, pf: PciAddress) -> Result<String, SysfsError> {
        let mut uplinks = self.uplinks(pf)?;
        if uplinks.len() > 1 {
            let port = match self.netdevs_of(vf)?.first() {
                Some(netdev) => self.port_of(vf, netdev)?,
                None => None,
            };
            for (number, uplink) in uplinks.iter().enumerate() {
                if port.is_some() && self.port_of(pf, uplink)? == port {
                    return Ok(uplinks.swap_remove(number));
                }
            }
        }
        uplinks.into_iter().next().ok_or(SysfsError::NoPfNetdev { pf })
    }

    fn port_of(&self, function: PciAddress, netdev: &str) -> Result<Option<String>, SysfsError> {
        attribute::optional_text(&self.function(function).file("net").join(netdev).join("dev_port"))
    }

    /// Whether a function is a network controller.
    ///
    /// # Errors
    ///
    /// [`SysfsError::NoSuchFunction`], [`SysfsError::Read`], [`SysfsError::Malformed`].
    pub fn is_network_controller(&self, address: PciAddress) -> Result<bool, SysfsError> {
        Ok(function::is_of_network_class(self.existing(address)?.identity()?.class))
    }

    /// Which VF of which PF a function is; `None` if it is no VF.
    ///
    /// # Errors
    ///
    /// [`SysfsError::NoSuchFunction`], [`SysfsError::Read`]; [`SysfsError::Unlinked`] while the kernel is just making or
    /// removing the VF.
    pub fn vf_position(&self, vf: PciAddress) -> Result<Option<VfPosition>, SysfsError> {
        let Some(pf) = self.pf_of(&self.existing(vf)?)? else { return Ok(None) };
        let index = self.vfs(pf)?.into_iter().find_map(|(index, address)| (address == vf).then_some(index));
        index.map(|index| Some(VfPosition { pf, index })).ok_or(SysfsError::Unlinked { vf, pf })
    }

    /// The VFs of a function by index; empty if it has none, or is gone. Indexes may have gaps.
    ///
    /// # Errors
    ///
    /// [`SysfsError::Read`], [`SysfsError::Malformed`].
    pub fn vfs(&self, pf: PciAddress) -> Result<BTreeMap<u16, PciAddress>, SysfsError> {
        let function = self.function(pf);
        // One open that fails for all but PFs, instead of a folder listing for every function of the machine.
        if function.total_vfs()?.is_none() {
            return Ok(BTreeMap::new());
        }
        let mut vfs = BTreeMap::new();
        for name in entries(function.path())?.unwrap_or_default() {
            let Some(index) = name.strip_prefix("virtfn").and_then(|index| index.parse().ok()) else {
                continue;
            };
            if let Some(vf) = attribute::linked_address(&function.file(&name))? {
                vfs.insert(index, vf);
            }
        }
        Ok(vfs)
    }

    /// The driver that a function is bound to.
    ///
    /// # Errors
    ///
    /// [`SysfsError::NoSuchFunction`], [`SysfsError::Read`].
    pub fn driver_of(&self, address: PciAddress) -> Result<Option<String>, SysfsError> {
        link_target(&self.existing(address)?.file("driver"))
    }

    /// The PCI function behind a netdev; `None` for a netdev without one, such as `lo` or a bridge.
    ///
    /// # Errors
    ///
    /// [`SysfsError::Read`], [`SysfsError::Malformed`].
    pub fn function_of(&self, netdev: &str) -> Result<Option<PciAddress>, SysfsError> {
        let target = link_target(&self.root.join("class/net").join(netdev).join("device"))?;
        // The device of a virtio or USB netdev is no PCI function, and its name does not parse as one.
        Ok(target.and_then(|name| name.parse().ok()))
    }

    fn pf_of(&self, function: &RootedFunction) -> Result<Option<PciAddress>, SysfsError> {
        attribute::linked_address(&function.file("physfn"))
    }

    fn existing(&self, address: PciAddress) -> Result<RootedFunction, SysfsError> {
        let function = self.function(address);
        if function.exists() {
            Ok(function)
        } else {
            Err(SysfsError::NoSuchFunction { address, path: function.path().to_owned() })
        }
    }

    fn function(&self, address: PciAddress) -> RootedFunction {
        RootedFunction::new(&self.root, address)
    }
}

#[cfg(test)]
mod tests;
