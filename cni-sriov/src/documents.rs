//! Small JSON documents in a folder that other programs watch: one file each, there whole or not at all.
//!
//! Refuses to know what they say, and which of them are still needed.

use std::fs::{self, File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use serde::Serialize;
use thiserror::Error;

/// Every program of the machine may read what a device is; only root may say so.
const MODE: u32 = 0o644;

/// How the name of an unfinished file begins: not listed, and read by nobody.
const UNFINISHED: &str = ".zerobridge-";

/// A folder of documents.
#[derive(Debug)]
pub struct DocumentFolder {
    path: PathBuf,
    /// Keeps the unfinished files of parallel writes apart.
    next: AtomicU64,
    /// Held while a document is put into place or taken away, so that nothing fresh is taken for what was listed.
    changing: Mutex<()>,
}

/// A document that was found in a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// Its file name.
    pub name: String,
    /// When it was written.
    pub modified: SystemTime,
}

/// A document that could not be written, found or removed.
#[derive(Debug, Error)]
pub enum DocumentError {
    /// Writing failed. An earlier version is still complete.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The folder cannot be read.
    #[error("cannot list {}", path.display())]
    List {
        /// The folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Removing failed.
    #[error("cannot remove {}", path.display())]
    Remove {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Document {
    /// Whether it was written longer ago than `age`. A clock that was set back makes nothing old.
    #[must_use]
    pub fn is_older_than(&self, age: Duration, now: SystemTime) -> bool {
        now.duration_since(self.modified).is_ok_and(|since| since > age)
    }
}

impl DocumentFolder {
    /// The folder at `path`. It is made when something is written.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), next: AtomicU64::new(0), changing: Mutex::new(()) }
    }

    /// Writes a document, in place of the one that may be there. Its time of writing is new even if its content is not.
    ///
    /// # Errors
    ///
    /// [`DocumentError::Write`]; an earlier document is still complete then.
    pub fn write(&self, name: &str, document: &impl Serialize) -> Result<(), DocumentError> {
        let path = self.path.join(name);
        // In the folder itself: a container runtime sees a file that arrives by renaming only if it also left this folder
        // (CDI's reference implementation asks inotify for removals and renamings, not for arrivals).
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let unfinished = self.path.join(format!("{UNFINISHED}{}-{number}", std::process::id()));
        let written = self.replace(&path, &unfinished, document);
        if written.is_err() {
            // Best effort: the failure that is reported is the one that matters.
            let _ = fs::remove_file(&unfinished);
        }
        written.map_err(|source| DocumentError::Write { path, source })
    }

    fn replace(&self, path: &Path, unfinished: &Path, document: &impl Serialize) -> io::Result<()> {
        fs::create_dir_all(&self.path)?;
        let mut file = File::create(unfinished)?;
        file.write_all(&serde_json::to_vec(document)?)?;
        file.set_permissions(Permissions::from_mode(MODE))?;
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        fs::rename(unfinished, path)
    }

    /// Whether there is a document of this name.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.path.join(name).is_file()
    }

    /// Every document of the folder, in the order of names. A folder that does not exist has none.
    ///
    /// # Errors
    ///
    /// [`DocumentError::List`].
    pub fn list(&self) -> Result<Vec<Document>, DocumentError> {
        let error = |source| DocumentError::List { path: self.path.clone(), source };
        let entries = match fs::read_dir(&self.path) {
            Err(absent) if absent.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(error)?,
        };
        let mut documents = Vec::new();
        for entry in entries {
            let entry = entry.map_err(error)?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            // Gone since, or no file: not a document.
            let Ok(facts) = entry.metadata() else { continue };
            if facts.is_file() && !name.starts_with(UNFINISHED) {
                documents.push(Document { name, modified: facts.modified().map_err(error)? });
            }
        }
        documents.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        Ok(documents)
    }

    /// Removes the document of this name, whatever it says. One that is gone is no failure.
    ///
    /// # Errors
    ///
    /// [`DocumentError::Remove`].
    pub fn remove_named(&self, name: &str) -> Result<(), DocumentError> {
        let path = self.path.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(DocumentError::Remove { path, source: error })
            }
            _ => Ok(()),
        }
    }

    /// Removes a document as it was listed. One that was written again since stays, and one that is gone is no failure.
    ///
    /// # Errors
    ///
    /// [`DocumentError::Remove`].
    pub fn remove(&self, document: &Document) -> Result<(), DocumentError> {
        let path = self.path.join(&document.name);
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let removed = match fs::symlink_metadata(&path).and_then(|facts| facts.modified()) {
            Ok(modified) if modified == document.modified => fs::remove_file(&path),
            Ok(_) => Ok(()),
            Err(error) => Err(error),
        };
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(DocumentError::Remove { path, source: error })
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &DocumentFolder) -> Vec<String> {
        folder.list().unwrap().into_iter().map(|document| document.name).collect()
    }

    #[test]
    fn a_document_is_replaced_whole_and_readable_by_all() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("some/where");
        let folder = DocumentFolder::new(&path);
        assert_eq!(folder.list().unwrap(), []);
        folder.write("b.json", &["a longer text than the next"]).unwrap();
        folder.write("b.json", &["x"]).unwrap();
        folder.write("a.json", &[1]).unwrap();
        assert_eq!(fs::read_to_string(path.join("b.json")).unwrap(), r#"["x"]"#);
        assert_eq!(fs::metadata(path.join("b.json")).unwrap().permissions().mode() & 0o7777, 0o644);
        assert_eq!(names(&folder), ["a.json", "b.json"]);
        assert_eq!(fs::read_dir(&path).unwrap().count(), 2, "nothing unfinished is left");
    }

    #[test]
    fn a_failure_names_the_file_and_leaves_nothing_behind() {
        let root = tempfile::tempdir().unwrap();
        let folder = DocumentFolder::new(root.path());
        let blocked = root.path().join("x.json");
        fs::create_dir(&blocked).unwrap();
        let error = folder.write("x.json", &[1]).unwrap_err();
        assert!(error.to_string().contains(blocked.to_str().unwrap()), "{error}");
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
        assert_eq!(names(&folder), [""; 0], "a folder is no document");
    }

    #[test]
    fn only_what_was_listed_is_removed() {
        let root = tempfile::tempdir().unwrap();
        let folder = DocumentFolder::new(root.path());
        for name in ["old.json", "new.json", "gone.json"] {
            folder.write(name, &[1]).unwrap();
        }
        let listed = folder.list().unwrap();
        fs::remove_file(root.path().join("gone.json")).unwrap();
        let again = File::options().write(true).open(root.path().join("new.json")).unwrap();
        again.set_modified(listed[1].modified + Duration::from_secs(1)).unwrap();
        for document in &listed {
            folder.remove(document).unwrap();
        }
        assert_eq!(names(&folder), ["new.json"]);
    }
}
