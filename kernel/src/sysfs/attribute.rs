//! The shapes in which sysfs answers: a folder of names, a link whose target's name is the answer, a line of text.
//!
//! What is absent is `None`, because for most attributes absence is the answer.

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use nix::libc;
use zerobridge_proto::PciAddress;

use super::SysfsError;

/// The entries of a folder, in the kernel's order.
pub(super) fn listing(folder: &Path) -> Result<Option<fs::ReadDir>, SysfsError> {
    match fs::read_dir(folder) {
        Ok(listing) => Ok(Some(listing)),
        Err(error) if is_absent(&error) => Ok(None),
        Err(error) => Err(SysfsError::read(folder, error)),
    }
}

/// The names in a folder, sorted.
pub(super) fn entries(folder: &Path) -> Result<Option<Vec<String>>, SysfsError> {
    let Some(listing) = listing(folder)? else { return Ok(None) };
    let mut names = Vec::new();
    for entry in listing {
        // The kernel names everything in ASCII; what is not UTF-8 is nobody's name.
        names.extend(entry.map_err(|source| SysfsError::read(folder, source))?.file_name().into_string());
    }
    names.sort_unstable();
    Ok(Some(names))
}

/// The first name with this beginning in a folder.
pub(super) fn first(folder: &Path, beginning: &str) -> Result<Option<String>, SysfsError> {
    Ok(entries(folder)?.unwrap_or_default().into_iter().find(|name| name.starts_with(beginning)))
}

/// The target of a link; `None` also for what is no link.
pub(super) fn link(link: &Path) -> Result<Option<PathBuf>, SysfsError> {
    match fs::read_link(link) {
        Ok(target) => Ok(Some(target)),
        Err(error) if is_absent(&error) || error.kind() == io::ErrorKind::InvalidInput => Ok(None),
        Err(error) => Err(SysfsError::read(link, error)),
    }
}

/// Where a link with this target in `bus/<bus>/devices` or `class/<class>` leads, so that its files are reached without
/// following it each time.
pub(super) fn destination(root: &Path, target: &Path) -> PathBuf {
    root.join(target.strip_prefix("../..").map_or(target, |rest| rest.strip_prefix("..").unwrap_or(rest)))
}

/// The last component of a link's target.
pub(super) fn link_target(link: &Path) -> Result<Option<String>, SysfsError> {
    Ok(self::link(link)?.and_then(|target| Some(target.file_name()?.to_str()?.to_owned())))
}

/// The PCI function that a link points to.
pub(super) fn linked_address(link: &Path) -> Result<Option<PciAddress>, SysfsError> {
    link_target(link)?
        .map(|name| {
            name.parse().map_err(|_| SysfsError::malformed(link, &name, "the name of a PCI function"))
        })
        .transpose()
}

/// A line of text without its end; `None` also where the driver does not support the attribute.
pub(super) fn optional_text(file: &Path) -> Result<Option<String>, SysfsError> {
    match text(file) {
        Ok(text) => Ok(Some(text)),
        Err(error) if is_absent(&error) || error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(None),
        Err(error) => Err(SysfsError::read(file, error)),
    }
}

/// The text of an attribute without its end.
///
/// An attribute has at most one page and arrives with one read (the kernel's `fs/kernfs/file.c`). The readers of the
/// standard library first ask for a file's size, which sysfs does not know, and so take twice the system calls.
pub(super) fn text(file: &Path) -> io::Result<String> {
    const PAGE: usize = 4096;
    let mut page = [0; PAGE];
    let length = fs::File::open(file)?.read(&mut page)?;
    Ok(String::from_utf8_lossy(&page[..length]).trim_end().to_owned())
}

/// Absent, or a device that was removed while its file was open, or sought in a plain file among folders.
pub(super) fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
        || error.raw_os_error() == Some(libc::ENODEV)
}
