//! The programs of `prototypes/services`, compiled for the kernel's BPF machine.

use std::path::{Path, PathBuf};

use super::PrepareError;
use super::checkout;
use super::host::HostCommand;
use super::packages;

const SOURCE: &str = "prototypes/services/services.bpf.c";
/// Where Debian keeps the headers that depend on the machine, which a foreign target does not look into.
const HEADERS: &str = "-I/usr/include/x86_64-linux-gnu";

/// Installs the compiler, compiles, and returns the file.
pub(crate) fn object(target: &Path) -> Result<PathBuf, PrepareError> {
    packages::install_for_services()?;
    HostCommand::new("clang")
        .args(["-O2", "-g", "-Wall", "-Werror", "-target", "bpf", HEADERS, "-c", SOURCE, "-o"])
        .args([target])
        .folder(checkout())
        .run()?;
    Ok(target.to_owned())
}
