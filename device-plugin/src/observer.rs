//! One look at the machine: sysfs, the host's network, and what only drivers know.
//!
//! Blocking, because drivers may sleep when they are asked. What changes without an event (devlink, open files, error
//! counters) is asked only in a thorough look, and remembered in between. Refuses to judge.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use thiserror::Error;
use zerobridge_kernel::{
    Devlink, DevlinkError, FunctionRole, HostNetwork, Machine, NetlinkError, OpenFilesError, RtnlError,
    RtnlSocket, Scanner, Sysfs, SysfsError, open_files,
};
use zerobridge_proto::PciAddress;

use crate::config::PoolConfig;
use crate::health::{Check, Policy};
use crate::pool::Surroundings;
use crate::rdma::{RdmaNode, RdmaObserver};

/// Where VFIO groups are for those who have them open, wherever this program sees device nodes: `/proc` shows their own paths.
const VFIO: &str = "/dev/vfio";

/// Where the kernel says what it is, and whether it is this machine's.
#[derive(Clone, Debug)]
pub struct Roots {
    /// Where sysfs is mounted, usually `/sys`. It must show the network namespace of the host.
    pub sysfs: PathBuf,
    /// Where procfs is mounted, usually `/proc`. It should show the processes of the host.
    pub procfs: PathBuf,
    /// The device nodes, usually `/dev`.
    pub dev: PathBuf,
}

/// Reads the machine.
#[derive(Debug)]
pub struct Observer {
    sysfs: Sysfs,
    procfs: PathBuf,
    scanner: Scanner,
    /// `None` if the sysfs is a tree of files that stands for another machine.
    network: Option<RtnlSocket>,
    devlink: Option<Devlink>,
    rdma: RdmaObserver,
    slow: Slow,
}

/// What a look has to find out beside sysfs and the network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    ddp_profiles: bool,
    rdma_enabled: bool,
    devlink_health: bool,
    aer_fatal: bool,
    rdma: bool,
}

/// What is remembered between thorough looks.
#[derive(Clone, Debug, Default)]
struct Slow {
    ddp_profiles: BTreeMap<PciAddress, String>,
    rdma_enabled: BTreeMap<PciAddress, bool>,
    open_vfio_groups: Vec<u32>,
    failed_reporters: BTreeMap<PciAddress, Vec<String>>,
    aer_fatal: BTreeMap<PciAddress, u64>,
}

/// A look that failed.
#[derive(Debug, Error)]
pub enum ObserveError {
    /// sysfs.
    #[error("cannot read the devices of this machine")]
    Devices(#[from] SysfsError),
    /// The host's links, addresses and routes.
    #[error("cannot read what the host uses its network interfaces for")]
    Network(#[from] RtnlError),
    /// devlink.
    #[error("cannot ask a driver through devlink")]
    Devlink(#[from] DevlinkError),
    /// procfs.
    #[error("cannot read which VFIO groups are open")]
    OpenFiles(#[from] OpenFilesError),
    /// The RDMA subsystem.
    #[error("cannot ask the RDMA subsystem")]
    Rdma(#[source] NetlinkError),
}

impl Needs {
    /// What the selectors and checks of these pools depend on.
    #[must_use]
    pub fn of(pools: &[PoolConfig]) -> Self {
        let mut needs = Self::default();
        for pool in pools {
            let checks = |check| pool.health.of(check) != Policy::Off;
            needs.devlink_health |= checks(Check::DevlinkHealth);
            needs.aer_fatal |= checks(Check::AerFatal);
            needs.rdma |= pool.gives_hardware_rdma() || pool.gives_soft_rdma();
            for selectors in &pool.selectors {
                needs.ddp_profiles |= !selectors.ddp_profiles.is_empty();
                needs.rdma_enabled |= selectors.is_rdma;
            }
        }
        needs
    }
}

impl Observer {
    /// An observer of the machine behind `roots`.
    ///
    /// With another sysfs than the machine's own, that tree stands for the whole machine, and netlink is not asked.
    ///
    /// # Errors
    /// [`ObserveError::Network`], [`ObserveError::Devlink`] if the kernel cannot be spoken to.
    pub fn open(roots: &Roots) -> Result<Self, ObserveError> {
        let real = roots.sysfs == Path::new("/sys");
        let sysfs = Sysfs::new(&roots.sysfs);
        Ok(Self {
            scanner: Scanner::new(sysfs.clone()),
            sysfs,
            procfs: roots.procfs.clone(),
            network: if real { Some(RtnlSocket::open()?) } else { None },
            devlink: if real { Devlink::open()? } else { None },
            rdma: RdmaObserver::new(roots, real),
            slow: Slow::default(),
        })
    }

    /// Looks. With `thorough`, also at what changes without an event.
    ///
    /// # Errors
    /// [`ObserveError`]; nothing is half-known then.
    pub fn look(&mut self, needs: Needs, thorough: bool) -> Result<Surroundings, ObserveError> {
        let machine = self.scanner.scan()?;
        let host = match &mut self.network {
            Some(network) => network.host_network()?,
            None => HostNetwork::default(),
        };
        let rdma = if needs.rdma {
            self.rdma.look(&machine, thorough).map_err(ObserveError::Rdma)?
        } else {
            RdmaNode::default()
        };
        if thorough {
            self.slow = self.look_slowly(needs, &machine)?;
        }
        let Slow { ddp_profiles, rdma_enabled, open_vfio_groups, failed_reporters, aer_fatal } =
            self.slow.clone();
        Ok(Surroundings {
            machine,
            host,
            ddp_profiles,
            rdma_enabled,
            open_vfio_groups,
            failed_reporters,
            aer_fatal,
            rdma,
            legs: BTreeMap::new(),
        })
    }

    fn look_slowly(&mut self, needs: Needs, machine: &Machine) -> Result<Slow, ObserveError> {
        let mut slow = Slow::default();
        if machine.functions.values().any(|function| function.driver.as_deref() == Some("vfio-pci")) {
            slow.open_vfio_groups = self.open_vfio_groups()?;
        }
        for (&address, function) in &machine.functions {
            if !function.is_network_controller() {
                continue;
            }
            let is_vf = matches!(function.role, FunctionRole::Virtual(_));
            if needs.aer_fatal
                && let Some(count) = self.sysfs.aer_fatal_errors(address)
            {
                slow.aer_fatal.insert(address, count);
            }
            let Some(devlink) = &mut self.devlink else { continue };
            if needs.rdma_enabled
                && let Some(enabled) = devlink.param_flag(address, "enable_rdma")?
            {
                slow.rdma_enabled.insert(address, enabled);
            }
            if is_vf {
                continue;
            }
            if needs.ddp_profiles
                && let Some(profile) = devlink.ddp_profile(address)?
            {
                slow.ddp_profiles.insert(address, profile);
            }
            if needs.devlink_health {
                let reporters = devlink.health(address)?;
                let failed =
                    reporters.into_iter().filter(|reporter| reporter.failed).map(|reporter| reporter.name);
                slow.failed_reporters.insert(address, failed.collect());
            }
        }
        Ok(slow)
    }

    /// The groups that any process has open; whether it is in a pod is not known here.
    fn open_vfio_groups(&self) -> Result<Vec<u32>, ObserveError> {
        let open = open_files(&self.procfs, Path::new(VFIO))?;
        let number = |path: &PathBuf| path.file_name()?.to_str()?.trim_start_matches("noiommu-").parse().ok();
        Ok(open.keys().filter_map(number).collect())
    }
}
