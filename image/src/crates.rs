//! The crates that are linked into the programs, from what Cargo says of the workspace.
//!
//! Cargo's metadata is of the whole workspace, with the features that tests and tools ask for; which crates a build of these
//! programs takes, `cargo tree` says, by the same rules as `cargo build`. Refuses to call Cargo.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde_json::Value;
use thiserror::Error;

/// A crate, or another library that is in one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Linked {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its licence as an SPDX expression; `None` where it names none.
    pub licence: Option<String>,
    /// SHA-256 of its package in the registry, in hexadecimal; `None` for those of this workspace.
    pub checksum: Option<String>,
    /// The folder of its source.
    pub folder: PathBuf,
    /// Which of the others it needs, by name and version.
    pub needs: BTreeSet<(String, String)>,
}

/// What is said of crates does not fit together.
#[derive(Debug, Error)]
pub enum CratesError {
    /// No JSON.
    #[error("cargo metadata did not answer with JSON")]
    Json(#[from] serde_json::Error),
    /// A crate of the tree that the metadata does not know.
    #[error("cargo tree names {name} {version}, and cargo metadata does not")]
    Unknown {
        /// Its name.
        name: String,
        /// Its version.
        version: String,
    },
    /// A crate of a registry without a checksum.
    #[error("Cargo.lock has no checksum of {name} {version}")]
    NoChecksum {
        /// Its name.
        name: String,
        /// Its version.
        version: String,
    },
}

/// The crates that `tree` lists, in the order of names. `tree` is what `cargo tree --prefix none --format {p}` writes,
/// `metadata` what `cargo metadata --format-version 1` writes, and `lock` the content of `Cargo.lock`.
///
/// # Errors
/// [`CratesError`].
pub fn linked(tree: &str, metadata: &[u8], lock: &str) -> Result<Vec<Linked>, CratesError> {
    let metadata: Value = serde_json::from_slice(metadata)?;
    let wanted = listed(tree);
    let checksums = checksums(lock);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let array = |value: &Value| value.as_array().cloned().unwrap_or_default();

    let mut by_id = BTreeMap::new();
    let mut found = BTreeMap::new();
    for package in array(&metadata["packages"]) {
        let key = (text(&package["name"]), text(&package["version"]));
        by_id.insert(text(&package["id"]), key.clone());
        if !wanted.contains(&key) {
            continue;
        }
        let (name, version) = key.clone();
        let checksum = checksums.get(&key).cloned();
        if !package["source"].is_null() && checksum.is_none() {
            return Err(CratesError::NoChecksum { name, version });
        }
        let manifest = PathBuf::from(text(&package["manifest_path"]));
        let folder = manifest.parent().map(ToOwned::to_owned).unwrap_or_default();
        // The old way to write that either may be chosen.
        let licence = package["license"].as_str().map(|licence| {
            let either: Vec<&str> = licence.split('/').map(str::trim).collect();
            either.join(" OR ")
        });
        found.insert(key, Linked { name, version, licence, checksum, folder, needs: BTreeSet::new() });
    }
    if let Some((name, version)) = wanted.into_iter().find(|key| !found.contains_key(key)) {
        return Err(CratesError::Unknown { name, version });
    }
    for node in array(&metadata["resolve"]["nodes"]) {
        let Some(linked) = by_id.get(&text(&node["id"])).and_then(|key| found.get(key)).cloned() else {
            continue;
        };
        let is_normal =
            |dependency: &Value| array(&dependency["dep_kinds"]).iter().any(|kind| kind["kind"].is_null());
        let needed = array(&node["deps"]).into_iter().filter(is_normal);
        let needed = needed.filter_map(|dependency| by_id.get(&text(&dependency["pkg"])).cloned());
        let needs = needed.filter(|key| found.contains_key(key)).collect();
        found.insert((linked.name.clone(), linked.version.clone()), Linked { needs, ..linked });
    }
    Ok(found.into_values().collect())
}

/// Name and version of each line: `serde v1.0.228`, with a path behind it for crates of the workspace.
fn listed(tree: &str) -> BTreeSet<(String, String)> {
    let crates = tree.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let (name, version) = (words.next()?, words.next()?.strip_prefix('v')?);
        Some((name.to_owned(), version.to_owned()))
    });
    crates.collect()
}

/// The checksums of `Cargo.lock`, which Cargo writes one key a line.
fn checksums(lock: &str) -> BTreeMap<(String, String), String> {
    let mut found = BTreeMap::new();
    for package in lock.split("[[package]]").skip(1) {
        let value = |key: &str| {
            let quoted = package.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = "));
            quoted.map(|text| text.trim().trim_matches('"').to_owned())
        };
        if let (Some(name), Some(version), Some(checksum)) =
            (value("name"), value("version"), value("checksum"))
        {
            found.insert((name, version), checksum);
        }
    }
    found
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::json;

    use super::*;

    pub(crate) const LOCK: &str = "version = 4\n\n[[package]]\nname = \"libsqlite3-sys\"\nversion = \"0.40.0\"\nsource = \"a registry\"\n\
        checksum = \"00ff\"\ndependencies = [\n \"cc\",\n]\n\n[[package]]\nname = \"tool\"\nversion = \"0.1.0\"\n";

    /// A tool that links one crate, and is built and tested with two others.
    pub(crate) fn metadata() -> Vec<u8> {
        let package = |name: &str, version: &str, source: Option<&str>, licence: &str| {
            json!({"name": name, "version": version, "id": format!("{name}@{version}"), "source": source, "license": licence,
                "manifest_path": format!("/src/{name}/Cargo.toml")})
        };
        let needs = |name: &str, kind: Option<&str>| json!({"pkg": name, "dep_kinds": [{"kind": kind}]});
        json!({
            "packages": [
                package("tool", "0.1.0", None, "Apache-2.0"),
                package("libsqlite3-sys", "0.40.0", Some("r"), "MIT / Apache-2.0"),
                package("cc", "1.0.0", Some("r"), "MIT"),
                package("proptest", "1.0.0", Some("r"), "MIT"),
            ],
            "resolve": {"nodes": [
                {"id": "tool@0.1.0", "deps": [
                    needs("libsqlite3-sys@0.40.0", None), needs("proptest@1.0.0", Some("dev")),
                ]},
                {"id": "libsqlite3-sys@0.40.0", "deps": [needs("cc@1.0.0", Some("build"))]},
            ]},
        })
        .to_string()
        .into_bytes()
    }

    pub(crate) const TREE: &str =
        "tool v0.1.0 (/a/checkout/tool)\nlibsqlite3-sys v0.40.0\n\nlibsqlite3-sys v0.40.0 (*)\n";

    #[test]
    fn linked_is_what_the_tree_lists_with_what_the_others_say_of_it() {
        let crates = linked(TREE, &metadata(), LOCK).unwrap();
        let sqlite = Linked {
            name: "libsqlite3-sys".to_owned(),
            version: "0.40.0".to_owned(),
            licence: Some("MIT OR Apache-2.0".to_owned()),
            checksum: Some("00ff".to_owned()),
            folder: "/src/libsqlite3-sys".into(),
            needs: BTreeSet::new(),
        };
        let tool = Linked {
            name: "tool".to_owned(),
            version: "0.1.0".to_owned(),
            licence: Some("Apache-2.0".to_owned()),
            checksum: None,
            folder: "/src/tool".into(),
            needs: [("libsqlite3-sys".to_owned(), "0.40.0".to_owned())].into(),
        };
        assert_eq!(crates, [sqlite, tool]);
    }

    #[test]
    fn what_does_not_fit_together_is_named() {
        let error = linked("absent v1.0.0\n", &metadata(), LOCK).unwrap_err().to_string();
        assert!(error.contains("absent 1.0.0"), "{error}");
        let error = linked(TREE, &metadata(), "").unwrap_err().to_string();
        assert!(error.contains("no checksum of libsqlite3-sys 0.40.0"), "{error}");
    }
}
