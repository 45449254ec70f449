//! The policy that adds the request for a network's resource, decided by a real API server.

use serde_json::{Value, json};
use zerobridge_cluster::Cluster;
use zerobridge_lab::IMAGE;

use crate::expect;
use crate::group::Outcome;
use crate::install::LIMIT;
use crate::multus::RESOURCE;
use crate::overlay::manifest;

const COMPONENT: &str = "components/request-resources";

/// A pod that names networks, and requests something or nothing.
fn pod(name: &str, networks: &str, limits: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "annotations": {"k8s.v1.cni.cncf.io/networks": networks}},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "shell", "image": IMAGE, "command": ["sleep", "infinity"],
                            "imagePullPolicy": "Never", "resources": {"limits": limits}}],
        },
    })
}

/// What of the resource a pod requests once it is admitted; it is not made.
fn admitted(cluster: &Cluster, pod: &Value) -> Result<[Value; 2], Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("pod.json");
    std::fs::write(&file, pod.to_string())?;
    let file = file.display().to_string();
    let pod = cluster.kubectl_json(&["create", "--dry-run=server", "-f", &file])?;
    let resources = &pod["spec"]["containers"][0]["resources"];
    Ok(["limits", "requests"].map(|kind| resources[kind][RESOURCE].clone()))
}

pub(crate) fn added(cluster: &mut Cluster) -> Outcome {
    let none = [Value::Null, Value::Null];
    let both = |count: &str| [json!(count), json!(count)];
    let nothing = json!({});
    expect::equal("without the policy", &admitted(cluster, &pod("a", "vlan", &nothing))?, &none)?;

    cluster.kubectl(&["apply", "-f", &manifest(&format!("{COMPONENT}/policy.yaml"))])?;
    // A second network with the same resource.
    cluster.kubectl(&["apply", "-f", &manifest("networks/trunk.yaml")])?;
    cluster.wait_for("the policy to be in force", LIMIT, |cluster| {
        let seen = admitted(cluster, &pod("a", "vlan", &nothing)).map_err(|error| error.to_string());
        Ok(if seen == Ok(both("1")) { Ok(()) } else { Err(format!("{seen:?}")) })
    })?;
    let list = r#"[{"name": "vlan"}, {"name": "vlan", "interface": "second"}]"#;
    let cases = [
        ("default/vlan@first", nothing.clone(), both("1")),
        ("vlan, vlan", nothing.clone(), both("2")),
        (list, nothing.clone(), both("2")),
        ("vlan,trunk", nothing.clone(), both("2")),
        ("other/vlan", nothing.clone(), none.clone()),
        ("unknown", nothing, none),
        ("vlan,vlan,trunk", json!({RESOURCE: "1"}), both("1")),
    ];
    for (networks, limits, expected) in cases {
        let seen = admitted(cluster, &pod("a", networks, &limits))?;
        expect::equal(&format!("what a pod with {limits} in {networks} requests"), &seen, &expected)?;
    }
    cluster.apply(&pod("asks-for-nothing", "vlan", &json!({})).to_string())?;
    cluster.wait_condition("default", "pod/asks-for-nothing", "Ready", LIMIT)?;
    let links = cluster.kubectl(&["exec", "asks-for-nothing", "--", "ip", "-o", "link", "show", "net1"])?;
    expect::that(links.contains("net1"), || links.clone())?;
    cluster.kubectl(&["delete", "pod", "asks-for-nothing"])?;
    cluster.kubectl(&["delete", "-f", &manifest(&format!("{COMPONENT}/policy.yaml"))])?;
    cluster.kubectl(&["delete", "-f", &manifest("networks/trunk.yaml")]).map(drop)?;
    Ok(())
}
