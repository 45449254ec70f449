//! Taking it away, and putting it back.

use std::sync::Mutex;

use serde_json::json;
use zerobridge_cluster::Cluster;

use crate::expect;
use crate::group::{Outcome, say};
use crate::install::{self, LIMIT, NAMESPACE};
use crate::multus::{self, DEPLOYMENT, LABEL, RESOURCE};
use crate::overlay::manifest;
use crate::pods;

const REMOVER: &str = "daemonset/zerobridge-uninstall";
/// What a node has that the installation could change: each file with its content's sum.
const LISTING: &str = r"
for folder in /opt/cni/bin /etc/cni/net.d /var/lib/zerobridge /run/zerobridge; do
    find $folder -type f -exec sha256sum {} + 2>/dev/null || true
done | sort -k 2
ls /var/run/cdi /var/run/k8s.cni.cncf.io/devinfo/dp /var/lib/kubelet/device-plugins 2>/dev/null | grep -i zerobridge || true
ip -o link show type vlan
";

/// What the nodes had before the first installation.
static BEFORE: Mutex<Vec<String>> = Mutex::new(Vec::new());

fn listings(cluster: &mut Cluster) -> Result<Vec<String>, Box<dyn std::error::Error>> {
    (0..cluster.nodes()).map(|index| Ok(cluster.node(index)?.guest()?.shell(LISTING)?)).collect()
}

/// Notes what the nodes have now.
pub(crate) fn remember(cluster: &mut Cluster) -> Outcome {
    let listings = listings(cluster)?;
    *BEFORE.lock().map_err(|error| error.to_string())? = listings;
    Ok(())
}

/// The way that the documentation says, when no pod has a VF and no pool is left.
pub(crate) fn remove(cluster: &mut Cluster, overlay: &str) -> Outcome {
    cluster.kubectl(&["-n", NAMESPACE, "delete", install::DAEMON])?;
    cluster.kubectl(&["apply", "-k", &manifest("uninstall")])?;
    finish(cluster)?;
    Ok(cluster
        .kubectl(&["delete", "-k", &manifest(overlay), "--ignore-not-found", "--timeout=180s"])
        .map(drop)?)
}

/// Waits until the uninstallation is done on each node, and takes it away too.
fn finish(cluster: &mut Cluster) -> Outcome {
    cluster.wait_rollout(NAMESPACE, REMOVER, LIMIT)?;
    cluster.kubectl(&["delete", "-k", &manifest("uninstall")])?;
    let after = listings(cluster)?;
    let before = BEFORE.lock().map_err(|error| error.to_string())?.clone();
    expect::equal("what is on the nodes", &after, &before)
}

pub(crate) fn refused_and_done(cluster: &mut Cluster) -> Outcome {
    let installed = listings(cluster)?;
    cluster.kubectl(&["-n", NAMESPACE, "delete", install::DAEMON])?;
    cluster.kubectl(&["apply", "-k", &manifest("uninstall")])?;
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
    let kept = |text: &str| text.lines().filter(|line| !line.contains("/run/")).count();
    for (now, before) in listings(cluster)?.iter().zip(&installed) {
        expect::that(now.contains("/opt/cni/bin/zerobridge\n"), || format!("it is gone: {now}"))?;
        expect::that(kept(now) + 4 >= kept(before), || format!("something is gone:\n{now}\n---\n{before}"))?;
    }
    multus::look(cluster)?;

    cluster.kubectl(&["delete", DEPLOYMENT])?;
    pods::wait_gone(cluster, LABEL, LIMIT)?;
    finish(cluster)?;
    say("  refused while pods had VFs, done without them");
    Ok(())
}

/// By the same overlay; the ledgers are new, the pool's blocks are still claimed by the old ones.
pub(crate) fn again(cluster: &mut Cluster) -> Outcome {
    install::apply(cluster, &manifest("overlays/multus"))?;
    pods::wait_allocatable(cluster, RESOURCE, multus::all_vfs(), LIMIT)?;
    multus::deploy(cluster)?;
    // The way that the documentation says: pods, pools, overlay, nodes.
    cluster.kubectl(&["delete", DEPLOYMENT])?;
    pods::wait_gone(cluster, LABEL, LIMIT)?;
    cluster.kubectl(&["delete", "ippools,ipclaims", "--all", "--timeout=180s"])?;
    remove(cluster, "overlays/multus")?;
    let groups = cluster.kubectl_json(&["get", "customresourcedefinitions"])?;
    let left = groups["items"].as_array().into_iter().flatten();
    let left: Vec<_> = left.filter(|kind| kind["spec"]["group"] == json!("zerobridge.io")).collect();
    expect::equal("the kinds that are left", &left.len(), &0)
}
