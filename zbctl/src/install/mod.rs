//! `zbctl node`: the programs and networks on a node, put there and taken off again.
//!
//! What is so is written down before it is made so, in `installed.json` beside the ledger: which paths are ours, with which
//! content, and where that is kept what stood there before. So each of the commands can be killed anywhere, and the next one
//! goes on from what it finds. `plan` decides about one file by values, `file` acts, `record` remembers, `promises` tells what
//! the node still owes to pods. Refuses to start, stop or configure anything else on the node.

mod file;
mod network;
mod plan;
mod promises;
mod put;
mod record;
mod remains;
mod status;
mod stay;
mod take;
#[cfg(test)]
mod tests;

use std::io;
use std::path::PathBuf;

use thiserror::Error;
use zerobridge_cni_sriov::network_file::NetworkFileError;
use zerobridge_kernel::{BootIdError, SysfsError};
use zerobridge_ledger::LedgerError;

use crate::kubelet::KubeletError;
pub(crate) use put::run as install;
pub(crate) use status::run as status;
pub(crate) use take::run as uninstall;

/// What keeps a command from its end.
#[derive(Debug, Error)]
pub(crate) enum InstallError {
    /// A program that is to be installed.
    #[error("cannot read {}, which is to be installed; --from names the folder of the programs", path.display())]
    Source { path: PathBuf, source: io::Error },
    /// A network that is to be installed.
    #[error("cannot read {}, named by --network", path.display())]
    Network { path: PathBuf, source: io::Error },
    /// A network that no runtime would read.
    #[error("{} is no name under which a runtime looks for networks; let it end with .conflist, .conf or .json", path.display())]
    NetworkName { path: PathBuf },
    /// Two networks that would go to one place.
    #[error("two of the files named by --network are called {name}; the second would replace the first")]
    SameNetwork { name: String },
    /// A network that the plugins would refuse.
    #[error("{} cannot be installed", path.display())]
    NetworkContent { path: PathBuf, source: NetworkFileError },
    /// What stands at a path.
    #[error("cannot read {}", path.display())]
    Look { path: PathBuf, source: io::Error },
    /// Something could not be written.
    #[error("cannot write {}; {}", path.display(), file::remedy(path, source))]
    Write { path: PathBuf, source: io::Error },
    /// Something could not be removed.
    #[error("cannot remove {}", path.display())]
    Remove { path: PathBuf, source: io::Error },
    /// What is remembered cannot be understood.
    #[error("{} cannot be understood; it is written by `zbctl node install` alone", path.display())]
    Record { path: PathBuf, source: serde_json::Error },
    /// What is remembered was written by a newer version.
    #[error("{} has format {found}, and this zbctl knows {known}; use the one that was installed last", path.display())]
    RecordFormat { path: PathBuf, found: u32, known: u32 },
    /// Another installation.
    #[error("another `zbctl node` has held {} for {seconds} s", path.display())]
    Busy { path: PathBuf, seconds: u64 },
    /// Signals.
    #[error("cannot wait for SIGTERM")]
    Stay(#[source] io::Error),
    /// The boot.
    #[error(transparent)]
    BootId(#[from] BootIdError),
    /// The machine.
    #[error("cannot read the devices of this machine")]
    Machine(#[from] SysfsError),
    /// The kubelet's folder.
    #[error(transparent)]
    Kubelet(#[from] KubeletError),
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The node's legs.
    #[error(transparent)]
    Legs(#[from] zerobridge_device_plugin::LegsError),
}
