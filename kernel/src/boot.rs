//! Which boot this is.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// The kernel does not say which boot this is.
#[derive(Debug, Error)]
#[error("cannot read the boot's id from {}", path.display())]
pub struct BootIdError {
    path: PathBuf,
    source: io::Error,
}

/// The kernel's `random/boot_id`: a UUID drawn anew at each boot, the same in every container (`random(4)`).
/// `proc` is where procfs is mounted.
///
/// # Errors
/// [`BootIdError`] when it cannot be read.
pub fn boot_id(proc: &Path) -> Result<String, BootIdError> {
    let path = proc.join("sys/kernel/random/boot_id");
    match fs::read_to_string(&path) {
        Ok(text) => Ok(text.trim().to_owned()),
        Err(source) => Err(BootIdError { path, source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_same_twice_and_absent_without_procfs() {
        let first = boot_id(Path::new("/proc")).unwrap();
        assert_eq!(first.len(), 36);
        assert_eq!(boot_id(Path::new("/proc")).unwrap(), first);
        assert!(boot_id(Path::new("/absent")).unwrap_err().to_string().contains("/absent/sys"));
    }
}
