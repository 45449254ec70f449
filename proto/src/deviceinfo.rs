//! Device-info files: what a device plugin tells Multus and the CNI plugin about a device it handed out.
//!
//! Network Plumbing Working Group, "Device Information Specification" 1.1.0, section 3. Only the kinds `pci` and `vdpa`:
//! Zerobridge writes no other, and refuses to read one.

use serde::{Deserialize, Serialize};

use crate::PciAddress;

/// The version of the specification that is written (section 3.1.2).
pub const DEVICE_INFO_VERSION: &str = "1.1.0";

/// A device-info document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Document", into = "Document")]
pub enum DeviceInfo {
    /// A PCI function (section 3.1.3).
    Pci(PciDeviceInfo),
    /// A vDPA device (section 3.1.4).
    Vdpa(VdpaDeviceInfo),
}

/// A PCI function that was given to a pod (section 3.1.3). A part of a function, such as a scalable function, is described
/// as a function too: the specification has no kind for it.
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

/// A vDPA device that was given to a pod (section 3.1.4).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct VdpaDeviceInfo {
    /// Its name on the vDPA bus (`/sys/bus/vdpa/devices`).
    pub parent_device: String,
    /// What it is bound to.
    pub driver: VdpaDriver,
    /// Absolute path of the vhost character device, or of the virtio device in sysfs.
    pub path: String,
    /// The function that it is made of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pci_address: Option<PciAddress>,
    /// The physical function that a VF belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pf_pci_address: Option<PciAddress>,
    /// Name of the netdev that represents the VF on an embedded switch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub representor_device: Option<String>,
}

/// The `driver` of a vDPA device (section 3.1.4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VdpaDriver {
    /// `vhost_vdpa`: a character device.
    Vhost,
    /// `virtio_vdpa`: a virtio device of the host's kernel.
    Virtio,
}

/// The encoding: the description is under a key that has the name of its kind.
#[derive(Serialize, Deserialize)]
struct Document {
    #[serde(rename = "type")]
    kind: Kind,
    version: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pci: Option<PciDeviceInfo>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    vdpa: Option<VdpaDeviceInfo>,
}

/// The value of `type` (section 3.1.1).
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Pci,
    Vdpa,
}

impl From<DeviceInfo> for Document {
    fn from(info: DeviceInfo) -> Self {
        let (kind, pci, vdpa) = match info {
            DeviceInfo::Pci(pci) => (Kind::Pci, Some(pci), None),
            DeviceInfo::Vdpa(vdpa) => (Kind::Vdpa, None, Some(vdpa)),
        };
        Self { kind, version: DEVICE_INFO_VERSION.to_owned(), pci, vdpa }
    }
}

impl TryFrom<Document> for DeviceInfo {
    type Error = &'static str;

    fn try_from(document: Document) -> Result<Self, Self::Error> {
        match document.kind {
            Kind::Pci => {
                document.pci.map(Self::Pci).ok_or("a document of type \"pci\" needs the key \"pci\"")
            }
            Kind::Vdpa => {
                document.vdpa.map(Self::Vdpa).ok_or("a document of type \"vdpa\" needs the key \"vdpa\"")
            }
        }
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
    fn the_examples_of_the_specification_are_read_and_written() {
        let pf_pci_address = Some("0000:18:00.0".parse().unwrap());
        let pci = PciDeviceInfo { pf_pci_address, ..PciDeviceInfo::new("0000:18:02.5".parse().unwrap()) };
        let vhost_net = PciDeviceInfo { vhost_net: Some("/dev/vhost-net".to_owned()), ..pci.clone() };
        let vdpa = VdpaDeviceInfo {
            parent_device: "vdpa2".to_owned(),
            driver: VdpaDriver::Vhost,
            path: "/dev/vhost-vdpa0".to_owned(),
            pci_address: Some("0000:18:02.5".parse().unwrap()),
            pf_pci_address,
            representor_device: Some("eth3".to_owned()),
        };
        for (info, text) in [
            (
                DeviceInfo::Pci(pci),
                r#"{"type":"pci","version":"1.1.0","pci":{"pci-address":"0000:18:02.5","pf-pci-address":"0000:18:00.0"}}"#,
            ),
            (
                DeviceInfo::Pci(vhost_net),
                r#"{"type":"pci","version":"1.1.0","pci":{"pci-address":"0000:18:02.5","vhost-net":"/dev/vhost-net","pf-pci-address":"0000:18:00.0"}}"#,
            ),
            (
                DeviceInfo::Vdpa(vdpa),
                r#"{"type":"vdpa","version":"1.1.0","vdpa":{"parent-device":"vdpa2","driver":"vhost","path":"/dev/vhost-vdpa0","pci-address":"0000:18:02.5","pf-pci-address":"0000:18:00.0","representor-device":"eth3"}}"#,
            ),
        ] {
            assert_eq!(serde_json::to_string(&info).unwrap(), text);
            assert_eq!(serde_json::from_str::<DeviceInfo>(text).unwrap(), info);
        }
    }

    #[test]
    fn another_kind_and_a_missing_description_are_refused() {
        for (text, told) in [
            (
                r#"{"type":"memif","version":"1.1.0","memif":{"role":"slave","path":"/x","mode":"ip"}}"#,
                "memif",
            ),
            (r#"{"type":"pci","version":"1.1.0"}"#, "needs the key \"pci\""),
            (r#"{"type":"vdpa","version":"1.1.0","pci":{"pci-address":"0000:18:02.5"}}"#, "the key \"vdpa\""),
            (
                r#"{"type":"vdpa","version":"1.1.0","vdpa":{"parent-device":"vdpa0","driver":"x","path":"/"}}"#,
                "`x`",
            ),
        ] {
            let error = serde_json::from_str::<DeviceInfo>(text).unwrap_err().to_string();
            assert!(error.contains(told), "{error}");
        }
    }
}
