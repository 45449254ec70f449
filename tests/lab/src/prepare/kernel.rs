//! The guest's kernel and its modules, unpacked from Debian packages and not installed.

use std::cmp::Ordering;
use std::fs;
use std::path::Path;

use thiserror::Error;

use super::apt::{AptError, PrivateApt};
use super::cache::{Cache, CacheError, Entry, Key};
use super::host::{HostCommand, HostError};

/// Where new kernels for the stable release appear, whatever release the host runs.
const SUITE: &str = "trixie-backports";
/// The kernel that the lab was last seen to work with. The suite drops old ones in time; see [`choose`].
const PINNED: &str = "7.3.4+deb13-amd64";
const FLAVOUR: &str = "+deb13-amd64";
const PREFIX: &str = "linux-binary-";
/// File in the cache entry that says which kernel it holds.
const RELEASE: &str = "release";

/// Why there is no kernel.
#[derive(Debug, Error)]
pub enum KernelError {
    /// The suite lists no kernel.
    #[error("{SUITE} lists no package {PREFIX}…{FLAVOUR}: name another suite in the lab's kernel module")]
    NoneListed,
    /// The image has no payload that the lab can unpack.
    #[error("{path} is no x86 boot image with a zstd payload")]
    Image {
        /// The image.
        path: String,
    },
    /// apt failed.
    #[error(transparent)]
    Apt(#[from] AptError),
    /// A command failed.
    #[error(transparent)]
    Host(#[from] HostError),
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] CacheError),
}

/// The kernel: `vmlinux`, `root/lib/modules/RELEASE`, and the release's name.
pub(crate) fn prepare(cache: &Cache) -> Result<(Entry, String), KernelError> {
    let key =
        Key::new().with("suite", SUITE).with("pinned", PINNED).with("source", include_str!("kernel.rs"));
    let entry = cache.entry("kernel", &key, unpack)?;
    let path = entry.path.join(RELEASE);
    let release = fs::read_to_string(&path).map_err(CacheError::file("read", &path))?;
    Ok((entry, release))
}

fn unpack(folder: &Path) -> Result<(), KernelError> {
    let scratch = tempfile::tempdir().map_err(CacheError::file("make a folder in", &std::env::temp_dir()))?;
    let apt = PrivateApt::update(&scratch.path().join("apt"), SUITE, false)?;
    let names = apt.command("apt-cache").args(["pkgnames", PREFIX]).text()?;
    let release = choose(names.lines()).ok_or(KernelError::NoneListed)?;
    let packages = ["binary", "modules", "base"].map(|part| format!("linux-{part}-{release}"));
    apt.command("apt-get").args(["download"]).args(&packages).folder(scratch.path()).run()?;
    let root = folder.join("root");
    fs::create_dir_all(root.join("usr/lib")).map_err(CacheError::file("make", &root))?;
    // kmod looks in lib/modules, the packages bring usr/lib/modules.
    std::os::unix::fs::symlink("usr/lib", root.join("lib")).map_err(CacheError::file("link in", &root))?;
    for entry in fs::read_dir(scratch.path()).map_err(CacheError::file("list", scratch.path()))?.flatten() {
        if entry.path().extension().is_some_and(|extension| extension == "deb") {
            HostCommand::new("dpkg").args(["-x"]).args([&entry.path(), &root]).run()?;
        }
    }
    HostCommand::new("depmod").args(["-b"]).args([&root]).args([release]).run()?;
    let image = root.join("lib/modules").join(release).join("vmlinuz");
    let bytes = fs::read(&image).map_err(CacheError::file("read", &image))?;
    let stream = payload(&bytes).ok_or_else(|| KernelError::Image { path: image.display().to_string() })?;
    let vmlinux = HostCommand::new("zstd").args(["-d", "-c"]).stdin(stream.to_vec()).run()?;
    let path = folder.join("vmlinux");
    fs::write(&path, vmlinux).map_err(CacheError::file("write", &path))?;
    let path = folder.join(RELEASE);
    fs::write(&path, release).map_err(CacheError::file("write", &path))?;
    Ok(())
}

/// The release to take from the listed package names: the pinned one, or the newest when that is gone.
fn choose<'a>(names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let releases: Vec<&str> = names
        .filter_map(|name| name.strip_prefix(PREFIX))
        .filter(|release| {
            let version = release.strip_suffix(FLAVOUR).unwrap_or_default();
            !version.is_empty() && version.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
        })
        .collect();
    let pinned = releases.iter().find(|release| **release == PINNED);
    pinned.or_else(|| releases.iter().max_by(|left, right| by_version(left, right))).copied()
}

fn by_version(left: &str, right: &str) -> Ordering {
    let numbers = |release: &str| -> Vec<u32> {
        release.trim_end_matches(FLAVOUR).split('.').filter_map(|number| number.parse().ok()).collect()
    };
    numbers(left).cmp(&numbers(right))
}

/// The compressed vmlinux inside a bzImage (Linux boot protocol 2.08, Documentation/arch/x86/boot.rst: `setup_sects`
/// at 0x1f1, `payload_offset` at 0x248 and `payload_length` at 0x24c, counted from the protected-mode code), without
/// the 4 bytes of its uncompressed size that follow the stream.
///
/// Booted uncompressed, because unpacking it under emulation takes ten seconds.
fn payload(image: &[u8]) -> Option<&[u8]> {
    let number = |at: usize| -> Option<usize> {
        let bytes: [u8; 4] = image.get(at..at + 4)?.try_into().ok()?;
        usize::try_from(u32::from_le_bytes(bytes)).ok()
    };
    let sectors = match *image.get(0x1f1)? {
        0 => 4,
        sectors => usize::from(sectors),
    };
    let begin = (sectors + 1) * 512 + number(0x248)?;
    let end = begin.checked_add(number(0x24c)?)?.checked_sub(4)?;
    image.get(begin..end).filter(|stream| stream.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pinned_kernel_is_taken_while_it_is_listed() {
        let names = ["linux-binary-9.1.1+deb13-amd64", "linux-binary-7.3.4+deb13-amd64"];
        assert_eq!(choose(names.into_iter()), Some(PINNED));
    }

    #[test]
    fn the_newest_one_stands_in_when_the_pinned_is_gone() {
        let names = [
            "linux-binary-7.9.2+deb13-amd64",
            "linux-binary-7.10.1+deb13-amd64",
            "linux-binary-7.11.1+deb13-cloud-amd64",
            "linux-binary-unsigned-7.12.0+deb13-amd64",
            "linux-binary-7.2.6+deb13-rt-amd64",
        ];
        assert_eq!(choose(names.into_iter()), Some("7.10.1+deb13-amd64"));
        assert_eq!(choose(["linux-binary-7.11.1+deb13-cloud-amd64"].into_iter()), None);
    }

    #[test]
    fn the_payload_is_found_where_the_boot_protocol_says() {
        let mut image = vec![0; 0x2000];
        image[0x1f1] = 3;
        image[0x248..0x24c].copy_from_slice(&0x100_u32.to_le_bytes());
        image[0x24c..0x250].copy_from_slice(&12_u32.to_le_bytes());
        image[0x900..0x90c].copy_from_slice(b"\x28\xb5\x2f\xfdDATA\0\0\0\0");
        assert_eq!(payload(&image), Some(&b"\x28\xb5\x2f\xfdDATA"[..]));
        image[0x900] = 0;
        assert_eq!(payload(&image), None, "a payload that is not zstd");
        assert_eq!(payload(&image[..0x200]), None, "a file cut short");
    }
}
