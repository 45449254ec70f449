//! Opening the file.

use std::fs::{DirBuilder, OpenOptions};
use std::io;
use std::ops::Deref;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use crate::queue::Queue;
use crate::records::Records;
use crate::{LedgerError, Transaction, schema};

/// How long a writer waits for the others. A kubelet gives up on a sandbox after minutes, a transaction takes
/// milliseconds, and a node starts a few hundred pods at once at worst.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Names of the files in the ledger's directory.
pub(crate) const FILE: &str = "ledger.db";
pub(crate) const LOCK: &str = "ledger.lock";

/// How long SQLite waits by itself: only for writers that bypass the queue, such as an operator's sqlite3.
pub(crate) const BUSY: Duration = Duration::from_secs(5);

/// The open ledger.
#[derive(Debug)]
pub struct Ledger {
    records: Records,
    queue: Queue,
    file: FileId,
}

/// Which file it is that a path leads to: its device and its number there.
type FileId = (u64, u64);

impl Ledger {
    /// Whether there is a ledger in `directory`. For programs that make none: [`open`](Self::open) does.
    #[must_use]
    pub fn exists(directory: &Path) -> bool {
        directory.join(FILE).exists()
    }

    /// Opens the ledger in `directory`, usually `/var/lib/zerobridge`.
    ///
    /// Creates the directory (0700), `ledger.db` (0600) and its schema where they are missing; what is there keeps its
    /// mode. The directory must be on a local file system, since the write-ahead log needs shared memory.
    ///
    /// # Errors
    /// [`LedgerError::Open`], [`Foreign`](LedgerError::Foreign), [`Corrupt`](LedgerError::Corrupt),
    /// [`Behind`](LedgerError::Behind), [`NewerSchema`](LedgerError::NewerSchema), [`Replaced`](LedgerError::Replaced), or
    /// [`Storage`](LedgerError::Storage).
    pub fn open(directory: &Path) -> Result<Self, LedgerError> {
        let path = directory.join(FILE);
        let queue = Queue::new(directory.join(LOCK), PATIENCE);
        let file = match file_id(&path) {
            Err(LedgerError::Open { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                create_files(directory, &path)?;
                file_id(&path)?
            }
            found => found?,
        };
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&path, flags)
            .map_err(|error| LedgerError::Open { path: path.clone(), source: io::Error::other(error) })?;
        let records = Records::new(connection, path);
        records.run("setting up the connection", configure)?;
        schema::ensure(&records, &queue)?;
        require_same(records.path(), file)?;
        Ok(Self { records, queue, file })
    }

    /// The same ledger with another limit on the time that [`begin`](Self::begin) waits; 30 s unless set.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.queue.patience = patience;
        self
    }

    /// Waits until no other process writes, and begins a transaction.
    ///
    /// # Errors
    /// [`LedgerError::Busy`] with the time waited, [`Open`](LedgerError::Open) when the queue's file cannot be opened,
    /// [`Behind`](LedgerError::Behind) when transactions have been lost, [`Replaced`](LedgerError::Replaced),
    /// [`Storage`](LedgerError::Storage).
    pub fn begin(&mut self) -> Result<Transaction<'_>, LedgerError> {
        let turn = self.queue.wait()?;
        self.require_in_place()?;
        Transaction::begin(&self.records, turn)
    }

    /// Fails once another file stands where this one was opened, as after `zbctl ledger rebuild`: what is read here is no
    /// longer what others read. For programs that keep a ledger open; [`begin`](Self::begin) asks this too.
    ///
    /// # Errors
    /// [`LedgerError::Replaced`]; [`LedgerError::Open`] when nothing stands there.
    pub fn require_in_place(&self) -> Result<(), LedgerError> {
        require_same(self.records.path(), self.file)
    }

    /// Folds the log into the file and closes both. The log is empty then.
    pub(crate) fn fold_and_close(self) -> Result<(), LedgerError> {
        self.records.run("folding the log", |connection| {
            connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        })
    }
}

fn file_id(path: &Path) -> Result<FileId, LedgerError> {
    let metadata = std::fs::metadata(path);
    let metadata = metadata.map_err(|source| LedgerError::Open { path: path.to_owned(), source })?;
    Ok((metadata.dev(), metadata.ino()))
}

/// What is written to a file that no path leads to any more is written to nothing.
fn require_same(path: &Path, opened: FileId) -> Result<(), LedgerError> {
    match file_id(path)? == opened {
        true => Ok(()),
        false => Err(LedgerError::Replaced { path: path.to_owned() }),
    }
}

impl Deref for Ledger {
    type Target = Records;

    fn deref(&self) -> &Records {
        &self.records
    }
}

fn create_files(directory: &Path, path: &Path) -> Result<(), LedgerError> {
    let at = |path: &Path| {
        let path = path.to_owned();
        |source| LedgerError::Open { path, source }
    };
    DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(at(directory))?;
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options.open(path).map(drop).map_err(at(path))
}

fn configure(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY)?;
    // A committed promise survives a power cut: the container may already be running when it comes.
    connection.pragma_update(None, "synchronous", "full")?;
    // Not SQLite's way of folding the log back, nor at closing, but that of `log.rs`.
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    // Otherwise a statement with parameters over a partial index is compiled twice: before and after they are bound.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map(|_| ())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn what_is_missing_is_made_for_root_alone_and_kept() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("a/b");
        drop(Ledger::open(&directory).unwrap());
        assert_eq!(mode(&directory), 0o700);
        for entry in std::fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            assert_eq!(mode(&path), 0o600, "{}", path.display());
        }
        Ledger::open(&directory).unwrap();
    }

    #[test]
    fn the_log_is_written_ahead_and_synced() {
        let directory = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(directory.path()).unwrap();
        let pragma = |name: &str| {
            ledger
                .run("test", |connection| {
                    connection.query_row(
                        &format!("SELECT CAST(\"{name}\" AS TEXT) FROM pragma_{name}"),
                        [],
                        |row| row.get::<_, String>(0),
                    )
                })
                .unwrap()
        };
        assert_eq!(pragma("journal_mode"), "wal");
        assert_eq!(pragma("synchronous"), "2");
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let directory = file.path().join("below-a-file");
        let error = Ledger::open(&directory).unwrap_err();
        assert!(matches!(error, LedgerError::Open { .. }), "{error}");
        assert!(error.to_string().contains(directory.to_str().unwrap()), "{error}");
    }

    #[test]
    fn a_file_that_is_no_database_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ledger.db");
        let text = "not a database\n".repeat(1000);
        std::fs::write(&path, &text).unwrap();
        let error = Ledger::open(directory.path()).unwrap_err();
        assert!(matches!(error, LedgerError::Foreign { .. }), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    }

    #[test]
    fn another_programs_database_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let other = Connection::open(directory.path().join("ledger.db")).unwrap();
        other.execute_batch("CREATE TABLE theirs (x); INSERT INTO theirs VALUES (1)").unwrap();
        assert!(matches!(Ledger::open(directory.path()).unwrap_err(), LedgerError::Foreign { .. }));
        assert_eq!(other.query_row("SELECT x FROM theirs", [], |row| row.get::<_, i64>(0)), Ok(1));
    }

    #[test]
    fn a_newer_schema_is_refused_with_both_versions() {
        let directory = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(directory.path()).unwrap();
        ledger.run("test", |connection| connection.pragma_update(None, "user_version", 7)).unwrap();
        let error = Ledger::open(directory.path()).unwrap_err();
        assert!(matches!(error, LedgerError::NewerSchema { found: 7, known: SCHEMA, .. }), "{error}");
        const SCHEMA: i64 = schema::SCHEMA_VERSION;
    }

    #[test]
    fn a_damaged_file_is_reported_with_what_to_do() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ledger.db");
        let ledger = Ledger::open(directory.path()).unwrap();
        ledger.run("test", |connection| connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")).unwrap();
        drop(ledger);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[4096..].fill(0xff);
        std::fs::write(&path, bytes).unwrap();
        let error =
            Ledger::open(directory.path()).and_then(|ledger| ledger.attachments().map(drop)).unwrap_err();
        assert!(matches!(error, LedgerError::Corrupt { .. }), "{error:?}");
        assert!(error.to_string().contains("zbctl ledger rebuild"), "{error}");
    }
}
