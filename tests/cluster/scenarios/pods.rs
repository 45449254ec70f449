//! What the API server says of pods, and what runs in them.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::time::Duration;

use serde_json::Value;
use zerobridge_cluster::{Cluster, ClusterError};

use crate::expect;
use crate::group::Outcome;

/// A pod that is not on its way out.
#[derive(Clone, Debug)]
pub(crate) struct Pod {
    pub(crate) name: String,
    pub(crate) node: String,
    /// `status.podIP`.
    pub(crate) ip: String,
    /// `k8s.v1.cni.cncf.io/network-status`, empty without Multus.
    pub(crate) networks: Vec<Value>,
}

impl Pod {
    fn of(object: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let status = object["metadata"]["annotations"]["k8s.v1.cni.cncf.io/network-status"].as_str();
        let networks = status.and_then(|status| serde_json::from_str(status).ok()).unwrap_or_default();
        Self {
            name: text(&object["metadata"]["name"]),
            node: text(&object["spec"]["nodeName"]),
            ip: text(&object["status"]["podIP"]),
            networks,
        }
    }

    /// What network-status says of the network `default/NAME`.
    pub(crate) fn network(&self, name: &str) -> Result<&Value, Box<dyn Error>> {
        let full = format!("default/{name}");
        let entry = self.networks.iter().find(|entry| entry["name"] == *full);
        expect::some(entry, &format!("network-status of {} has no {full}: {:?}", self.name, self.networks))
    }

    /// Its first address in the network `default/NAME`.
    pub(crate) fn address(&self, name: &str) -> Result<String, Box<dyn Error>> {
        let network = self.network(name)?;
        let address = network["ips"][0].as_str().map(str::to_owned);
        expect::some(address, &format!("{} has no address in {name}: {network}", self.name))
    }
}

/// The pods with a label, such as `app=web`, in the namespace `default`.
pub(crate) fn list(cluster: &Cluster, label: &str) -> Result<Vec<Pod>, Box<dyn Error>> {
    let pods = cluster.kubectl_json(&["get", "pods", "-l", label])?;
    let pods = pods["items"].as_array().into_iter().flatten();
    Ok(pods.filter(|pod| pod["metadata"]["deletionTimestamp"].is_null()).map(Pod::of).collect())
}

/// Each pod reaches each address, its own too.
pub(crate) fn all_reach_all(cluster: &Cluster, pods: &[Pod], addresses: &[String]) -> Outcome {
    let script = addresses.iter().map(|address| format!("ping -c 1 -W 10 {address}")).collect::<Vec<_>>();
    for pod in pods {
        cluster.kubectl(&["exec", &pod.name, "--", "sh", "-ec", &script.join("\n")])?;
    }
    Ok(())
}

/// No two pods have one address in the network `default/NAME`.
pub(crate) fn distinct_addresses(pods: &[Pod], network: &str) -> Result<Vec<String>, Box<dyn Error>> {
    let addresses = pods.iter().map(|pod| pod.address(network)).collect::<Result<Vec<_>, _>>()?;
    let distinct: BTreeSet<&String> = addresses.iter().collect();
    expect::equal("the number of distinct addresses", &distinct.len(), &pods.len())?;
    Ok(addresses)
}

/// No pod was refused by a kubelet: such pods stay, as failed ones.
pub(crate) fn none_rejected(cluster: &Cluster) -> Outcome {
    let failed = cluster.kubectl_json(&["get", "pods", "-A", "--field-selector=status.phase=Failed"])?;
    let failed = failed["items"].as_array().map(Vec::len);
    expect::equal("the number of failed pods", &failed, &Some(0))
}

/// How many devices of a resource each node offers, given ones included.
pub(crate) fn allocatable(cluster: &Cluster, resource: &str) -> Result<BTreeMap<String, u32>, ClusterError> {
    let nodes = cluster.kubectl_json(&["get", "nodes"])?;
    let nodes = nodes["items"].as_array().into_iter().flatten();
    let count = |node: &Value| {
        let count = node["status"]["allocatable"][resource].as_str().and_then(|count| count.parse().ok());
        (node["metadata"]["name"].as_str().unwrap_or_default().to_owned(), count.unwrap_or(0))
    };
    Ok(nodes.map(count).collect())
}

/// Waits until each node offers as many devices of a resource as `enough` says.
pub(crate) fn wait_allocatable(
    cluster: &mut Cluster,
    resource: &str,
    enough: impl Fn(u32) -> bool,
    limit: Duration,
) -> Outcome {
    let nodes = cluster.nodes();
    let seen = cluster.wait_for(&format!("{resource} on each node"), limit, |cluster| {
        let offered = allocatable(cluster, resource)?;
        let all = offered.len() == nodes && offered.values().all(|count| enough(*count));
        Ok(if all { Ok(()) } else { Err(format!("{offered:?}")) })
    });
    Ok(seen?)
}

/// Waits until there are so many pods with a label, those on their way out included.
pub(crate) fn wait_count(cluster: &mut Cluster, label: &str, expected: usize, limit: Duration) -> Outcome {
    let what = format!("{expected} pods with {label}, and no others");
    Ok(cluster.wait_for(&what, limit, |cluster| {
        let pods = cluster.kubectl_json(&["get", "pods", "-l", label])?;
        let count = pods["items"].as_array().map_or(0, Vec::len);
        Ok(if count == expected { Ok(()) } else { Err(format!("{count} pods")) })
    })?)
}

/// Waits until no pod with a label is left, not even one on its way out.
pub(crate) fn wait_gone(cluster: &Cluster, label: &str, limit: Duration) -> Outcome {
    let timeout = format!("--timeout={}s", limit.as_secs());
    Ok(cluster.kubectl(&["wait", "--for=delete", "pod", "-l", label, &timeout]).map(drop)?)
}
