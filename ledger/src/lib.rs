//! The node's durable promises: which device is attached to which container, which address is leased to it, which
//! blocks of cluster-wide pools are the node's to lease from, and which pods have addresses of their own.
//!
//! One SQLite file, written by many short processes and one daemon. What must never happen twice (a device, an owner,
//! an address) is forbidden by the schema, and what belongs together is written in one transaction, so a process may be
//! killed between any two instructions.
//!
//! The ledger knows neither netlink nor CNI, has no clock, and picks nothing: the time, the boot and every choice come
//! from the caller.
//!
//! ```
//! # use zerobridge_ledger::{Ledger, Lease, Owner, UnixSeconds};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let directory = tempfile::tempdir()?;
//! let mut ledger = Ledger::open(directory.path())?;
//! let owner = Owner { container_id: "c1".into(), ifname: "eth0".into() };
//!
//! let mut transaction = ledger.begin()?;
//! transaction.insert_lease(&Lease {
//!     network: "blue".into(),
//!     address: "10.0.0.5".parse()?,
//!     owner: owner.clone(),
//!     pod: None,
//!     device: None,
//!     mac: None,
//!     vlan: None,
//!     rdma: None,
//!     boot_id: "b7d1".into(),
//!     created_at: UnixSeconds(1_700_000_000),
//! })?;
//! transaction.commit()?;
//!
//! assert_eq!(ledger.leases_of(&owner)?.len(), 1);
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

mod address;
mod attachment;
mod audit;
mod block;
mod chunk;
mod claim;
mod cursor;
mod error;
#[cfg(test)]
mod fixture;
mod lease;
mod log;
mod open;
mod owner;
mod queue;
mod records;
mod removal;
mod salvage;
mod schema;
mod set_aside;
mod transaction;

pub use attachment::{Attachment, Pod, Sandbox};
pub use audit::Discrepancy;
pub use block::{Block, BlockUse, PoolRecord, Removal};
pub use chunk::Chunk;
pub use claim::ClaimedPod;
pub use error::{LedgerError, StorageError};
pub use lease::{Lease, Resting};
pub use open::Ledger;
pub use owner::{Owner, UnixSeconds};
pub use records::Records;
pub use removal::REPLACED;
pub use salvage::{Salvage, Table};
pub use schema::SCHEMA_VERSION;
pub use set_aside::SetAside;
pub use transaction::Transaction;
