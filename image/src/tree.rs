//! Files as they are to be in an image, and their tar archive.
//!
//! Everything belongs to root and is of 1970: what differs between two machines, and nobody needs, is not in it. Refuses to
//! know what a file is for.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use tar::{Builder, EntryType, Header};
use thiserror::Error;

/// Files, folders and symbolic links by their path, which is relative to the root.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree(BTreeMap<PathBuf, Node>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Node {
    Folder { mode: u32 },
    File { mode: u32, content: Vec<u8> },
    Link { target: PathBuf },
}

/// Why there is no tree, or no archive of it.
#[derive(Debug, Error)]
pub enum TreeError {
    /// A file or folder that is to be in it.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A file or folder that is to be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Something that an archive cannot hold, such as a path that is too long.
    #[error("cannot put {} into an archive", path.display())]
    Archive {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// Folders on the way to a file.
const FOLDER_MODE: u32 = 0o755;

impl Tree {
    /// An empty tree.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The content of the folder `root`, with its modes.
    ///
    /// # Errors
    /// [`TreeError::Read`].
    pub fn read(root: &Path) -> Result<Self, TreeError> {
        let mut tree = Self::new();
        tree.read_folder(root, Path::new(""))?;
        Ok(tree)
    }

    fn read_folder(&mut self, root: &Path, folder: &Path) -> Result<(), TreeError> {
        let at = |path: &Path| {
            let path = root.join(path);
            |source| TreeError::Read { path, source }
        };
        for entry in fs::read_dir(root.join(folder)).map_err(at(folder))? {
            let entry = entry.map_err(at(folder))?;
            let path = folder.join(entry.file_name());
            let facts = entry.metadata().map_err(at(&path))?;
            let mode = facts.permissions().mode() & 0o7777;
            if facts.is_dir() {
                self.0.insert(path.clone(), Node::Folder { mode });
                self.read_folder(root, &path)?;
            } else if facts.is_symlink() {
                let target = fs::read_link(entry.path()).map_err(at(&path))?;
                self.0.insert(path, Node::Link { target });
            } else {
                let content = fs::read(entry.path()).map_err(at(&path))?;
                self.0.insert(path, Node::File { mode, content });
            }
        }
        Ok(())
    }

    /// Puts an empty folder into it, and those on the way to it.
    pub fn folder(&mut self, path: impl AsRef<Path>, mode: u32) {
        let path = path.as_ref();
        self.way_to(path);
        self.0.insert(path.to_owned(), Node::Folder { mode });
    }

    /// Puts a file into it, and the folders on the way to it.
    pub fn file(&mut self, path: impl AsRef<Path>, mode: u32, content: impl Into<Vec<u8>>) {
        let path = path.as_ref();
        self.way_to(path);
        self.0.insert(path.to_owned(), Node::File { mode, content: content.into() });
    }

    fn way_to(&mut self, path: &Path) {
        for folder in path.ancestors().skip(1).filter(|folder| !folder.as_os_str().is_empty()) {
            self.0.entry(folder.to_owned()).or_insert(Node::Folder { mode: FOLDER_MODE });
        }
    }

    /// Writes it below the folder `root`, which is made.
    ///
    /// # Errors
    /// [`TreeError::Write`]; what was written before it stays.
    pub fn write(&self, root: &Path) -> Result<(), TreeError> {
        let permit = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode));
        let at = |path: &Path| {
            let path = path.to_owned();
            |source| TreeError::Write { path, source }
        };
        fs::create_dir_all(root).map_err(at(root))?;
        for (path, node) in &self.0 {
            let path = root.join(path);
            let written = match node {
                Node::Folder { mode } => fs::create_dir_all(&path).and_then(|()| permit(&path, *mode)),
                Node::File { mode, content } => fs::write(&path, content).and_then(|()| permit(&path, *mode)),
                Node::Link { target } => symlink(target, &path),
            };
            written.map_err(at(&path))?;
        }
        Ok(())
    }

    /// Its tar archive, sorted by path.
    ///
    /// # Errors
    /// [`TreeError::Archive`].
    pub fn archive(&self) -> Result<Vec<u8>, TreeError> {
        let mut builder = Builder::new(Vec::new());
        for (path, node) in &self.0 {
            let at = |source| TreeError::Archive { path: path.clone(), source };
            let mut header = Header::new_gnu();
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(0);
            match node {
                Node::Folder { mode } => {
                    header.set_entry_type(EntryType::Directory);
                    header.set_mode(*mode);
                    header.set_size(0);
                    // With a slash at its end, as tar itself writes it.
                    builder.append_data(&mut header, path.join(""), io::empty()).map_err(at)?;
                }
                Node::File { mode, content } => {
                    header.set_entry_type(EntryType::Regular);
                    header.set_mode(*mode);
                    header.set_size(u64::try_from(content.len()).map_err(io::Error::other).map_err(at)?);
                    builder.append_data(&mut header, path, content.as_slice()).map_err(at)?;
                }
                Node::Link { target } => {
                    header.set_entry_type(EntryType::Symlink);
                    header.set_mode(0o777);
                    header.set_size(0);
                    builder.append_link(&mut header, path, target).map_err(at)?;
                }
            }
        }
        let root = PathBuf::new();
        builder.into_inner().map_err(|source| TreeError::Archive { path: root, source })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn what_was_put_in_or_read_comes_out_of_the_archive_and_is_always_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let long = format!("{}/b", "a".repeat(120));
        fs::create_dir_all(folder.path().join("bin")).unwrap();
        fs::create_dir_all(folder.path().join("a".repeat(120))).unwrap();
        fs::write(folder.path().join("bin/x"), "an x").unwrap();
        fs::write(folder.path().join(&long), "").unwrap();
        fs::set_permissions(folder.path().join("bin/x"), fs::Permissions::from_mode(0o4750)).unwrap();
        symlink("x", folder.path().join("bin/y")).unwrap();
        let read = Tree::read(folder.path()).unwrap();
        let mut put = Tree::new();
        put.file("bin/x", 0o4750, "an x");
        put.file(&long, 0o644, "");
        put.0.insert("bin/y".into(), Node::Link { target: "x".into() });
        assert_eq!(read, put);
        let copy = tempfile::tempdir().unwrap();
        put.write(&copy.path().join("root")).unwrap();
        assert_eq!(Tree::read(&copy.path().join("root")).unwrap(), put);

        let archive = put.archive().unwrap();
        assert_eq!(archive, Tree::read(folder.path()).unwrap().archive().unwrap());
        let mut archive = tar::Archive::new(archive.as_slice());
        let mut found = Vec::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let header = entry.header().clone();
            assert_eq!((header.uid().unwrap(), header.gid().unwrap(), header.mtime().unwrap()), (0, 0, 0));
            let path = entry.path().unwrap().to_str().unwrap().to_owned();
            let mut content = String::new();
            entry.read_to_string(&mut content).unwrap();
            found.push((path, header.mode().unwrap(), content));
        }
        let expected = [
            (format!("{}/", "a".repeat(120)), 0o755, ""),
            (long, 0o644, ""),
            ("bin/".to_owned(), 0o755, ""),
            ("bin/x".to_owned(), 0o4750, "an x"),
            ("bin/y".to_owned(), 0o777, ""),
        ];
        assert_eq!(found, expected.map(|(path, mode, content)| (path, mode, content.to_owned())));
    }

    #[test]
    fn a_folder_that_cannot_be_read_is_named() {
        let error = Tree::read(Path::new("/nowhere")).unwrap_err();
        assert!(error.to_string().contains("/nowhere"), "{error}");
    }
}
