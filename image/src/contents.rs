//! What Zerobridge's own image has: four programs, what is said of them, and folders to mount on. No shell, no libraries.

use serde_json::{Map, Value, json};

use crate::Tree;

/// What the image is called, before the version.
pub const REPOSITORY: &str = "zerobridge.io/zerobridge";

/// The programs, each in `/bin`.
pub const PROGRAMS: [&str; 4] = ["zerobridge", "zerobridge-ipam", "zerobridge-device-plugin", "zbctl"];

/// The packages that the programs are built from.
pub const PACKAGES: [&str; 4] =
    ["zerobridge-cni-sriov", "zerobridge-ipam", "zerobridge-device-plugin", "zerobridge-zbctl"];

/// What a container of the image runs unless told otherwise.
pub const ENTRYPOINT: &str = "/bin/zerobridge-device-plugin";

/// Where it stands what is linked into the programs.
pub const SBOM: &str = "usr/share/doc/zerobridge/sbom.spdx.json";

/// Folders that a node's own are mounted on, so that a runtime need not make them in a file system that is read-only.
const MOUNT_POINTS: [&str; 16] = [
    "dev",
    "proc",
    "sys",
    "etc/zerobridge",
    "etc/cni/net.d",
    "opt/cni/bin",
    "run/netns",
    "run/zerobridge",
    "var/lib/cni/results",
    "var/lib/kubelet/device-plugins",
    "var/lib/kubelet/pod-resources",
    "var/lib/zerobridge",
    "var/run/cdi",
    "var/run/k8s.cni.cncf.io/devinfo/dp",
    "var/run/netns",
    "var/run/secrets/kubernetes.io/serviceaccount",
];

/// The documents of the image.
#[derive(Clone, Debug)]
pub struct Documents {
    /// This project's licence.
    pub licence: Vec<u8>,
    /// Those of what is linked.
    pub notices: Vec<u8>,
    /// What is linked.
    pub sbom: Vec<u8>,
}

/// The files of the image, with the content of [`PROGRAMS`] in that order.
#[must_use]
pub fn tree(programs: [Vec<u8>; 4], documents: Documents) -> Tree {
    let mut tree = Tree::new();
    for folder in MOUNT_POINTS {
        tree.folder(folder, 0o755);
    }
    // `zbctl ledger rebuild` works there.
    tree.folder("tmp", 0o1777);
    for (name, content) in PROGRAMS.into_iter().zip(programs) {
        tree.file(format!("bin/{name}"), 0o755, content);
    }
    tree.file("usr/share/doc/zerobridge/LICENSE", 0o644, documents.licence);
    tree.file("usr/share/doc/zerobridge/licenses.txt", 0o644, documents.notices);
    tree.file(SBOM, 0o644, documents.sbom);
    tree
}

/// How a container of the image runs, and what the image says of itself.
#[must_use]
pub fn config(version: &str, revision: Option<&str>) -> Map<String, Value> {
    let mut labels = json!({
        "org.opencontainers.image.title": "zerobridge",
        "org.opencontainers.image.description":
            "SR-IOV VFs as Kubernetes pods' own interfaces: device plugin, CNI plugin, IPAM plugin",
        "org.opencontainers.image.version": version,
        "org.opencontainers.image.licenses": "Apache-2.0",
    });
    if let Some(revision) = revision {
        labels["org.opencontainers.image.revision"] = json!(revision);
    }
    Map::from_iter([
        ("Entrypoint".to_owned(), json!([ENTRYPOINT])),
        ("Env".to_owned(), json!(["PATH=/bin"])),
        ("WorkingDir".to_owned(), json!("/")),
        ("Labels".to_owned(), labels),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// docs/install.md and the manifests go by these.
    #[test]
    fn the_files_of_the_image_are_those_that_are_documented() {
        let documents = Documents { licence: vec![1], notices: vec![2], sbom: vec![3] };
        let archive = tree([vec![4], vec![5], vec![6], vec![7]], documents.clone()).archive().unwrap();
        assert_eq!(archive, tree([vec![4], vec![5], vec![6], vec![7]], documents).archive().unwrap());
        let mut found = Vec::new();
        let mut folders = Vec::new();
        for entry in tar::Archive::new(archive.as_slice()).entries().unwrap() {
            let entry = entry.unwrap();
            let path = entry.path().unwrap().to_str().unwrap().to_owned();
            let mode = entry.header().mode().unwrap();
            if path.ends_with('/') {
                folders.push((path, mode));
            } else {
                found.push(format!("{mode:o} {path}"));
            }
        }
        assert_eq!(
            found,
            [
                "755 bin/zbctl",
                "755 bin/zerobridge",
                "755 bin/zerobridge-device-plugin",
                "755 bin/zerobridge-ipam",
                "644 usr/share/doc/zerobridge/LICENSE",
                "644 usr/share/doc/zerobridge/licenses.txt",
                "644 usr/share/doc/zerobridge/sbom.spdx.json",
            ]
        );
        for folder in MOUNT_POINTS {
            assert!(folders.contains(&(format!("{folder}/"), 0o755)), "{folder}");
        }
        assert!(folders.contains(&("tmp/".to_owned(), 0o1777)));
    }

    #[test]
    fn labels_say_what_it_is_and_a_revision_only_if_there_is_one() {
        let labels = |revision| config("0.1.0", revision)["Labels"].clone();
        assert_eq!(labels(Some("abc"))["org.opencontainers.image.revision"], "abc");
        assert!(labels(None)["org.opencontainers.image.revision"].is_null());
        assert_eq!(labels(None)["org.opencontainers.image.version"], "0.1.0");
        assert_eq!(config("0.1.0", None)["Entrypoint"], json!(["/bin/zerobridge-device-plugin"]));
    }
}
