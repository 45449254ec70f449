//! All or nothing: the only way to write.
//!
//! The writing methods stand with what they write: `attachment.rs`, `lease.rs`, `cursor.rs`.

use std::ops::Deref;

use rusqlite::Connection;
use tracing::warn;

use crate::LedgerError;
use crate::log;
use crate::queue::Turn;
use crate::records::Records;

/// Changes that are made together by [`commit`](Self::commit), or not at all when it is dropped before.
///
/// While it lasts nobody else writes, so what was read in it stays true until it ends.
#[derive(Debug)]
pub struct Transaction<'a> {
    records: &'a Records,
    state: State,
    /// How many transactions the ledger has seen before this one.
    commits: i64,
    /// SQLite's count of changed rows when it began.
    changes: u64,
    // Declared last, hence dropped last: the next in the queue begins after this one's rollback.
    turn: Turn,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Open,
    /// A step stopped half-way.
    Broken,
    Committed,
}

impl Records {
    /// How many transactions have changed something.
    ///
    /// # Errors
    /// [`LedgerError::Storage`], [`LedgerError::Corrupt`].
    pub fn sequence(&self) -> Result<i64, LedgerError> {
        self.run("reading the number of transactions", |connection| {
            connection.query_row("SELECT commits FROM progress", [], |row| row.get(0))
        })
    }
}

impl<'a> Transaction<'a> {
    pub(crate) fn begin(records: &'a Records, turn: Turn) -> Result<Self, LedgerError> {
        let changes = records.run("beginning a transaction", |connection| {
            connection.execute_batch("BEGIN IMMEDIATE").map(|()| connection.total_changes())
        })?;
        // From here on, whatever fails is rolled back.
        let mut transaction = Self { records, state: State::Open, commits: 0, changes, turn };
        transaction.commits = records.sequence()?;
        let found = transaction.commits;
        match transaction.turn.commits().filter(|made| *made > found) {
            None => Ok(transaction),
            Some(made) => Err(LedgerError::Behind { path: records.path().to_owned(), found, made }),
        }
    }

    /// Makes the changes, on disk when this returns.
    ///
    /// # Errors
    /// [`LedgerError::Broken`] after an earlier step failed in the middle; [`LedgerError::Storage`]. Nothing was
    /// changed then.
    pub fn commit(mut self) -> Result<(), LedgerError> {
        if self.state == State::Broken {
            return Err(LedgerError::Broken { path: self.records.path().to_owned() });
        }
        let (commits, begun_at) = (self.commits + 1, self.changes);
        let has_changed = self.records.run("committing", |connection| {
            let has_changed = connection.total_changes() != begun_at;
            if has_changed {
                connection.execute("UPDATE progress SET commits = ?1", [commits])?;
            }
            connection.execute_batch("COMMIT").map(|()| has_changed)
        })?;
        self.state = State::Committed;
        if has_changed {
            self.turn.note(commits);
        }
        log::fold_when_long(self.records);
        Ok(())
    }

    /// Runs statements that change something. When SQLite fails in them, part may be done and part not, so the
    /// transaction can no longer be committed.
    pub(crate) fn write<T>(
        &mut self,
        action: &'static str,
        statements: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, LedgerError> {
        let result = self.records.run(action, statements);
        if result.is_err() {
            self.state = State::Broken;
        }
        result
    }
}

impl Deref for Transaction<'_> {
    type Target = Records;

    fn deref(&self) -> &Records {
        self.records
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        // After some failures, a full disk among them, SQLite has rolled back by itself.
        let rollback = |connection: &Connection| match connection.is_autocommit() {
            true => Ok(()),
            false => connection.execute_batch("ROLLBACK"),
        };
        if self.state != State::Committed
            && let Err(error) = self.records.run("rolling back", rollback)
        {
            warn!(%error, "the rollback failed; the next to open the ledger does it");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::fixture::lease;
    use crate::{Ledger, UnixSeconds};

    fn take(directory: &Path, address: &str) -> Result<(), LedgerError> {
        let mut ledger = Ledger::open(directory)?;
        let mut transaction = ledger.begin()?;
        transaction.insert_lease(&lease(address, "c1"))?;
        transaction.commit()
    }

    #[test]
    fn a_ledger_that_went_back_in_time_is_not_written() {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str| directory.path().join(name);
        take(directory.path(), "10.0.0.1").unwrap();
        let early: Vec<_> =
            ["ledger.db", "ledger.db-wal"].map(|name| std::fs::read(file(name)).unwrap()).into();
        take(directory.path(), "10.0.0.2").unwrap();

        let log = std::fs::read(file("ledger.db-wal")).unwrap();
        let spoilt = log.iter().map(|byte| !byte).collect::<Vec<u8>>();
        let emptied: &[(&str, &[u8])] = &[("ledger.db-wal", &[])];
        let scribbled: &[(&str, &[u8])] = &[("ledger.db-wal", &spoilt)];
        let restored: &[(&str, &[u8])] = &[("ledger.db", &early[0]), ("ledger.db-wal", &early[1])];
        let nothing: &[(&str, &[u8])] = &[("ledger.db", &[]), ("ledger.db-wal", &[])];
        let whole = std::fs::read(file("ledger.db")).unwrap();
        for files in [emptied, scribbled, restored, nothing] {
            for (name, content) in files {
                std::fs::write(file(name), content).unwrap();
            }
            let error = take(directory.path(), "10.0.0.2").unwrap_err();
            assert!(matches!(error, LedgerError::Behind { .. }), "{error}");
            assert!(error.to_string().contains("zbctl ledger rebuild"), "{error}");
            std::fs::write(file("ledger.db"), &whole).unwrap();
            std::fs::write(file("ledger.db-wal"), &log).unwrap();
            drop(std::fs::remove_file(file("ledger.db-shm")));
        }
        // Without the number beside it, nobody can tell.
        std::fs::remove_file(file("ledger.lock")).unwrap();
        take(directory.path(), "10.0.0.3").unwrap();
        assert_eq!(Ledger::open(directory.path()).unwrap().leases().unwrap().len(), 3);
    }

    #[test]
    fn a_transaction_that_changes_nothing_does_not_write() {
        let directory = tempfile::tempdir().unwrap();
        take(directory.path(), "10.0.0.1").unwrap();
        let length = || std::fs::metadata(directory.path().join("ledger.db-wal")).unwrap().len();
        let before = length();
        let mut ledger = Ledger::open(directory.path()).unwrap();
        let mut transaction = ledger.begin().unwrap();
        let nobody = crate::fixture::owner("c9");
        assert_eq!(transaction.release_leases(&nobody, None, UnixSeconds(9)).unwrap(), []);
        transaction.commit().unwrap();
        assert_eq!(length(), before);
    }

    #[test]
    fn a_ledger_that_was_replaced_while_open_is_not_written() {
        let directory = tempfile::tempdir().unwrap();
        take(directory.path(), "10.0.0.1").unwrap();
        let mut ledger = Ledger::open(directory.path()).unwrap();
        let path = directory.path().join("ledger.db");
        std::fs::copy(&path, directory.path().join("copy")).unwrap();
        std::fs::rename(directory.path().join("copy"), &path).unwrap();
        assert!(matches!(ledger.begin().unwrap_err(), LedgerError::Replaced { .. }));
        take(directory.path(), "10.0.0.2").unwrap();
    }
}
