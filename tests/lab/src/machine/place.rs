//! A folder of the host that goes with what uses it, at the latest when the next one is made: its owner may be killed.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use thiserror::Error;

/// Locked for as long as the owner lives. A lock asks nobody: whoever tried to connect to a VM's socket instead would wait
/// in its queue, which is short and which QEMU does not empty.
const LOCK: &str = "lock";

/// Why there is no folder.
#[derive(Debug, Error)]
#[error("{action} {path}")]
pub struct PlaceError {
    action: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// A folder; removed when it is dropped.
#[derive(Debug)]
pub struct Place {
    // Dropped in this order: what is still locked is nobody else's to remove.
    folder: TempDir,
    _lock: File,
}

impl Place {
    /// Makes a folder whose name begins with `prefix`, where temporary files are, and removes those of the same prefix whose
    /// owners are no more.
    ///
    /// # Errors
    /// [`PlaceError`].
    pub fn make(prefix: &str) -> Result<Self, PlaceError> {
        Self::make_in(&std::env::temp_dir(), prefix)
    }

    fn make_in(parent: &Path, prefix: &str) -> Result<Self, PlaceError> {
        remove_remains(parent, prefix);
        let fail = |action, path: &Path| {
            let path = path.to_owned();
            move |source| PlaceError { action, path, source }
        };
        let folder = tempfile::Builder::new().prefix(prefix).tempdir_in(parent);
        let folder = folder.map_err(fail("make a folder in", parent))?;
        // Locked under another name first, so that one that has the name is locked.
        let unlocked = folder.path().join(".lock");
        let lock = File::create(&unlocked).map_err(fail("create", &unlocked))?;
        lock.lock().map_err(fail("lock", &unlocked))?;
        let path = folder.path().join(LOCK);
        fs::rename(&unlocked, &path).map_err(fail("make", &path))?;
        Ok(Self { folder, _lock: lock })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }
}

fn remove_remains(parent: &Path, prefix: &str) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let ours = entry.file_name().to_string_lossy().starts_with(prefix);
        if ours && is_abandoned(&entry.path().join(LOCK)) {
            // What cannot be removed is in nobody's way.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn is_abandoned(lock: &Path) -> bool {
    File::open(lock).is_ok_and(|file| file.try_lock().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PREFIX: &str = "zerobridge-vm-";

    #[test]
    fn only_what_a_dead_owner_has_left_is_removed() {
        let parent = tempfile::tempdir().unwrap();
        let make = || Place::make_in(parent.path(), PREFIX).unwrap();
        let folder = |name: &str| {
            let path = parent.path().join(name);
            fs::create_dir(&path).unwrap();
            path
        };
        let starting = folder("zerobridge-vm-starting");
        let foreign = folder("other");
        File::create(foreign.join(LOCK)).unwrap();
        let Place { folder: dead, _lock: lock } = make();
        let dead = dead.keep();
        let alive = make();
        assert!(dead.exists(), "its owner lives");
        drop(lock);
        let _another = make();
        assert!(!dead.exists());
        assert!(alive.path().exists() && starting.exists() && foreign.exists());
    }

    #[test]
    fn it_goes_with_its_owner() {
        let parent = tempfile::tempdir().unwrap();
        let place = Place::make_in(parent.path(), PREFIX).unwrap();
        let path = place.path().to_owned();
        assert!(path.exists());
        drop(place);
        assert!(!path.exists());
    }
}
