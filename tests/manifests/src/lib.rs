//! `manifests/` as Kubernetes gets it: rendered by the real kustomize and the real Helm.
//!
//! [`kustomize`] and [`helm`] return what would be applied, as values. Refuses to know what should be in it.
#![forbid(unsafe_code)]

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use thiserror::Error;
use zerobridge_lab::{Cache, CacheError, PrepareError, Progress, checkout, manifest_tools};

/// The version of Kubernetes that charts are rendered for.
const KUBERNETES: &str = "1.36.0";

/// Why something could not be rendered.
#[derive(Debug, Error)]
pub enum RenderError {
    /// No cache.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// The tools could not be built.
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    /// A tool could not be started.
    #[error("cannot start {program}")]
    Start {
        /// The program.
        program: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A tool refused.
    #[error("{program} refused {folder}:\n{said}")]
    Refused {
        /// The program.
        program: PathBuf,
        /// What was to be rendered.
        folder: PathBuf,
        /// What it said.
        said: String,
    },
    /// What came out is no YAML.
    #[error("what {program} made of {folder} cannot be read: {reason}")]
    Unreadable {
        /// The program.
        program: PathBuf,
        /// What was rendered.
        folder: PathBuf,
        /// Why.
        reason: String,
    },
}

/// The folder `manifests`.
#[must_use]
pub fn manifests() -> PathBuf {
    checkout().join("manifests")
}

/// The objects of the kustomization in a folder below `manifests`.
///
/// # Errors
/// [`RenderError`].
pub fn kustomize(folder: &str) -> Result<Vec<Value>, RenderError> {
    let folder = manifests().join(folder);
    render("kustomize", &folder, &["build"], &[])
}

/// The objects of the Helm chart in `kube-system`, with a file of `charts/zerobridge/values`, and `sets` beside it.
///
/// # Errors
/// [`RenderError`].
pub fn helm(values: &str, sets: &[&str]) -> Result<Vec<Value>, RenderError> {
    let chart = manifests().join("charts/zerobridge");
    let values = chart.join("values").join(values).display().to_string();
    let kubernetes = format!("--kube-version={KUBERNETES}");
    let mut more = vec!["--namespace=kube-system", "--include-crds", &kubernetes, "--values", &values];
    for set in sets {
        more.extend(["--set", set]);
    }
    render("helm", &chart, &["template", "zerobridge"], &more)
}

fn render(name: &str, folder: &Path, before: &[&str], after: &[&str]) -> Result<Vec<Value>, RenderError> {
    let tools = manifest_tools(&Cache::from_environment()?, &Progress::to(io::stderr()))?;
    let program = tools.join(name);
    let output = Command::new(&program).args(before).arg(folder).args(after).output();
    let Output { status, stdout, stderr } =
        output.map_err(|source| RenderError::Start { program: program.clone(), source })?;
    let folder = folder.to_owned();
    if !status.success() {
        let said = String::from_utf8_lossy(&stderr).into_owned();
        return Err(RenderError::Refused { program, folder, said });
    }
    let documents = serde_saphyr::from_multiple::<Value>(&String::from_utf8_lossy(&stdout));
    let documents =
        documents.map_err(|error| RenderError::Unreadable { program, folder, reason: error.to_string() })?;
    // Between two separators there may be nothing.
    Ok(documents.into_iter().filter(|document| !document.is_null()).collect())
}
