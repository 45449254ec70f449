//! What the pods of the project may do on a node: no more than is needed, and the reason beside each.

use std::fs;

use serde_json::{Value, json};
use zerobridge_manifests::{kustomize, manifests};

const WORKLOADS: [&str; 2] = ["base/daemonset.yaml", "uninstall/daemonset.yaml"];
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Of a kustomization.
fn containers(objects: &[Value]) -> Vec<&Value> {
    let pods = objects.iter().filter(|object| object["kind"] == "DaemonSet");
    let lists = pods.flat_map(|set| {
        ["initContainers", "containers"].map(|kind| set["spec"]["template"]["spec"][kind].as_array())
    });
    lists.flatten().flatten().collect()
}

#[test]
fn containers_have_named_capabilities_and_cannot_change_their_image() {
    for folder in ["overlays/multus", "overlays/standalone", "overlays/migrate", "uninstall"] {
        let objects = kustomize(folder).unwrap();
        let containers = containers(&objects);
        assert_eq!(containers.len(), 2, "{folder}");
        for container in containers {
            let security = &container["securityContext"];
            assert_eq!(security["privileged"], Value::Null, "{folder}");
            assert_eq!(security["readOnlyRootFilesystem"], true, "{folder}");
            assert_eq!(security["allowPrivilegeEscalation"], false, "{folder}");
            assert_eq!(security["capabilities"]["drop"], json!(["ALL"]), "{folder}");
            assert_eq!(container["image"], format!("zerobridge.io/zerobridge:{VERSION}"), "{folder}");
        }
    }
}

/// A line that grants something, as it begins without its indentation.
fn grants(line: &str, in_mounts: bool, in_capabilities: bool) -> bool {
    let line = line.trim_start();
    line.starts_with("host") && line.ends_with("true")
        || line.starts_with("appArmorProfile:")
        || line.starts_with("priorityClassName:")
        || (in_mounts || in_capabilities) && line.starts_with("- ")
}

#[test]
fn each_privilege_and_mount_of_the_daemon_has_its_reason_above_it() {
    let text = fs::read_to_string(manifests().join(WORKLOADS[0])).unwrap();
    let (mut list, mut previous, mut granted) = ("", "", 0);
    for line in text.lines() {
        let trimmed = line.trim_start();
        if trimmed.ends_with(':') && !trimmed.starts_with("- ") {
            list = trimmed;
        }
        if grants(line, list == "volumeMounts:", list == "add:") {
            granted += 1;
            assert!(previous.trim_start().starts_with("# "), "no reason above {line:?}");
        }
        previous = line;
    }
    assert!(granted > 20, "only {granted} grants were recognised");
}

#[test]
fn each_rule_at_the_api_server_has_its_use_above_it() {
    let text = fs::read_to_string(manifests().join("base/rbac.yaml")).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let mut described = false;
    let mut rules = 0;
    for line in lines {
        let line = line.trim_start();
        if line.starts_with("# ") {
            described = true;
        } else if line.starts_with("- apiGroups:") {
            rules += 1;
            assert!(described, "no use above rule {rules}");
        } else if line == "rules:" {
            described = false;
        }
    }
    assert!(rules > 5, "only {rules} rules were recognised");
    for forbidden in ["\"*\"", "'*'", "[\"*\"]", "secrets", "cluster-admin"] {
        assert!(!text.contains(forbidden), "{forbidden}");
    }
}
