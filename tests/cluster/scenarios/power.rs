//! A node whose power goes without a word.

use std::collections::BTreeSet;
use std::error::Error;
use std::time::Duration;

use serde_json::{Value, json};
use zerobridge_cluster::Cluster;

use crate::expect;
use crate::group::{Outcome, say};
use crate::install::{self, DAEMON, LIMIT, NAMESPACE};
use crate::multus::{self, DEPLOYMENT, LABEL, NETWORK, PODS, RESOURCE};
use crate::pods;

/// The node that is switched off, counted from 0.
const LOST: usize = 1;
/// Until the controllers take a node for lost (40 s), and its pods are made elsewhere.
const ELSEWHERE: Duration = Duration::from_secs(240);

/// Of the addresses that the ledger of a node has leased to containers.
fn leased(cluster: &Cluster, node: &str) -> Result<BTreeSet<String>, Box<dyn Error>> {
    let list: Value = serde_json::from_str(&install::zbctl(cluster, node, &["ipam", "list", "--json"])?)?;
    let addresses =
        expect::some(list["addresses"].as_array(), &format!("zbctl ipam list lists no addresses: {list}"))?;
    // One that was released rests for a while, and is nobody's.
    let leased = addresses.iter().filter(|entry| entry["state"] == "leased");
    Ok(leased.map(|entry| entry["address"].as_str().unwrap_or_default().to_owned()).collect())
}

/// What the PF imposes on VFs that are on the host.
fn imposed(cluster: &mut Cluster, index: usize) -> Result<Vec<String>, Box<dyn Error>> {
    let guest = cluster.node(index)?.guest()?;
    let snapshot = guest.snapshot()?;
    let unlike = |vf| match snapshot.field(vf, "vlan") {
        Some("0") | None => None,
        Some(vlan) => Some(format!("{vf} has VLAN {vlan}")),
    };
    let home = snapshot.addresses().filter(|vf| snapshot.field(*vf, "name") != Some("(not on the host)"));
    Ok(home.filter_map(unlike).collect())
}

pub(crate) fn lost_and_back(cluster: &mut Cluster) -> Outcome {
    let soon = json!([
        {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 2},
        {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 2},
    ]);
    let patch = json!({"spec": {"template": {"spec": {"tolerations": soon}}}}).to_string();
    cluster.kubectl(&["patch", DEPLOYMENT, "-p", &patch])?;
    cluster.wait_rollout("default", DEPLOYMENT, LIMIT)?;
    let lost = cluster.node(LOST)?.name().to_owned();
    let before = multus::look(cluster)?;
    expect::that(before.iter().any(|pod| pod.node == lost), || format!("no pod is on {lost}"))?;

    cluster.power_off(LOST)?;
    cluster.wait_for("four pods on the other node", ELSEWHERE, |cluster| {
        let set = cluster.kubectl_json(&["get", DEPLOYMENT])?;
        let pods = pods::list(cluster, LABEL).map_err(|error| error.to_string());
        let moved = pods.is_ok_and(|pods| pods.iter().all(|pod| pod.node != lost));
        let ready = set["status"]["readyReplicas"] == PODS;
        Ok(if moved && ready { Ok(()) } else { Err(set["status"].to_string()) })
    })?;
    // Nobody knows whether the lost node still has its addresses, so nobody else may have them.
    let elsewhere = multus::look(cluster)?;
    let addresses = |pods: &[pods::Pod]| -> Result<BTreeSet<String>, Box<dyn Error>> {
        pods.iter().map(|pod| pod.address(NETWORK)).collect()
    };
    let unknown: Vec<pods::Pod> = before.iter().filter(|pod| pod.node == lost).cloned().collect();
    let (theirs, ours) = (addresses(&unknown)?, addresses(&elsewhere)?);
    expect::equal("addresses that the lost node had", &ours.intersection(&theirs).count(), &0)?;

    cluster.power_on(LOST)?;
    cluster.wait_ready(LOST)?;
    cluster.wait_rollout(NAMESPACE, DAEMON, LIMIT)?;
    multus::wait_all_vfs(cluster, RESOURCE)?;
    pods::wait_count(cluster, LABEL, PODS, LIMIT)?;
    cluster.wait_for("the dead pods' leases to be released", LIMIT, |cluster| {
        let leased = leased(cluster, &lost).map_err(|error| error.to_string());
        Ok(if leased == Ok(BTreeSet::new()) { Ok(()) } else { Err(format!("{leased:?}")) })
    })?;
    expect::equal("VFs with something imposed", &imposed(cluster, LOST)?, &Vec::new())?;

    cluster.kubectl(&["rollout", "restart", DEPLOYMENT])?;
    cluster.wait_rollout("default", DEPLOYMENT, LIMIT)?;
    let after = cluster.wait_for("pods on both nodes", LIMIT, |cluster| {
        let pods = match pods::list(cluster, LABEL) {
            Ok(pods) => pods,
            Err(error) => return Ok(Err(error.to_string())),
        };
        let back = pods.len() == PODS && pods.iter().any(|pod| pod.node == lost);
        Ok(if back { Ok(pods) } else { Err(format!("{pods:?}")) })
    })?;
    multus::look(cluster)?;
    let on_lost: Vec<pods::Pod> = after.into_iter().filter(|pod| pod.node == lost).collect();
    expect::equal("the leases of the node", &leased(cluster, &lost)?, &addresses(&on_lost)?)?;
    say(&format!("  {lost} was off; {} pods are on it again", on_lost.len()));
    Ok(())
}
