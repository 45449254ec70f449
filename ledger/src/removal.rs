//! Taking a ledger away, with everything that stands beside it.
//!
//! Refuses to know when nobody needs it any more: the caller judges, while nobody else writes.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::open::{FILE, LOCK};
use crate::salvage::{COMPANIONS, NEW, REBUILT, files};
use crate::{Ledger, LedgerError, Transaction};

/// How the names of the directories begin into which `zbctl ledger rebuild` puts damaged ledgers.
pub const REPLACED: &str = "ledger-replaced-";

impl Ledger {
    /// Removes the ledger in `directory`, what was damaged and replaced before it, and its lock, if `may_go` says so of its
    /// content. `false` if it does not: then nothing was touched. Where there is no ledger, what may be left of one goes.
    ///
    /// Killed at any point, this leaves a ledger that is whole, or remains that nobody takes for one.
    ///
    /// # Errors
    /// As [`open`](Self::open) and [`begin`](Self::begin); [`LedgerError::Open`] with the file that could not be removed.
    pub fn remove(
        directory: &Path,
        may_go: impl FnOnce(&Transaction<'_>) -> Result<bool, LedgerError>,
    ) -> Result<bool, LedgerError> {
        if !Self::exists(directory) {
            return remove_files(directory).map(|()| true);
        }
        let mut ledger = Self::open(directory)?;
        let transaction = ledger.begin()?;
        if !may_go(&transaction)? {
            return Ok(false);
        }
        remove_files(directory)?;
        Ok(true)
    }
}

/// The lock first: it says how many transactions were made, by which a new ledger would be taken for one that lost them. The
/// file before its log: without the log it would be an older ledger, and a log alone is none.
fn remove_files(directory: &Path) -> Result<(), LedgerError> {
    let fixed = [LOCK, FILE].map(|name| directory.join(name));
    let companions = COMPANIONS.map(|suffix| directory.join(format!("{FILE}{suffix}")));
    for path in fixed.into_iter().chain(companions).chain([REBUILT, NEW].map(|name| directory.join(name))) {
        gone(fs::remove_file(&path)).map_err(at(&path))?;
    }
    for path in replaced(directory)? {
        for file in files(&path.join(FILE)) {
            gone(fs::remove_file(&file)).map_err(at(&file))?;
        }
        gone(fs::remove_dir(&path)).map_err(at(&path))?;
    }
    Ok(())
}

fn replaced(directory: &Path) -> Result<Vec<PathBuf>, LedgerError> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(at(directory))?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(at(directory))?;
        let time = entry.file_name().to_string_lossy().strip_prefix(REPLACED).map(str::to_owned);
        if time.is_some_and(|time| !time.is_empty() && time.bytes().all(|byte| byte.is_ascii_digit())) {
            found.push(entry.path());
        }
    }
    Ok(found)
}

fn gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> LedgerError {
    let path = path.to_owned();
    |source| LedgerError::Open { path, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    fn with_a_lease(directory: &Path) {
        let mut ledger = Ledger::open(directory).unwrap();
        let mut transaction = ledger.begin().unwrap();
        transaction.insert_lease(&fixture::lease("10.0.0.5", "c1")).unwrap();
        transaction.commit().unwrap();
    }

    #[test]
    fn a_ledger_goes_with_all_that_is_its_own_and_a_new_one_begins() {
        let directory = tempfile::tempdir().unwrap();
        with_a_lease(directory.path());
        let replaced = directory.path().join("ledger-replaced-17");
        fs::create_dir(&replaced).unwrap();
        fs::write(replaced.join("ledger.db-wal"), "").unwrap();
        for other in ["installed.json", "ledger-replaced-by-hand"] {
            fs::write(directory.path().join(other), "").unwrap();
        }
        let asked = Ledger::remove(directory.path(), |content| Ok(content.leases()?.len() == 1));
        assert!(asked.unwrap());
        let mut left: Vec<_> =
            fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["installed.json", "ledger-replaced-by-hand"]);
        with_a_lease(directory.path());
    }

    #[test]
    fn what_somebody_needs_stays_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        with_a_lease(directory.path());
        assert!(!Ledger::remove(directory.path(), |_| Ok(false)).unwrap());
        assert_eq!(Ledger::open(directory.path()).unwrap().leases().unwrap().len(), 1);
    }

    /// After each of its steps: remains of which a new ledger is made, or the whole ledger.
    #[test]
    fn what_is_left_of_a_ledger_is_no_ledger() {
        for kept in [&[FILE, "ledger.db-wal", "ledger.db-shm"][..], &["ledger.db-wal", "ledger.db-shm"], &[]]
        {
            let directory = tempfile::tempdir().unwrap();
            with_a_lease(directory.path());
            for entry in fs::read_dir(directory.path()).unwrap() {
                let entry = entry.unwrap();
                if !kept.contains(&entry.file_name().to_str().unwrap()) {
                    fs::remove_file(entry.path()).unwrap();
                }
            }
            let copy = tempfile::tempdir().unwrap();
            for name in kept {
                fs::copy(directory.path().join(name), copy.path().join(name)).unwrap();
            }
            let mut ledger = Ledger::open(copy.path()).unwrap();
            assert_eq!(ledger.leases().unwrap().len(), usize::from(kept.contains(&FILE)), "{kept:?}");
            ledger.begin().unwrap().commit().unwrap();
            assert!(Ledger::remove(directory.path(), |_| Ok(true)).unwrap());
            assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
        }
    }
}
