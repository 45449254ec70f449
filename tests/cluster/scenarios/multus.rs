//! VFs as the pods' second interfaces.

use std::collections::BTreeSet;
use std::error::Error;
use std::time::Duration;

use zerobridge_cluster::Cluster;
use zerobridge_lab::IMAGE;

use crate::expect;
use crate::group::{Outcome, VFS, say};
use crate::install::{self, DAEMON, LIMIT, NAMESPACE};
use crate::overlay::{example, manifest};
use crate::pods::{self, Pod};

/// Of the overlay's pool.
pub(crate) const RESOURCE: &str = "zerobridge.io/vf";
/// Of `networks/deployment.yaml`.
pub(crate) const LABEL: &str = "app=on-vlan";
/// Of `networks/deployment.yaml`.
pub(crate) const DEPLOYMENT: &str = "deployment/on-vlan";
/// The network of these pods.
pub(crate) const NETWORK: &str = "vlan";
/// How many it asks for.
pub(crate) const PODS: usize = 4;

/// All VFs of a node.
pub(crate) fn all_vfs() -> u32 {
    VFS.iter().copied().map(u32::from).sum()
}

/// Waits until each node offers all of its VFs.
pub(crate) fn wait_all_vfs(cluster: &mut Cluster, resource: &str) -> Outcome {
    pods::wait_allocatable(cluster, resource, |count| count == all_vfs(), LIMIT)
}

/// `kubectl apply -k`, as the documentation says it.
pub(crate) fn install(cluster: &mut Cluster) -> Outcome {
    crate::removal::remember(cluster)?;
    install::apply(cluster, &manifest("overlays/multus"))?;
    wait_all_vfs(cluster, RESOURCE)
}

/// Applies the pool, the network and the deployment, and looks at its pods.
pub(crate) fn deploy(cluster: &mut Cluster) -> Outcome {
    for file in ["networks/pool.yaml", "networks/vlan.yaml"] {
        cluster.kubectl(&["apply", "-f", &manifest(file)])?;
    }
    cluster.apply(&example("networks/deployment.yaml", IMAGE)?)?;
    cluster.wait_rollout("default", DEPLOYMENT, LIMIT)?;
    look(cluster).map(drop)
}

/// Each pod has its VF as `net1`, told completely, and reaches each other.
pub(crate) fn look(cluster: &Cluster) -> Result<Vec<Pod>, Box<dyn Error>> {
    let pods = pods::list(cluster, LABEL)?;
    expect::equal("the number of pods", &pods.len(), &PODS)?;
    for pod in &pods {
        let network = pod.network(NETWORK)?;
        expect::equal("the interface", &network["interface"].as_str(), &Some("net1"))?;
        let device = &network["device-info"];
        let complete = network["mac"].is_string()
            && device["type"] == "pci"
            && device["pci"]["pci-address"].is_string()
            && device["pci"]["pf-pci-address"].is_string();
        expect::that(complete, || format!("network-status of {} lacks something: {network}", pod.name))?;
    }
    let addresses = pods::distinct_addresses(&pods, NETWORK)?;
    pods::all_reach_all(cluster, &pods, &addresses)?;
    Ok(pods)
}

pub(crate) fn deployment(cluster: &mut Cluster) -> Outcome {
    deploy(cluster)?;
    let nodes: BTreeSet<String> = look(cluster)?.into_iter().map(|pod| pod.node).collect();
    expect::equal("the nodes of the pods", &nodes.len(), &cluster.nodes())
}

/// Of the pods and of the daemon at once.
pub(crate) fn restarts(cluster: &mut Cluster) -> Outcome {
    let before = pods::list(cluster, LABEL)?;
    cluster.kubectl(&["rollout", "restart", DEPLOYMENT])?;
    cluster.kubectl(&["-n", NAMESPACE, "rollout", "restart", DAEMON])?;
    let mut lowest = all_vfs();
    // The kubelet tells the API server what it has within seconds of a change; who was refused meanwhile stays as a failed pod.
    cluster.wait_for("both rollouts", LIMIT, |cluster| {
        let offered = pods::allocatable(cluster, RESOURCE)?;
        lowest = offered.into_values().fold(lowest, u32::min);
        let done = |namespace, what| {
            cluster.kubectl(&["-n", namespace, "rollout", "status", what, "--timeout=1s"]).is_ok()
        };
        let both = done("default", DEPLOYMENT) && done(NAMESPACE, DAEMON);
        Ok(if both { Ok(()) } else { Err("not yet".to_owned()) })
    })?;
    expect::equal("the fewest VFs that a node offered meanwhile", &lowest, &all_vfs())?;
    pods::none_rejected(cluster)?;
    pods::wait_count(cluster, LABEL, PODS, Duration::from_secs(90))?;
    let after = look(cluster)?;
    let old: BTreeSet<&String> = before.iter().map(|pod| &pod.name).collect();
    expect::that(after.iter().all(|pod| !old.contains(&pod.name)), || "a pod was not replaced".to_owned())?;
    say(&format!("  {} pods and the daemon replaced, never fewer than {lowest} VFs on a node", after.len()));
    Ok(())
}
