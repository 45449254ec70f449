//! Another image, under pods that run.

use std::collections::BTreeMap;
use std::error::Error;

use zerobridge_cluster::Cluster;

use crate::expect;
use crate::group::Outcome;
use crate::install::{DAEMON, LIMIT, NAMESPACE};
use crate::multus::{self, LABEL, RESOURCE};

/// The image of the manifests, and another name for it.
const IMAGES: [&str; 2] =
    [concat!("zerobridge.io/zerobridge:", env!("CARGO_PKG_VERSION")), "zerobridge.io/zerobridge:update"];

/// How often each container has been started, and its network.
fn running(cluster: &Cluster) -> Result<BTreeMap<String, String>, Box<dyn Error>> {
    let pods = cluster.kubectl_json(&["get", "pods", "-l", LABEL])?;
    let pods = pods["items"].as_array().into_iter().flatten();
    Ok(pods
        .map(|pod| {
            let state = &pod["status"]["containerStatuses"][0];
            let networks = &pod["metadata"]["annotations"]["k8s.v1.cni.cncf.io/network-status"];
            (pod["metadata"]["name"].to_string(), format!("{} {networks}", state["containerID"]))
        })
        .collect())
}

/// To it and back. The programs are the same: what is shown is the way, in which nothing stops.
pub(crate) fn to_another_image(cluster: &mut Cluster) -> Outcome {
    let before = running(cluster)?;
    for index in 0..cluster.nodes() {
        let containerd = cluster.prepared().containerd.display().to_string();
        let guest = cluster.node(index)?.guest()?;
        let [from, to] = IMAGES;
        guest.run(&[&format!("{containerd}/ctr"), "-n", "k8s.io", "images", "tag", "--force", from, to])?;
    }
    for image in IMAGES.iter().rev() {
        let [install, daemon] = ["install", "device-plugin"].map(|container| format!("{container}={image}"));
        cluster.kubectl(&["-n", NAMESPACE, "set", "image", DAEMON, &install, &daemon])?;
        cluster.wait_rollout(NAMESPACE, DAEMON, LIMIT)?;
        let set = cluster.kubectl_json(&["-n", NAMESPACE, "get", DAEMON])?;
        let used = set["spec"]["template"]["spec"]["containers"][0]["image"].as_str();
        expect::equal("the image", &used, &Some(*image))?;
        multus::wait_all_vfs(cluster, RESOURCE)?;
    }
    expect::equal("the running pods", &running(cluster)?, &before)?;
    multus::look(cluster).map(drop)
}
