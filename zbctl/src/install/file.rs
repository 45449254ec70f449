//! Files put into their places whole, and what stands there told from what was put.
//!
//! Refuses to know whose a file is.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::InstallError;

/// What stands at a path: `sha256:` with the digest of a file, or `link:` with where a symbolic link leads.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Content(String);

impl Content {
    /// That of a file with these bytes.
    pub(super) fn of(bytes: &[u8]) -> Self {
        let digest: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        Self(format!("sha256:{digest}"))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// What stands at a path; `None` where nothing does.
pub(super) fn look(path: &Path) -> Result<Option<Content>, InstallError> {
    let looked = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => Err(error),
        Ok(facts) if facts.is_symlink() => {
            fs::read_link(path).map(|target| Content(format!("link:{}", target.display())))
        }
        Ok(facts) if facts.is_file() => fs::read(path).map(|bytes| Content::of(&bytes)),
        Ok(_) => Err(io::Error::other("it is neither a file nor a symbolic link; move it away")),
    };
    looked.map(Some).map_err(|source| InstallError::Look { path: path.to_owned(), source })
}

/// The file beside `path` that becomes it by renaming. No runtime takes it for a plugin or a network.
pub(super) fn unfinished(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.zerobridge-new"))
}

/// Writes the unfinished file of `path`, down to the disk. What a killed process left of one is replaced.
pub(super) fn stage(path: &Path, bytes: &[u8], mode: u32) -> Result<(), InstallError> {
    let unfinished = unfinished(path);
    let write = || {
        discard(path)?;
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&unfinished)?;
        file.write_all(bytes)?;
        // The mask of the process may have taken bits away.
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.sync_all()
    };
    write().map_err(|source| {
        // Best effort: the failure that is reported is the one that matters.
        let _ = discard(path);
        InstallError::Write { path: path.to_owned(), source }
    })
}

/// Removes the unfinished file of `path`, if there is one.
pub(super) fn discard(path: &Path) -> io::Result<()> {
    absent(fs::remove_file(unfinished(path)))
}

/// Puts the unfinished file of `path` into its place. Who has the old one open, or runs it, keeps it.
pub(super) fn finish(path: &Path) -> Result<(), InstallError> {
    fs::rename(unfinished(path), path)
        .and_then(|()| sync_folder(path))
        .map_err(|source| InstallError::Write { path: path.to_owned(), source })
}

/// Gives a file that has the right content its mode.
pub(super) fn ensure_mode(path: &Path, mode: u32) -> Result<(), InstallError> {
    let ensure = || match fs::metadata(path)?.permissions().mode() & 0o7777 {
        present if present == mode => Ok(()),
        _ => fs::set_permissions(path, fs::Permissions::from_mode(mode)),
    };
    ensure().map_err(|source| InstallError::Write { path: path.to_owned(), source })
}

/// Gives what stands at `path` a second name, so that there is no moment without it.
pub(super) fn keep(path: &Path, name: &Path) -> Result<(), InstallError> {
    fs::hard_link(path, name)
        .and_then(|()| sync_folder(path))
        .map_err(|source| InstallError::Write { path: name.to_owned(), source })
}

/// Puts what was kept under `name` back to `path`.
pub(super) fn put_back(name: &Path, path: &Path) -> Result<(), InstallError> {
    let put = || {
        fs::rename(name, path)?;
        // Two names of one file are not renamed into each other, and both stay.
        absent(fs::remove_file(name))?;
        sync_folder(path)
    };
    put().map_err(|source| InstallError::Write { path: path.to_owned(), source })
}

/// Removes a file; success when there is none.
pub(super) fn remove(path: &Path) -> Result<(), InstallError> {
    absent(fs::remove_file(path))
        .and_then(|()| sync_folder(path))
        .map_err(|source| InstallError::Remove { path: path.to_owned(), source })
}

/// Removes a folder if it is empty. Whether it was there.
pub(super) fn remove_empty_folder(path: &Path) -> Result<bool, InstallError> {
    match fs::remove_dir(path) {
        Ok(()) => Ok(true),
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::ResourceBusy => {
                Ok(false)
            }
            _ => Err(InstallError::Remove { path: path.to_owned(), source: error }),
        },
    }
}

/// The folders that are missing on the way to `folder`, outermost first.
pub(super) fn missing_folders(folder: &Path) -> Vec<PathBuf> {
    let mut missing: Vec<PathBuf> =
        folder.ancestors().take_while(|folder| !folder.exists()).map(Path::to_owned).collect();
    missing.retain(|folder| !folder.as_os_str().is_empty());
    missing.reverse();
    missing
}

/// Makes a folder and those above it, with this mode.
pub(super) fn make_folder(folder: &Path, mode: u32) -> Result<(), InstallError> {
    DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(folder)
        .map_err(|source| InstallError::Write { path: folder.to_owned(), source })
}

/// What to do about a file that could not be written.
pub(super) fn remedy(path: &Path, source: &io::Error) -> String {
    let folder = path.parent().unwrap_or(path).display();
    match source.kind() {
        io::ErrorKind::ReadOnlyFilesystem => {
            format!(
                "{folder} is read-only here: mount it writable into the container, or name another folder"
            )
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            format!("make room on the file system of {folder}; nothing half written was left")
        }
        io::ErrorKind::PermissionDenied => format!("run this as root, who may write to {folder}"),
        _ => format!("see to {folder} and do it again"),
    }
}

fn sync_folder(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) => match File::open(folder) {
            Err(error) => absent(Err(error)),
            Ok(folder) => folder.sync_all(),
        },
        None => Ok(()),
    }
}

fn absent(outcome: io::Result<()>) -> io::Result<()> {
    match outcome {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn content_tells_files_and_links_apart() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("a"), "x").unwrap();
        fs::write(at("b"), "x").unwrap();
        symlink("a", at("c")).unwrap();
        assert_eq!(look(&at("a")).unwrap(), look(&at("b")).unwrap());
        assert_eq!(look(&at("a")).unwrap().unwrap(), Content::of(b"x"));
        assert_eq!(look(&at("c")).unwrap().unwrap().as_str(), "link:a");
        assert_eq!(look(&at("d")).unwrap(), None);
        fs::create_dir(at("e")).unwrap();
        assert!(look(&at("e")).is_err());
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Content::of(b"").as_str(), empty);
    }

    #[test]
    fn a_file_is_there_whole_with_its_mode_and_nothing_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("zerobridge");
        fs::write(unfinished(&path), "of a killed process").unwrap();
        stage(&path, b"new", 0o755).unwrap();
        assert_eq!(look(&path).unwrap(), None, "not before it is finished");
        finish(&path).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o755);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_put_back_has_one_name_whichever_it_had() {
        let folder = tempfile::tempdir().unwrap();
        let [path, kept] = ["sriov", "sriov.before"].map(|name| folder.path().join(name));
        fs::write(&path, "theirs").unwrap();
        keep(&path, &kept).unwrap();
        put_back(&kept, &path).unwrap();
        assert_eq!((fs::read(&path).unwrap(), kept.exists()), (b"theirs".to_vec(), false));
    }

    #[test]
    fn missing_folders_are_named_from_outside() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("a/b");
        assert_eq!(missing_folders(&deep), [folder.path().join("a"), deep.clone()]);
        make_folder(&deep, 0o755).unwrap();
        assert!(missing_folders(&deep).is_empty());
    }
}
