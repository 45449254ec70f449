//! The one place where an allocation touches files: reads which nodes a device has now, writes what other programs read.

use std::path::PathBuf;

use thiserror::Error;
use tracing::{debug, warn};
use zerobridge_kernel::{DevFolder, Sysfs, SysfsError};
use zerobridge_proto::deviceplugin::ContainerAllocateResponse;

use super::{Allocation, AllocationError, Delivery, Nodes, allocate};
use crate::cdi::{CdiError, CdiFolder};
use crate::config::PoolConfig;
use crate::device::{Device, DeviceId};
use crate::device_info::DeviceInfoFolder;
use zerobridge_cni_sriov::documents::DocumentError;

/// Gives devices to containers.
#[derive(Debug)]
pub struct Allocator {
    sysfs: Sysfs,
    dev: DevFolder,
    pub(super) infos: DeviceInfoFolder,
    pub(super) specs: CdiFolder,
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
    /// Its CDI specification was not written.
    #[error(transparent)]
    Cdi(#[from] CdiError),
}

impl Allocator {
    /// Reads `sysfs` and `dev`, and writes device-info files and CDI specifications to these folders.
    pub fn new(
        sysfs: Sysfs,
        dev: DevFolder,
        device_infos: impl Into<PathBuf>,
        cdi_specs: impl Into<PathBuf>,
    ) -> Self {
        Self { sysfs, dev, infos: DeviceInfoFolder::new(device_infos), specs: CdiFolder::new(cdi_specs) }
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
