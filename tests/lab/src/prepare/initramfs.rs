//! The few files with which the guest's kernel reaches the host's root.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::PrepareError;
use super::cache::{Cache, CacheError, Entry, Key};
use super::host::HostCommand;

const BUSYBOX: &str = "/bin/busybox";
const SCRIPT: &str = include_str!("init.sh");
/// What a root over 9p and overlay needs beyond what Debian builds into the kernel.
const MODULES: [&str; 3] = ["9pnet_virtio", "9p", "overlay"];

/// The archive `initrd.img`.
pub(crate) fn prepare(cache: &Cache, kernel: &Path, release: &str) -> Result<Entry, PrepareError> {
    let busybox = fs::read(BUSYBOX).map_err(CacheError::file("read", Path::new(BUSYBOX)))?;
    let key = Key::new()
        .with("script", SCRIPT)
        .with("modules", MODULES.join(" "))
        .with("busybox", busybox)
        .with("kernel", kernel.as_os_str().as_encoded_bytes());
    cache.entry("initramfs", &key, |folder| pack(folder, &kernel.join("root"), release))
}

fn pack(folder: &Path, modules: &Path, release: &str) -> Result<(), PrepareError> {
    let scratch = tempfile::tempdir().map_err(CacheError::file("make a folder in", &std::env::temp_dir()))?;
    let root = scratch.path();
    for name in ["bin", "modules"] {
        let path = root.join(name);
        fs::create_dir(&path).map_err(CacheError::file("make", &path))?;
    }
    let busybox = root.join("bin/busybox");
    fs::copy(BUSYBOX, &busybox).map_err(CacheError::file("write", &busybox))?;
    write_executable(&root.join("init"), SCRIPT)?;
    for (position, path) in load_order(modules, release)?.iter().enumerate() {
        // Unpacked here, because the guest is several times slower.
        let module = HostCommand::new("xz").args(["-dc"]).args([path]).run()?;
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        let target = root.join(format!("modules/{position:02}-{name}"));
        fs::write(&target, module).map_err(CacheError::file("write", &target))?;
    }
    let names = HostCommand::new("find").args(["."]).folder(root).run()?;
    let archive =
        HostCommand::new(BUSYBOX).args(["cpio", "-o", "-H", "newc"]).folder(root).stdin(names).run()?;
    let path = folder.join("initrd.img");
    fs::write(&path, archive).map_err(CacheError::file("write", &path))?;
    Ok(())
}

fn write_executable(path: &Path, text: &str) -> Result<(), CacheError> {
    fs::write(path, text).map_err(CacheError::file("write", path))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).map_err(CacheError::file("open up", path))
}

/// The files of [`MODULES`] and of all they depend on, each once, in the order in which they load.
fn load_order(root: &Path, release: &str) -> Result<Vec<PathBuf>, PrepareError> {
    let mut order = Vec::new();
    for module in MODULES {
        let listing = HostCommand::new("modprobe")
            .args(["-d"])
            .args([root])
            .args(["-S", release, "--show-depends", module])
            .text()?;
        for path in parse_depends(&listing) {
            if !order.contains(&path) {
                order.push(path);
            }
        }
    }
    Ok(order)
}

fn parse_depends(listing: &str) -> Vec<PathBuf> {
    listing.lines().filter_map(|line| line.strip_prefix("insmod ")).map(|path| path.trim().into()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_in_modules_are_not_loaded() {
        let listing = "builtin virtio_ring\ninsmod /m/netfs.ko.xz \ninsmod /m/9p.ko.xz \n";
        assert_eq!(parse_depends(listing), [PathBuf::from("/m/netfs.ko.xz"), PathBuf::from("/m/9p.ko.xz")]);
    }
}
