//! The node's configuration: which devices form which pool, and by which legs the node itself is in the pods' networks.
//!
//! Completely checked before anything is done with it, whichever of three formats it is in. `docs/device-plugin.md` is the
//! reference of the project's own, `docs/migration.md` tells what becomes of the other two. Refuses to know which devices
//! there are.

mod document;
mod error;
mod file;
mod glob;
mod leg;
mod names;
mod own;
mod pool;
mod pool_rdma;
mod print;
mod rdma_shared;
mod selectors;
mod sriov_network;
mod watch;

pub use error::ConfigError;
pub use file::{ConfigFile, Format, NodeConfig, NodeIdentity, Notice};
pub use leg::{LegAddresses, LegConfig, LegKind, PortName};
pub use pool::{CdiMode, MOST_SHARES, PoolConfig, PoolKind, PoolRdma};
pub(crate) use watch::ConfigWatch;

/// The pools of one node, in the order of the file: the first pool that takes a device keeps it. And its legs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// The pools. None on a node that no part of the file is for.
    pub pools: Vec<PoolConfig>,
    /// The node's own legs in the pods' networks.
    pub legs: Vec<LegConfig>,
    /// How device nodes reach containers.
    pub cdi: CdiMode,
}

impl Config {
    /// Reads and checks the content of a file for a node without a name or labels: what stands in `pools`.
    ///
    /// # Errors
    ///
    /// As for [`ConfigFile::parse`].
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        Ok(ConfigFile::parse(text, None)?.for_node(&NodeIdentity::default()).config)
    }
}

#[cfg(test)]
mod tests;
