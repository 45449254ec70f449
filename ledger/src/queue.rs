//! The queue before the ledger: one writer at a time, and the others asleep.
//!
//! SQLite's own answer to a second writer is to poll. Under a burst of CNI calls that wastes the processors that the
//! calls need and starves whoever polls at the wrong moments, so writers line up at an `flock` first, which also ends by
//! itself when its holder is killed.
//!
//! The locked file also says how many transactions the ledger has seen. SQLite takes a log that was deleted or overwritten
//! for an empty one and goes on from an older state, in which addresses seem free that are not; this number tells.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use tracing::warn;

use crate::LedgerError;

/// The file that writers lock, and how long they wait for it.
#[derive(Debug)]
pub(crate) struct Queue {
    path: PathBuf,
    pub(crate) patience: Duration,
}

/// The right to write; ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    locked: File,
}

/// Digits of the number in the file: those of `i64::MAX`, so that each number overwrites the one before.
const DIGITS: usize = 19;

impl Turn {
    /// How many transactions the ledger has seen. `None` in a file that is new, or that somebody emptied or scribbled on.
    pub(crate) fn commits(&self) -> Option<i64> {
        let mut text = [0; DIGITS];
        self.locked.read_exact_at(&mut text, 0).ok()?;
        std::str::from_utf8(&text).ok()?.parse().ok().filter(|commits| *commits >= 0)
    }

    /// Writes down that the ledger, on disk, has seen this many. Not synced: after a power cut an older number may stand
    /// here, which is smaller.
    pub(crate) fn note(&self, commits: i64) {
        let text = format!("{commits:0DIGITS$}\n");
        if let Err(error) = self.locked.write_all_at(text.as_bytes(), 0) {
            warn!(%error, commits, "the number of transactions could not be written beside the ledger");
        }
    }
}

impl Queue {
    pub(crate) fn new(path: PathBuf, patience: Duration) -> Self {
        Self { path, patience }
    }

    /// Waits for the others.
    pub(crate) fn wait(&self) -> Result<Turn, LedgerError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&self.path)
            .map_err(|source| self.failed(source))?;
        match file.try_lock() {
            Ok(()) => Ok(Turn { locked: file }),
            Err(TryLockError::WouldBlock) => self.sleep_until_locked(file),
            Err(TryLockError::Error(source)) => Err(self.failed(source)),
        }
    }

    /// A lock that blocks has no time limit of its own, so a thread waits for it. When that takes too long the thread
    /// stays behind and, once it has the lock, gives it up at once: nobody receives the file, and dropping it unlocks.
    fn sleep_until_locked(&self, file: File) -> Result<Turn, LedgerError> {
        let started = Instant::now();
        let (locked, outcome) = mpsc::sync_channel(0);
        std::thread::Builder::new()
            .name("ledger-queue".to_owned())
            .spawn(move || {
                let result = file.lock().map(|()| file);
                // An error means that the waiter has left.
                let _gone = locked.send(result);
            })
            .map_err(|source| self.failed(source))?;
        match outcome.recv_timeout(self.patience) {
            Ok(Ok(file)) => Ok(Turn { locked: file }),
            Ok(Err(source)) => Err(self.failed(source)),
            Err(_) => Err(LedgerError::Busy { path: self.path.clone(), waited: started.elapsed() }),
        }
    }

    fn failed(&self, source: io::Error) -> LedgerError {
        LedgerError::Open { path: self.path.clone(), source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_what_was_noted_last_and_nothing_else_is_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let queue = Queue::new(path.clone(), Duration::from_secs(60));
        let turn = queue.wait().unwrap();
        assert_eq!(turn.commits(), None);
        for number in [0, i64::MAX, 42] {
            turn.note(number);
            assert_eq!(turn.commits(), Some(number));
        }
        for spoiled in ["", "7", "-000000000000000007", "xxxxxxxxxxxxxxxxxxxx"] {
            std::fs::write(&path, spoiled).unwrap();
            assert_eq!(turn.commits(), None, "{spoiled}");
        }
    }

    #[test]
    fn the_second_waits_for_the_first_and_not_longer_than_told() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let patient = Queue::new(path.clone(), Duration::from_secs(60));
        let hasty = Queue::new(path, Duration::from_millis(10));

        let turn = patient.wait().unwrap();
        let error = hasty.wait().unwrap_err();
        assert!(matches!(&error, LedgerError::Busy { waited, .. } if *waited >= Duration::from_millis(10)));
        assert!(error.to_string().contains("fuser"), "{error}");

        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| patient.wait().map(drop));
            drop(turn);
            waiter.join().unwrap().unwrap();
        });
        // The waiter that gave up has not kept the lock for good.
        patient.wait().unwrap();
    }
}
