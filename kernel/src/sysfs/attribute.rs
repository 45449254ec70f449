//! The shapes in which sysfs answers: a folder of names, a link whose target's name is the answer, a line of text.
//!
//! What is absent is `None`, because for most attributes absence is the answer.

use std::fs;
use std::io;
use std::path::Path;

use nix::libc;
use zerobridge_proto::PciAddress;

use super::SysfsError;

/// The names in a folder, sorted.
pub(super) fn entries(folder: &Path) -> Result<Option<Vec<String>>, SysfsError> {
    let fail = |source| SysfsError::read(folder, source);
    let listing = match fs::read_dir(folder) {
        Ok(listing) => listing,
        Err(error) if is_absent(&error) => return Ok(None),
        Err(error) => return Err(fail(error)),
    };
    let mut names = Vec::new();
    for entry in listing {
        // The kernel names everything in ASCII; what is not UTF-8 is nobody's name.
        names.extend(entry.map_err(fail)?.file_name().into_string());
    }
    names.sort_unstable();
    Ok(Some(names))
}

/// The last component of a link's target.
pub(super) fn link_target(link: &Path) -> Result<Option<String>, SysfsError> {
    match fs::read_link(link) {
        Ok(target) => Ok(target.file_name().and_then(|name| name.to_str()).map(str::to_owned)),
        Err(error) if is_absent(&error) => Ok(None),
        Err(error) => Err(SysfsError::read(link, error)),
    }
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
    match fs::read_to_string(file) {
        Ok(text) => Ok(Some(text.trim_end().to_owned())),
        Err(error) if is_absent(&error) || error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(None),
        Err(error) => Err(SysfsError::read(file, error)),
    }
}

/// Absent, or a device that was removed while its file was open.
pub(super) fn is_absent(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENODEV)
}
