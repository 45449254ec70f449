//! What can go wrong, each with the object it went wrong at.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;
use zerobridge_proto::{Mac, PciAddress};

use crate::Owner;

/// A failure of the ledger.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LedgerError {
    /// The directory or a file in it could not be created or opened.
    #[error("{} cannot be opened; its directory must be on a local disk and writable for root", path.display())]
    Open {
        /// The directory or file.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The file is a database of some other program, or no database.
    #[error("{} is not a ledger of Zerobridge; move it away, and a new ledger is made in its place", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The file is damaged.
    #[error("{} is damaged; `zbctl ledger rebuild` makes a new one from what is left of it", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What SQLite found.
        #[source]
        source: StorageError,
    },
    /// The file knows of fewer transactions than were made.
    #[error(
        "{} knows of {found} transactions, and {made} were made: its -wal file was deleted or damaged, or an older copy was put \
         in its place; `zbctl ledger rebuild` finds out which addresses are in use",
        path.display()
    )]
    Behind {
        /// The file.
        path: PathBuf,
        /// How many it knows of.
        found: i64,
        /// How many were made, by what `ledger.lock` beside it says.
        made: i64,
    },
    /// Somebody put another file in its place after it had been opened.
    #[error("{} was replaced while it was open; open it again", path.display())]
    Replaced {
        /// The file.
        path: PathBuf,
    },
    /// The file was written by a newer version of this program.
    #[error("{} has schema version {found}, and this program knows up to {known}; install the newer version again", path.display())]
    NewerSchema {
        /// The file.
        path: PathBuf,
        /// The version in the file.
        found: i64,
        /// The newest version known here.
        known: i64,
    },
    /// Others held the ledger for too long.
    #[error("{} was held by others for {} ms; find the holder with `fuser {}`", path.display(), waited.as_millis(), path.display())]
    Busy {
        /// The file that the holder has locked.
        path: PathBuf,
        /// How long this process waited.
        waited: Duration,
    },
    /// The device has an attachment already.
    #[error("device {device} is attached to {holder} on network {network}")]
    DeviceHeld {
        /// The device asked for.
        device: PciAddress,
        /// Whose it is.
        holder: Owner,
        /// On which network.
        network: String,
    },
    /// The owner has an attachment already.
    #[error("{owner} has device {device} attached already")]
    OwnerAttached {
        /// The owner asked for.
        owner: Owner,
        /// Its device.
        device: PciAddress,
    },
    /// The address is leased, or was and rests.
    #[error("{address} of network {network} is {} {holder}", if *resting { "resting after" } else { "leased to" })]
    AddressHeld {
        /// The network.
        network: String,
        /// The address asked for.
        address: IpAddr,
        /// Who holds it, or held it last.
        holder: Owner,
        /// Whether it was released and rests.
        resting: bool,
    },
    /// The address is set aside, because a foreign host has it.
    #[error("{address} of network {network} is set aside: {mac} has it on the link")]
    SetAside {
        /// The network.
        network: String,
        /// The address asked for.
        address: IpAddr,
        /// The foreign host's Ethernet address.
        mac: Mac,
    },
    /// A value that the schema does not take.
    #[error("{field} is {value}, which cannot be recorded; {rule}")]
    Invalid {
        /// The field.
        field: &'static str,
        /// What stood in it.
        value: String,
        /// What is allowed.
        rule: &'static str,
    },
    /// A row whose text cannot be understood: somebody edited the file.
    #[error("table {table} holds {column} \"{value}\", which cannot be read; correct it with sqlite3")]
    UnreadableRow {
        /// The table.
        table: &'static str,
        /// The column.
        column: &'static str,
        /// What stands in it.
        value: String,
    },
    /// An earlier step of this transaction failed half-way, so it cannot be committed.
    #[error("the transaction on {} failed earlier and is rolled back", path.display())]
    Broken {
        /// The file.
        path: PathBuf,
    },
    /// SQLite failed: a full disk, a file system gone read-only.
    #[error("{action} in {} failed", path.display())]
    Storage {
        /// The file.
        path: PathBuf,
        /// What was being done.
        action: &'static str,
        /// SQLite's answer.
        #[source]
        source: StorageError,
    },
}

/// SQLite's own account of a failure.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct StorageError(pub(crate) rusqlite::Error);
