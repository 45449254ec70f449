//! Folding the write-ahead log back into the file.
//!
//! SQLite does so when the log is long, but begins the log anew only while the process that folded it, or one that was
//! open at the same time, goes on to write: how far the log was folded is known in shared memory alone, which the next
//! process to open the file alone makes anew. Short processes one after the other would each read and fold a log that
//! only grows. So whoever has written and finds the log long empties it here, while the queue still keeps others away.

use rusqlite::Connection;
use tracing::{debug, warn};

use crate::open::BUSY;
use crate::records::Records;

/// The length from which on the log is folded, in bytes. The longer, the more seldom a process pays for folding
/// (two more waits for the disk), and the more each has to read when it opens the file alone.
const LONG: u64 = 64 * 4096;

/// Empties the log when it is long. What was committed stays so whatever happens here, so failures are only logged.
pub(crate) fn fold_when_long(records: &Records) {
    let mut path = records.path().as_os_str().to_owned();
    path.push("-wal");
    let is_long = std::fs::metadata(path).is_ok_and(|metadata| metadata.len() >= LONG);
    if !is_long {
        return;
    }
    match records.run("folding the log", fold) {
        Ok(true) => debug!("folded the log"),
        Ok(false) => debug!("the log is being read; the next writer folds it"),
        Err(error) => warn!(%error, "the log could not be folded; the next writer tries again"),
    }
}

/// `false` when a reader is in the way. Waiting for it would hold up all writers.
fn fold(connection: &Connection) -> rusqlite::Result<bool> {
    connection.busy_timeout(std::time::Duration::ZERO)?;
    let folded = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0));
    connection.busy_timeout(BUSY)?;
    Ok(folded? == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Ledger;

    fn log_length(ledger: &Ledger) -> u64 {
        std::fs::metadata(ledger.path().with_file_name("ledger.db-wal")).unwrap().len()
    }

    /// Each time another value, because SQLite leaves a page alone when nothing in it changes.
    fn write(ledger: &mut Ledger, numbers: std::ops::Range<u32>) {
        for number in numbers {
            let mut transaction = ledger.begin().unwrap();
            transaction.set_cursor("blue", 0, std::net::Ipv4Addr::from_bits(number).into()).unwrap();
            transaction.commit().unwrap();
        }
    }

    #[test]
    fn the_log_does_not_grow_without_end_though_every_process_is_alone() {
        let directory = tempfile::tempdir().unwrap();
        for number in 0..300 {
            // The connection closes before the next opens, as that of a process does.
            write(&mut Ledger::open(directory.path()).unwrap(), number..number + 1);
        }
        assert!(log_length(&Ledger::open(directory.path()).unwrap()) < 2 * LONG);
    }

    #[test]
    fn a_reader_delays_the_folding_and_does_not_fail_the_writer() {
        let directory = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open(directory.path()).unwrap();
        write(&mut ledger, 0..1);
        let reader = Ledger::open(directory.path()).unwrap();
        reader
            .run("test", |connection| connection.execute_batch("BEGIN; SELECT count(*) FROM cursors"))
            .unwrap();
        write(&mut ledger, 1..300);
        assert!(log_length(&ledger) > LONG);
        reader.run("test", |connection| connection.execute_batch("COMMIT")).unwrap();
        write(&mut ledger, 300..301);
        assert_eq!(log_length(&ledger), 0);
    }
}
