//! Taking it away, and putting it back.

use std::collections::BTreeSet;
use std::error::Error;
use std::fs;

use serde_json::json;
use zerobridge_cluster::Cluster;

use crate::expect;
use crate::group::{Outcome, say};
use crate::install::{self, LIMIT, NAMESPACE};
use crate::multus::{self, DEPLOYMENT, LABEL, RESOURCE};
use crate::overlay::manifest;
use crate::pods;

const OVERLAY: &str = "overlays/multus";
const REMOVER: &str = "daemonset/zerobridge-uninstall";
/// What a node has that the installation could change: each file with its content's sum.
const LISTING: &str = r"
for folder in /opt/cni/bin /etc/cni/net.d /var/lib/zerobridge /run/zerobridge; do
    find $folder -type f -exec sha256sum {} + 2>/dev/null || true
done | sort -k 2
ls /var/run/cdi /var/run/k8s.cni.cncf.io/devinfo/dp /var/lib/kubelet/device-plugins 2>/dev/null | grep -i zerobridge || true
ip -o link show type vlan
";

/// In the folder of the cluster: what the nodes had before the installation, a JSON text for each.
const BEFORE: &str = "nodes-before.json";

fn listings(cluster: &mut Cluster) -> Result<Vec<String>, Box<dyn Error>> {
    (0..cluster.nodes()).map(|index| Ok(cluster.node(index)?.guest()?.shell(LISTING)?)).collect()
}

/// Notes what the nodes have now.
pub(crate) fn remember(cluster: &mut Cluster) -> Outcome {
    let listings = serde_json::to_string(&listings(cluster)?)?;
    Ok(fs::write(cluster.folder().join(BEFORE), listings)?)
}

/// The files of a listing that a refused removal leaves: what runtimes and pods need, and the promises. The daemon, which is
/// gone, had its sockets in `/run` and at the kubelet, and who closes the ledger last takes its log away.
fn kept(listing: &str) -> BTreeSet<&str> {
    let files = listing.lines().filter_map(|line| line.split_once("  ").map(|(_, file)| file));
    let lasts = |file: &&str| {
        ["/opt/", "/etc/", "/var/lib/"].iter().any(|root| file.starts_with(root))
            && !["-wal", "-shm"].iter().any(|end| file.ends_with(end))
    };
    files.filter(lasts).collect()
}

/// The way that the documentation says, when no pod has a VF and no pool is left.
pub(crate) fn remove(cluster: &mut Cluster, overlay: &str) -> Outcome {
    begin(cluster)?;
    finish(cluster)?;
    Ok(cluster
        .kubectl(&["delete", "-k", &manifest(overlay), "--ignore-not-found", "--timeout=180s"])
        .map(drop)?)
}

/// The same from the beginning: pods, pools, nodes, overlay. Nothing of ours is left at the API server.
fn remove_all(cluster: &mut Cluster) -> Outcome {
    cluster.kubectl(&["delete", DEPLOYMENT])?;
    pods::wait_gone(cluster, LABEL, LIMIT)?;
    // Released addresses rest for a minute, and the daemon takes the pool's blocks back after that.
    cluster.kubectl(&["delete", "ippools,ipclaims", "--all", "--timeout=180s"])?;
    remove(cluster, OVERLAY)?;
    let kinds = cluster.kubectl_json(&["get", "customresourcedefinitions"])?;
    let left = kinds["items"].as_array().into_iter().flatten();
    let left = left.filter(|kind| kind["spec"]["group"] == json!("zerobridge.io")).count();
    expect::equal("the number of kinds that are left", &left, &0)
}

/// Takes the daemon away and has the uninstallation wait on each node.
fn begin(cluster: &Cluster) -> Outcome {
    cluster.kubectl(&["-n", NAMESPACE, "delete", install::DAEMON])?;
    Ok(cluster.kubectl(&["apply", "-k", &manifest("uninstall")]).map(drop)?)
}

/// Waits until the uninstallation is done on each node, and takes it away too.
fn finish(cluster: &mut Cluster) -> Outcome {
    cluster.wait_rollout(NAMESPACE, REMOVER, LIMIT)?;
    cluster.kubectl(&["delete", "-k", &manifest("uninstall")])?;
    let after = listings(cluster)?;
    let before: Vec<String> = serde_json::from_str(&fs::read_to_string(cluster.folder().join(BEFORE))?)?;
    expect::equal("what is on the nodes", &after, &before)
}

pub(crate) fn refused_and_done(cluster: &mut Cluster) -> Outcome {
    let installed = listings(cluster)?;
    begin(cluster)?;
    let names: Vec<String> = pods::list(cluster, LABEL)?.into_iter().map(|pod| pod.name).collect();
    cluster.wait_for("the refusal that names every pod", LIMIT, |cluster| {
        let label = "app.kubernetes.io/name=zerobridge-uninstall";
        let removers = cluster.kubectl_json(&["-n", NAMESPACE, "get", "pods", "-l", label])?;
        let removers = removers["items"].as_array().into_iter().flatten();
        let said: String = removers
            .map(|pod| {
                let state = &pod["status"]["initContainerStatuses"][0];
                [&state["state"], &state["lastState"]].map(|state| state["terminated"].to_string()).concat()
            })
            .collect();
        let named = names.iter().all(|name| said.contains(name.as_str()));
        Ok(if named { Ok(()) } else { Err(said) })
    })?;
    for (now, before) in listings(cluster)?.iter().zip(&installed) {
        let (now, before) = (kept(now), kept(before));
        let gone: Vec<_> = before.difference(&now).collect();
        expect::that(gone.is_empty(), || format!("a refused removal took away {gone:?} of {before:?}"))?;
    }
    multus::look(cluster)?;

    // Broken off: the daemon comes back to its pods.
    cluster.kubectl(&["delete", "-k", &manifest("uninstall")])?;
    install::apply(cluster, &manifest(OVERLAY))?;
    multus::wait_all_vfs(cluster, RESOURCE)?;
    multus::look(cluster)?;
    remove_all(cluster)?;
    say("  refused while pods had VFs, done without them");
    Ok(())
}

/// By the same overlay, and taken away once more.
pub(crate) fn again(cluster: &mut Cluster) -> Outcome {
    multus::install(cluster)?;
    multus::deploy(cluster)?;
    remove_all(cluster)
}
