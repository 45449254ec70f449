//! Which schema a file has, making it where there is none, and bringing an older one up to date.
//!
//! A version is what its predecessor was and one file more, so a file that is made and one that is brought up to date come
//! to the same.

use rusqlite::Connection;
use tracing::info;

use crate::LedgerError;
use crate::queue::{Queue, Turn};
use crate::records::Records;

/// What each version adds, the first one first.
const VERSIONS: [&str; 5] = [
    include_str!("schema/1.sql"),
    include_str!("schema/2.sql"),
    include_str!("schema/3.sql"),
    include_str!("schema/4.sql"),
    include_str!("schema/5.sql"),
];

/// The schema version that this program writes (`PRAGMA user_version`): how many there are.
pub const SCHEMA_VERSION: i64 = 5;

/// Marks the file as a ledger (`PRAGMA application_id`): "ZBLG".
const APPLICATION_ID: i64 = 0x5a42_4c47;

/// Ends with the file having this program's schema, or with the reason why it cannot.
pub(crate) fn ensure(records: &Records, queue: &Queue) -> Result<(), LedgerError> {
    if identity(records)? == (APPLICATION_ID, SCHEMA_VERSION) {
        return Ok(());
    }
    let turn = queue.wait()?;
    // Whoever was before in the queue may have made it meanwhile.
    match identity(records)? {
        (APPLICATION_ID, SCHEMA_VERSION) => Ok(()),
        (APPLICATION_ID, found @ 1..SCHEMA_VERSION) => bring_up_to_date(records, found),
        (APPLICATION_ID, found) => {
            Err(LedgerError::NewerSchema { path: records.path().to_owned(), found, known: SCHEMA_VERSION })
        }
        (0, 0) if is_empty(records)? => create(records, &turn),
        _ => Err(LedgerError::Foreign { path: records.path().to_owned() }),
    }
}

fn identity(records: &Records) -> Result<(i64, i64), LedgerError> {
    records.run("reading the schema version", |connection| {
        let number = |pragma: &str| connection.query_row(pragma, [], |row| row.get(0));
        Ok((number("PRAGMA application_id")?, number("PRAGMA user_version")?))
    })
}

fn is_empty(records: &Records) -> Result<bool, LedgerError> {
    records.run("reading the schema", |connection| {
        connection.query_row("SELECT count(*) = 0 FROM sqlite_schema", [], |row| row.get(0))
    })
}

fn create(records: &Records, turn: &Turn) -> Result<(), LedgerError> {
    // An empty file where a ledger was: made anew, it would give every address away a second time.
    if let Some(made) = turn.commits().filter(|made| *made > 0) {
        return Err(LedgerError::Behind { path: records.path().to_owned(), found: 0, made });
    }
    records.run("creating the schema", |connection| {
        connection.pragma_update(None, "journal_mode", "wal")?;
        add_versions(connection, 0)
    })?;
    info!(path = %records.path().display(), version = SCHEMA_VERSION, "created the ledger");
    Ok(())
}

fn bring_up_to_date(records: &Records, found: i64) -> Result<(), LedgerError> {
    records.run("bringing the schema up to date", |connection| add_versions(connection, found))?;
    info!(path = %records.path().display(), from = found, to = SCHEMA_VERSION, "brought the ledger up to date");
    Ok(())
}

/// Adds everything after version `found` in one transaction.
fn add_versions(connection: &Connection, found: i64) -> rusqlite::Result<()> {
    connection.execute_batch("BEGIN IMMEDIATE")?;
    let added = (1..)
        .zip(VERSIONS)
        .filter(|(version, _)| *version > found)
        .try_for_each(|(_, sql)| connection.execute_batch(sql));
    let done = added.and_then(|()| {
        connection.pragma_update(None, "application_id", APPLICATION_ID)?;
        connection.pragma_update(None, "user_version", SCHEMA_VERSION)?;
        connection.execute_batch("COMMIT")
    });
    done.inspect_err(|_| {
        // The first error is the one to report; a failed rollback leaves the file as it was all the same.
        let _rolled_back = connection.execute_batch("ROLLBACK");
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::lease;
    use crate::{Ledger, UnixSeconds};

    #[test]
    fn the_version_counts_what_was_added() {
        assert_eq!(i64::try_from(VERSIONS.len()), Ok(SCHEMA_VERSION));
    }

    #[test]
    fn an_update_that_fails_leaves_the_older_version() {
        let directory = tempfile::tempdir().unwrap();
        let connection = Connection::open(directory.path().join("ledger.db")).unwrap();
        connection.execute_batch(VERSIONS[0]).unwrap();
        connection.pragma_update(None, "application_id", APPLICATION_ID).unwrap();
        connection.pragma_update(None, "user_version", 1).unwrap();
        connection.execute_batch("CREATE TABLE progress (theirs)").unwrap();
        assert!(matches!(Ledger::open(directory.path()), Err(LedgerError::Storage { .. })));
        let count = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
        assert_eq!(count("PRAGMA user_version"), 1);
        assert_eq!(count("SELECT count(*) FROM sqlite_schema WHERE name = 'set_aside'"), 0);
    }

    #[test]
    fn a_ledger_of_each_older_version_keeps_its_rows_and_becomes_what_a_new_one_is() {
        let objects = |ledger: &Ledger| {
            let sql = "SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY name";
            ledger.rows("test", sql, [], |row| Ok(Ok(row.get::<_, String>(0)?))).unwrap()
        };
        let new = tempfile::tempdir().unwrap();
        let expected = objects(&Ledger::open(new.path()).unwrap());
        for version in 1..SCHEMA_VERSION {
            let old = tempfile::tempdir().unwrap();
            let connection = Connection::open(old.path().join("ledger.db")).unwrap();
            connection.pragma_update(None, "journal_mode", "wal").unwrap();
            for sql in &VERSIONS[..usize::try_from(version).unwrap()] {
                connection.execute_batch(sql).unwrap();
            }
            connection.pragma_update(None, "application_id", APPLICATION_ID).unwrap();
            connection.pragma_update(None, "user_version", version).unwrap();
            let row = "INSERT INTO leases (network, family, key, address, container_id, ifname, boot_id, created_at)
                VALUES ('blue', 4, x'0a000009', '10.0.0.9', 'c1', 'eth0', 'boot', 10)";
            connection.execute_batch(row).unwrap();
            drop(connection);

            let mut ledger = Ledger::open(old.path()).unwrap();
            assert_eq!(objects(&ledger), expected, "from version {version}");
            assert_eq!(ledger.leases().unwrap().len(), 1);
            let mut transaction = ledger.begin().unwrap();
            transaction.insert_lease(&lease("10.0.0.10", "c2")).unwrap();
            assert_eq!(transaction.end_set_aside("blue", UnixSeconds(1), UnixSeconds(1), 1).unwrap(), 0);
            transaction.commit().unwrap();
            drop(ledger);
            assert_eq!(Ledger::open(old.path()).unwrap().leases().unwrap().len(), 2);
        }
    }
}
