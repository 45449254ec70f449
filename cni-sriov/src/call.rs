//! One call of the plugin: what the runtime said, where things are, and which moment it is.

use std::ffi::OsString;
use std::time::Duration;

use zerobridge_kernel::Sysfs;
use zerobridge_ledger::{Ledger, Owner, Pod, UnixSeconds};
use zerobridge_proto::cni::{CniError, Environment, NetworkConfig};

use crate::config::{Ipam, Network, Paths, delegated_networks};
use crate::delegate::Delegate;
use crate::failure::ledger_error;
use crate::repairer::Repairer;

/// How long a VF that another call is changing is waited for: longer than any single call takes, shorter than the
/// minutes after which a runtime gives up.
const LOCK_PATIENCE: Duration = Duration::from_secs(30);

/// Everything that an operation may depend on.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    /// The environment variables.
    pub environment: &'a Environment,
    /// All environment variables, as a delegated plugin gets them.
    pub variables: &'a [(OsString, OsString)],
    /// Standard input.
    pub config: &'a NetworkConfig,
    /// The same before it was read, as a delegated plugin gets it.
    pub stdin: &'a [u8],
    /// Roots and directories.
    pub paths: Paths,
    /// The kernel's `boot_id`.
    pub boot_id: String,
    /// The time of the call.
    pub now: UnixSeconds,
}

impl Call<'_> {
    /// The machine's PCI functions.
    pub(crate) fn sysfs(&self) -> Sysfs {
        Sysfs::new(self.paths.sysfs.clone())
    }

    /// The interface that the call is about.
    pub(crate) fn owner(&self) -> Owner {
        Owner { container_id: self.environment.container_id.clone(), ifname: self.environment.ifname.clone() }
    }

    /// The pod, when the runtime named one.
    pub(crate) fn pod(&self) -> Option<Pod> {
        zerobridge_ipam::pod_of(&self.environment.args)
    }

    /// The IPAM plugin of `network`, when that is another program.
    pub(crate) fn delegate(&self, network: &Network) -> Option<Delegate> {
        match &network.ipam {
            Some(Ipam::Delegated(plugin)) => Some(Delegate::of_call(self, &network.name, plugin)),
            Some(Ipam::Own(_)) | None => None,
        }
    }

    /// Every such program that the configuration names, whatever else is wrong with it.
    pub(crate) fn delegates(&self) -> impl Iterator<Item = Delegate> {
        let named = delegated_networks(self.config).into_iter();
        named.map(|(network, plugin)| Delegate::of_call(self, &network, &plugin))
    }

    /// Opens the ledger.
    pub(crate) fn ledger(&self) -> Result<Ledger, CniError> {
        Ledger::open(&self.paths.state_dir).map_err(ledger_error)
    }

    /// What locks VFs and ends attachments for this call.
    pub(crate) fn repairer(&self) -> Repairer {
        Repairer {
            sysfs: self.sysfs(),
            run_dir: self.paths.run_dir.clone(),
            cdi_dir: self.paths.cdi_dir.clone(),
            boot_id: self.boot_id.clone(),
            on_behalf_of: format!("{} of {}", self.environment.command, self.owner()),
            patience: LOCK_PATIENCE,
        }
    }
}
