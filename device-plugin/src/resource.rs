//! An extended resource's name, and every other name that follows from it: environment variables, files.
//!
//! The rules for what the kubelet accepts are those of `IsExtendedResourceName` in Kubernetes'
//! `pkg/apis/core/v1/helper`. Refuses to know which devices stand behind the name.

use std::fmt;

use crate::device::DeviceId;
use thiserror::Error;

/// Prefix of a pool that names none.
pub const DEFAULT_PREFIX: &str = "zerobridge.io";

/// The longest prefix: a DNS subdomain of 253 characters that still has room for the quota prefix `requests.`.
const LONGEST_PREFIX: usize = 253 - "requests.".len();

/// The longest name part of a qualified name.
const LONGEST_NAME: usize = 63;

/// The name of an extended resource, `prefix/name`, in a form that the kubelet accepts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceName {
    prefix: String,
    name: String,
}

/// A text that cannot be part of an extended resource's name.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ResourceNameError {
    /// The part before the slash.
    #[error("\"{prefix}\" cannot be a resource prefix: {problem}")]
    Prefix {
        /// What was given.
        prefix: String,
        /// Why it cannot be one, and what can.
        problem: String,
    },
    /// The part behind the slash.
    #[error("\"{name}\" cannot be a resource name: {problem}")]
    Name {
        /// What was given.
        name: String,
        /// Why it cannot be one, and what can.
        problem: String,
    },
}

impl ResourceName {
    /// A resource name from its two parts.
    ///
    /// # Errors
    ///
    /// [`ResourceNameError`] if the kubelet would refuse it.
    pub fn new(prefix: &str, name: &str) -> Result<Self, ResourceNameError> {
        check_prefix(prefix)
            .map_err(|problem| ResourceNameError::Prefix { prefix: prefix.to_owned(), problem })?;
        check_name(name).map_err(|problem| ResourceNameError::Name { name: name.to_owned(), problem })?;
        Ok(Self { prefix: prefix.to_owned(), name: name.to_owned() })
    }

    /// The part before the slash.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The part behind the slash.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The environment variables that carry the device IDs, in a container that was given some.
    ///
    /// The first is the one that workloads for sriov-network-device-plugin read: upper case, dots become underscores,
    /// hyphens stay. No shell can read a variable with a hyphen, so such a name has a twin with underscores.
    #[must_use]
    pub fn environment(&self) -> Vec<String> {
        let exact = format!("PCIDEVICE_{}_{}", self.prefix, self.name).to_uppercase().replace('.', "_");
        let readable = exact.replace('-', "_");
        if readable == exact { vec![exact] } else { vec![exact, readable] }
    }

    /// File name of the device-info document of one device (Device Information Specification 1.1.0, section 4.1).
    #[must_use]
    pub fn device_info_file(&self, device: &DeviceId) -> String {
        format!("{}-{}-{device}-device.json", self.prefix, self.name)
    }
}

impl fmt::Display for ResourceName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.prefix, self.name)
    }
}

fn check_prefix(prefix: &str) -> Result<(), String> {
    if prefix.len() > LONGEST_PREFIX {
        return Err(format!("it has {} characters, at most {LONGEST_PREFIX} are allowed", prefix.len()));
    }
    let label = |label: &str| {
        let edge =
            |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        let bytes = label.as_bytes();
        let inner = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-';
        edge(bytes.first()) && edge(bytes.last()) && bytes.iter().all(inner)
    };
    if !prefix.split('.').all(label) {
        return Err(format!("write a DNS name in lower case, such as {DEFAULT_PREFIX}"));
    }
    if prefix.ends_with("kubernetes.io") {
        return Err("names under kubernetes.io belong to Kubernetes, and the kubelet refuses them".to_owned());
    }
    if prefix.starts_with("requests.") {
        return Err("\"requests.\" is the prefix of quotas, and the kubelet refuses it".to_owned());
    }
    Ok(())
}

fn check_name(name: &str) -> Result<(), String> {
    if name.len() > LONGEST_NAME {
        return Err(format!("it has {} characters, at most {LONGEST_NAME} are allowed", name.len()));
    }
    let bytes = name.as_bytes();
    let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let inner = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
    if !(edge(bytes.first()) && edge(bytes.last()) && bytes.iter().all(inner)) {
        return Err(
            "write letters, digits, '-', '_' and '.', beginning and ending with a letter or digit".to_owned()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(prefix: &str, name: &str) -> ResourceName {
        ResourceName::new(prefix, name).unwrap()
    }

    #[test]
    fn a_resource_is_shown_as_kubernetes_writes_it() {
        assert_eq!(resource("zerobridge.io", "vf").to_string(), "zerobridge.io/vf");
    }

    #[test]
    fn names_that_the_kubelet_takes_are_taken() {
        let longest = "n".repeat(63);
        let long_prefix = vec!["a".repeat(48); 5].join(".");
        assert_eq!(long_prefix.len(), 244);
        for (prefix, name) in [
            ("intel.com", "intel_sriov_netdevice"),
            ("openshift.io", "CNSBC-VFIO-INT.ACCESS"),
            ("x", "0"),
            (&long_prefix, &longest),
        ] {
            resource(prefix, name);
        }
    }

    #[test]
    fn names_that_the_kubelet_refuses_are_refused_with_the_reason() {
        let (long, long_prefix) = ("n".repeat(64), "p".repeat(245));
        for (prefix, name, reason) in [
            ("zerobridge.io", "", "letters, digits"),
            ("zerobridge.io", "-vf", "letters, digits"),
            ("zerobridge.io", "vf_", "letters, digits"),
            ("zerobridge.io", "a/b", "letters, digits"),
            ("zerobridge.io", "vf ", "letters, digits"),
            ("zerobridge.io", &long, "at most 63"),
            ("", "vf", "DNS name"),
            ("Zerobridge.io", "vf", "DNS name"),
            ("zerobridge..io", "vf", "DNS name"),
            ("zerobridge_io", "vf", "DNS name"),
            ("a/b", "vf", "DNS name"),
            ("kubernetes.io", "vf", "belong to Kubernetes"),
            ("node.kubernetes.io", "vf", "belong to Kubernetes"),
            ("requests.zerobridge.io", "vf", "quotas"),
            (&long_prefix, "vf", "at most 244"),
        ] {
            let error = ResourceName::new(prefix, name).unwrap_err().to_string();
            assert!(error.contains(reason), "{prefix}/{name}: {error}");
        }
    }

    #[test]
    fn the_environment_keeps_hyphens_and_adds_a_readable_twin() {
        assert_eq!(resource("zerobridge.io", "vf").environment(), ["PCIDEVICE_ZEROBRIDGE_IO_VF"]);
        assert_eq!(
            resource("openshift.io", "vf-green.a").environment(),
            ["PCIDEVICE_OPENSHIFT_IO_VF-GREEN_A", "PCIDEVICE_OPENSHIFT_IO_VF_GREEN_A"]
        );
    }

    #[test]
    fn the_device_info_file_has_no_slash() {
        let file = resource("zerobridge.io", "vf").device_info_file(&"0000:01:10.0".parse().unwrap());
        assert_eq!(file, "zerobridge.io-vf-0000:01:10.0-device.json");
    }
}
