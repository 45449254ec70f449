//! A container image as an OCI image layout in a tar archive, written without a registry; and the lab's usual one, busybox.
//!
//! That one is also the sandbox ("pause") image: `sleep` holds the namespaces as well as anything.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::PrepareError;
use super::cache::{Cache, CacheError, Entry, Key, hex};
use super::host::HostCommand;

/// What pods and containerd's configuration call the image.
pub(crate) const NAME: &str = "lab.zerobridge.io/busybox:1";
/// The archive in its cache entry.
pub(crate) const ARCHIVE: &str = "busybox.tar";

/// Linked statically, so that it is a file system's only file.
pub(super) const BUSYBOX: &str = "/bin/busybox";

/// The archive [`ARCHIVE`].
pub(crate) fn prepare(cache: &Cache) -> Result<Entry, PrepareError> {
    let busybox = fs::read(BUSYBOX).map_err(CacheError::file("read", Path::new(BUSYBOX)))?;
    let key = Key::new().with("busybox", busybox).with("source", include_str!("image.rs"));
    cache.entry("image", &key, pack)
}

fn pack(folder: &Path) -> Result<(), PrepareError> {
    let scratch = tempfile::tempdir().map_err(CacheError::file("make a folder in", &std::env::temp_dir()))?;
    make_root(scratch.path())?;
    write(&folder.join(ARCHIVE), NAME, scratch.path())
}

/// A root with the folders that a runtime mounts on, and busybox under the name of each of its applets.
pub(super) fn make_root(root: &Path) -> Result<(), PrepareError> {
    for name in ["bin", "etc", "proc", "sys", "dev", "tmp"] {
        let path = root.join(name);
        fs::create_dir_all(&path).map_err(CacheError::file("make", &path))?;
    }
    let busybox = root.join("bin/busybox");
    fs::copy(BUSYBOX, &busybox).map_err(CacheError::file("write", &busybox))?;
    for applet in HostCommand::new(BUSYBOX).args(["--list"]).text()?.lines().filter(|name| *name != "busybox")
    {
        let path = root.join("bin").join(applet);
        symlink("busybox", &path).map_err(CacheError::file("link", &path))?;
    }
    Ok(())
}

/// Writes the archive of an image that is called `name` and has the content of `root`.
pub(super) fn write(path: &Path, name: &str, root: &Path) -> Result<(), PrepareError> {
    let scratch = tempfile::tempdir().map_err(CacheError::file("make a folder in", &std::env::temp_dir()))?;
    let layout = scratch.path();
    for (file, content) in layout_of(name, archive(root)?)? {
        let path = layout.join(file);
        let parent = path.parent().unwrap_or(layout);
        fs::create_dir_all(parent).map_err(CacheError::file("make", parent))?;
        fs::write(&path, content).map_err(CacheError::file("write", &path))?;
    }
    fs::write(path, archive(layout)?).map_err(CacheError::file("write", path))?;
    Ok(())
}

/// `folder` as a tar archive that depends on nothing but its content.
fn archive(folder: &Path) -> Result<Vec<u8>, PrepareError> {
    let flags = ["--sort=name", "--mtime=@0", "--owner=0", "--group=0", "--numeric-owner", "-cf", "-", "."];
    Ok(HostCommand::new("tar").args(flags).folder(folder).run()?)
}

/// Path and content of every file of an image layout (OCI image specification 1.1, image-layout.md) with one layer.
fn layout_of(name: &str, layer: Vec<u8>) -> Result<Vec<(String, Vec<u8>)>, PrepareError> {
    let config = bytes(&json!({
        "architecture": "amd64",
        "os": "linux",
        "config": {"Env": ["PATH=/bin"], "Cmd": ["sleep", "infinity"]},
        "rootfs": {"type": "layers", "diff_ids": [digest(&layer)]},
    }))?;
    let manifest = bytes(&json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &layer)],
    }))?;
    let mut entry = descriptor("application/vnd.oci.image.manifest.v1+json", &manifest);
    entry["annotations"] =
        json!({"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name});
    let index = bytes(&json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [entry],
    }))?;
    let mut files = vec![
        ("oci-layout".to_owned(), bytes(&json!({"imageLayoutVersion": "1.0.0"}))?),
        ("index.json".to_owned(), index),
    ];
    for blob in [layer, config, manifest] {
        files.push((format!("blobs/{}", digest(&blob).replace(':', "/")), blob));
    }
    Ok(files)
}

fn bytes(value: &Value) -> Result<Vec<u8>, PrepareError> {
    serde_json::to_vec(value).map_err(|source| PrepareError::Encode { source })
}

fn descriptor(media_type: &str, content: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": digest(content), "size": content.len()})
}

fn digest(content: &[u8]) -> String {
    format!("sha256:{}", hex(&Sha256::digest(content)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_descriptor_leads_to_the_content_it_describes() {
        let files = layout_of("an/image:1", b"a layer".to_vec()).unwrap();
        let find = |descriptor: &Value| {
            let digest = descriptor["digest"].as_str().unwrap();
            let path = format!("blobs/{}", digest.replace(':', "/"));
            let (_, content) = files.iter().find(|(name, _)| *name == path).unwrap();
            assert_eq!(descriptor["size"], content.len());
            content.clone()
        };
        let index: Value = serde_json::from_slice(&files[1].1).unwrap();
        let manifest: Value = serde_json::from_slice(&find(&index["manifests"][0])).unwrap();
        assert_eq!(find(&manifest["layers"][0]), b"a layer");
        let config: Value = serde_json::from_slice(&find(&manifest["config"])).unwrap();
        assert_eq!(config["rootfs"]["diff_ids"][0], manifest["layers"][0]["digest"]);
    }

    #[test]
    fn the_digest_is_sha_256() {
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(digest(b""), empty);
    }
}
