//! The overlays of kustomize and the Helm chart are two ways to the same objects.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use zerobridge_manifests::{helm, kustomize};

/// By kind, namespace and name.
fn by_name(objects: Vec<Value>) -> BTreeMap<String, Value> {
    let named = objects.into_iter().map(|mut object| {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let metadata = &object["metadata"];
        let name =
            format!("{} {}/{}", text(&object["kind"]), text(&metadata["namespace"]), text(&metadata["name"]));
        // A ConfigMap's files are equal if they mean the same, however they are laid out.
        for file in object.get_mut("data").and_then(Value::as_object_mut).into_iter().flatten() {
            if let Some(meaning) = file.1.as_str().and_then(|text| serde_json::from_str(text).ok()) {
                *file.1 = meaning;
            }
        }
        (name, object)
    });
    let mut objects = BTreeMap::new();
    for (name, object) in named {
        assert!(objects.insert(name.clone(), object).is_none(), "{name} comes twice");
    }
    objects
}

/// Where two values first differ, and how. A number is what it is, with or without a point.
fn difference(path: &str, by_kustomize: &Value, by_helm: &Value) -> Option<String> {
    match (by_kustomize, by_helm) {
        (Value::Object(left), Value::Object(right)) => {
            let keys: BTreeSet<&String> = left.keys().chain(right.keys()).collect();
            keys.into_iter()
                .find_map(|key| difference(&format!("{path}.{key}"), &by_kustomize[key], &by_helm[key]))
        }
        // Kubernetes merges these by name, and no order is meant.
        (Value::Array(left), Value::Array(right)) if path.ends_with("olumes") || path.ends_with("Mounts") => {
            let [left, right] = [left, right].map(|list| {
                let named = list.iter().map(|entry| (entry["name"].to_string(), entry.clone()));
                Value::Object(named.collect())
            });
            difference(&format!("{path}{{}}"), &left, &right)
        }
        (Value::Array(left), Value::Array(right)) if left.len() == right.len() => {
            let pairs = left.iter().zip(right).enumerate();
            pairs
                .into_iter()
                .find_map(|(at, (left, right))| difference(&format!("{path}[{at}]"), left, right))
        }
        (Value::Number(left), Value::Number(right)) if left.as_f64() == right.as_f64() => None,
        (left, right) if left == right => None,
        (left, right) => Some(format!("{path}: {left} by kustomize, {right} by Helm")),
    }
}

fn assert_equal(by_kustomize: &BTreeMap<String, Value>, by_helm: &BTreeMap<String, Value>) {
    let names = [by_kustomize, by_helm].map(|objects| objects.keys().collect::<Vec<_>>());
    assert_eq!(names[0], names[1], "kustomize and Helm make other objects");
    for (name, object) in by_kustomize {
        assert_eq!(difference(name, object, &by_helm[name]), None);
    }
}

fn install_arguments(objects: &BTreeMap<String, Value>) -> Value {
    let daemon = &objects["DaemonSet kube-system/zerobridge"];
    daemon["spec"]["template"]["spec"]["initContainers"][0]["args"].clone()
}

#[test]
fn multus() {
    let objects = by_name(kustomize("overlays/multus").unwrap());
    assert_equal(&objects, &by_name(helm("multus.yaml", &[]).unwrap()));
    assert_eq!(install_arguments(&objects), Value::Null, "no network configuration is Zerobridge's");
    assert!(objects.contains_key("ConfigMap kube-system/zerobridge-config"));
}

#[test]
fn standalone() {
    let objects = by_name(kustomize("overlays/standalone").unwrap());
    assert_equal(&objects, &by_name(helm("standalone.yaml", &[]).unwrap()));
    let arguments = install_arguments(&objects);
    assert_eq!(arguments, json!(["--network=/etc/zerobridge-network/10-zerobridge.conflist"]));
    let network = &objects["ConfigMap kube-system/zerobridge-network"]["data"]["10-zerobridge.conflist"];
    assert_eq!(network["plugins"][0]["type"], "zerobridge");
}

#[test]
fn migrate() {
    let objects = by_name(kustomize("overlays/migrate").unwrap());
    assert_equal(&objects, &by_name(helm("migrate.yaml", &[]).unwrap()));
    assert_eq!(install_arguments(&objects), json!(["--as=sriov", "--as=ib-sriov", "--as=rdma"]));
    assert!(!objects.keys().any(|name| name.starts_with("ConfigMap")), "the old ConfigMap is used");
}

#[test]
fn the_policy_for_requests_comes_when_it_is_asked_for() {
    let own = |objects: Vec<Value>| -> Vec<Value> {
        let group = json!("admissionregistration.k8s.io/v1");
        objects.into_iter().filter(|object| object["apiVersion"] == group).collect()
    };
    let component = kustomize("components/request-resources").unwrap();
    let by_helm = helm("multus.yaml", &["requestResources.enabled=true"]).unwrap();
    assert_equal(&by_name(own(component)), &by_name(own(by_helm)));
    assert!(own(helm("multus.yaml", &[]).unwrap()).is_empty(), "off by default");
}

#[test]
fn folders_of_a_node_are_chosen_by_values() {
    let sets = [
        "paths.cniConf=/var/lib/rancher/k3s/agent/etc/cni/net.d",
        "paths.podResources=/data/kubelet/pod-resources",
        "image.tag=0.0.9",
    ];
    let objects = by_name(helm("standalone.yaml", &sets).unwrap());
    let pod = &objects["DaemonSet kube-system/zerobridge"]["spec"]["template"]["spec"];
    let path = |volume: &str| {
        let volumes = pod["volumes"].as_array().unwrap();
        volumes.iter().find(|own| own["name"] == volume).unwrap()["hostPath"]["path"].clone()
    };
    assert_eq!(path("cni-conf"), "/var/lib/rancher/k3s/agent/etc/cni/net.d");
    assert_eq!(path("pod-resources"), "/data/kubelet/pod-resources");
    for kind in ["containers", "initContainers"] {
        assert_eq!(pod[kind][0]["image"], "zerobridge.io/zerobridge:0.0.9");
    }
}
