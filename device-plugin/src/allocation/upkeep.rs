//! The files of devices that are somebody's stay, and come back after a boot; those of the others go.
//!
//! Refuses to know who holds which device, and when it is time.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use tracing::info;

use super::{Allocation, Allocator, AllocatorError, Delivery, allocate};
use crate::cdi::stale_specs;
use crate::config::PoolConfig;
use crate::device::{Device, DeviceId};
use crate::device_info::stale_device_infos;
use crate::resource::ResourceName;
use zerobridge_cni_sriov::documents::{Document, DocumentError};

/// Every device that the kubelet knows to be somebody's, with the resource under which it was given.
pub(super) type Held = BTreeSet<(ResourceName, DeviceId)>;

/// What became of the files that nobody needs any more.
#[derive(Debug, Default)]
pub struct Collected {
    /// How many are gone.
    pub removed: usize,
    /// How many devices of its resources are somebody's, so that their files stay.
    pub held: usize,
    /// What could not be listed or removed. The rest was.
    pub errors: Vec<AllocatorError>,
}

impl Allocator {
    /// Removes its device-info files and CDI specifications that are older than `grace` and of no device in `held`. The
    /// kubelet lists a pod only after the files of its devices were written, hence the grace. Blocks.
    pub fn collect(&self, held: &Held, now: SystemTime, grace: Duration) -> Collected {
        let mut collected = Collected::default();
        let listed = self.resources().and_then(|ours| {
            collected.held = held.iter().filter(|(pool, _)| ours.contains(pool)).count();
            Ok((ours, self.infos.list()?))
        });
        match listed {
            Ok((ours, existing)) => {
                let stale = stale_device_infos(existing, &ours, held, now, grace);
                collected.remove(&stale, |document| self.infos.remove(document));
            }
            Err(error) => collected.errors.push(error),
        }
        match self.specs.list() {
            Ok(existing) => {
                let stale = stale_specs(existing, held, now, grace);
                collected.remove(&stale, |document| self.specs.remove(document));
            }
            Err(error) => collected.errors.push(error.into()),
        }
        if collected.removed > 0 {
            info!(files = collected.removed, "removed the files of devices that nobody holds");
        }
        collected
    }

    /// Writes those files of devices that somebody holds that are missing. After a boot all are, while the kubelet starts
    /// the pods of before with the answers of before, and asks nothing. Blocks.
    ///
    /// The errors are of single devices; the files of the others are there.
    pub fn restore(&self, pool: &PoolConfig, held: &[&Device], delivery: Delivery) -> Vec<AllocatorError> {
        // Those that are there may be from before there was a list.
        let noted = if held.is_empty() { Ok(()) } else { self.note(&pool.resource) };
        let restored = held.iter().map(|device| self.restore_one(pool, device, delivery));
        std::iter::once(noted).chain(restored).filter_map(Result::err).collect()
    }

    fn restore_one(
        &self,
        pool: &PoolConfig,
        device: &Device,
        delivery: Delivery,
    ) -> Result<(), AllocatorError> {
        let requested = [(device, self.nodes(device)?)];
        let Allocation { infos, specs, .. } = allocate(pool, &requested, delivery)?;
        let resource = &pool.resource;
        for (id, document) in infos.iter().filter(|(id, _)| !self.infos.has(resource, id)) {
            self.infos.write(resource, id, document)?;
            info!(pool = %resource, device = %id, "wrote the missing device-info file of a device in use");
        }
        for (id, spec) in specs.iter().filter(|(id, _)| !self.specs.has(resource, id)) {
            self.specs.write(resource, id, spec)?;
            info!(pool = %resource, device = %id, "wrote the missing CDI specification of a device in use");
        }
        Ok(())
    }
}

impl Collected {
    fn remove(&mut self, stale: &[Document], remove: impl Fn(&Document) -> Result<(), DocumentError>) {
        for document in stale {
            match remove(document) {
                Ok(()) => self.removed += 1,
                Err(error) => self.errors.push(error.into()),
            }
        }
    }
}
