//! The DaemonSet, and what it runs.

use std::error::Error;
use std::time::Duration;

use zerobridge_cluster::Cluster;

use crate::group::Outcome;

/// Where the project is installed.
pub(crate) const NAMESPACE: &str = "kube-system";
/// The daemon.
pub(crate) const DAEMON: &str = "daemonset/zerobridge";
/// For a rollout on a machine that has better things to do.
pub(crate) const LIMIT: Duration = Duration::from_secs(240);

/// `kubectl apply -k`, and until the daemon is ready on each node.
pub(crate) fn apply(cluster: &Cluster, folder: &str) -> Outcome {
    cluster.kubectl(&["apply", "-k", folder])?;
    Ok(cluster.wait_rollout(NAMESPACE, DAEMON, LIMIT)?)
}

/// What `zbctl` says on a node, run where the daemon runs.
pub(crate) fn zbctl(cluster: &Cluster, node: &str, arguments: &[&str]) -> Result<String, Box<dyn Error>> {
    let field = format!("--field-selector=spec.nodeName={node},status.phase=Running");
    let label = "app.kubernetes.io/name=zerobridge";
    let pods = cluster.kubectl_json(&["-n", NAMESPACE, "get", "pods", "-l", label, &field])?;
    let name = pods["items"][0]["metadata"]["name"].as_str().ok_or("no daemon runs there")?;
    let command = [&["-n", NAMESPACE, "exec", name, "--", "/bin/zbctl"], arguments].concat();
    Ok(cluster.kubectl(&command)?)
}
