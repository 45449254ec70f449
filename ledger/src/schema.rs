//! Which schema a file has, and making it where there is none.

use rusqlite::Connection;
use tracing::info;

use crate::LedgerError;
use crate::queue::Queue;
use crate::records::Records;

/// The schema version that this program writes (`PRAGMA user_version`).
pub const SCHEMA_VERSION: i64 = 1;

/// Marks the file as a ledger (`PRAGMA application_id`): "ZBLG".
const APPLICATION_ID: i64 = 0x5a42_4c47;

/// Ends with the file having this program's schema, or with the reason why it cannot.
pub(crate) fn ensure(records: &Records, queue: &Queue) -> Result<(), LedgerError> {
    if identity(records)? == (APPLICATION_ID, SCHEMA_VERSION) {
        return Ok(());
    }
    let _turn = queue.wait()?;
    // Whoever was before in the queue may have made it meanwhile.
    match identity(records)? {
        (APPLICATION_ID, SCHEMA_VERSION) => Ok(()),
        (APPLICATION_ID, found) => {
            Err(LedgerError::NewerSchema { path: records.path().to_owned(), found, known: SCHEMA_VERSION })
        }
        (0, 0) if is_empty(records)? => create(records),
        _ => Err(LedgerError::Foreign { path: records.path().to_owned() }),
    }
}

fn identity(records: &Records) -> Result<(i64, i64), LedgerError> {
    let sql = "SELECT application_id, user_version FROM pragma_application_id, pragma_user_version";
    records.run("reading the schema version", |connection| {
        connection.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?)))
    })
}

fn is_empty(records: &Records) -> Result<bool, LedgerError> {
    records.run("reading the schema", |connection| {
        connection.query_row("SELECT count(*) = 0 FROM sqlite_schema", [], |row| row.get(0))
    })
}

fn create(records: &Records) -> Result<(), LedgerError> {
    records.run("creating the schema", |connection| {
        connection.pragma_update(None, "journal_mode", "wal")?;
        connection.execute_batch("BEGIN IMMEDIATE")?;
        fill(connection).inspect_err(|_| {
            // The first error is the one to report; a failed rollback leaves an empty file all the same.
            let _rolled_back = connection.execute_batch("ROLLBACK");
        })
    })?;
    info!(path = %records.path().display(), version = SCHEMA_VERSION, "created the ledger");
    Ok(())
}

fn fill(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(include_str!("schema.sql"))?;
    connection.pragma_update(None, "application_id", APPLICATION_ID)?;
    connection.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    connection.execute_batch("COMMIT")
}
