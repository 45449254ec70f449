//! Making a new ledger from what can still be read of a damaged one.
//!
//! Reads a copy, table by table and row by row, from both ends, since a damaged page stops a walk but not the walk from the
//! other side. What a row says goes through the new schema, so that no contradiction of the old file gets into the new one.
//! Which addresses somebody really uses is for the caller to find out and to add: this module knows the file alone.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rusqlite::types::Value;
use rusqlite::{Connection, OpenFlags, params_from_iter};

use crate::audit::WITH_ADDRESSES;
use crate::open::{FILE, LOCK, PATIENCE};
use crate::queue::{Queue, Turn};
use crate::records::Records;
use crate::{Ledger, LedgerError, chunk};

/// The files of a ledger besides the one that gives them their name.
pub(crate) const COMPANIONS: [&str; 2] = ["-wal", "-shm"];

/// The new file while it is written.
pub(crate) const NEW: &str = "ledger.db.new";

/// The new file on its way to its place, when the old one can no longer be written: it knows more than the old one, whose
/// log may be aside already.
pub(crate) const REBUILT: &str = "ledger.db.rebuilt";

/// What is not a record of anything: it is not told of.
const PROGRESS: &str = "progress";

/// What was read of a damaged ledger, as a new one that is not in its place yet. Nobody else writes while it lives.
#[derive(Debug)]
pub struct Salvage {
    /// The new ledger, with all that could be read; the caller adds to it what it knows besides.
    pub ledger: Ledger,
    /// How far each table could be read.
    pub tables: Vec<Table>,
    directory: PathBuf,
    turn: Turn,
}

/// How far a table of the old ledger could be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Its name.
    pub name: String,
    /// Rows that are in the new ledger.
    pub kept: usize,
    /// Rows that contradict others or the schema, or cannot be understood, and are not.
    pub refused: usize,
    /// What stopped the reading before the end; then rows are missing whose number nobody knows.
    pub damage: Option<String>,
}

impl Salvage {
    /// Reads the ledger in `directory` as far as it can be read, and makes a new one below `scratch`, an empty directory
    /// with room for twice its size. Nothing in `directory` is changed but for `ledger.lock`, which keeps others from
    /// writing until the value is dropped.
    ///
    /// # Errors
    /// [`LedgerError::Busy`]; [`LedgerError::Open`] when there is no ledger or it cannot be copied;
    /// [`LedgerError::Storage`] when the new one cannot be made.
    pub fn read(directory: &Path, scratch: &Path) -> Result<Self, LedgerError> {
        let turn = Queue::new(directory.join(LOCK), PATIENCE).wait()?;
        let old = scratch.join("old");
        fs::create_dir(&old).map_err(at(&old))?;
        let mut found = false;
        let unfinished = directory.join(REBUILT);
        if unfinished.exists() {
            fs::copy(&unfinished, old.join(FILE)).map_err(at(&unfinished))?;
            found = true;
        } else {
            for path in files(&directory.join(FILE)) {
                let Some(name) = path.file_name() else { continue };
                found |= was_there(fs::copy(&path, old.join(name))).map_err(at(&path))?;
            }
        }
        // Where transactions were made there was a ledger, though no file is left of it.
        if !found && turn.commits().is_none() {
            return Err(at(&directory.join(FILE))(io::ErrorKind::NotFound.into()));
        }
        let new = scratch.join("new");
        let ledger = Ledger::open(&new)?;
        let tables = copy_rows(&old.join(FILE), &ledger)?;
        let commits = ledger.sequence()?.max(turn.commits().unwrap_or(0)) + 1;
        ledger.run("writing the number of transactions", |connection| {
            connection.execute("UPDATE progress SET commits = ?1", [commits])
        })?;
        Ok(Self { ledger, tables, directory: directory.to_owned(), turn })
    }

    /// Puts the new ledger into the place of the old one, whose files are kept in the directory `aside`, which must not
    /// exist and must be on the same file system.
    ///
    /// Killed at any point, this leaves the old ledger, or one that every program refuses to write, or the new one.
    ///
    /// # Errors
    /// [`LedgerError::Open`] with the file that could not be written or moved.
    pub fn install(self, aside: &Path) -> Result<(), LedgerError> {
        let Self { ledger, directory, turn, .. } = self;
        let commits = ledger.sequence()?;
        let made = ledger.path().to_owned();
        ledger.fold_and_close()?;
        let [target, new, rebuilt] = [FILE, NEW, REBUILT].map(|name| directory.join(name));
        fs::copy(&made, &new).map_err(at(&new))?;
        File::open(&new).and_then(|file| file.sync_all()).map_err(at(&new))?;

        DirBuilder::new().mode(0o700).create(aside).map_err(at(aside))?;
        for path in files(&target) {
            let Some(name) = path.file_name() else { continue };
            let kept = aside.join(name);
            was_there(fs::hard_link(&path, &kept)).map_err(at(&kept))?;
        }
        sync(aside)?;
        // From here on the old file is behind, whatever becomes of this process.
        turn.note(commits);
        fs::rename(&new, &rebuilt).map_err(at(&rebuilt))?;
        sync(&directory)?;
        // A log beside another file than its own would be applied to it.
        for path in files(&target).skip(1) {
            was_there(fs::remove_file(&path)).map_err(at(&path))?;
        }
        sync(&directory)?;
        fs::rename(&rebuilt, &target).map_err(at(&target))?;
        sync(&directory)
    }
}

/// The file itself and its companions.
pub(crate) fn files(path: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let path = path.as_os_str().to_owned();
    let with = move |suffix: &str| {
        let mut path = path.clone();
        path.push(suffix);
        PathBuf::from(path)
    };
    [""].into_iter().chain(COMPANIONS).map(with)
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> LedgerError + use<> {
    let path = path.to_owned();
    move |source| LedgerError::Open { path, source }
}

/// `false` when what something was done to is not there; that is no error.
fn was_there<T>(outcome: io::Result<T>) -> io::Result<bool> {
    match outcome {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn sync(directory: &Path) -> Result<(), LedgerError> {
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(at(directory))
}

/// Copies what can be read of each table that the new ledger has.
fn copy_rows(old: &Path, new: &Records) -> Result<Vec<Table>, LedgerError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let opened = Connection::open_with_flags(old, flags).and_then(|old| {
        // Also opens a file that is shorter than it says (`lockBtree` in SQLite's btree.c).
        old.pragma_update(None, "writable_schema", true).map(|()| old)
    });
    let mut tables = Vec::new();
    new.run("beginning a transaction", |connection| {
        // Rows come in any order, and what they refer to may be lost.
        connection.execute_batch("PRAGMA foreign_keys = off; BEGIN IMMEDIATE")
    })?;
    for name in table_names(new)? {
        let mut table = Table { name, kept: 0, refused: 0, damage: None };
        match &opened {
            Ok(old) => copy_table(old, new, &mut table)?,
            Err(error) => table.damage = Some(error.to_string()),
        }
        tables.push(table);
    }
    drop_contradictions(new)?;
    mark_chunks(new)?;
    new.run("committing", |connection| connection.execute_batch("COMMIT; PRAGMA foreign_keys = on"))?;
    tables.retain(|table| table.name != PROGRESS);
    Ok(tables)
}

/// All but the one that is filled by following the others.
fn table_names(new: &Records) -> Result<Vec<String>, LedgerError> {
    let sql = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' AND name <> 'chunks'
               ORDER BY rowid";
    new.rows("reading the schema", sql, [], |row| row.get(0).map(Ok))
}

fn columns(connection: &Connection, table: &str) -> rusqlite::Result<Vec<(String, i64)>> {
    let mut statement = connection.prepare("SELECT name, pk FROM pragma_table_info(?1)")?;
    statement.query_map([table], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
}

fn copy_table(old: &Connection, new: &Records, table: &mut Table) -> Result<(), LedgerError> {
    let wanted = new.run("reading the schema", |connection| columns(connection, &table.name))?;
    let there = match columns(old, &table.name) {
        Ok(there) => there,
        Err(error) => {
            table.damage = Some(error.to_string());
            return Ok(());
        }
    };
    // An older schema has fewer columns, and a table that it lacks has none.
    let shared: Vec<&(String, i64)> =
        wanted.iter().filter(|(name, _)| there.iter().any(|(other, _)| other == name)).collect();
    if shared.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = shared.iter().map(|(name, _)| format!("\"{name}\"")).collect();
    let mut keys: Vec<&&(String, i64)> = shared.iter().filter(|(_, place)| *place > 0).collect();
    keys.sort_by_key(|(_, place)| *place);
    let order = |direction: &str| {
        let keys: Vec<String> = keys.iter().map(|(name, _)| format!("\"{name}\" {direction}")).collect();
        format!("SELECT {} FROM \"{}\" ORDER BY {}", names.join(", "), table.name, keys.join(", "))
    };
    let (forward, backward) = (order("ASC"), order("DESC"));
    let places: Vec<String> = (1..=names.len()).map(|number| format!("?{number}")).collect();
    let rows = format!("SELECT count(*) FROM \"{}\"", table.name);
    let count =
        || new.run("counting rows", |connection| connection.query_row(&rows, [], |row| row.get::<_, i64>(0)));
    // The walk back meets rows that are there already. What the schema itself puts into a table gives way to the old row.
    let verb = if count()? > 0 { "INSERT OR REPLACE" } else { "INSERT OR IGNORE" };
    let insert =
        format!("{verb} INTO \"{}\" ({}) VALUES ({})", table.name, names.join(", "), places.join(", "));
    let mut seen = 0;
    table.damage = walk(old, &forward, |row| keep(new, &insert, &row).inspect(|_| seen += 1))?;
    if table.damage.is_some() {
        walk(old, &backward, |row| keep(new, &insert, &row).map(|kept| seen += usize::from(kept)))?;
    }
    forget_unreadable(new, &table.name)?;
    table.kept = usize::try_from(count()?).unwrap_or(0);
    table.refused = seen.saturating_sub(table.kept);
    Ok(())
}

/// Hands over rows until there are no more, or none can be read; then returns why.
fn walk<T>(
    old: &Connection,
    sql: &str,
    mut keep: impl FnMut(Vec<Value>) -> Result<T, LedgerError>,
) -> Result<Option<String>, LedgerError> {
    let mut statement = match old.prepare(sql) {
        Ok(statement) => statement,
        Err(error) => return Ok(Some(error.to_string())),
    };
    let width = statement.column_count();
    let mut rows = match statement.query([]) {
        Ok(rows) => rows,
        Err(error) => return Ok(Some(error.to_string())),
    };
    loop {
        match rows.next() {
            Ok(None) => return Ok(None),
            Ok(Some(row)) => {
                // A text that is no UTF-8 is none of ours.
                if let Ok(values) = (0..width).map(|place| row.get(place)).collect() {
                    keep(values)?;
                }
            }
            Err(error) => return Ok(Some(error.to_string())),
        }
    }
}

/// Puts a row into the new ledger, unless its schema says no.
fn keep(new: &Records, insert: &str, row: &[Value]) -> Result<bool, LedgerError> {
    let inserted = new.run("copying a row", |connection| {
        match connection.prepare(insert)?.execute(params_from_iter(row)) {
            Err(rusqlite::Error::SqliteFailure(error, _))
                if error.code == rusqlite::ErrorCode::ConstraintViolation =>
            {
                Ok(0)
            }
            other => other,
        }
    })?;
    Ok(inserted > 0)
}

/// Takes out what the schema takes and this program does not understand.
fn forget_unreadable(new: &Records, table: &str) -> Result<(), LedgerError> {
    let read: fn(&Records) -> Result<(), LedgerError> = match table {
        "attachments" => |records| records.attachments().map(drop),
        "leases" => |records| records.all_addresses().map(drop),
        "set_aside" => |records| records.set_aside().map(drop),
        "claims" => |records| records.all_claims().map(drop),
        _ => return Ok(()),
    };
    while let Err(error) = read(new) {
        let LedgerError::UnreadableRow { table, column, value } = error else { return Err(error) };
        let sql = format!("DELETE FROM \"{table}\" WHERE \"{column}\" = ?1");
        let gone = new.run("dropping a row", |connection| connection.execute(&sql, [&value]))?;
        if gone == 0 {
            return Err(LedgerError::UnreadableRow { table, column, value });
        }
    }
    Ok(())
}

/// Takes out what contradicts a table that was read further: a promise to a container weighs more than a foreign host that
/// was seen, and what of a pool has lost its pool comes again from the API server.
fn drop_contradictions(new: &Records) -> Result<(), LedgerError> {
    new.run("comparing tables", |connection| {
        connection.execute_batch(
            "DELETE FROM set_aside WHERE EXISTS
                 (SELECT 1 FROM leases l WHERE (l.network, l.family, l.key) = (set_aside.network, set_aside.family, set_aside.key));
             DELETE FROM blocks WHERE pool NOT IN (SELECT pool FROM pools);
             DELETE FROM claims WHERE pool NOT IN (SELECT pool FROM pools);",
        )
    })
}

/// Marks every address that some table has as taken.
fn mark_chunks(new: &Records) -> Result<(), LedgerError> {
    for table in WITH_ADDRESSES {
        for (network, address, _) in new.addresses_in(table)? {
            new.run("marking an address", |connection| {
                chunk::mark(connection, &network, address, true).map(drop)
            })?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{ip, lease, owner};
    use crate::{Lease, UnixSeconds};

    /// A ledger of many pages, all of it in `ledger.db`.
    fn filled(directory: &Path) -> Vec<Lease> {
        let mut ledger = Ledger::open(directory).unwrap();
        let mut transaction = ledger.begin().unwrap();
        for number in 0_u32..600 {
            let address = std::net::Ipv4Addr::from_bits(0x0a00_0000 + number).to_string();
            transaction.insert_lease(&lease(&address, &format!("c{number}"))).unwrap();
        }
        transaction.set_cursor("blue", 0, ip("10.0.2.7")).unwrap();
        transaction.release_leases(&owner("c7"), None, UnixSeconds(20)).unwrap();
        transaction.commit().unwrap();
        let leases = ledger.leases().unwrap();
        ledger.fold_and_close().unwrap();
        leases
    }

    fn salvage(directory: &Path) -> (tempfile::TempDir, Salvage) {
        let scratch = tempfile::tempdir().unwrap();
        let salvage = Salvage::read(directory, scratch.path()).unwrap();
        (scratch, salvage)
    }

    #[test]
    fn of_a_whole_ledger_everything_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let leases = filled(directory.path());
        let (_scratch, salvage) = salvage(directory.path());
        assert_eq!(salvage.ledger.leases().unwrap(), leases);
        assert_eq!(salvage.ledger.resting_in("blue").unwrap().len(), 1);
        assert_eq!(salvage.ledger.cursor("blue", 0).unwrap(), Some(ip("10.0.2.7")));
        assert_eq!(salvage.ledger.audit().unwrap(), []);
        assert!(
            salvage.tables.iter().all(|table| table.damage.is_none() && table.refused == 0),
            "{:?}",
            salvage.tables
        );
    }

    #[test]
    fn around_a_damaged_page_both_sides_are_read() {
        let directory = tempfile::tempdir().unwrap();
        let leases = filled(directory.path());
        let path = directory.path().join(FILE);
        let whole = fs::read(&path).unwrap();
        let mut most = 0;
        for page in 1..whole.len() / 4096 {
            let mut bytes = whole.clone();
            bytes[page * 4096..][..4096].fill(0xff);
            fs::write(&path, bytes).unwrap();
            let (_scratch, salvage) = salvage(directory.path());
            let read = salvage.ledger.leases().unwrap();
            assert!(read.iter().all(|lease| leases.contains(lease)), "page {page}");
            assert_eq!(salvage.ledger.audit().unwrap(), [], "page {page}");
            if (1..leases.len()).contains(&read.len()) {
                let damaged = salvage.tables.iter().find(|table| table.name == "leases").unwrap();
                assert!(damaged.damage.is_some());
                let ends = [leases.first(), leases.last()];
                most = most.max(read.len());
                // A leaf in the middle takes its own rows with it and no others.
                if read.len() > 500 {
                    assert!(read.first() == ends[0] || read.last() == ends[1], "page {page}");
                }
            }
        }
        assert!(most > 550, "{most} of 600");
    }

    #[test]
    fn of_a_file_that_is_nothing_nothing_is_read_and_the_new_one_takes_its_place() {
        for content in [&b""[..], &[0x5a; 9000]] {
            let directory = tempfile::tempdir().unwrap();
            filled(directory.path());
            let path = directory.path().join(FILE);
            fs::write(&path, content).unwrap();
            let aside = directory.path().join("damaged");
            let (_scratch, mut salvage) = salvage(directory.path());
            assert!(salvage.tables.iter().all(|table| table.kept == 0), "{:?}", salvage.tables);
            let mut transaction = salvage.ledger.begin().unwrap();
            transaction.insert_lease(&lease("10.0.0.5", "c5")).unwrap();
            transaction.commit().unwrap();
            salvage.install(&aside).unwrap();
            assert_eq!(fs::read(aside.join(FILE)).unwrap(), content);

            let mut ledger = Ledger::open(directory.path()).unwrap();
            assert_eq!(ledger.leases().unwrap(), [lease("10.0.0.5", "c5")]);
            let mut transaction = ledger.begin().unwrap();
            transaction.insert_lease(&lease("10.0.0.6", "c6")).unwrap();
            transaction.commit().unwrap();
        }
    }

    #[test]
    fn a_log_that_was_not_folded_is_read_too_and_goes_aside_with_its_file() {
        let directory = tempfile::tempdir().unwrap();
        filled(directory.path());
        let mut ledger = Ledger::open(directory.path()).unwrap();
        let mut transaction = ledger.begin().unwrap();
        transaction.insert_lease(&lease("10.0.9.9", "late")).unwrap();
        transaction.commit().unwrap();
        let (_scratch, salvage) = salvage(directory.path());
        assert_eq!(salvage.ledger.leases_of(&owner("late")).unwrap().len(), 1);
        let aside = directory.path().join("damaged");
        salvage.install(&aside).unwrap();
        assert!(aside.join("ledger.db-wal").exists());
        // Who had the old one open does not write to it any more.
        assert!(matches!(ledger.begin().unwrap_err(), LedgerError::Replaced { .. }));
        assert_eq!(Ledger::open(directory.path()).unwrap().leases().unwrap().len(), 600);
    }

    #[test]
    fn an_installation_that_was_interrupted_is_gone_on_with() {
        let directory = tempfile::tempdir().unwrap();
        let leases = filled(directory.path());
        let (_scratch, salvage) = salvage(directory.path());
        salvage.install(&directory.path().join("first")).unwrap();
        // As it is before the last step: the new file is not in its place, and the old one is without its log.
        let path = |name: &str| directory.path().join(name);
        fs::rename(path(FILE), path(REBUILT)).unwrap();
        fs::write(path(FILE), "what the old file is like").unwrap();
        let (_scratch, salvage) = super::tests::salvage(directory.path());
        assert_eq!(salvage.ledger.leases().unwrap(), leases);
        salvage.install(&path("second")).unwrap();
        assert_eq!(Ledger::open(directory.path()).unwrap().leases().unwrap(), leases);
    }

    #[test]
    fn rows_that_nobody_understands_are_left_behind_and_counted() {
        let directory = tempfile::tempdir().unwrap();
        filled(directory.path());
        let ledger = Ledger::open(directory.path()).unwrap();
        let edit = "UPDATE leases SET device = 'card 3' WHERE container_id = 'c5';
                    UPDATE leases SET mac = '' WHERE container_id = 'c6'";
        ledger.run("test", |connection| connection.execute_batch(edit)).unwrap();
        drop(ledger);
        let (_scratch, salvage) = salvage(directory.path());
        let table = salvage.tables.iter().find(|table| table.name == "leases").unwrap();
        assert_eq!((table.kept, table.refused), (598, 2));
    }

    #[test]
    fn what_contradicts_another_table_is_left_behind() {
        let directory = tempfile::tempdir().unwrap();
        filled(directory.path());
        let ledger = Ledger::open(directory.path()).unwrap();
        let edit = "PRAGMA foreign_keys = off;
            INSERT INTO set_aside SELECT network, family, key, address, '02:00:00:00:00:09', 'c', 'eth0', 5 FROM leases
                WHERE container_id = 'c5';
            INSERT INTO set_aside VALUES ('blue', 4, x'0a000909', '10.0.9.9', '02:00:00:00:00:09', 'c', 'eth0', 5);
            INSERT INTO blocks VALUES ('lost', 4, x'0a640000', 26, '10.100.0.0', 1, 0)";
        ledger.run("test", |connection| connection.execute_batch(edit)).unwrap();
        drop(ledger);
        let (_scratch, salvage) = salvage(directory.path());
        let aside = salvage.ledger.set_aside().unwrap();
        assert_eq!(aside.iter().map(|found| found.address).collect::<Vec<_>>(), [ip("10.0.9.9")]);
        assert_eq!(salvage.ledger.blocks_of("lost").unwrap(), []);
        assert_eq!(salvage.ledger.audit().unwrap(), []);
    }

    #[test]
    fn where_no_ledger_ever_was_there_is_nothing_to_salvage() {
        let [directory, scratch] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        assert!(matches!(Salvage::read(directory.path(), scratch.path()), Err(LedgerError::Open { .. })));
    }
}
