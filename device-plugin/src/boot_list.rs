//! Names that are remembered until the next boot, one a line in a file of a folder that a boot empties.
//!
//! Two processes may add at the same time, as when a daemon replaces another: a name may then be there twice, and none is
//! lost. Refuses to know what the names mean.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use thiserror::Error;

/// One such file.
#[derive(Clone, Debug)]
pub(crate) struct BootList {
    folder: PathBuf,
    name: &'static str,
}

/// The file could not be read or written.
#[derive(Debug, Error)]
#[error("cannot {action} {}", path.display())]
pub struct BootListError {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl BootList {
    /// The file `name` in `folder`; both are made when something is added.
    pub(crate) fn new(folder: impl Into<PathBuf>, name: &'static str) -> Self {
        Self { folder: folder.into(), name }
    }

    /// All names of this boot; none if nothing was added.
    ///
    /// # Errors
    ///
    /// [`BootListError`] if there is a file that cannot be read.
    pub(crate) fn names(&self) -> Result<BTreeSet<String>, BootListError> {
        let path = self.path();
        match fs::read_to_string(&path) {
            Ok(text) => Ok(text.lines().map(str::to_owned).collect()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeSet::new()),
            Err(error) => Err(at("read", &path)(error)),
        }
    }

    /// Adds a name, unless it is there, and returns all.
    ///
    /// # Errors
    ///
    /// [`BootListError`]; the name may be missing then.
    pub(crate) fn add(&self, name: &str) -> Result<BTreeSet<String>, BootListError> {
        let mut known = self.names()?;
        if known.insert(name.to_owned()) {
            let path = self.path();
            fs::create_dir_all(&self.folder).map_err(at("make", &self.folder))?;
            let mut file =
                OpenOptions::new().append(true).create(true).open(&path).map_err(at("open", &path))?;
            // In one piece, so that two processes do not mix their lines.
            file.write_all(format!("{name}\n").as_bytes()).map_err(at("write", &path))?;
        }
        Ok(known)
    }

    fn path(&self) -> PathBuf {
        self.folder.join(self.name)
    }
}

fn at(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BootListError {
    let path = path.to_owned();
    move |source| BootListError { action, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_is_there_once_until_the_folder_is_emptied() {
        let root = tempfile::tempdir().unwrap();
        let list = BootList::new(root.path().join("run"), "names");
        assert_eq!(list.names().unwrap(), BTreeSet::new());
        list.add("b").unwrap();
        list.add("a").unwrap();
        let both = BTreeSet::from(["a".to_owned(), "b".to_owned()]);
        assert_eq!(list.add("b").unwrap(), both);
        assert_eq!(fs::read_to_string(list.path()).unwrap(), "b\na\n");
        fs::remove_dir_all(root.path().join("run")).unwrap();
        assert_eq!(list.names().unwrap(), BTreeSet::new());
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("names")).unwrap();
        let error = BootList::new(root.path(), "names").add("a").unwrap_err();
        assert_eq!(error.to_string(), format!("cannot read {}", root.path().join("names").display()));
    }
}
