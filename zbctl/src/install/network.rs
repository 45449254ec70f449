//! The networks that are to be put on the node: read and checked before anything is changed.
//!
//! Refuses to know what a network says; the plugins judge that.

use std::fs;
use std::path::{Path, PathBuf};

use zerobridge_cni_sriov::network_file::{Form, NAME, check};

use super::InstallError;

/// A network file that the plugins accept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NetworkFile {
    /// Its name in the runtime's folder.
    pub(super) name: String,
    /// Its content.
    pub(super) bytes: Vec<u8>,
}

/// Reads the files at `paths`, for a node on which this plugin is also called `names`.
pub(super) fn read(
    paths: &[PathBuf],
    names: &[&str],
    state_dir: &Path,
) -> Result<Vec<NetworkFile>, InstallError> {
    let mut networks: Vec<NetworkFile> = Vec::new();
    let names: Vec<&str> = [NAME].into_iter().chain(names.iter().copied()).collect();
    for path in paths {
        let name = path.file_name().and_then(|name| name.to_str()).map(str::to_owned);
        let (Some(name), Some(form)) = (name, form(path)) else {
            return Err(InstallError::NetworkName { path: path.clone() });
        };
        if networks.iter().any(|network| network.name == name) {
            return Err(InstallError::SameNetwork { name });
        }
        let bytes = fs::read(path).map_err(|source| InstallError::Network { path: path.clone(), source })?;
        check(&bytes, form, &names, state_dir)
            .map_err(|source| InstallError::NetworkContent { path: path.clone(), source })?;
        networks.push(NetworkFile { name, bytes });
    }
    Ok(networks)
}

/// How a runtime reads a file of this name (`ConfFiles` and `LoadNetworkConf` in libcni).
fn form(path: &Path) -> Option<Form> {
    match path.extension()?.to_str()? {
        "conflist" => Some(Form::List),
        "conf" | "json" => Some(Form::Single),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_cannot_become_a_network_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let text = r#"{"cniVersion": "1.1.0", "name": "pods", "plugins": [{"type": "zerobridge"}]}"#;
            fs::write(&path, text).unwrap();
            path
        };
        let told = |paths: &[PathBuf]| {
            let error = read(paths, &[], Path::new("/var/lib/zerobridge")).unwrap_err();
            zerobridge_proto::chain(&error)
        };
        let good = at("10-a.conflist");
        assert_eq!(
            read(std::slice::from_ref(&good), &[], Path::new("/var/lib/zerobridge")).unwrap()[0].name,
            "10-a.conflist"
        );
        assert!(told(&[at("10-a.yaml")]).contains("end with .conflist"));
        assert!(told(&[good, at("other/10-a.conflist")]).contains("called 10-a.conflist"));
        assert!(told(&[at("a.conf")]).contains("type of the plugin is missing"));
        assert!(told(&[folder.path().join("absent.conflist")]).contains("absent.conflist"));
    }
}
