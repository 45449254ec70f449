//! The programs under test: where they are on the host, and how they get into the guest.

use std::path::PathBuf;

use thiserror::Error;

use crate::machine::{Guest, GuestError};
use crate::network::PLUGIN_FOLDER;
use crate::prepare::checkout;

/// Overrides where the programs are looked for.
const VARIABLE: &str = "ZEROBRIDGE_BIN_DIR";
/// Where `make build` leaves them, below the checkout.
const BUILT: &str = "target/x86_64-unknown-linux-gnu/release";

/// Where the programs keep the ledger in the guest.
pub const LEDGER: &str = "/var/lib/zerobridge/ledger.db";

const CNI: &str = "zerobridge";
const IPAM: &str = "zerobridge-ipam";
const DEVICE_PLUGIN: &str = "zerobridge-device-plugin";
const OPERATOR: &str = "zbctl";
/// Where an operator's shell looks for commands.
const COMMANDS: &str = "/usr/local/bin";

/// The programs have not been built.
#[derive(Debug, Error)]
#[error("{} not in {}: run `make build`, or set {VARIABLE} to the folder they are in", missing.join(", "), folder.display())]
pub struct ProgramsError {
    missing: Vec<&'static str>,
    folder: PathBuf,
}

/// The folder of the programs; the guest sees it under the same path.
#[derive(Clone, Debug)]
pub struct Programs {
    folder: PathBuf,
}

impl Programs {
    /// The programs in `$ZEROBRIDGE_BIN_DIR`, or those that `make build` made.
    ///
    /// # Errors
    /// When one of them is not there.
    pub fn locate() -> Result<Self, ProgramsError> {
        Self::among(std::env::var_os(VARIABLE).map_or_else(|| checkout().join(BUILT), PathBuf::from))
    }

    fn among(folder: PathBuf) -> Result<Self, ProgramsError> {
        let all = [CNI, IPAM, DEVICE_PLUGIN, OPERATOR];
        let missing: Vec<&str> = all.into_iter().filter(|name| !folder.join(name).is_file()).collect();
        if missing.is_empty() { Ok(Self { folder }) } else { Err(ProgramsError { missing, folder }) }
    }

    /// Their folder.
    #[must_use]
    pub fn folder(&self) -> String {
        self.folder.display().to_string()
    }

    /// The device plugin's path.
    #[must_use]
    pub fn device_plugin(&self) -> String {
        self.folder.join(DEVICE_PLUGIN).display().to_string()
    }

    /// Copies the CNI and IPAM plugins to where a runtime looks for them.
    ///
    /// # Errors
    /// When the guest cannot, or the VM is lost.
    pub fn install_plugins(&self, guest: &mut Guest) -> Result<(), GuestError> {
        let [cni, ipam] = [CNI, IPAM].map(|name| self.folder.join(name).display().to_string());
        guest.run(&["mkdir", "-p", PLUGIN_FOLDER])?;
        guest.run(&["cp", &cni, &ipam, PLUGIN_FOLDER])?;
        Ok(())
    }

    /// Copies the operator's command to where a shell finds it.
    ///
    /// # Errors
    /// When the guest cannot, or the VM is lost.
    pub fn install_command(&self, guest: &mut Guest) -> Result<(), GuestError> {
        guest.run(&["cp", &self.folder.join(OPERATOR).display().to_string(), COMMANDS])?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_with_the_way_to_get_it() {
        let folder = tempfile::tempdir().unwrap();
        for name in [CNI, IPAM, OPERATOR] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        let text = Programs::among(folder.path().to_owned()).unwrap_err().to_string();
        assert!(text.starts_with("zerobridge-device-plugin not in /"), "{text}");
        assert!(text.contains("make build") && text.contains(VARIABLE), "{text}");
    }
}
