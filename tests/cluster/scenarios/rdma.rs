//! Two pods on two nodes, each with an RDMA device of its own.

use std::error::Error;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use zerobridge_cluster::Cluster;
use zerobridge_lab::{RDMA_IMAGE, RdmaMode};

use crate::expect;
use crate::group::{Outcome, say};
use crate::install::{self, LIMIT};
use crate::multus::{self, RESOURCE};
use crate::overlay::{Overlay, manifest};
use crate::pods;

const SOFT: &str = "zerobridge.io/soft-rdma";
const VARIABLE: &str = "PCIDEVICE_ZEROBRIDGE_IO_SOFT_RDMA";

/// The second card's VFs have RDMA by software.
fn pools() -> Value {
    json!({"pools": [
        {"resourceName": "vf", "selectors": {"pfNames": ["enp1s0"]}},
        {"resourceName": "soft-rdma", "rdma": "soft", "selectors": {"pfNames": ["enp2s0"]}},
    ]})
}

fn pod(name: &str, node: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": "verbs"},
                     "annotations": {"k8s.v1.cni.cncf.io/networks": "soft-rdma"}},
        "spec": {
            "nodeSelector": {"kubernetes.io/hostname": node},
            "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": "verbs", "image": RDMA_IMAGE, "imagePullPolicy": "Never", "command": ["sleep", "infinity"],
                // Memory is registered, and so locked.
                "securityContext": {"capabilities": {"add": ["IPC_LOCK"]}},
                "resources": {"limits": {SOFT: 1}},
            }],
        },
    })
}

/// The name of the pod's RDMA device: that of the VF which its environment names.
fn device(cluster: &Cluster, pod: &str) -> Result<String, Box<dyn Error>> {
    let environment = cluster.kubectl(&["exec", pod, "--", "env"])?;
    let vf = environment.lines().find_map(|line| line.strip_prefix(VARIABLE)?.strip_prefix('='));
    let vf = expect::some(vf, &format!("{pod} has no {VARIABLE}: {environment}"))?;
    Ok(format!("rxe_{}", vf.trim().replace([':', '.'], "_")))
}

fn ping_pong<'a>(pod: &'a str, device: &'a str, server: Option<&'a str>) -> Vec<&'a str> {
    // GID 1 is that of the IPv4 address, after the link-local one.
    let words = ["exec", pod, "--", "ibv_rc_pingpong", "-d", device, "-g", "1", "-n", "50"];
    words.into_iter().chain(server).collect()
}

pub(crate) fn between_nodes(cluster: &mut Cluster) -> Outcome {
    let mut names = Vec::new();
    for index in 0..cluster.nodes() {
        let node = cluster.node(index)?;
        names.push(node.name().to_owned());
        node.guest()?.load_rdma(RdmaMode::Shared)?;
    }
    let overlay = Overlay::on("overlays/multus", &[("zerobridge-config", "config.json", pools())])?;
    install::apply(cluster, &overlay.path())?;
    // The daemon of before reads the changed file when the kubelet has brought it. The VFs of running pods stay in their pool.
    pods::wait_allocatable(cluster, SOFT, |count| count > 0, LIMIT)?;
    cluster.kubectl(&["apply", "-f", &manifest("networks/soft-rdma.yaml")])?;
    for (name, node) in ["ada", "bob"].iter().zip(&names) {
        cluster.apply(&pod(name, node).to_string())?;
    }
    for name in ["pod/ada", "pod/bob"] {
        cluster.wait_condition("default", name, "Ready", LIMIT)?;
    }
    let ends = pods::list(cluster, "app=verbs")?;
    expect::that(ends[0].node != ends[1].node, || format!("both are on {}", ends[0].node))?;
    let address = ends[0].address("soft-rdma")?;
    let devices = [device(cluster, &ends[0].name)?, device(cluster, &ends[1].name)?];
    let mut server = Command::new(cluster.kubectl_program())
        .env("KUBECONFIG", cluster.kubeconfig())
        .args(ping_pong(&ends[0].name, &devices[0], None))
        .spawn()?;
    // Until the server listens, it is refused.
    let said = cluster.wait_for("a ping-pong", Duration::from_secs(90), |cluster| {
        Ok(cluster
            .kubectl(&ping_pong(&ends[1].name, &devices[1], Some(&address)))
            .map_err(|error| zerobridge_proto::chain(&error)))
    });
    let said = said.inspect_err(|_| {
        // Nobody will talk to it any more.
        let _ = server.kill();
    })?;
    let status = server.wait()?;
    expect::that(status.success(), || format!("the server ended with {status}"))?;
    expect::that(said.contains("bytes in"), || format!("no ping-pong: {said}"))?;
    say(&format!("  {}", said.lines().last().unwrap_or_default()));
    cluster.kubectl(&["delete", "pod", "ada", "bob"])?;
    cluster.kubectl(&["delete", "-f", &manifest("networks/soft-rdma.yaml")])?;
    install::apply(cluster, &manifest("overlays/multus"))?;
    multus::wait_all_vfs(cluster, RESOURCE)
}
