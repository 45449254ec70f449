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
    // Declared last, hence dropped last: the next in the queue begins after this one's rollback.
    _turn: Turn,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Open,
    /// A step stopped half-way.
    Broken,
    Committed,
}

impl<'a> Transaction<'a> {
    pub(crate) fn begin(records: &'a Records, turn: Turn) -> Result<Self, LedgerError> {
        records.run("beginning a transaction", |connection| connection.execute_batch("BEGIN IMMEDIATE"))?;
        Ok(Self { records, state: State::Open, _turn: turn })
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
        self.records.run("committing", |connection| connection.execute_batch("COMMIT"))?;
        self.state = State::Committed;
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
