//! The lab's usual container image, busybox; and how the others of the lab are written.
//!
//! That one is also the sandbox ("pause") image: `sleep` holds the namespaces as well as anything.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use serde_json::{Map, json};
use zerobridge_image::{Image, Tree};

use super::PrepareError;
use super::cache::{Cache, CacheError, Entry, Key};
use super::host::HostCommand;

/// What pods and containerd's configuration call the image.
pub(crate) const NAME: &str = "lab.zerobridge.io/busybox:1";
/// The archive in its cache entry.
pub(crate) const ARCHIVE: &str = "busybox.tar";

/// Linked statically, so that it is a file system's only file.
pub(super) const BUSYBOX: &str = "/bin/busybox";

/// The archive [`ARCHIVE`].
pub(crate) fn prepare(cache: &Cache) -> Result<Entry, PrepareError> {
    let busybox = fs::read(BUSYBOX).map_err(CacheError::file("read", Path::new(BUSYBOX)))?;
    let key = layout_key().with("busybox", busybox);
    cache.entry("image", &key, pack)
}

/// What every image here is made by.
pub(super) fn layout_key() -> Key {
    let sources = [
        include_str!("image.rs"),
        include_str!("../../../../image/src/layout.rs"),
        include_str!("../../../../image/src/tree.rs"),
    ];
    sources.into_iter().fold(Key::new(), |key, source| key.with("layout", source))
}

fn pack(folder: &Path) -> Result<(), PrepareError> {
    let scratch = tempfile::tempdir().map_err(CacheError::file("make a folder in", &std::env::temp_dir()))?;
    make_root(scratch.path())?;
    write(&folder.join(ARCHIVE), NAME, scratch.path())
}

/// A root with the folders that a runtime mounts on, and busybox under the name of each of its applets.
pub(super) fn make_root(root: &Path) -> Result<(), PrepareError> {
    for name in ["bin", "etc", "proc", "sys", "dev", "tmp"] {
        let path = root.join(name);
        fs::create_dir_all(&path).map_err(CacheError::file("make", &path))?;
    }
    let busybox = root.join("bin/busybox");
    fs::copy(BUSYBOX, &busybox).map_err(CacheError::file("write", &busybox))?;
    for applet in HostCommand::new(BUSYBOX).args(["--list"]).text()?.lines().filter(|name| *name != "busybox")
    {
        let path = root.join("bin").join(applet);
        symlink("busybox", &path).map_err(CacheError::file("link", &path))?;
    }
    Ok(())
}

/// Writes the archive of an image that is called `name` and has the content of `root`.
pub(super) fn write(path: &Path, name: &str, root: &Path) -> Result<(), PrepareError> {
    let root = Tree::read(root)?;
    let config = Map::from_iter([
        ("Env".to_owned(), json!(["PATH=/bin"])),
        ("Cmd".to_owned(), json!(["sleep", "infinity"])),
    ]);
    let archive = Image { name, config, created: None, root: &root }.archive()?;
    Ok(fs::write(path, archive).map_err(CacheError::file("write", path))?)
}
