//! Pods with addresses of their own between two nodes and a real API server.
#![expect(clippy::unwrap_used, reason = "a test program, of which clippy takes the helpers for none")]
#![expect(clippy::panic, reason = "a test that has waited in vain")]

mod agent;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use zerobridge_blocks::{IPClaim, IPClaimStatus, IPPoolSpec};
use zerobridge_cluster::{ControlPlane, Node};

use agent::{Agent, wait_for};

/// What a user does at the API server.
struct User {
    claims: Api<IPClaim>,
    pods: Api<Pod>,
}

impl User {
    fn new(client: &Client) -> Self {
        Self {
            claims: Api::default_namespaced(client.clone()),
            pods: Api::default_namespaced(client.clone()),
        }
    }

    async fn claim(&self, name: &str, mut spec: Value) {
        spec["pool"] = "gold".into();
        let object = json!({
            "apiVersion": "zerobridge.io/v1alpha1", "kind": "IPClaim", "metadata": {"name": name}, "spec": spec
        });
        self.claims.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap();
    }

    async fn status(&self, claim: &str) -> IPClaimStatus {
        self.claims.get(claim).await.unwrap().status.unwrap_or_default()
    }

    async fn problem(&self, claim: &str) -> String {
        self.status(claim).await.problem.unwrap_or_default()
    }

    /// The address of a claim's pod, and the node that it is on.
    async fn reserved(&self, claim: &str, pod: &str) -> Option<(String, Option<String>)> {
        let found = self.status(claim).await.pods.into_iter().find(|found| found.pod == pod)?;
        Some((found.address, found.node))
    }

    /// Makes a pod that is on a node, as the scheduler leaves it.
    async fn run(&self, pod: &str, node: &Node) {
        let spec = json!({"nodeName": node.name(), "containers": [{"name": "c", "image": "i"}]});
        let object = json!({"metadata": {"name": pod}, "spec": spec});
        self.pods.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap();
    }

    /// Its object is gone at once, whatever its containers do.
    async fn remove(&self, pod: &str) {
        self.pods.delete(pod, &DeleteParams::default().grace_period(0)).await.unwrap();
    }
}

/// One test, because a control plane takes its time to start.
#[tokio::test]
async fn pods_with_addresses_of_their_own_between_two_nodes() {
    let plane = ControlPlane::start().await.unwrap();
    let user = User::new(&plane.client().await.unwrap());
    let folder = tempfile::tempdir().unwrap();
    let spec = IPPoolSpec {
        subnet: "10.1.0.0/25".to_owned(),
        block_size: 8,
        rest_seconds: Some(0),
        min_free: Some(4),
        max_free: Some(12),
        ..IPPoolSpec::default()
    };
    plane.make_pool("gold", spec).await.unwrap();
    let nodes = ["n1", "n2"].map(|name| Node::new(name, folder.path(), "gold"));
    let [first, second] = &nodes;
    let _agents = nodes.each_ref().map(|node| Agent::start(&plane, folder.path(), node, "gold"));
    let has_block = async || nodes.iter().all(|node| node.blocks().is_ok_and(|blocks| blocks == 1));
    wait_for(folder.path(), "each node has a block", has_block).await;

    // An address of a block that nobody has, asked for twice, and addresses that somebody else may choose.
    let held: BTreeSet<u32> =
        plane.blocks("gold").await.unwrap().iter().map(|block| block.spec.index).collect();
    let block = (1..15).find(|index| !held.contains(index)).unwrap();
    let fixed = format!("10.1.0.{}", block * 8 + 5);
    user.claim("db", json!({"pod": "db", "address": fixed})).await;
    wait_for(folder.path(), "the claim has its address", async || {
        user.reserved("db", "db").await == Some((fixed.clone(), None))
    })
    .await;
    user.claim("rival", json!({"pod": "rival", "address": fixed})).await;
    user.claim("web", json!({"statefulSet": "web", "replicas": 2})).await;
    user.claim("wrong", json!({"pod": "wrong", "address": "10.2.0.9"})).await;
    wait_for(folder.path(), "the second claim says so", async || {
        let problem = user.problem("rival").await;
        problem.contains(&fixed) && problem.contains("IPClaim default/db")
    })
    .await;
    wait_for(folder.path(), "a fault is told where somebody looks", async || {
        let problem = user.problem("wrong").await;
        problem.starts_with("spec.address is \"10.2.0.9\"") && problem.contains("10.1.0.0/25")
    })
    .await;
    let change = Patch::Merge(json!({"spec": {"address": "10.1.0.77"}}));
    let refused = user.claims.patch("db", &PatchParams::default(), &change).await.unwrap_err().to_string();
    assert!(refused.contains("make another IPClaim"), "{refused}");
    user.claims.delete("wrong", &DeleteParams::default()).await.unwrap();

    // A pod with a claim gets nothing until its address is on the node, and then on that node alone.
    let refused = async |node: &Node, pod: &str| {
        wait_for(folder.path(), &format!("{} knows {pod}", node.name()), async || {
            node.ledger().unwrap().claim_of("gold", "default", pod).unwrap().is_some()
        })
        .await;
        let told = node.add_pod("none", pod).unwrap_err().to_string();
        assert!(told.contains("IPClaim") && told.contains(&format!("default/{pod}")), "{told}");
    };
    for node in &nodes {
        for pod in ["db", "rival", "web-1"] {
            refused(node, pod).await;
        }
    }
    user.run("db", first).await;
    let comes = async |node: &Node, container: &str, pod: &str| -> IpAddr {
        let mut address = None;
        wait_for(folder.path(), &format!("{pod} starts on {}", node.name()), async || {
            address = node.add_pod(container, pod).ok();
            address.is_some()
        })
        .await;
        address.unwrap()
    };
    assert_eq!(comes(first, "db-1", "db").await.to_string(), fixed);
    refused(second, "db").await;

    // It moves when its container has ended where it was, and not before, though the pod's object was gone at once.
    user.remove("db").await;
    user.run("db", second).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    refused(second, "db").await;
    first.del("db-1").unwrap();
    assert_eq!(comes(second, "db-2", "db").await.to_string(), fixed);
    refused(first, "db").await;

    // The same for an address that was chosen.
    user.run("web-0", second).await;
    let chosen = comes(second, "web-1", "web-0").await;
    assert_ne!(chosen.to_string(), fixed);
    second.del("web-1").unwrap();
    user.remove("web-0").await;
    user.run("web-0", first).await;
    assert_eq!(comes(first, "web-2", "web-0").await, chosen);

    // Nobody else gets any of them, however many addresses are wanted.
    let own = [user.reserved("web", "web-1").await.unwrap().0, chosen.to_string(), fixed.clone()];
    let mut used = BTreeSet::new();
    for container in 0..16 {
        for node in &nodes {
            let container = format!("c{container}");
            let mut address = None;
            wait_for(folder.path(), "an address for an ordinary pod", async || {
                address = node.add(&container).ok();
                address.is_some()
            })
            .await;
            let address = address.unwrap().to_string();
            assert!(!own.contains(&address) && used.insert(address.clone()), "{address} is used twice");
        }
    }

    // An address of a block that a node leases from: the node gives the block back once it can.
    let taken: IpAddr = used.iter().next().unwrap().parse().unwrap();
    user.claim("late", json!({"pod": "late", "address": taken})).await;
    wait_for(folder.path(), "the claim says what it waits for", async || {
        let problem = user.problem("late").await;
        problem.contains("which a node leases from") && problem.contains(&taken.to_string())
    })
    .await;
    for container in 0..16 {
        for node in &nodes {
            node.del(&format!("c{container}")).unwrap();
        }
    }
    user.run("late", first).await;
    assert_eq!(comes(first, "late", "late").await, taken);

    // A claim stays until no container has its address, and then the next one has it.
    user.claims.delete("db", &DeleteParams::default()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(user.claims.get_opt("db").await.unwrap().is_some(), "its address is in use");
    second.del("db-2").unwrap();
    wait_for(folder.path(), "the claim ends", async || user.claims.get_opt("db").await.unwrap().is_none())
        .await;
    wait_for(folder.path(), "the address is the next claim's", async || {
        user.reserved("rival", "rival").await.is_some_and(|(address, _)| address == fixed)
    })
    .await;

    // The agents were allowed everything that they tried.
    for node in ["n1", "n2"] {
        let log = std::fs::read_to_string(folder.path().join(format!("{node}.log"))).unwrap();
        assert!(!log.contains("does not allow"), "{log}");
    }
}
