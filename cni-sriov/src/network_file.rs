//! A file of the folder in which a runtime looks for its networks, checked before a runtime reads it.
//!
//! What each plugin of ours would say of its part at the first pod is said now. Refuses to know where the file goes, and to
//! judge the parts of other programs.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use thiserror::Error;
use zerobridge_ipam::PoolConfig;
use zerobridge_proto::cni::{Args, CniError, NetworkConfig};

use crate::chained;
use crate::config::{Config, Paths};

/// The plugin's own name.
pub const NAME: &str = "zerobridge";

/// The name of the IPAM plugin beside it.
pub const IPAM_NAME: &str = "zerobridge-ipam";

/// The plugins whose configurations this one reads, and under whose names it may therefore be called.
pub const REPLACED: [&str; 3] = ["sriov", "ib-sriov", chained::NAME];

/// How a file is read; libcni tells by the ending of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `.conflist`: a list of plugins.
    List,
    /// `.conf` and `.json`: one plugin.
    Single,
}

/// Why a runtime could not use a file, or its pods would not be found again.
#[derive(Debug, Error)]
pub enum NetworkFileError {
    /// No JSON object.
    #[error("it is not a JSON object")]
    Json(#[source] serde_json::Error),
    /// A part is missing or something else than it should be.
    #[error("{key} is {found}; allowed is {allowed}")]
    Shape {
        /// The key, with its place.
        key: String,
        /// What is there.
        found: String,
        /// What was allowed.
        allowed: &'static str,
    },
    /// A plugin of ours would refuse its part.
    #[error("{place} cannot be used")]
    Plugin {
        /// Which part.
        place: String,
        /// What the plugin would say.
        #[source]
        source: CniError,
    },
    /// Its attachments would be recorded where nobody looks.
    #[error(
        "{place} keeps its ledger in {}, and the installation in {}; take stateDir out, or install with --state-dir {}",
        found.display(), expected.display(), found.display()
    )]
    StateDir {
        /// Which part.
        place: String,
        /// Its `stateDir`.
        found: PathBuf,
        /// That of the installation.
        expected: PathBuf,
    },
    /// It is some other network.
    #[error("no plugin in it is {}, and none has its addresses from {IPAM_NAME}", names.join(" or "))]
    Foreign {
        /// The names that were looked for.
        names: Vec<String>,
    },
}

/// Checks the content of a file whose plugins called `names` are this one, and whose ledger is to be in `state_dir`.
///
/// # Errors
/// [`NetworkFileError`].
pub fn check(text: &[u8], form: Form, names: &[&str], state_dir: &Path) -> Result<(), NetworkFileError> {
    let file: Map<String, Value> = serde_json::from_slice(text).map_err(NetworkFileError::Json)?;
    let mut ours = 0;
    match form {
        Form::Single => ours += usize::from(plugin("the plugin", file, names, state_dir)?),
        Form::List => {
            let plugins = match file.get("plugins") {
                Some(Value::Array(plugins)) if !plugins.is_empty() => plugins,
                other => return Err(shape("plugins", other, "a list of at least one plugin")),
            };
            for (number, entry) in plugins.iter().enumerate() {
                let place = format!("plugins[{number}]");
                let Value::Object(entry) = entry else {
                    return Err(shape(&place, Some(entry), "an object with a type"));
                };
                let mut entry = entry.clone();
                // What the runtime does to each plugin of a list.
                for key in ["name", "cniVersion"] {
                    file.get(key).and_then(|value| entry.insert(key.to_owned(), value.clone()));
                }
                ours += usize::from(plugin(&place, entry, names, state_dir)?);
            }
        }
    }
    if ours == 0 {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        return Err(NetworkFileError::Foreign { names });
    }
    Ok(())
}

/// Checks one plugin's part. `false` where nothing of it is for a program of ours.
fn plugin(
    place: &str,
    part: Map<String, Value>,
    names: &[&str],
    state_dir: &Path,
) -> Result<bool, NetworkFileError> {
    let kind = match part.get("type") {
        Some(Value::String(kind)) if !kind.is_empty() => kind.clone(),
        other => return Err(shape(&format!("type of {place}"), other, "the name of a plugin in CNI_PATH")),
    };
    let refused = |source| NetworkFileError::Plugin { place: format!("{place} ({kind})"), source };
    let ipam =
        part.get("ipam").filter(|ipam| ipam.get("type").is_some_and(|kind| kind == IPAM_NAME)).cloned();
    if !names.contains(&kind.as_str()) && ipam.is_none() {
        return Ok(false);
    }
    let config = NetworkConfig::decode(Value::Object(part).to_string().as_bytes()).map_err(refused)?;
    let found = if names.contains(&kind.as_str()) {
        if kind != chained::NAME {
            Config::parse(&config, &Args::default()).map_err(refused)?;
        }
        Paths::parse(&config).map_err(refused)?.state_dir
    } else {
        let ipam = ipam.unwrap_or_default();
        PoolConfig::parse(&ipam, None).map_err(|error| refused(error.into()))?;
        zerobridge_ipam::state_dir(&ipam).map_err(|error| refused(error.into()))?
    };
    match found == state_dir {
        true => Ok(true),
        false => Err(NetworkFileError::StateDir {
            place: format!("{place} ({kind})"),
            found,
            expected: state_dir.to_owned(),
        }),
    }
}

fn shape(key: &str, found: Option<&Value>, allowed: &'static str) -> NetworkFileError {
    let found = found.map_or_else(|| "missing".to_owned(), Value::to_string);
    NetworkFileError::Shape { key: key.to_owned(), found, allowed }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use zerobridge_proto::chain;

    use super::*;

    fn told(file: &Value, form: Form, names: &[&str]) -> Result<(), String> {
        check(file.to_string().as_bytes(), form, names, Path::new("/var/lib/zerobridge"))
            .map_err(|error| chain(&error))
    }

    fn list(plugins: Value) -> Value {
        json!({"cniVersion": "1.1.0", "name": "pods", "plugins": plugins})
    }

    #[test]
    fn what_a_plugin_of_ours_accepts_is_accepted() {
        let manifest = include_str!("../../manifests/node/10-zerobridge.conflist");
        check(manifest.as_bytes(), Form::List, &[NAME], Path::new("/var/lib/zerobridge")).unwrap();
        let single = json!({"cniVersion": "1.0.0", "name": "pods", "type": "sriov", "vlan": 7});
        told(&single, Form::Single, &[NAME, "sriov"]).unwrap();
        let chain = list(json!([{"type": "sriov", "vlan": 7}, {"type": "rdma"}, {"type": "tuning", "x": 1}]));
        told(&chain, Form::List, &[NAME, "sriov", "rdma"]).unwrap();
        let addresses = json!([{"type": "macvlan", "ipam": {"type": IPAM_NAME, "subnet": "10.0.0.0/24"}}]);
        told(&list(addresses), Form::List, &[NAME]).unwrap();
    }

    #[test]
    fn what_would_fail_at_the_first_pod_is_refused_with_its_place() {
        for (file, form, parts) in [
            (json!(7), Form::List, &["not a JSON object"][..]),
            (list(json!([])), Form::List, &["plugins is []", "at least one"]),
            (json!({"name": "pods"}), Form::List, &["plugins is missing"]),
            (list(json!([7])), Form::List, &["plugins[0] is 7"]),
            (list(json!([{"vlan": 7}])), Form::List, &["type of plugins[0] is missing"]),
            (
                list(json!([{"type": "tuning"}, {"type": NAME, "vlan": 5000}])),
                Form::List,
                &["plugins[1] (zerobridge)", "vlan is 5000", "0 to 4094"],
            ),
            (
                list(json!([{"type": "macvlan", "ipam": {"type": IPAM_NAME, "subnet": "10.0.0.0"}}])),
                Form::List,
                &["plugins[0] (macvlan)", "10.0.0.0"],
            ),
            (
                list(json!([{"type": NAME, "stateDir": "/data"}])),
                Form::List,
                &["/data", "/var/lib/zerobridge", "--state-dir /data"],
            ),
            (list(json!([{"type": "sriov", "vlan": 7}])), Form::List, &["no plugin in it is zerobridge"]),
            (json!({"type": NAME, "cniVersion": "1.1.0"}), Form::Single, &["the plugin", "name is \"\""]),
        ] {
            let error = told(&file, form, &[NAME]).unwrap_err();
            for part in parts {
                assert!(error.contains(part), "{file}: {error}");
            }
        }
    }
}
