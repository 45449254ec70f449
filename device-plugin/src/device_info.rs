//! Device-info files on disk: where Multus and CNI plugins look for what a device plugin knows.
//!
//! A file is there whole or not at all, and stays as long as the machine runs (`/var/run` is empty after a boot): a pod
//! that starts while the daemon is being replaced still finds its file.

use std::fs::{self, File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use thiserror::Error;
use zerobridge_proto::{DeviceInfo, PciAddress};

use crate::resource::ResourceName;

/// Every program of the machine may read what a device is; only root may say so.
const MODE: u32 = 0o644;

/// The folder of device-info files.
#[derive(Debug)]
pub(crate) struct DeviceInfoFolder {
    path: PathBuf,
    /// Keeps the temporary files of parallel writes apart.
    next: AtomicU64,
}

/// A device-info file that could not be written.
#[derive(Debug, Error)]
#[error("cannot write the device-info file {}", path.display())]
pub(crate) struct DeviceInfoError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl DeviceInfoFolder {
    /// The folder at `path`. It is made when something is written.
    pub(crate) fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), next: AtomicU64::new(0) }
    }

    /// Writes the document of one device, in place of the one that may be there.
    ///
    /// # Errors
    ///
    /// [`DeviceInfoError`] with the file; an earlier document is still complete then.
    pub(crate) fn write(
        &self,
        pool: &ResourceName,
        device: PciAddress,
        info: &DeviceInfo,
    ) -> Result<(), DeviceInfoError> {
        let name = pool.device_info_file(device);
        let path = self.path.join(&name);
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let temporary = self.path.join(format!(".{name}.{}-{number}", std::process::id()));
        let written = self.replace(&path, &temporary, info);
        if written.is_err() {
            // Best effort: the failure that is reported is the one that matters.
            let _ = fs::remove_file(&temporary);
        }
        written.map_err(|source| DeviceInfoError { path, source })
    }

    fn replace(&self, path: &Path, temporary: &Path, info: &DeviceInfo) -> io::Result<()> {
        fs::create_dir_all(&self.path)?;
        let mut file = File::create(temporary)?;
        file.write_all(&serde_json::to_vec(info)?)?;
        file.set_permissions(Permissions::from_mode(MODE))?;
        fs::rename(temporary, path)
    }
}

#[cfg(test)]
mod tests {
    use zerobridge_proto::PciDeviceInfo;

    use super::*;

    fn write(folder: &DeviceInfoFolder, pf: &str) -> Result<(), DeviceInfoError> {
        let device = "0000:01:10.0".parse().unwrap();
        let pf_pci_address = Some(pf.parse().unwrap());
        let info = DeviceInfo::pci(PciDeviceInfo { pf_pci_address, ..PciDeviceInfo::new(device) });
        folder.write(&ResourceName::new("zerobridge.io", "vf").unwrap(), device, &info)
    }

    #[test]
    fn a_file_has_the_name_the_mode_and_the_content_of_the_specification() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("devinfo/dp");
        let folder = DeviceInfoFolder::new(&path);
        write(&folder, "0000:05:00.0").unwrap();
        write(&folder, "0000:01:00.0").unwrap();

        let file = path.join("zerobridge.io-vf-0000:01:10.0-device.json");
        let expected = r#"{"type":"pci","version":"1.1.0","pci":{"pci-address":"0000:01:10.0","pf-pci-address":"0000:01:00.0"}}"#;
        assert_eq!(fs::read_to_string(&file).unwrap(), expected);
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o644);
        assert_eq!(fs::read_dir(&path).unwrap().count(), 1, "nothing temporary is left");
    }

    #[test]
    fn a_failure_names_the_file_and_leaves_nothing_behind() {
        let root = tempfile::tempdir().unwrap();
        let blocked = root.path().join("zerobridge.io-vf-0000:01:10.0-device.json");
        fs::create_dir(&blocked).unwrap();
        let error = write(&DeviceInfoFolder::new(root.path()), "0000:01:00.0").unwrap_err();
        assert!(error.to_string().contains(blocked.to_str().unwrap()), "{error}");
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
    }
}
