//! An image as an OCI image layout (OCI image specification 1.1, image-layout.md) in a tar archive, as `ctr images import`,
//! `podman load` and `skopeo copy oci-archive:` take it. One layer, not compressed: what it holds is not large, and no library
//! for compression is another one in what decides on the image's digest.
//!
//! Refuses to know what is in the image.

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::{Tree, TreeError};

/// An image.
#[derive(Clone, Debug)]
pub struct Image<'a> {
    /// What it is called: `zerobridge.io/zerobridge:0.1.0`.
    pub name: &'a str,
    /// What a container of it runs: the object `config` of an image configuration (config.md).
    pub config: Map<String, Value>,
    /// When what is in it was made, as RFC 3339 has it; left out if nobody says.
    pub created: Option<&'a str>,
    /// What is in it.
    pub root: &'a Tree,
}

/// Why there is no archive.
#[derive(Debug, Error)]
pub enum LayoutError {
    /// The files.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// A document.
    #[error("cannot write a document of the image")]
    Json(#[from] serde_json::Error),
}

impl Image<'_> {
    /// The archive.
    ///
    /// # Errors
    /// [`LayoutError`].
    pub fn archive(&self) -> Result<Vec<u8>, LayoutError> {
        let mut layout = Tree::new();
        for (path, content) in self.files()? {
            layout.file(path, 0o644, content);
        }
        Ok(layout.archive()?)
    }

    /// Path and content of every file of the layout.
    fn files(&self) -> Result<Vec<(String, Vec<u8>)>, LayoutError> {
        let layer = self.root.archive()?;
        let mut config = json!({
            "architecture": "amd64",
            "os": "linux",
            "config": self.config,
            "rootfs": {"type": "layers", "diff_ids": [digest(&layer)]},
        });
        if let Some(created) = self.created {
            config["created"] = json!(created);
        }
        let config = serde_json::to_vec(&config)?;
        let manifest = serde_json::to_vec(&json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
            "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &layer)],
        }))?;
        let mut entry = descriptor("application/vnd.oci.image.manifest.v1+json", &manifest);
        entry["platform"] = json!({"architecture": "amd64", "os": "linux"});
        // containerd goes by the first, everybody else by the second.
        entry["annotations"] =
            json!({"io.containerd.image.name": self.name, "org.opencontainers.image.ref.name": self.name});
        let index = serde_json::to_vec(&json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [entry],
        }))?;
        let version = serde_json::to_vec(&json!({"imageLayoutVersion": "1.0.0"}))?;
        let mut files = vec![("oci-layout".to_owned(), version), ("index.json".to_owned(), index)];
        for blob in [layer, config, manifest] {
            files.push((format!("blobs/{}", digest(&blob).replace(':', "/")), blob));
        }
        Ok(files)
    }
}

fn descriptor(media_type: &str, content: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": digest(content), "size": content.len()})
}

fn digest(content: &[u8]) -> String {
    format!("sha256:{}", hex(content))
}

/// The SHA-256 of some bytes in hexadecimal.
pub(crate) fn hex(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Read as _;

    use super::*;

    fn image(root: &Tree) -> Image<'_> {
        let config = Map::from_iter([("Cmd".to_owned(), json!(["x"]))]);
        Image { name: "an/image:1", config, created: Some("2020-01-01T00:00:00Z"), root }
    }

    #[test]
    fn every_descriptor_leads_to_the_content_it_describes() {
        let mut root = Tree::new();
        root.file("bin/x", 0o755, "an x");
        let archive = image(&root).archive().unwrap();
        assert_eq!(archive, image(&root).archive().unwrap());
        let mut files = BTreeMap::new();
        for entry in tar::Archive::new(archive.as_slice()).entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            files.insert(entry.path().unwrap().to_str().unwrap().to_owned(), content);
        }
        let find = |descriptor: &Value| {
            let digest = descriptor["digest"].as_str().unwrap();
            let content = files[&format!("blobs/{}", digest.replace(':', "/"))].clone();
            assert_eq!(descriptor["size"], content.len());
            assert_eq!(digest, super::digest(&content));
            content
        };
        let read = |bytes: &[u8]| -> Value { serde_json::from_slice(bytes).unwrap() };
        assert_eq!(read(&files["oci-layout"])["imageLayoutVersion"], "1.0.0");
        let index = read(&files["index.json"]);
        let entry = &index["manifests"][0];
        assert_eq!(entry["annotations"]["io.containerd.image.name"], "an/image:1");
        assert_eq!(entry["annotations"]["org.opencontainers.image.ref.name"], "an/image:1");
        let manifest = read(&find(entry));
        assert_eq!(find(&manifest["layers"][0]), root.archive().unwrap());
        let config = read(&find(&manifest["config"]));
        assert_eq!(config["rootfs"]["diff_ids"][0], manifest["layers"][0]["digest"]);
        assert_eq!(
            (&config["config"]["Cmd"][0], &config["created"]),
            (&json!("x"), &json!("2020-01-01T00:00:00Z"))
        );
        assert_eq!(
            files.keys().filter(|name| name.starts_with("blobs/sha256/") && !name.ends_with('/')).count(),
            3
        );
    }

    #[test]
    fn the_digest_is_sha_256() {
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(digest(b""), empty);
    }
}
