//! Device-info files on disk: where Multus and CNI plugins look for what a device plugin knows.
//!
//! A file is there whole or not at all, and stays as long as its device may be somebody's: a pod that starts while the
//! daemon is being replaced still finds it. Refuses to know who holds which device.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use zerobridge_proto::DeviceInfo;

use crate::device::DeviceId;
use crate::resource::ResourceName;
use zerobridge_cni_sriov::documents::{Document, DocumentError, DocumentFolder};

/// How the name of every device-info file ends (Device Information Specification 1.1.0, section 4.1).
const ENDING: &str = "-device.json";

/// The folder of device-info files.
#[derive(Debug)]
pub struct DeviceInfoFolder(DocumentFolder);

impl DeviceInfoFolder {
    /// The folder at `path`. It is made when something is written.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(DocumentFolder::new(path))
    }

    /// Writes the document of one device, in place of the one that may be there.
    ///
    /// # Errors
    ///
    /// [`DocumentError::Write`] with the file; an earlier document is still complete then.
    pub fn write(
        &self,
        pool: &ResourceName,
        device: &DeviceId,
        info: &DeviceInfo,
    ) -> Result<(), DocumentError> {
        self.0.write(&pool.device_info_file(device), info)
    }

    /// Whether a device has a document.
    #[must_use]
    pub fn has(&self, pool: &ResourceName, device: &DeviceId) -> bool {
        self.0.has(&pool.device_info_file(device))
    }

    /// The files that are there, those of other programs included.
    ///
    /// # Errors
    ///
    /// [`DocumentError::List`].
    pub fn list(&self) -> Result<Vec<Document>, DocumentError> {
        self.0.list()
    }

    /// Removes a file as it was listed. One that was written again since stays.
    ///
    /// # Errors
    ///
    /// [`DocumentError::Remove`].
    pub fn remove(&self, document: &Document) -> Result<(), DocumentError> {
        self.0.remove(document)
    }
}

/// Which files nobody needs any more: those of `pools` whose device is not in `held`, and that are older than `grace` at
/// the time `now`.
///
/// `held` is everything that the kubelet or the ledger knows to be somebody's. Both learn of an allocation only after
/// its file was written, hence the grace. A file whose name does not say clearly that it belongs to one of the pools is
/// another program's.
#[must_use]
pub(crate) fn stale_device_infos(
    existing: Vec<Document>,
    pools: &[ResourceName],
    held: &BTreeSet<(ResourceName, DeviceId)>,
    now: SystemTime,
    grace: Duration,
) -> Vec<Document> {
    let held: BTreeSet<String> = held.iter().map(|(pool, device)| pool.device_info_file(device)).collect();
    let is_stale = |document: &Document| {
        pools.iter().any(|pool| is_of(pool, &document.name))
            && !held.contains(&document.name)
            && document.is_older_than(grace, now)
    };
    existing.into_iter().filter(is_stale).collect()
}

fn is_of(pool: &ResourceName, file: &str) -> bool {
    let pool = pool.to_string().replace('/', "-");
    let device = file
        .strip_prefix(&pool)
        .and_then(|rest| rest.strip_prefix('-'))
        .and_then(|rest| rest.strip_suffix(ENDING));
    // Another spelling of an address is another program's.
    device.is_some_and(|text| text.parse::<DeviceId>().is_ok_and(|device| device.to_string() == text))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use zerobridge_proto::PciDeviceInfo;

    use super::*;

    fn pool(name: &str) -> ResourceName {
        ResourceName::new("zerobridge.io", name).unwrap()
    }

    #[test]
    fn a_file_has_the_name_and_the_content_of_the_specification() {
        let root = tempfile::tempdir().unwrap();
        let pf_pci_address = Some("0000:01:00.0".parse().unwrap());
        let function = "0000:01:10.0".parse().unwrap();
        let info = DeviceInfo::Pci(PciDeviceInfo { pf_pci_address, ..PciDeviceInfo::new(function) });
        DeviceInfoFolder::new(root.path()).write(&pool("vf"), &function.into(), &info).unwrap();
        let file = root.path().join("zerobridge.io-vf-0000:01:10.0-device.json");
        let expected = r#"{"type":"pci","version":"1.1.0","pci":{"pci-address":"0000:01:10.0","pf-pci-address":"0000:01:00.0"}}"#;
        assert_eq!(fs::read_to_string(file).unwrap(), expected);
    }

    #[test]
    fn only_our_own_old_files_of_devices_that_nobody_holds_are_stale() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        let grace = Duration::from_secs(60);
        let held = [(pool("vf"), "0000:01:10.0"), (pool("vf-b"), "mlx5_core.sf.4")];
        let held = held.into_iter().map(|(pool, device)| (pool, device.parse().unwrap())).collect();
        for (name, age, is_stale) in [
            ("zerobridge.io-vf-0000:01:10.2-device.json", 61, true),
            ("zerobridge.io-vf-mlx5_core.sf.4-device.json", 61, true),
            ("zerobridge.io-vf-0000:01:10.2-device.json", 59, false),
            ("zerobridge.io-vf-0000:01:10.0-device.json", 900, false),
            // Could also be device b-mlx5_core.sf.4 of pool vf: held is held.
            ("zerobridge.io-vf-b-mlx5_core.sf.4-device.json", 900, false),
            ("zerobridge.io-vf-b-0000:01:10.0-device.json", 900, true),
            ("zerobridge.io-vf-0000:01:1A.2-device.json", 900, false),
            ("zerobridge.io-vf-c-0000:01:10.0-device.json", 900, false),
            ("zerobridge.io-vf-eth0-device.json", 900, false),
            ("intel.com-vf-0000:01:10.2-device.json", 900, false),
            ("zerobridge.io-vf-0000:01:10.2-device.json.bak", 900, false),
        ] {
            let document = Document { name: name.to_owned(), modified: now - Duration::from_secs(age) };
            let stale = stale_device_infos(vec![document], &[pool("vf"), pool("vf-b")], &held, now, grace);
            assert_eq!(stale.len() == 1, is_stale, "{name} {age}");
        }
    }

    #[test]
    fn a_file_from_the_future_is_not_old() {
        let now = SystemTime::UNIX_EPOCH;
        let name = "zerobridge.io-vf-0000:01:10.2-device.json".to_owned();
        let document = Document { name, modified: now + Duration::from_secs(900) };
        let stale = stale_device_infos(vec![document], &[pool("vf")], &BTreeSet::new(), now, Duration::ZERO);
        assert_eq!(stale, []);
    }
}
