//! Debian packages that the lab needs on the host, installed by name when they are missing.

use thiserror::Error;

use super::apt::{AptError, PrivateApt, codename};
use super::cache::CacheError;
use super::host::{HostCommand, HostError};

/// What the host or, through its root file system, the guest runs; all from the machine's own release.
const NEEDED: [&str; 17] = [
    "busybox-static",
    "cpio",
    "e2fsprogs",
    "ibverbs-providers",
    "ibverbs-utils",
    "iproute2",
    "iputils-ping",
    "kmod",
    "nftables",
    "procps",
    "rdmacm-utils",
    "runc",
    "sqlite3",
    "udev",
    "util-linux",
    "xz-utils",
    "zstd",
];

/// What the prototypes of Services need beside, and nothing else does.
const NEEDED_BY_SERVICES: [&str; 4] = ["bpftool", "clang", "libbpf-dev", "nftables"];

const QEMU: &str = "qemu-system-x86";
const QEMU_PROGRAM: &str = "qemu-system-x86_64";

/// The first QEMU whose emulated igb has working virtual functions.
const QEMU_MINIMUM: (u32, u32) = (8, 1);

/// Why a package cannot be had.
#[derive(Debug, Error)]
pub enum PackageError {
    /// Only root may install packages.
    #[error("missing packages: {list}; run this once as root, or install them yourself")]
    NotRoot {
        /// Their names.
        list: String,
    },
    /// No QEMU that is new enough could be installed.
    #[error("QEMU {found} has no usable igb; {}.{} or later is needed", QEMU_MINIMUM.0, QEMU_MINIMUM.1)]
    OldQemu {
        /// What `--version` said.
        found: String,
    },
    /// apt failed.
    #[error(transparent)]
    Apt(#[from] AptError),
    /// A command failed.
    #[error(transparent)]
    Host(#[from] HostError),
    /// A folder could not be made.
    #[error(transparent)]
    File(#[from] CacheError),
}

/// Installs what is missing; returns the names of what was installed.
pub(crate) fn install_missing() -> Result<Vec<String>, PackageError> {
    let mut missing: Vec<String> =
        NEEDED.into_iter().filter(|name| !is_installed(name)).map(String::from).collect();
    let old_qemu = qemu_version().is_none_or(|version| version < QEMU_MINIMUM);
    if missing.is_empty() && !old_qemu {
        return Ok(missing);
    }
    if !is_root()? {
        missing.extend(old_qemu.then(|| QEMU.into()));
        return Err(PackageError::NotRoot { list: missing.join(" ") });
    }
    if !missing.is_empty() {
        install(&missing)?;
    }
    if old_qemu {
        install_qemu()?;
        missing.push(QEMU.into());
    }
    Ok(missing)
}

/// Installs what the prototypes of Services need.
pub(crate) fn install_for_services() -> Result<(), PackageError> {
    let missing: Vec<String> =
        NEEDED_BY_SERVICES.into_iter().filter(|name| !is_installed(name)).map(String::from).collect();
    if missing.is_empty() {
        return Ok(());
    }
    if !is_root()? {
        return Err(PackageError::NotRoot { list: missing.join(" ") });
    }
    Ok(install(&missing)?)
}

/// `qemu-system-x86_64 --version`'s first line, for the hash of what is built with it and for the eye.
pub(crate) fn qemu_version_line() -> Result<String, HostError> {
    let text = HostCommand::new(QEMU_PROGRAM).args(["--version"]).text()?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

fn is_installed(name: &str) -> bool {
    let query = HostCommand::new("dpkg-query").args(["-W", "-f", "${db:Status-Status}", name]);
    query.text().is_ok_and(|status| status == "installed")
}

fn is_root() -> Result<bool, HostError> {
    Ok(HostCommand::new("id").args(["-u"]).text()?.trim() == "0")
}

fn apt_get() -> HostCommand {
    HostCommand::new("apt-get").env("DEBIAN_FRONTEND", "noninteractive").env("LC_ALL", "C")
}

fn install(names: &[String]) -> Result<(), HostError> {
    let flags = ["install", "-y", "--no-install-recommends"];
    let try_once = || apt_get().args(flags).args(names).run();
    // Lists that are missing or older than the mirror make the first try fail.
    if try_once().is_err() {
        apt_get().args(["update"]).run()?;
        try_once()?;
    }
    Ok(())
}

fn install_qemu() -> Result<(), PackageError> {
    install(&[QEMU.to_owned()])?;
    if qemu_version().is_some_and(|version| version >= QEMU_MINIMUM) {
        return Ok(());
    }
    let folder = tempfile::tempdir().map_err(CacheError::file("make a folder in", &std::env::temp_dir()))?;
    let suite = format!("{}-backports", codename()?);
    let apt = PrivateApt::update(folder.path(), &suite, true)?;
    apt.command("apt-get").args(["install", "-y", "--no-install-recommends", "-t", &suite, QEMU]).run()?;
    match qemu_version() {
        Some(version) if version >= QEMU_MINIMUM => Ok(()),
        _ => Err(PackageError::OldQemu { found: qemu_version_line().unwrap_or_default() }),
    }
}

fn qemu_version() -> Option<(u32, u32)> {
    parse_version(&qemu_version_line().ok()?)
}

fn parse_version(line: &str) -> Option<(u32, u32)> {
    let mut numbers = line.strip_prefix("QEMU emulator version ")?.split(['.', ' ']);
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        let version = parse_version("QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2+deb13u1~bpo12+1)");
        assert_eq!(version, Some((10, 0)));
        assert!(version.unwrap() >= QEMU_MINIMUM);
        assert!(parse_version("QEMU emulator version 7.2.17").unwrap() < QEMU_MINIMUM);
        assert_eq!(parse_version("bash: not found"), None);
    }
}
