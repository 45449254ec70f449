//! The cluster lab itself: what a scenario about Zerobridge may take for granted.

use std::time::Duration;

use serde_json::{Value, json};
use zerobridge_cluster::Cluster;
use zerobridge_lab::IMAGE;

use crate::expect;
use crate::group::{Group, Outcome};

pub(crate) const GROUP: Group = Group {
    name: "lab",
    cluster: "multus",
    multus: true,
    scenarios: &[
        ("both_nodes_are_ready_and_have_their_vfs", both_nodes_are_ready_and_have_their_vfs),
        ("pods_of_both_nodes_reach_each_other", pods_of_both_nodes_reach_each_other),
        ("a_deployment_is_spread_over_the_nodes", a_deployment_is_spread_over_the_nodes),
        (
            "an_account_reaches_the_api_server_by_its_service",
            an_account_reaches_the_api_server_by_its_service,
        ),
        ("multus_gives_a_pod_a_second_network", multus_gives_a_pod_a_second_network),
        ("the_wire_joins_the_cards_of_both_nodes", the_wire_joins_the_cards_of_both_nodes),
        ("a_node_that_loses_its_power_comes_back", a_node_that_loses_its_power_comes_back),
    ],
};

const LIMIT: Duration = Duration::from_secs(180);

/// A pod of busybox that sleeps, on a node if one is named.
fn pod(name: &str, node: Option<&str>) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "nodeName": node,
            "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": "main", "image": IMAGE, "imagePullPolicy": "Never",
                "command": ["sh", "-c", "echo here I am; exec sleep infinity"],
            }],
        },
    })
}

fn remove(cluster: &Cluster, what: &str) -> Outcome {
    cluster.kubectl(&["delete", what, "--wait=true", "--timeout=120s"])?;
    Ok(())
}

fn ready(cluster: &Cluster, pod: &str) -> Outcome {
    Ok(cluster.wait_condition("default", &format!("pod/{pod}"), "Ready", LIMIT)?)
}

fn both_nodes_are_ready_and_have_their_vfs(cluster: &mut Cluster) -> Outcome {
    let mut seen = Vec::new();
    for index in 0..cluster.nodes() {
        cluster.wait_ready(index)?;
        let node = cluster.node(index)?;
        let host = node.guest()?.run(&["cat", "/proc/sys/kernel/hostname"])?;
        expect::equal("the host name", &host.trim(), &node.name())?;
        let vfs = node
            .guest()?
            .shell("ls -d /sys/class/net/enp1s0/device/virtfn* /sys/class/net/enp2s0/device/virtfn*")?;
        expect::equal("the number of VFs", &vfs.lines().count(), &11)?;
        let identity = node.guest()?.shell("cat /etc/machine-id /sys/class/net/enp?s0/address")?;
        seen.extend(identity.lines().map(str::to_owned));
    }
    let number = seen.len();
    seen.sort();
    seen.dedup();
    expect::equal("the number of identities that no two nodes share", &seen.len(), &number)?;
    let nodes = cluster.kubectl_json(&["get", "nodes"])?;
    let addresses: Vec<&Value> =
        nodes["items"].as_array().into_iter().flatten().map(|node| &node["status"]["addresses"][0]).collect();
    let expected =
        ["10.0.2.11", "10.0.2.12"].map(|address| json!({"type": "InternalIP", "address": address}));
    expect::equal("the nodes' addresses", &addresses, &expected.iter().collect())
}

fn pods_of_both_nodes_reach_each_other(cluster: &mut Cluster) -> Outcome {
    for (name, node) in [("ada", "n1"), ("bob", "n2")] {
        cluster.apply(&pod(name, Some(node)).to_string())?;
    }
    ready(cluster, "ada")?;
    ready(cluster, "bob")?;
    let address = |name: &str| cluster.kubectl(&["get", "pod", name, "-o", "jsonpath={.status.podIP}"]);
    let (ada, bob) = (address("ada")?, address("bob")?);
    expect::that(ada.starts_with("10.244.1."), || format!("ada has {ada}, not of the range of n1"))?;
    expect::that(bob.starts_with("10.244.2."), || format!("bob has {bob}, not of the range of n2"))?;
    cluster.kubectl(&["exec", "ada", "--", "ping", "-c", "2", "-W", "5", &bob])?;
    cluster.kubectl(&["exec", "bob", "--", "ping", "-c", "2", "-W", "5", &ada])?;
    let said = cluster.kubectl(&["logs", "bob"])?;
    expect::equal("what bob has said", &said.trim(), &"here I am")?;
    remove(cluster, "pod/ada")?;
    remove(cluster, "pod/bob")
}

fn a_deployment_is_spread_over_the_nodes(cluster: &mut Cluster) -> Outcome {
    let labels = json!({"app": "crowd"});
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "crowd", "namespace": "default"},
        "spec": {
            "replicas": 2, "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {
                "terminationGracePeriodSeconds": 0,
                "topologySpreadConstraints": [{
                    "maxSkew": 1, "topologyKey": "kubernetes.io/hostname",
                    "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": labels},
                }],
                "containers": [{
                    "name": "main", "image": IMAGE, "imagePullPolicy": "Never", "command": ["sleep", "infinity"],
                }],
            }},
        },
    });
    cluster.apply(&deployment.to_string())?;
    cluster.wait_rollout("default", "deployment/crowd", LIMIT)?;
    let pods = cluster.kubectl_json(&["get", "pods", "-l", "app=crowd"])?;
    let mut nodes: Vec<&Value> =
        pods["items"].as_array().into_iter().flatten().map(|pod| &pod["spec"]["nodeName"]).collect();
    nodes.sort_by_key(|node| node.to_string());
    expect::equal("the nodes of its pods", &nodes, &vec![&json!("n1"), &json!("n2")])?;
    remove(cluster, "deployment/crowd")?;
    cluster.kubectl(&["wait", "--for=delete", "pod", "-l", "app=crowd", "--timeout=120s"])?;
    Ok(())
}

/// By kubectl in the pod, which finds address, token and authority where any program in a pod does, and checks the
/// certificate: once with the default network, once with the node's own.
fn an_account_reaches_the_api_server_by_its_service(cluster: &mut Cluster) -> Outcome {
    let folder =
        cluster.kubectl_program().parent().unwrap_or(cluster.kubectl_program()).display().to_string();
    for (name, node, host_network) in [("own", "n1", false), ("host", "n2", true)] {
        let mut pod = pod(name, Some(node));
        pod["spec"]["hostNetwork"] = host_network.into();
        pod["spec"]["volumes"] =
            json!([{"name": "programs", "hostPath": {"path": folder, "type": "Directory"}}]);
        pod["spec"]["containers"][0]["volumeMounts"] =
            json!([{"name": "programs", "mountPath": "/programs", "readOnly": true}]);
        cluster.apply(&pod.to_string())?;
    }
    for name in ["own", "host"] {
        ready(cluster, name)?;
        let who = cluster.kubectl(&[
            "exec",
            name,
            "--",
            "/programs/kubectl",
            "auth",
            "whoami",
            "-o",
            "jsonpath={.status.userInfo.username}",
        ])?;
        expect::equal(
            "who the pod is to the API server",
            &who.as_str(),
            &"system:serviceaccount:default:default",
        )?;
        remove(cluster, &format!("pod/{name}"))?;
    }
    Ok(())
}

fn multus_gives_a_pod_a_second_network(cluster: &mut Cluster) -> Outcome {
    let config = json!({
        "cniVersion": "1.0.0", "type": "ptp",
        "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.99.0.0/24"}]]},
    });
    let definition = json!({
        "apiVersion": "k8s.cni.cncf.io/v1", "kind": "NetworkAttachmentDefinition",
        "metadata": {"name": "second", "namespace": "default"}, "spec": {"config": config.to_string()},
    });
    cluster.apply(&definition.to_string())?;
    let mut eve = pod("eve", Some("n2"));
    eve["metadata"]["annotations"] = json!({"k8s.v1.cni.cncf.io/networks": "second"});
    cluster.apply(&eve.to_string())?;
    ready(cluster, "eve")?;
    let links = cluster.kubectl(&["exec", "eve", "--", "ip", "-o", "-4", "address"])?;
    for (link, prefix) in [("eth0", "inet 10.244.2."), ("net1", "inet 10.99.0.")] {
        expect::that(links.lines().any(|line| line.contains(link) && line.contains(prefix)), || {
            format!("no {link} with {prefix} among\n{links}")
        })?;
    }
    let eve = cluster.kubectl_json(&["get", "pod", "eve"])?;
    let status =
        eve["metadata"]["annotations"]["k8s.v1.cni.cncf.io/network-status"].as_str().unwrap_or_default();
    expect::that(status.contains("default/second"), || format!("network-status says {status:?}"))?;
    remove(cluster, "pod/eve")?;
    remove(cluster, "net-attach-def/second")
}

/// A VF of each node in a namespace of its own, in one VLAN and then in two.
fn the_wire_joins_the_cards_of_both_nodes(cluster: &mut Cluster) -> Outcome {
    let move_in = |number: u8, vlan: u16| {
        format!(
            "ip link set enp1s0 vf 0 vlan {vlan}
             vf=$(ls /sys/class/net/enp1s0/device/virtfn0/net)
             ip netns add far
             ip link set \"$vf\" netns far
             ip -n far address add 10.98.0.{number}/24 dev \"$vf\"
             ip -n far link set \"$vf\" up"
        )
    };
    let move_out = "ip netns del far; ip link set enp1s0 vf 0 vlan 0; udevadm settle";
    for (index, vlan) in [(0, 300), (1, 300)] {
        cluster.node(index)?.guest()?.shell(&move_in(if index == 0 { 1 } else { 2 }, vlan))?;
    }
    let ping = "ip netns exec far ping -c 1 -W 1 10.98.0.2";
    let guest = cluster.node(0)?.guest()?;
    guest.wait_for("an answer of the other node's VF", Duration::from_secs(60), |guest| {
        Ok(guest.shell(ping).map_err(|error| error.to_string()))
    })?;
    cluster.node(1)?.guest()?.shell("ip link set enp1s0 vf 0 vlan 301")?;
    let answered = cluster.node(0)?.guest()?.shell("ip netns exec far ping -c 3 -W 1 10.98.0.2").is_ok();
    expect::that(!answered, || "a VF of VLAN 301 answered one of VLAN 300".to_owned())?;
    for index in [0, 1] {
        cluster.node(index)?.guest()?.shell(move_out)?;
    }
    Ok(())
}

/// The pod that ran on it is run anew, from the image that is on its disk, and reaches the other node again.
fn a_node_that_loses_its_power_comes_back(cluster: &mut Cluster) -> Outcome {
    for (name, node) in [("stays", "n1"), ("returns", "n2")] {
        cluster.apply(&pod(name, Some(node)).to_string())?;
    }
    ready(cluster, "stays")?;
    ready(cluster, "returns")?;
    cluster.node(1)?.guest()?.shell("echo kept > /var/lib/zerobridge/mark; echo lost > /root/mark; sync")?;
    cluster.power_off(1)?;
    expect::that(cluster.node(1)?.guest().is_err(), || "a node without power takes commands".to_owned())?;
    cluster.wait_for("n2 is missed", LIMIT, |cluster| {
        let status = "jsonpath={.status.conditions[?(@.type==\"Ready\")].status}";
        let ready = cluster.kubectl(&["get", "node", "n2", "-o", status])?;
        Ok(if ready == "Unknown" { Ok(()) } else { Err(format!("Ready: {ready}")) })
    })?;
    cluster.power_on(1)?;
    cluster.wait_ready(1)?;
    let mark = cluster.node(1)?.guest()?.read("/var/lib/zerobridge/mark")?;
    expect::equal("what was on its disk", &mark.as_deref(), &Some("kept\n"))?;
    expect::that(!cluster.node(1)?.guest()?.exists("/root/mark")?, || "its memory is kept".to_owned())?;
    cluster.wait_for("its pod runs again", LIMIT, |cluster| {
        let pod = cluster.kubectl_json(&["get", "pod", "returns"])?;
        let status = &pod["status"]["containerStatuses"][0];
        let again = status["restartCount"].as_u64() > Some(0) && status["ready"] == true;
        Ok(if again { Ok(()) } else { Err(status.to_string()) })
    })?;
    let address = cluster.kubectl(&["get", "pod", "returns", "-o", "jsonpath={.status.podIP}"])?;
    cluster.kubectl(&["exec", "stays", "--", "ping", "-c", "2", "-W", "5", &address])?;
    remove(cluster, "pod/stays")?;
    remove(cluster, "pod/returns")
}
