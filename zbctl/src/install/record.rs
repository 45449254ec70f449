//! What was put on the node, remembered durably before it is done: `installed.json` in the ledger's directory.
//!
//! Refuses to know whether it is still so.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::InstallError;
use super::file::{self, Content};

/// The file's name.
pub(super) const FILE: &str = "installed.json";

/// The file that keeps two commands apart.
const LOCK: &str = "install.lock";

/// The format of the file that is written.
const FORMAT: u32 = 1;

/// How long another command is waited for, and how often is looked.
const PATIENCE: Duration = Duration::from_secs(30);
const INTERVAL: Duration = Duration::from_millis(50);

/// Only root reads what a node has.
const MODE: u32 = 0o600;

/// Everything that was put on the node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// How the file is to be read.
    format: u32,
    /// The version of the zbctl that installed last.
    pub(super) version: String,
    /// Folders that were made, outermost first.
    pub(super) folders: Vec<PathBuf>,
    /// The files, programs first.
    pub(super) files: Vec<Entry>,
}

/// One file that was, or is about to be, put somewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    /// Where.
    pub(super) path: PathBuf,
    /// What it is.
    pub(super) kind: Kind,
    /// What we put or are about to put there, the last one last. More than one only while an installation is under way.
    pub(super) contents: Vec<Content>,
    /// What stood there before, and goes back when ours goes.
    pub(super) before: Option<Kept>,
    /// What somebody else put there since, out of the way and never put back.
    pub(super) aside: Vec<PathBuf>,
}

/// Something that somebody else had at one of our paths.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Kept {
    /// Where it is kept.
    pub(super) path: PathBuf,
    /// What it is.
    pub(super) content: Content,
}

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Kind {
    /// A program under its own name.
    Program,
    /// The CNI plugin under the name of another one.
    Replacement,
    /// A network of the runtime.
    Network,
}

impl Record {
    /// Nothing.
    pub(super) fn new() -> Self {
        Self { format: FORMAT, version: version(), folders: Vec::new(), files: Vec::new() }
    }

    /// What is remembered in `state_dir`; `None` where nothing was installed.
    pub(super) fn load(state_dir: &Path) -> Result<Option<Self>, InstallError> {
        let path = state_dir.join(FILE);
        let text = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            text => text.map_err(|source| InstallError::Look { path: path.clone(), source })?,
        };
        let understand = |source| InstallError::Record { path: path.clone(), source };
        /// What every format has.
        #[derive(Deserialize)]
        struct AnyFormat {
            format: u32,
        }
        let AnyFormat { format } = serde_json::from_slice(&text).map_err(understand)?;
        if format != FORMAT {
            return Err(InstallError::RecordFormat { path, found: format, known: FORMAT });
        }
        serde_json::from_slice(&text).map(Some).map_err(understand)
    }

    /// Remembers this, durably.
    pub(super) fn save(&self, state_dir: &Path) -> Result<(), InstallError> {
        let path = state_dir.join(FILE);
        let mut text = serde_json::to_vec_pretty(self)
            .map_err(|source| InstallError::Record { path: path.clone(), source })?;
        text.push(b'\n');
        file::stage(&path, &text, MODE)?;
        file::finish(&path)
    }

    /// Forgets everything.
    pub(super) fn forget(state_dir: &Path) -> Result<(), InstallError> {
        let path = state_dir.join(FILE);
        file::discard(&path).map_err(|source| InstallError::Remove { path: path.clone(), source })?;
        file::remove(&path)
    }

    /// The entry of a path.
    pub(super) fn entry(&self, path: &Path) -> Option<&Entry> {
        self.files.iter().find(|entry| entry.path == path)
    }
}

impl Entry {
    /// Whether this is what we put there, or were about to.
    pub(super) fn is_ours(&self, content: &Content) -> bool {
        self.contents.contains(content)
    }
}

/// The version that installs.
pub(super) fn version() -> String {
    env!("CARGO_PKG_VERSION").to_owned()
}

/// The right to install and uninstall. Given up when dropped, and by the kernel when the process dies.
#[derive(Debug)]
pub(super) struct Turn {
    path: PathBuf,
    _locked: File,
}

impl Turn {
    /// Waits for it. Makes the directory, as the ledger does.
    pub(super) fn take(state_dir: &Path) -> Result<Self, InstallError> {
        const FOLDER_MODE: u32 = 0o700;
        let path = state_dir.join(LOCK);
        let failed = |source| InstallError::Write { path: path.clone(), source };
        let started = Instant::now();
        loop {
            file::make_folder(state_dir, FOLDER_MODE)?;
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false).mode(MODE);
            let locked = match options.open(&path) {
                // The one before has just taken the folder away.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                file => file.map_err(failed)?,
            };
            match locked.try_lock() {
                // One that has ended may have removed the file that was waited for.
                Ok(()) if leads_to(&path, &locked) => return Ok(Self { path, _locked: locked }),
                Ok(()) => {}
                Err(TryLockError::WouldBlock) if started.elapsed() < PATIENCE => thread::sleep(INTERVAL),
                Err(TryLockError::WouldBlock) => {
                    return Err(InstallError::Busy { path, seconds: PATIENCE.as_secs() });
                }
                Err(TryLockError::Error(source)) => return Err(failed(source)),
            }
        }
    }

    /// Takes the lock's file away, and the directory where nothing else is in it. Nothing is remembered by now; what a command
    /// left that was killed when it began to goes, too.
    pub(super) fn end(self, state_dir: &Path) -> Result<(), InstallError> {
        let path = state_dir.join(FILE);
        file::discard(&path).map_err(|source| InstallError::Remove { path, source })?;
        file::remove(&self.path)?;
        file::remove_empty_folder(state_dir).map(drop)
    }
}

fn leads_to(path: &Path, file: &File) -> bool {
    let id = |facts: fs::Metadata| (facts.dev(), facts.ino());
    fs::metadata(path).ok().map(id) == file.metadata().ok().map(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_saved_is_loaded_and_a_newer_format_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Record::load(folder.path()).unwrap(), None);
        let mut record = Record::new();
        record.files.push(Entry {
            path: "/opt/cni/bin/sriov".into(),
            kind: Kind::Replacement,
            contents: vec![Content::of(b"ours")],
            before: Some(Kept { path: "/opt/cni/bin/b".into(), content: Content::of(b"theirs") }),
            aside: vec!["/opt/cni/bin/c".into()],
        });
        record.save(folder.path()).unwrap();
        assert_eq!(Record::load(folder.path()).unwrap().unwrap(), record);
        fs::write(folder.path().join(FILE), r#"{"format": 2, "else": 1}"#).unwrap();
        let error = Record::load(folder.path()).unwrap_err().to_string();
        assert!(error.contains("format 2") && error.contains("knows 1"), "{error}");
        Record::forget(folder.path()).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn turns_exclude_each_other_and_leave_nothing() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("state");
        let turn = Turn::take(&folder).unwrap();
        thread::scope(|scope| {
            let second = scope.spawn(|| Turn::take(&folder).unwrap().end(&folder).unwrap());
            thread::sleep(INTERVAL * 3);
            assert!(!second.is_finished());
            turn.end(&folder).unwrap();
        });
        assert!(!folder.exists());
    }
}
