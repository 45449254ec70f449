//! Everything that can be read, the same inside and outside a transaction.
//!
//! The reading methods stand with what they read: `attachment.rs`, `lease.rs`, `chunk.rs`, `cursor.rs`, `audit.rs`.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, ErrorCode};

use crate::{LedgerError, StorageError};

/// A view of the ledger's records. [`Ledger`](crate::Ledger) and [`Transaction`](crate::Transaction) both are one.
#[derive(Debug)]
pub struct Records {
    connection: Connection,
    path: PathBuf,
}

impl Records {
    pub(crate) fn new(connection: Connection, path: PathBuf) -> Self {
        Self { connection, path }
    }

    /// The file that the records are in.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs statements; `action` tells in an error what they were for.
    pub(crate) fn run<T>(
        &self,
        action: &'static str,
        statements: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, LedgerError> {
        statements(&self.connection).map_err(|error| self.failed(action, error))
    }

    /// Runs one query and reads each row; a row that SQLite hands over well but that makes no sense is an error too.
    pub(crate) fn rows<T>(
        &self,
        action: &'static str,
        sql: &str,
        parameters: impl rusqlite::Params,
        mut read: impl FnMut(&rusqlite::Row<'_>) -> rusqlite::Result<Result<T, LedgerError>>,
    ) -> Result<Vec<T>, LedgerError> {
        self.run(action, |connection| {
            connection.prepare(sql)?.query_map(parameters, |row| read(row))?.collect::<Result<Vec<_>, _>>()
        })?
        .into_iter()
        .collect()
    }

    pub(crate) fn failed(&self, action: &'static str, error: rusqlite::Error) -> LedgerError {
        let path = self.path.clone();
        match error.sqlite_error_code() {
            Some(ErrorCode::NotADatabase) => LedgerError::Foreign { path },
            Some(ErrorCode::DatabaseCorrupt) => LedgerError::Corrupt { path, source: StorageError(error) },
            _ => LedgerError::Storage { path, action, source: StorageError(error) },
        }
    }
}
