//! Where the plugin keeps and finds things. The only part of a configuration that DEL needs.

use std::path::PathBuf;

use serde_json::Value;
use zerobridge_proto::cni::{CniError, NetworkConfig};

use super::bad_value;

/// Roots and directories, each an absolute path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Paths {
    /// The ledger's directory.
    pub state_dir: PathBuf,
    /// Locks, gone after a reboot.
    pub run_dir: PathBuf,
    /// The kubelet's root directory, as its `--root-dir`.
    pub kubelet_root: PathBuf,
    /// Where sysfs is mounted.
    pub sysfs: PathBuf,
    /// Where container runtimes look for specifications that programs make (`SPEC.md` of CDI).
    pub cdi_dir: PathBuf,
}

impl Default for Paths {
    fn default() -> Self {
        Self {
            state_dir: "/var/lib/zerobridge".into(),
            run_dir: "/run/zerobridge".into(),
            kubelet_root: "/var/lib/kubelet".into(),
            sysfs: "/sys".into(),
            cdi_dir: "/var/run/cdi".into(),
        }
    }
}

impl Paths {
    /// The keys that name them.
    pub(crate) const KEYS: [&str; 5] = ["stateDir", "runDir", "kubeletRoot", "sysfs", "cdiDir"];

    /// Reads the keys that are there; the others keep their defaults.
    ///
    /// # Errors
    /// Code 7 for what is no absolute path.
    pub(crate) fn parse(config: &NetworkConfig) -> Result<Self, CniError> {
        let mut paths = Self::default();
        let [state_dir, run_dir, kubelet_root, sysfs, cdi_dir] = Self::KEYS;
        for (key, path) in [
            (state_dir, &mut paths.state_dir),
            (run_dir, &mut paths.run_dir),
            (kubelet_root, &mut paths.kubelet_root),
            (sysfs, &mut paths.sysfs),
            (cdi_dir, &mut paths.cdi_dir),
        ] {
            match config.own.get(key) {
                None => {}
                Some(Value::String(text)) if text.starts_with('/') => *path = text.into(),
                Some(other) => return Err(bad_value(key, other, "an absolute path as text")),
            }
        }
        Ok(paths)
    }
}
