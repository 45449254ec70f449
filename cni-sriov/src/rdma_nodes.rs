//! The device nodes of an attached RDMA device, told to the container runtime by a CDI specification.
//!
//! Their numbers change when the device moves, and a software device has none before it is made. So the device plugin gives a
//! container a name only, ADD writes down what the name stands for before the runtime makes the container, and whoever ends
//! the attachment takes it away: a container that comes too early or too late gets an error and never another pod's nodes.
//!
//! Refuses to know which container asks.

use std::path::Path;

use zerobridge_kernel::{DevFolder, RDMA_CM};
use zerobridge_proto::PciAddress;
use zerobridge_proto::cdi::{ContainerEdits, Device, DeviceNode, Spec, VERSION};

use crate::documents::{DocumentError, DocumentFolder};

/// The kind of all devices here. A vendor must be nobody else's.
const KIND: &str = "cdi.zerobridge.io/rdma";

/// Whoever opens a node maps its memory for writing too, and makes none.
const PERMISSIONS: &str = "rw";

/// What a container asks for in order to get the nodes of the RDMA device that is attached with `device`.
#[must_use]
pub fn rdma_nodes_name(device: PciAddress) -> String {
    format!("{KIND}={device}")
}

/// Writes the specification of `device`, whose RDMA device has `nodes`, named below `/dev`, and the node of the connection
/// manager if there is one.
pub(crate) fn write(
    folder: &Path,
    dev: &DevFolder,
    device: PciAddress,
    nodes: &[String],
) -> Result<(), DocumentError> {
    let cm = Some(RDMA_CM).filter(|name| dev.exists(name));
    let node = |name: &str| DeviceNode {
        path: format!("/dev/{name}"),
        host_path: None,
        permissions: PERMISSIONS.to_owned(),
    };
    let device_nodes = nodes.iter().map(String::as_str).chain(cm).map(node).collect();
    let edits = ContainerEdits { device_nodes };
    let described = Device { name: device.to_string(), container_edits: edits };
    let spec = Spec { cdi_version: VERSION.to_owned(), kind: KIND.to_owned(), devices: vec![described] };
    DocumentFolder::new(folder).write(&file_name(device), &spec)
}

/// Removes the specification of `device`. Success when there is none.
pub(crate) fn remove(folder: &Path, device: PciAddress) -> Result<(), DocumentError> {
    DocumentFolder::new(folder).remove_named(&file_name(device))
}

/// Removes the specifications of all devices: nothing is attached on this node any more. Returns what could not be removed;
/// the rest is gone.
pub fn forget_rdma_nodes(folder: &Path) -> Vec<DocumentError> {
    let folder = DocumentFolder::new(folder);
    match folder.list() {
        Ok(documents) => {
            let ours = documents.iter().filter(|document| device_of(&document.name).is_some());
            ours.filter_map(|document| folder.remove(document).err()).collect()
        }
        Err(error) => vec![error],
    }
}

/// How the file's name begins.
const BEGINNING: &str = "zerobridge.rdma-";

/// How it ends. A runtime reads what ends so.
const ENDING: &str = ".json";

fn file_name(device: PciAddress) -> String {
    format!("{BEGINNING}{device}{ENDING}")
}

fn device_of(file: &str) -> Option<PciAddress> {
    file.strip_prefix(BEGINNING)?.strip_suffix(ENDING)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_file_says_which_nodes_the_name_stands_for_and_goes() {
        let folder = tempfile::tempdir().unwrap();
        let dev = folder.path().join("dev");
        fs::create_dir_all(dev.join("infiniband")).unwrap();
        fs::write(dev.join(RDMA_CM), "").unwrap();
        let cdi = folder.path().join("cdi");
        let device = "0000:01:10.0".parse().unwrap();
        let nodes = ["infiniband/uverbs2".to_owned()];
        write(&cdi, &DevFolder::new(&dev), device, &nodes).unwrap();
        let file = cdi.join("zerobridge.rdma-0000:01:10.0.json");
        let expected = concat!(
            r#"{"cdiVersion":"0.5.0","kind":"cdi.zerobridge.io/rdma","devices":[{"name":"0000:01:10.0","#,
            r#""containerEdits":{"deviceNodes":[{"path":"/dev/infiniband/uverbs2","permissions":"rw"},"#,
            r#"{"path":"/dev/infiniband/rdma_cm","permissions":"rw"}]}}]}"#
        );
        let text = fs::read_to_string(&file).unwrap();
        assert_eq!(text, expected);
        serde_json::from_str::<Spec>(&text).unwrap().check().unwrap();
        assert_eq!(rdma_nodes_name(device), "cdi.zerobridge.io/rdma=0000:01:10.0");
        for _ in 0..2 {
            remove(&cdi, device).unwrap();
            assert!(!file.exists());
        }
        remove(&folder.path().join("nowhere"), device).unwrap();
    }

    #[test]
    fn all_that_is_ours_goes_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let dev = DevFolder::new(folder.path());
        for device in ["0000:01:10.0", "0000:01:10.2"] {
            write(folder.path(), &dev, device.parse().unwrap(), &[]).unwrap();
        }
        for name in ["zerobridge.rdma-x.json", "nvidia.json"] {
            fs::write(folder.path().join(name), "{}").unwrap();
        }
        assert!(forget_rdma_nodes(folder.path()).is_empty());
        let mut left: Vec<_> =
            fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["nvidia.json", "zerobridge.rdma-x.json"]);
        assert!(forget_rdma_nodes(&folder.path().join("nowhere")).is_empty());
    }
}
