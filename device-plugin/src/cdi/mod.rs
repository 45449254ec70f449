//! Device nodes by way of the Container Device Interface: one specification file per device, written when it is given
//! away, and collected when nobody holds the device any more.
//!
//! One file each, so that two containers never write the same one. Refuses to know which nodes a device has and who holds
//! it.

mod collect;
mod name;
mod support;

use std::collections::BTreeMap;
use std::path::PathBuf;

use zerobridge_proto::cdi::{ContainerEdits, Device, DeviceNode, Spec, SpecError, VERSION};

pub(crate) use collect::stale_specs;
pub(crate) use name::{device_name, qualified_name};
pub use support::NodeMethod;
pub(crate) use support::node_method;

use crate::device::DeviceId;
use crate::resource::ResourceName;
use name::{file_name, kind};
use thiserror::Error;
use zerobridge_cni_sriov::documents::{Document, DocumentError, DocumentFolder};

/// The folder in which container runtimes look for specifications that programs make (`SPEC.md` of CDI).
#[derive(Debug)]
pub struct CdiFolder(DocumentFolder);

/// A specification that was not written.
#[derive(Debug, Error)]
pub enum CdiError {
    /// No runtime would take it.
    #[error("no container runtime would take the CDI device {name}")]
    Spec {
        /// Its qualified name.
        name: String,
        /// Why not.
        #[source]
        source: SpecError,
    },
    /// The file could not be written.
    #[error(transparent)]
    Document(#[from] DocumentError),
}

impl CdiFolder {
    /// The folder at `path`. It is made when something is written.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(DocumentFolder::new(path))
    }

    /// Writes the specification of one device, in place of the one that may be there.
    ///
    /// # Errors
    ///
    /// [`CdiError`]; an earlier specification is still complete then.
    pub fn write(&self, pool: &ResourceName, device: &DeviceId, spec: &Spec) -> Result<(), CdiError> {
        spec.check().map_err(|source| {
            let name = qualified_name(pool, &device_name(pool, device));
            CdiError::Spec { name, source }
        })?;
        Ok(self.0.write(&file_name(pool, device), spec)?)
    }

    /// Whether a device has a specification.
    #[must_use]
    pub fn has(&self, pool: &ResourceName, device: &DeviceId) -> bool {
        self.0.has(&file_name(pool, device))
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

/// The specification of one device, from its nodes: paths on the host, by path in the container.
#[must_use]
pub(crate) fn spec(
    pool: &ResourceName,
    device: &DeviceId,
    nodes: &BTreeMap<String, String>,
    permissions: &str,
) -> Spec {
    let node = |(container, host): (&String, &String)| DeviceNode {
        path: container.clone(),
        host_path: (host != container).then(|| host.clone()),
        permissions: permissions.to_owned(),
    };
    let device_nodes = nodes.iter().map(node).collect();
    let device = Device { name: device_name(pool, device), container_edits: ContainerEdits { device_nodes } };
    Spec { cdi_version: VERSION.to_owned(), kind: kind(pool), devices: vec![device] }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_is_what_a_runtime_reads() {
        let root = tempfile::tempdir().unwrap();
        let pool = ResourceName::new("zerobridge.io", "vf.a").unwrap();
        let device: DeviceId = "0000:01:10.0".parse().unwrap();
        let nodes = [("/dev/vfio/7", "/dev/vfio/noiommu-7"), ("/dev/vfio/vfio", "/dev/vfio/vfio")];
        let nodes = nodes.map(|(container, host)| (container.to_owned(), host.to_owned())).into();
        let folder = CdiFolder::new(root.path());
        folder.write(&pool, &device, &spec(&pool, &device, &nodes, "rw")).unwrap();
        let expected = concat!(
            r#"{"cdiVersion":"0.5.0","kind":"cdi.zerobridge.io/device","devices":[{"name":"vf.a:0000:01:10.0","#,
            r#""containerEdits":{"deviceNodes":[{"path":"/dev/vfio/7","hostPath":"/dev/vfio/noiommu-7","permissions":"rw"},"#,
            r#"{"path":"/dev/vfio/vfio","permissions":"rw"}]}}]}"#
        );
        let file = root.path().join("zerobridge-zerobridge.io_vf.a:0000:01:10.0.json");
        assert_eq!(fs::read_to_string(file).unwrap(), expected);
    }

    #[test]
    fn what_no_runtime_would_read_is_not_written() {
        let root = tempfile::tempdir().unwrap();
        let pool = ResourceName::new("zerobridge.io", "vf").unwrap();
        let device: DeviceId = "0000:01:10.0".parse().unwrap();
        let empty = spec(&pool, &device, &BTreeMap::new(), "rw");
        let error = CdiFolder::new(root.path()).write(&pool, &device, &empty).unwrap_err();
        assert!(error.to_string().contains("cdi.zerobridge.io/device=vf:0000:01:10.0"), "{error}");
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    }
}
