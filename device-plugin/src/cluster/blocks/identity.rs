//! Which ledger this node has, and that one process alone acts for it.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::time::sleep;
use tracing::{info, warn};
use zerobridge_blocks::Holder;
use zerobridge_ledger::{Ledger, LedgerError};
use zerobridge_proto::chain;

use super::IpBlocks;
use crate::blocking::blocking;
use crate::boot_list::{BootList, BootListError};

/// How often what did not work is tried again.
const RETRY: Duration = Duration::from_secs(2);
/// The file that the process holds which acts for the ledger.
pub(crate) const LOCK: &str = "blocks.lock";
/// The list of the ledgers of this boot.
pub(crate) const INCARNATIONS: &str = "incarnations";

/// Who acts.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    pub(super) holder: Holder,
    pub(super) of_this_boot: BTreeSet<String>,
    /// Held for as long as this process acts: of two agents of one ledger, one could enter a block that the other returns.
    pub(super) lock: Arc<File>,
}

#[derive(Debug, Error)]
enum IdentityError {
    #[error("cannot {action} {}", path.display())]
    File {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error(transparent)]
    OfThisBoot(#[from] BootListError),
}

/// Waits until no other process acts for the ledger. `None` only if the runtime ends.
pub(super) async fn identify(settings: &IpBlocks) -> Option<Identity> {
    let mut told = false;
    loop {
        let settings = settings.clone();
        match blocking(move || attempt(&settings)).await {
            Ok(Some(identity)) => return Some(identity),
            Ok(None) if !told => {
                info!("another process claims blocks for this node; waiting until it ends");
                told = true;
            }
            Ok(None) => {}
            Err(error) => warn!(error = chain(&error), "cannot claim blocks yet"),
        }
        sleep(RETRY).await;
    }
}

fn attempt(settings: &IpBlocks) -> Result<Option<Identity>, IdentityError> {
    let mut ledger = Ledger::open(&settings.state_dir)?;
    let Some(lock) = lock(&settings.state_dir.join(LOCK))? else { return Ok(None) };
    let uuid = settings.procfs.join("sys/kernel/random/uuid");
    let fresh = fs::read_to_string(&uuid).map_err(at("read", &uuid))?;
    let mut transaction = ledger.begin()?;
    let incarnation = transaction.name_incarnation(fresh.trim())?;
    transaction.commit()?;
    // Before the first request, so that no object ever names a ledger of this boot that is not noted.
    let of_this_boot = BootList::new(&settings.run_dir, INCARNATIONS).add(&incarnation)?;
    let holder = Holder { node: settings.node.clone(), incarnation, boot_id: settings.boot_id.clone() };
    Ok(Some(Identity { holder, of_this_boot, lock: lock.into() }))
}

fn lock(path: &Path) -> Result<Option<File>, IdentityError> {
    let mut options = OpenOptions::new();
    let file =
        options.read(true).write(true).create(true).truncate(false).open(path).map_err(at("open", path))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(source)) => Err(at("lock", path)(source)),
    }
}

fn at(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> IdentityError {
    let path = path.to_owned();
    move |source| IdentityError::File { action, path, source }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use zerobridge_blocks::Pool;

    use super::*;
    use crate::cluster::blocks::book::Book;

    fn settings(folder: &Path) -> IpBlocks {
        IpBlocks {
            pools: Vec::new(),
            node: "n1".to_owned(),
            state_dir: folder.join("state"),
            run_dir: folder.join("run"),
            procfs: "/proc".into(),
            boot_id: "b1".to_owned(),
        }
    }

    #[test]
    fn nobody_else_acts_while_a_stopped_agent_still_writes() {
        let folder = tempfile::tempdir().unwrap();
        let settings = settings(folder.path());
        let Identity { lock, .. } = attempt(&settings).unwrap().unwrap();
        let pool = Pool::parse("gold", &json!({"subnet": "10.0.0.0/24", "blockSize": 16})).unwrap();
        let book = Book::open(&settings.state_dir, lock, pool, None).unwrap();
        assert!(attempt(&settings).unwrap().is_none(), "the agent is gone, and its book is not");
        drop(book);
        assert!(attempt(&settings).unwrap().is_some());
    }

    #[test]
    fn a_ledger_has_one_agent_and_one_identity() {
        let folder = tempfile::tempdir().unwrap();
        let settings = settings(folder.path());
        let first = attempt(&settings).unwrap().unwrap();
        assert!(attempt(&settings).unwrap().is_none(), "while another acts");
        let incarnation = first.holder.incarnation.clone();
        drop(first);
        assert_eq!(attempt(&settings).unwrap().unwrap().holder.incarnation, incarnation);

        fs::remove_dir_all(&settings.state_dir).unwrap();
        let another = attempt(&settings).unwrap().unwrap();
        assert_ne!(another.holder.incarnation, incarnation);
        assert!(another.of_this_boot.contains(&incarnation), "the lost one was of this boot");
        drop(another);
        fs::remove_dir_all(&settings.run_dir).unwrap();
        assert!(!attempt(&settings).unwrap().unwrap().of_this_boot.contains(&incarnation), "after a boot");
    }
}
