//! The one place where an allocation touches files: reads which nodes a device has now, writes what other programs read.

use std::path::PathBuf;

use thiserror::Error;
use tracing::{debug, warn};
use zerobridge_kernel::{DevFolder, Sysfs, SysfsError};
use zerobridge_proto::deviceplugin::ContainerAllocateResponse;

use super::{Allocation, AllocationError, Delivery, Nodes, allocate};
use crate::boot_list::{BootList, BootListError};
use crate::cdi::{CdiError, CdiFolder};
use crate::config::PoolConfig;
use crate::device::{Device, DeviceId};
use crate::device_info::DeviceInfoFolder;
use crate::resource::ResourceName;
use zerobridge_cni_sriov::documents::DocumentError;

/// The list of the resources that have device-info files. Configurations change, and the name of such a file does not tell
/// which program wrote it.
pub(crate) const RESOURCES: &str = "resources";

/// Gives devices to containers.
#[derive(Debug)]
pub struct Allocator {
    sysfs: Sysfs,
    dev: DevFolder,
    pub(super) infos: DeviceInfoFolder,
    pub(super) specs: CdiFolder,
    resources: BootList,
}

/// A device that was not given.
#[derive(Debug, Error)]
pub enum AllocatorError {
    /// The request cannot be answered.
    #[error(transparent)]
    Allocation(#[from] AllocationError),
    /// Its device nodes are not known.
    #[error("cannot read which device nodes {device} has")]
    Nodes {
        /// The device.
        device: DeviceId,
        /// Why not.
        #[source]
        source: SysfsError,
    },
    /// Its device-info file was not written.
    #[error(transparent)]
    DeviceInfo(#[from] DocumentError),
    /// Nobody would know whose the device-info file is.
    #[error(transparent)]
    Resources(#[from] BootListError),
    /// Its CDI specification was not written.
    #[error(transparent)]
    Cdi(#[from] CdiError),
}

impl Allocator {
    /// Reads `sysfs` and `dev`, writes device-info files and CDI specifications to these folders, and to `run_dir` which of
    /// the former are its own.
    pub fn new(
        sysfs: Sysfs,
        dev: DevFolder,
        device_infos: impl Into<PathBuf>,
        cdi_specs: impl Into<PathBuf>,
        run_dir: impl Into<PathBuf>,
    ) -> Self {
        Self {
            sysfs,
            dev,
            infos: DeviceInfoFolder::new(device_infos),
            specs: CdiFolder::new(cdi_specs),
            resources: BootList::new(run_dir, RESOURCES),
        }
    }

    /// The resources whose devices it has given since the boot, whatever the configuration says by now.
    ///
    /// # Errors
    ///
    /// [`AllocatorError::Resources`].
    pub(super) fn resources(&self) -> Result<Vec<ResourceName>, AllocatorError> {
        let names = self.resources.names()?;
        let parse =
            |name: &String| name.split_once('/').map(|(prefix, name)| ResourceName::new(prefix, name));
        Ok(names.iter().filter_map(parse).filter_map(Result::ok).collect())
    }

    pub(super) fn note(&self, pool: &ResourceName) -> Result<(), AllocatorError> {
        Ok(self.resources.add(&pool.to_string()).map(drop)?)
    }

    /// What a container needs that was given these devices. All files are there before this returns; doing it again only
    /// writes them again. Blocks.
    ///
    /// # Errors
    ///
    /// [`AllocatorError`], which names the device or the file. Files of some of the devices may be there then; as nobody
    /// holds those, they are collected.
    pub fn give(
        &self,
        pool: &PoolConfig,
        devices: &[&Device],
        delivery: Delivery,
    ) -> Result<ContainerAllocateResponse, AllocatorError> {
        let requested = devices.iter().map(|&device| Ok((device, self.nodes(device)?)));
        let requested = requested.collect::<Result<Vec<_>, AllocatorError>>()?;
        let Allocation { response, infos, specs, companions } = allocate(pool, &requested, delivery)?;
        for (device, companions) in companions {
            let functions = companions.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
            warn!(pool = %pool.resource, %device, functions, "the IOMMU group has other functions, which the container reaches too");
        }
        if !infos.is_empty() {
            self.note(&pool.resource)?;
        }
        for (device, info) in &infos {
            self.infos.write(&pool.resource, device, info)?;
        }
        for (device, spec) in &specs {
            self.specs.write(&pool.resource, device, spec)?;
        }
        debug!(pool = %pool.resource, infos = infos.len(), specs = specs.len(), "files written");
        Ok(response)
    }

    pub(super) fn nodes(&self, device: &Device) -> Result<Nodes, AllocatorError> {
        Nodes::read(&self.sysfs, &self.dev, &device.id.hardware)
            .map_err(|source| AllocatorError::Nodes { device: device.id.clone(), source })
    }
}
