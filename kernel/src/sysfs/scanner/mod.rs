//! One look at every device of a machine.
//!
//! What cannot change during a device's life is read once and kept for as long as the device is the same one (see
//! [`Memory`]): a netdev's `phys_port_name`, for one, costs the kernel's RTNL lock, and is read of PFs only, where it tells
//! a port from a representor. Drivers, and whatever comes and
//! goes, are read each time; so that this is cheap, a thousand links are not followed where one listing tells the same.
//! Refuses to know what the devices are good for.

mod function;

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::mem;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::OnceLock;

use zerobridge_proto::PciAddress;

use super::character::VHOST_VDPA;
use super::function::names_a_port;
use super::memory::Memory;
use super::owner::{self, AuxName, Owner};
use super::rdma::{self, KnownRdma};
use super::rooted::{PCI_DEVICES, RootedFunction};
use super::{
    AuxDevice, FunctionRole, LinkType, Machine, Netdev, PciFunction, RdmaDevice, Sysfs, SysfsError,
    VdpaDevice, VfPosition, attribute,
};
use function::{KnownFunction, Sriov};

/// Looks at a machine again and again.
///
/// A look takes one listing per driver and per PF, and one read per port of an RDMA device; the first one also reads
/// all that is remembered. Two looks never disagree about a device that did not change.
#[derive(Clone, Debug)]
pub struct Scanner {
    sysfs: Sysfs,
    functions: Memory<PciAddress, KnownFunction>,
    auxiliaries: Memory<AuxName, KnownAuxiliary>,
    netdevs: Memory<String, KnownNetdev>,
    rdma: Memory<String, KnownRdma>,
    vdpa: Memory<String, Option<Owner>>,
    iommu_groups: Memory<u32, ()>,
}

#[derive(Clone, Debug)]
struct KnownAuxiliary {
    parent: PciAddress,
    sf_number: Option<u32>,
}

#[derive(Clone, Debug)]
struct KnownNetdev {
    /// `None` for a netdev of no device, such as `lo`.
    owner: Option<Owner>,
    link_type: LinkType,
    /// Read when it is asked for.
    port_name: OnceLock<Option<String>>,
}

/// What was found on each device.
#[derive(Default)]
struct Belongings {
    netdevs: HashMap<Owner, Vec<Netdev>>,
    rdma: HashMap<Owner, Vec<RdmaDevice>>,
    vdpa: HashMap<Owner, VdpaDevice>,
}

impl Scanner {
    /// A scanner that has not looked yet.
    #[must_use]
    pub fn new(sysfs: Sysfs) -> Self {
        Self {
            sysfs,
            functions: Memory::default(),
            auxiliaries: Memory::default(),
            netdevs: Memory::default(),
            rdma: Memory::default(),
            vdpa: Memory::default(),
            iommu_groups: Memory::default(),
        }
    }

    /// Looks at every device once.
    ///
    /// What comes or goes meanwhile is left out instead of failing the look: the next one sees the truth. A function is
    /// either in it with its driver, its netdevs and its VFs, or not at all.
    ///
    /// # Errors
    ///
    /// [`SysfsError::Read`] or [`SysfsError::Malformed`] with the path that could not be understood. The next look is
    /// not harmed by it.
    pub fn scan(&mut self) -> Result<Machine, SysfsError> {
        // The functions come last: what is gone by then takes along what was found on it.
        let mut belongings = Belongings::default();
        self.find_netdevs(&mut belongings.netdevs)?;
        self.find_rdma(&mut belongings.rdma)?;
        self.find_vdpa(&mut belongings.vdpa)?;
        let auxiliaries = self.find_auxiliaries(&mut belongings)?;
        let functions = self.find_functions(&mut belongings)?;
        Ok(Machine { functions, auxiliaries })
    }

    fn find_netdevs(&mut self, found: &mut HashMap<Owner, Vec<Netdev>>) -> Result<(), SysfsError> {
        let folder = self.path("class/net");
        self.netdevs.follow(&folder, |name| netdev(self.sysfs.root(), &folder.join(name)))?;
        for (name, known) in self.netdevs.iter() {
            if let Some(owner) = &known.owner {
                found.entry(owner.clone()).or_default().push(Netdev {
                    name: name.clone(),
                    link_type: known.link_type,
                    port_name: None,
                });
            }
        }
        Ok(())
    }

    fn find_rdma(&mut self, found: &mut HashMap<Owner, Vec<RdmaDevice>>) -> Result<(), SysfsError> {
        let folder = self.path("class/infiniband");
        self.rdma.follow(&folder, |name| rdma::known(&folder.join(name)))?;
        for (name, known) in self.rdma.iter() {
            let device = folder.join(name);
            let owner = match &known.owner {
                Some(owner) => Some(owner),
                None => rdma::software_parent(&device)?
                    .and_then(|netdev| self.netdevs.get(&netdev)?.owner.as_ref()),
            };
            let Some(owner) = owner else { continue };
            if let Some(ports) = rdma::ports(&device, known)? {
                found.entry(owner.clone()).or_default().push(RdmaDevice { name: name.clone(), ports });
            }
        }
        Ok(())
    }

    fn find_vdpa(&mut self, found: &mut HashMap<Owner, VdpaDevice>) -> Result<(), SysfsError> {
        let mut drivers = self.bindings::<String>("bus/vdpa/drivers")?;
        let folder = self.path("bus/vdpa/devices");
        self.vdpa.follow(&folder, |name| {
            Ok(attribute::link(&folder.join(name))?.map(|target| owner::of_bus_device(&target)))
        })?;
        for (name, owner) in self.vdpa.iter() {
            let Some(owner) = owner else { continue };
            if !found.contains_key(owner) {
                let driver = drivers.remove(name);
                let vhost = attribute::first(&folder.join(name), VHOST_VDPA)?;
                found.insert(owner.clone(), VdpaDevice { name: name.clone(), driver, vhost });
            }
        }
        Ok(())
    }

    fn find_auxiliaries(
        &mut self,
        belongings: &mut Belongings,
    ) -> Result<BTreeMap<String, AuxDevice>, SysfsError> {
        let mut drivers = self.bindings::<AuxName>("bus/auxiliary/drivers")?;
        let folder = self.path("bus/auxiliary/devices");
        self.auxiliaries.follow(&folder, |name| auxiliary(&folder.join(name.as_str())))?;
        let found = self.auxiliaries.iter().map(|(name, known)| {
            let owner = Owner::Auxiliary(name.clone());
            let device = AuxDevice {
                name: name.as_str().to_owned(),
                kind: name.kind().to_owned(),
                parent: known.parent,
                sf_number: known.sf_number,
                driver: drivers.remove(name),
                netdevs: belongings.netdevs.remove(&owner).unwrap_or_default(),
                rdma: belongings.rdma.remove(&owner).unwrap_or_default(),
                vdpa: belongings.vdpa.remove(&owner),
            };
            (device.name.clone(), device)
        });
        Ok(found.collect())
    }

    fn find_functions(
        &mut self,
        belongings: &mut Belongings,
    ) -> Result<BTreeMap<PciAddress, PciFunction>, SysfsError> {
        let mut drivers = self.bindings::<PciAddress>("bus/pci/drivers")?;
        self.iommu_groups.follow(&self.path("kernel/iommu_groups"), |_| Ok(Some(())))?;
        let folder = self.path(PCI_DEVICES);
        let root = self.sysfs.root();
        let exists = self.functions.follow(&folder, |&address| function::known(root, address))?;
        if !exists {
            return Err(SysfsError::absent(&folder));
        }

        let mut positions = HashMap::new();
        let mut totals = HashMap::new();
        for (&pf, known) in self.functions.iter_mut() {
            known.find_group(root, pf, &self.iommu_groups)?;
            let Sriov::Physical(vfs) = &mut known.sriov else { continue };
            let function = RootedFunction::new(root, pf);
            vfs.follow(function.path(), |index| attribute::linked_address(&function.file(&index.name())))?;
            positions.extend(vfs.iter().map(|(index, &vf)| (vf, VfPosition { pf, index: index.0 })));
            totals.extend(function.total_vfs()?.map(|total| (pf, total)));
        }

        let mut found = BTreeMap::new();
        for (&address, known) in self.functions.iter_mut() {
            let owner = Owner::Function(address);
            let mut netdevs = belongings.netdevs.remove(&owner).unwrap_or_default();
            let role = match (positions.get(&address), &known.sriov) {
                (Some(&position), _) => FunctionRole::Virtual(position),
                (None, Sriov::Physical(vfs)) => {
                    // Only a PF that went after it was listed has none.
                    let Some(&total_vfs) = totals.get(&address) else { continue };
                    let vfs = vfs.iter().map(|(index, &vf)| (index.0, vf)).collect();
                    name_ports(root, &self.netdevs, &mut netdevs)?;
                    FunctionRole::Physical { total_vfs, vfs, uplinks: uplinks(&netdevs) }
                }
                (None, Sriov::Virtual) => continue,
                (None, Sriov::Plain) if function::is_vf(&RootedFunction::new(root, address))? => {
                    known.sriov = Sriov::Virtual;
                    continue;
                }
                (None, Sriov::Plain) => FunctionRole::Plain,
            };
            let function = PciFunction {
                address,
                vendor: known.identity.vendor,
                device: known.identity.device,
                class: known.identity.class,
                driver: drivers.remove(&address),
                numa_node: known.numa_node,
                iommu_group: known.iommu_group.map(|group| group.number),
                acpi_index: known.acpi_index,
                upstream: known.upstream.clone(),
                netdevs,
                rdma: belongings.rdma.remove(&owner).unwrap_or_default(),
                vdpa: belongings.vdpa.remove(&owner),
                role,
            };
            found.insert(address, function);
        }
        Ok(found)
    }

    /// The drivers of a bus by the devices bound to them: each driver has links to its devices (`driver_sysfs_add` in
    /// the kernel's drivers/base/dd.c).
    fn bindings<K: FromStr + Eq + Hash>(&self, drivers: &str) -> Result<HashMap<K, String>, SysfsError> {
        let folder = self.path(drivers);
        let mut bound = HashMap::new();
        for driver in attribute::entries(&folder)?.unwrap_or_default() {
            for device in attribute::entries(&folder.join(&driver))?.unwrap_or_default() {
                if let Ok(device) = device.parse() {
                    bound.insert(device, driver.clone());
                }
            }
        }
        Ok(bound)
    }

    fn path(&self, below: &str) -> PathBuf {
        self.sysfs.root().join(below)
    }
}

fn auxiliary(link: &Path) -> Result<Option<KnownAuxiliary>, SysfsError> {
    let Some(target) = attribute::link(link)? else { return Ok(None) };
    let Some(Owner::Function(parent)) = owner::of_bus_device(&target) else { return Ok(None) };
    let file = link.join("sfnum");
    let text = attribute::optional_text(&file)?;
    let number = |text: String| {
        text.parse().map_err(|_| SysfsError::malformed(&file, &text, "the number of a scalable function"))
    };
    Ok(Some(KnownAuxiliary { parent, sf_number: text.map(number).transpose()? }))
}

fn netdev(root: &Path, link: &Path) -> Result<Option<KnownNetdev>, SysfsError> {
    // `class/net` also has plain files, such as `bonding_masters`.
    let Some(target) = attribute::link(link)? else { return Ok(None) };
    let Some(owner) = owner::of_class_device(&target, "net") else {
        let (link_type, port_name) = (LinkType::Other(0), OnceLock::new());
        return Ok(Some(KnownNetdev { owner: None, link_type, port_name }));
    };
    let folder = attribute::destination(root, &target);
    let file = folder.join("type");
    let Some(text) = attribute::optional_text(&file)? else { return Ok(None) };
    let link_type = text.parse().map(LinkType::from_arphrd);
    let link_type =
        link_type.map_err(|_| SysfsError::malformed(&file, &text, "the number of a link type"))?;
    Ok(Some(KnownNetdev { owner: Some(owner), link_type, port_name: OnceLock::new() }))
}

/// Fills in the port names of a PF's netdevs.
fn name_ports(
    root: &Path,
    known: &Memory<String, KnownNetdev>,
    netdevs: &mut Vec<Netdev>,
) -> Result<(), SysfsError> {
    for mut netdev in mem::take(netdevs) {
        let Some(remembered) = known.get(&netdev.name).map(|known| &known.port_name) else { continue };
        let port_name = match remembered.get() {
            Some(port_name) => port_name.clone(),
            None => {
                let file = root.join("class/net").join(&netdev.name).join("phys_port_name");
                match attribute::optional_text(&file) {
                    Ok(port_name) => remembered.get_or_init(|| port_name).clone(),
                    // A netdev that is just being unregistered (`dev_isalive` in the kernel's net/core/net-sysfs.c).
                    Err(error) if error.is_invalid() => continue,
                    Err(error) => return Err(error),
                }
            }
        };
        netdev.port_name = port_name;
        netdevs.push(netdev);
    }
    Ok(())
}

/// Those of a PF's netdevs that stand for its port, see [`Sysfs::uplinks`].
fn uplinks(netdevs: &[Netdev]) -> Vec<String> {
    let stands = |netdev: &&Netdev| netdev.port_name.as_deref().is_none_or(names_a_port);
    netdevs.iter().filter(stands).map(|netdev| netdev.name.clone()).collect()
}

#[cfg(test)]
mod tests;
