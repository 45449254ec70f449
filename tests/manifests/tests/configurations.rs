//! Configurations in the manifests are ones that the programs take, and name what there is.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fs;
use std::path::Path;

use serde_json::Value;
use zerobridge_cni_sriov::network_file::{Form, check};
use zerobridge_device_plugin::ConfigFile;
use zerobridge_manifests::manifests;
use zerobridge_proto::chain;

const STATE_DIR: &str = "/var/lib/zerobridge";

/// The objects of one kind in `networks`.
fn objects(kind: &str) -> Result<Vec<Value>, Box<dyn Error>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(manifests().join("networks"))? {
        let object: Value = serde_saphyr::from_str(&fs::read_to_string(entry?.path())?)?;
        if object["kind"] == kind {
            found.push(object);
        }
    }
    Ok(found)
}

/// The configuration in a network attachment definition.
fn config(definition: &Value) -> Result<Value, Box<dyn Error>> {
    let text = definition["spec"]["config"].as_str().ok_or("no text at spec.config")?;
    Ok(serde_json::from_str(text)?)
}

#[test]
fn the_plugin_takes_every_network() {
    let definitions = objects("NetworkAttachmentDefinition").unwrap();
    assert_eq!(definitions.len(), 6);
    for definition in definitions {
        let name = &definition["metadata"]["name"];
        let mut config = config(&definition).unwrap();
        assert!(
            definition["metadata"]["annotations"]["k8s.v1.cni.cncf.io/resourceName"].is_string(),
            "{name}"
        );
        // As Multus does.
        config["deviceID"] = "0000:01:10.0".into();
        let checked =
            check(config.to_string().as_bytes(), Form::Single, &["zerobridge"], Path::new(STATE_DIR));
        assert!(checked.is_ok(), "{name}: {}", checked.err().map(|error| chain(&error)).unwrap_or_default());
    }
}

#[test]
fn every_pool_that_a_network_names_is_there() {
    let pools: BTreeSet<String> = objects("IPPool")
        .unwrap()
        .iter()
        .map(|pool| pool["metadata"]["name"].as_str().unwrap().to_owned())
        .collect();
    let mut networks = BTreeMap::new();
    for definition in objects("NetworkAttachmentDefinition").unwrap() {
        let config = config(&definition).unwrap();
        let named = match &config["ipam"]["pool"] {
            Value::Array(list) => list.clone(),
            Value::Null => Vec::new(),
            one => vec![one.clone()],
        };
        for pool in named {
            assert!(pools.contains(pool.as_str().unwrap()), "{}: {pool}", definition["metadata"]["name"]);
            // A pool gives its addresses to one network.
            let first = networks.entry(pool.to_string()).or_insert_with(|| config["name"].clone());
            assert_eq!(first, &config["name"], "two networks lease from {pool}");
        }
    }
}

#[test]
fn the_daemon_takes_every_configuration() {
    for overlay in ["multus", "standalone"] {
        let text =
            fs::read_to_string(manifests().join("overlays").join(overlay).join("config.json")).unwrap();
        let config = ConfigFile::parse(&text, None);
        assert!(config.is_ok(), "{overlay}: {}", config.err().map(|error| chain(&error)).unwrap_or_default());
    }
}

#[test]
fn the_only_network_and_the_leg_are_one_network() {
    let folder = manifests().join("overlays/standalone");
    let text = fs::read(folder.join("10-zerobridge.conflist")).unwrap();
    check(&text, Form::List, &["zerobridge"], Path::new(STATE_DIR)).unwrap();
    let network: Value = serde_json::from_slice(&text).unwrap();
    let config: Value = serde_json::from_slice(&fs::read(folder.join("config.json")).unwrap()).unwrap();
    let (plugin, leg) = (&network["plugins"][0], &config["legs"][0]);
    assert_eq!(leg["network"], network["name"]);
    for key in ["vlan", "ipam"] {
        assert_eq!(leg[key], plugin[key], "{key}");
    }
}
