//! The container image of pods that use RDMA devices: verbs programs of this machine with the libraries that they load.
//!
//! Refuses to know what the programs are used for.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::PrepareError;
use super::cache::{Cache, CacheError, Entry};
use super::host::HostCommand;
use super::image::{self, BUSYBOX};

/// What pods call the image.
pub(crate) const NAME: &str = "lab.zerobridge.io/rdma:1";
/// The archive in its cache entry.
pub(crate) const ARCHIVE: &str = "rdma.tar";

const PROGRAMS: [&str; 4] =
    ["/usr/bin/ibv_devices", "/usr/bin/ibv_devinfo", "/usr/bin/ibv_rc_pingpong", "/usr/bin/rping"];
/// Says which provider serves which devices (libibverbs, `read_config_file` in init.c).
const DRIVER: &str = "/etc/libibverbs.d/rxe.driver";
/// The folder of the providers, which libibverbs loads by name when it finds a device, so that no `ldd` names them.
const PROVIDERS: &str = "/usr/lib/x86_64-linux-gnu/libibverbs";
/// What the provider of rdma_rxe is called before the number of its interface.
const PROVIDER: &str = "librxe-rdmav";
/// What the C library loads by name when a thread is ended, as rping ends its own.
const UNWINDER: &str = "/lib/x86_64-linux-gnu/libgcc_s.so.1";

/// The archive [`ARCHIVE`].
pub(crate) fn prepare(cache: &Cache) -> Result<Entry, PrepareError> {
    let files = closure()?;
    let mut key = image::layout_key().with("source", include_str!("rdma_image.rs"));
    for path in files.iter().map(PathBuf::as_path).chain([Path::new(BUSYBOX)]) {
        let content = fs::read(path).map_err(CacheError::file("read", path))?;
        key = key.with(&path.to_string_lossy(), content);
    }
    cache.entry("rdma-image", &key, |folder| pack(folder, &files))
}

fn pack(folder: &Path, files: &BTreeSet<PathBuf>) -> Result<(), PrepareError> {
    let scratch = tempfile::tempdir().map_err(CacheError::file("make a folder in", &std::env::temp_dir()))?;
    let root = scratch.path();
    image::make_root(root)?;
    for path in files {
        let inside = place(root, path);
        let parent = inside.parent().unwrap_or(root);
        fs::create_dir_all(parent).map_err(CacheError::file("make", parent))?;
        fs::copy(path, &inside).map_err(CacheError::file("write", &inside))?;
    }
    image::write(&folder.join(ARCHIVE), NAME, root)
}

/// Programs go where the image's only `PATH` looks; everything else is found by the path that it has here.
fn place(root: &Path, path: &Path) -> PathBuf {
    match path.strip_prefix("/usr/bin") {
        Ok(name) => root.join("bin").join(name),
        Err(_) => root.join(path.strip_prefix("/").unwrap_or(path)),
    }
}

/// The programs, the provider, and every library that any of them names.
fn closure() -> Result<BTreeSet<PathBuf>, PrepareError> {
    let mut loaded: Vec<PathBuf> = PROGRAMS.map(PathBuf::from).to_vec();
    let folder = Path::new(PROVIDERS);
    for entry in fs::read_dir(folder).map_err(CacheError::file("list", folder))? {
        let path = entry.map_err(CacheError::file("list", folder))?.path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(PROVIDER)) {
            loaded.push(path);
        }
    }
    let listing = HostCommand::new("ldd").args(&loaded).text()?;
    let mut files: BTreeSet<PathBuf> = libraries(&listing).collect();
    files.extend(loaded);
    files.extend([DRIVER, UNWINDER].map(PathBuf::from));
    Ok(files)
}

/// The files in `ldd`'s output: behind an arrow, or alone for the loader itself. The kernel's own library is no file.
fn libraries(listing: &str) -> impl Iterator<Item = PathBuf> + '_ {
    listing.lines().filter_map(|line| {
        let (library, _) = line.trim().rsplit_once(" (0x")?;
        let path = library.rsplit_once("=> ").map_or(library, |(_, path)| path);
        path.starts_with('/').then(|| path.into())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_files_and_nothing_else_is() {
        let listing = "/usr/bin/rping:\n\tlinux-vdso.so.1 (0x00007fe2bc0ab000)\n\
            \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007fe2bbe8e000)\n\
            \t/lib64/ld-linux-x86-64.so.2 (0x00007fe2bc0ad000)\n";
        let found: Vec<PathBuf> = libraries(listing).collect();
        let expected = ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"];
        assert_eq!(found, expected.map(PathBuf::from));
    }

    #[test]
    fn programs_are_found_by_name_and_libraries_by_path() {
        let root = Path::new("/r");
        assert_eq!(place(root, Path::new("/usr/bin/rping")), Path::new("/r/bin/rping"));
        assert_eq!(place(root, Path::new(DRIVER)), Path::new("/r/etc/libibverbs.d/rxe.driver"));
    }
}
