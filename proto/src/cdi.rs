//! Container Device Interface: the files from which a container runtime learns what a named device consists of.
//!
//! The specification's `SPEC.md`, as far as device nodes need it, and the rules for names that its reference
//! implementation checks (`pkg/parser`). Refuses to know which devices there are and where the files lie.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The oldest version that has everything used here: `hostPath`, and device names that begin with a digit.
///
/// A runtime refuses a file of a version that it does not know, so the oldest serves the most: containerd 1.7 reads no
/// later one.
pub const VERSION: &str = "0.5.0";

/// A specification file: devices of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Spec {
    /// Version of the specification, `major.minor.patch`.
    pub cdi_version: String,
    /// `vendor/class`.
    pub kind: String,
    /// At least one.
    pub devices: Vec<Device>,
}

/// A device that a container may ask for, as `vendor/class=name`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Device {
    /// Its name, unique within its kind.
    pub name: String,
    /// What its container is given.
    pub container_edits: ContainerEdits,
}

/// Changes of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerEdits {
    /// Device nodes that it gets.
    pub device_nodes: Vec<DeviceNode>,
}

/// A device node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeviceNode {
    /// Absolute path in the container.
    pub path: String,
    /// Absolute path on the host; `None` if it is the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_path: Option<String>,
    /// Some of `r`, `w` and `m`: reading, writing, making nodes.
    pub permissions: String,
}

/// Why a runtime would refuse a specification.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SpecError {
    /// A part of the kind.
    #[error(
        "\"{kind}\" is no kind of CDI devices; write vendor/class, each of letters, digits, '-', '_' and '.', beginning with a letter and ending with a letter or digit"
    )]
    Kind {
        /// What was given.
        kind: String,
    },
    /// There is nothing in it.
    #[error("a CDI specification of kind {kind} has no device")]
    NoDevice {
        /// Its kind.
        kind: String,
    },
    /// The name of a device.
    #[error(
        "\"{name}\" cannot be the name of a CDI device; write letters, digits, '-', '_', '.' and ':', beginning and ending with a letter or digit"
    )]
    Name {
        /// What was given.
        name: String,
    },
    /// Two devices have one name.
    #[error("two CDI devices of kind {kind} have the name \"{name}\"")]
    Twice {
        /// Their kind.
        kind: String,
        /// Their name.
        name: String,
    },
    /// A device that changes nothing.
    #[error("the CDI device \"{name}\" has no device node")]
    NoNode {
        /// Its name.
        name: String,
    },
    /// A path or a permission of a node.
    #[error("the CDI device \"{name}\" has a bad node: {problem}")]
    Node {
        /// Its name.
        name: String,
        /// What is wrong, and what would be right.
        problem: String,
    },
}

impl Spec {
    /// Checks what the reference implementation checks when it loads a file: a file that fails is ignored as a whole.
    ///
    /// # Errors
    ///
    /// [`SpecError`], the first that is found.
    pub fn check(&self) -> Result<(), SpecError> {
        let kind = || self.kind.clone();
        let (vendor, class) = self.kind.split_once('/').ok_or_else(|| SpecError::Kind { kind: kind() })?;
        if !is_label(vendor) || !is_label(class) {
            return Err(SpecError::Kind { kind: kind() });
        }
        if self.devices.is_empty() {
            return Err(SpecError::NoDevice { kind: kind() });
        }
        let mut names = BTreeSet::new();
        for device in &self.devices {
            device.check()?;
            if !names.insert(&device.name) {
                return Err(SpecError::Twice { kind: kind(), name: device.name.clone() });
            }
        }
        Ok(())
    }
}

impl Device {
    fn check(&self) -> Result<(), SpecError> {
        let name = || self.name.clone();
        if !is_name(&self.name) {
            return Err(SpecError::Name { name: name() });
        }
        if self.container_edits.device_nodes.is_empty() {
            return Err(SpecError::NoNode { name: name() });
        }
        let nodes = self.container_edits.device_nodes.iter();
        nodes
            .map(DeviceNode::problem)
            .find_map(|problem| problem)
            .map_or(Ok(()), |problem| Err(SpecError::Node { name: name(), problem }))
    }
}

impl DeviceNode {
    fn problem(&self) -> Option<String> {
        let relative = [Some(&self.path), self.host_path.as_ref()]
            .into_iter()
            .flatten()
            .find(|path| !path.starts_with('/'));
        if let Some(path) = relative {
            return Some(format!("\"{path}\" is no absolute path"));
        }
        let odd = self.permissions.chars().any(|letter| !"rwm".contains(letter));
        odd.then(|| format!("\"{}\" are no permissions; write some of r, w and m", self.permissions))
    }
}

/// `ValidateVendorName` and `ValidateClassName`. A single letter is refused too, because those slice out of bounds on it.
fn is_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    let inner = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
    bytes.len() > 1
        && bytes.first().is_some_and(u8::is_ascii_alphabetic)
        && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.iter().all(inner)
}

/// `ValidateDeviceName`.
fn is_name(text: &str) -> bool {
    let bytes = text.as_bytes();
    let inner = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(byte);
    bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.iter().all(inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(kind: &str, names: &[&str], nodes: Vec<DeviceNode>) -> Spec {
        let device = |name: &&str| Device {
            name: (*name).to_owned(),
            container_edits: ContainerEdits { device_nodes: nodes.clone() },
        };
        Spec {
            cdi_version: VERSION.to_owned(),
            kind: kind.to_owned(),
            devices: names.iter().map(device).collect(),
        }
    }

    fn node(path: &str, permissions: &str) -> DeviceNode {
        DeviceNode { path: path.to_owned(), host_path: None, permissions: permissions.to_owned() }
    }

    #[test]
    fn a_specification_is_written_with_the_keys_of_the_contract() {
        let renamed =
            DeviceNode { host_path: Some("/dev/vfio/noiommu-7".to_owned()), ..node("/dev/vfio/7", "rw") };
        let spec = spec("example.com/nic", &["a:0"], vec![node("/dev/vfio/vfio", "rw"), renamed]);
        let text = r#"{"cdiVersion":"0.5.0","kind":"example.com/nic","devices":[{"name":"a:0","containerEdits":{"deviceNodes":[{"path":"/dev/vfio/vfio","permissions":"rw"},{"path":"/dev/vfio/7","hostPath":"/dev/vfio/noiommu-7","permissions":"rw"}]}}]}"#;
        assert_eq!(serde_json::to_string(&spec).unwrap(), text);
        assert_eq!(serde_json::from_str::<Spec>(text).unwrap(), spec);
        assert_eq!(spec.check(), Ok(()));
    }

    #[test]
    fn what_a_runtime_would_refuse_is_refused_with_its_reason() {
        let good = || vec![node("/dev/uio0", "rw")];
        for (spec, told) in [
            (spec("nic", &["a"], good()), "\"nic\" is no kind"),
            (spec("example.com/", &["a"], good()), "is no kind"),
            (spec("3com.com/nic", &["a"], good()), "beginning with a letter"),
            (spec("x/nic", &["a"], good()), "is no kind"),
            (spec("example.com/nic-", &["a"], good()), "ending with"),
            (spec("example.com/nic", &[], good()), "has no device"),
            (spec("example.com/nic", &["0000:01:00.0#3"], good()), "\"0000:01:00.0#3\" cannot be the name"),
            (spec("example.com/nic", &[""], good()), "\"\" cannot be the name"),
            (spec("example.com/nic", &["a:"], good()), "\"a:\" cannot be the name"),
            (spec("example.com/nic", &["a", "a"], good()), "have the name \"a\""),
            (spec("example.com/nic", &["a"], Vec::new()), "no device node"),
            (
                spec("example.com/nic", &["a"], vec![node("dev/uio0", "rw")]),
                "\"dev/uio0\" is no absolute path",
            ),
            (spec("example.com/nic", &["a"], vec![node("/dev/uio0", "rx")]), "\"rx\" are no permissions"),
        ] {
            let error = spec.check().unwrap_err().to_string();
            assert!(error.contains(told), "{error}");
        }
    }
}
