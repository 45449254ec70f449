//! Device-info files: what a device plugin tells Multus and the CNI plugin about a device it handed out.
//!
//! Network Plumbing Working Group, "Device Information Specification" 1.1.0, section 3. Only the `pci` kind: Zerobridge
//! writes no other, and refuses to read one ([`DeviceInfo`] has `type: pci` in its encoding).

use serde::{Deserialize, Serialize};

use crate::PciAddress;

/// The version of the specification that [`DeviceInfo::pci`] writes (section 3.1.2).
pub const DEVICE_INFO_VERSION: &str = "1.1.0";

/// A device-info document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceInfo {
    /// Which of the kinds of section 3.1.1 this is.
    #[serde(rename = "type")]
    pub kind: DeviceInfoKind,
    /// Version of the specification, `major.minor.patch`.
    pub version: String,
    /// The description of a `pci` device (section 3.1.3).
    pub pci: PciDeviceInfo,
}

/// The value of a document's `type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeviceInfoKind {
    /// A PCI function.
    Pci,
}

/// A PCI function that was given to a pod (section 3.1.3).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct PciDeviceInfo {
    /// The function itself.
    pub pci_address: PciAddress,
    /// Path of the vhost-net character device, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vhost_net: Option<String>,
    /// Name of the RDMA device; several are joined by commas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rdma_device: Option<String>,
    /// The physical function that a VF belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pf_pci_address: Option<PciAddress>,
    /// Name of the netdev that represents the VF on an embedded switch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub representor_device: Option<String>,
}

impl DeviceInfo {
    /// The document for one PCI function, in the version this crate knows.
    #[must_use]
    pub fn pci(pci: PciDeviceInfo) -> Self {
        Self { kind: DeviceInfoKind::Pci, version: DEVICE_INFO_VERSION.to_owned(), pci }
    }
}

impl PciDeviceInfo {
    /// A function about which only its address is known.
    #[must_use]
    pub fn new(pci_address: PciAddress) -> Self {
        Self {
            pci_address,
            vhost_net: None,
            rdma_device: None,
            pf_pci_address: None,
            representor_device: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_specification_is_read_and_written() {
        let text = r#"{"type":"pci","version":"1.1.0","pci":{"pci-address":"0000:01:02.2","pf-pci-address":"0000:01:02.0"}}"#;
        let info = DeviceInfo::pci(PciDeviceInfo {
            pf_pci_address: Some("0000:01:02.0".parse().unwrap()),
            ..PciDeviceInfo::new("0000:01:02.2".parse().unwrap())
        });
        assert_eq!(serde_json::to_string(&info).unwrap(), text);
        assert_eq!(serde_json::from_str::<DeviceInfo>(text).unwrap(), info);
    }

    #[test]
    fn another_kind_is_refused() {
        let text = r#"{"type":"memif","version":"1.1.0","memif":{"role":"slave","path":"/x","mode":"ip"}}"#;
        assert!(serde_json::from_str::<DeviceInfo>(text).unwrap_err().to_string().contains("memif"));
    }
}
