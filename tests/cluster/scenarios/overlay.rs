//! The manifests of the project, and overlays on top of them as a user writes them.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;
use zerobridge_lab::checkout;

/// A file or folder below `manifests`, as an argument.
pub(crate) fn manifest(path: &str) -> String {
    checkout().join("manifests").join(path).display().to_string()
}

/// The text of a manifest, whose containers have the lab's image instead of one that a registry would have to give.
pub(crate) fn example(path: &str, image: &str) -> Result<String, Box<dyn Error>> {
    let text = fs::read_to_string(manifest(path))?;
    Ok(text.replace("image: busybox", &format!("image: {image}")))
}

/// A kustomization of a user, in a folder that ends with it.
#[derive(Debug)]
pub(crate) struct Overlay(TempDir);

impl Overlay {
    /// On top of the folder `base` of `manifests`, with other files for the ConfigMaps that are named: `(map, file, content)`.
    pub(crate) fn on(base: &str, files: &[(&str, &str, Value)]) -> Result<Self, Box<dyn Error>> {
        let folder = tempfile::tempdir()?;
        let generator = |(map, file, _): &(&str, &str, Value)| json!({"name": map, "namespace": "kube-system", "behavior": "replace", "files": [file]});
        let kustomization = json!({
            "apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization",
            "resources": [relative(folder.path(), &checkout().join("manifests").join(base))],
            "configMapGenerator": files.iter().map(generator).collect::<Vec<_>>(),
            "generatorOptions": {"disableNameSuffixHash": true},
        });
        for (_, file, content) in files {
            fs::write(folder.path().join(file), content.to_string())?;
        }
        fs::write(folder.path().join("kustomization.yaml"), kustomization.to_string())?;
        Ok(Self(folder))
    }

    /// For `kubectl -k`.
    pub(crate) fn path(&self) -> String {
        self.0.path().display().to_string()
    }
}

/// kustomize takes folders by relative paths only.
fn relative(from: &Path, to: &Path) -> PathBuf {
    let up: PathBuf = from.components().skip(1).map(|_| "..").collect();
    up.join(to.strip_prefix("/").unwrap_or(to))
}
