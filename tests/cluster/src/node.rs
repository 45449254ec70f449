//! A node as far as addresses are concerned: a folder with a ledger, and containers that lease from it.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde_json::json;
use thiserror::Error;
use zerobridge_device_plugin::IpBlocks;
use zerobridge_ipam::{IpamError, LeaseRequest, PoolConfig, lease, release};
use zerobridge_ledger::{Ledger, LedgerError, Owner, Pod};

const NETWORK: &str = "pods";

/// Why a node could not do something.
#[derive(Debug, Error)]
pub enum NodeError {
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// No address.
    #[error(transparent)]
    Ipam(#[from] Box<IpamError>),
    /// The configuration.
    #[error(transparent)]
    Config(#[from] zerobridge_ipam::PoolError),
}

impl From<IpamError> for NodeError {
    fn from(error: IpamError) -> Self {
        Self::Ipam(Box::new(error))
    }
}

/// A node.
#[derive(Clone, Debug)]
pub struct Node {
    name: String,
    folder: PathBuf,
    pool: String,
}

impl Node {
    /// A node with its folder in `folder`, that leases from `pool`.
    #[must_use]
    pub fn new(name: &str, folder: &Path, pool: &str) -> Self {
        Self { name: name.to_owned(), folder: folder.join(name), pool: pool.to_owned() }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The agent that claims blocks for it.
    #[must_use]
    pub fn agent(&self) -> IpBlocks {
        IpBlocks {
            pools: vec![self.pool.clone()],
            node: self.name.clone(),
            state_dir: self.folder.join("state"),
            run_dir: self.folder.join("run"),
            procfs: "/proc".into(),
            boot_id: "boot".to_owned(),
        }
    }

    /// What the runtime does when a container starts, by the code of the CNI plugin.
    ///
    /// # Errors
    /// [`NodeError`].
    pub fn add(&self, container: &str) -> Result<IpAddr, NodeError> {
        self.add_for(container, None)
    }

    /// The same, for the pod of this name in the namespace `default`.
    ///
    /// # Errors
    /// [`NodeError`].
    pub fn add_pod(&self, container: &str, pod: &str) -> Result<IpAddr, NodeError> {
        let (namespace, name) = ("default".to_owned(), pod.to_owned());
        self.add_for(container, Some(Pod { namespace, name, uid: None }))
    }

    fn add_for(&self, container: &str, pod: Option<Pod>) -> Result<IpAddr, NodeError> {
        let state_dir = self.folder.join("state");
        let config = json!({"mode": "cluster", "pool": self.pool, "stateDir": state_dir});
        let pool = PoolConfig::parse(&config, None)?;
        let request = LeaseRequest {
            owner: owner(container),
            pod,
            device: None,
            mac: None,
            vlan: None,
            rdma: None,
            requested: Vec::new(),
            now: SystemTime::now().into(),
            boot_id: "boot".to_owned(),
        };
        let mut ledger = self.ledger()?;
        let mut transaction = ledger.begin()?;
        let leased = lease(&mut transaction, NETWORK, &pool, &request)?;
        transaction.commit()?;
        let mut addresses = leased.ips.iter().map(|ip| ip.address.addr());
        addresses.next().ok_or_else(|| IpamError::UnknownPool { pool: self.pool.clone() }.into())
    }

    /// What the runtime does when a container ends.
    ///
    /// # Errors
    /// [`NodeError`].
    pub fn del(&self, container: &str) -> Result<(), NodeError> {
        let mut ledger = self.ledger()?;
        let mut transaction = ledger.begin()?;
        release(&mut transaction, &owner(container), NETWORK, SystemTime::now().into())?;
        Ok(transaction.commit()?)
    }

    /// How many blocks it may lease from.
    ///
    /// # Errors
    /// [`NodeError::Ledger`].
    pub fn blocks(&self) -> Result<usize, NodeError> {
        Ok(self.ledger()?.blocks_of(&self.pool)?.len())
    }

    /// Its ledger.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn ledger(&self) -> Result<Ledger, LedgerError> {
        Ledger::open(&self.folder.join("state"))
    }
}

fn owner(container: &str) -> Owner {
    Owner { container_id: container.to_owned(), ifname: "eth0".to_owned() }
}
