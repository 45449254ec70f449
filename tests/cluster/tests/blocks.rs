//! Blocks of an address pool between two nodes and a real API server.
#![expect(clippy::unwrap_used, reason = "a test program, of which clippy takes the helpers for none")]
#![expect(clippy::panic, reason = "a test that has waited in vain")]

mod agent;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use zerobridge_blocks::{IPPool, IPPoolSpec};
use zerobridge_cluster::{ControlPlane, Node};

use agent::{Agent, wait_for};

fn spec(subnet: &str) -> IPPoolSpec {
    IPPoolSpec {
        subnet: subnet.to_owned(),
        block_size: 8,
        rest_seconds: Some(0),
        min_free: Some(4),
        max_free: Some(12),
        ..IPPoolSpec::default()
    }
}

/// One test, because a control plane takes its time to start.
#[tokio::test]
async fn blocks_between_two_nodes_and_a_real_api_server() {
    let mut plane = ControlPlane::start().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    plane.make_pool("gold", spec("10.1.0.0/25")).await.unwrap();
    let nodes = ["n1", "n2"].map(|name| Node::new(name, folder.path(), "gold"));
    let [first, second] = &nodes;
    let [agent, _other] = nodes.each_ref().map(|node| Agent::start(&plane, folder.path(), node, "gold"));
    wait_for(folder.path(), "each node has a block before it needs one", async || {
        nodes.iter().all(|node| node.blocks().is_ok_and(|blocks| blocks == 1))
    })
    .await;

    // Five addresses, more than leave four free: the next block is claimed without being asked for.
    let mut used: BTreeSet<IpAddr> = BTreeSet::new();
    for node in &nodes {
        for container in 0..5 {
            let address = node.add(&format!("c{container}")).unwrap();
            assert!(used.insert(address), "{address} is used twice");
        }
    }
    wait_for(folder.path(), "blocks are claimed ahead of need", async || {
        nodes.iter().all(|node| node.blocks().unwrap() == 2)
    })
    .await;
    assert_eq!(plane.blocks("gold").await.unwrap().len(), 4);

    // An agent is killed: its leases stay, and so do its blocks; addresses are leased on.
    drop(agent);
    let address = first.add("c5").unwrap();
    assert!(used.insert(address));
    assert_eq!(first.ledger().unwrap().leases().unwrap().len(), 6);
    assert_eq!(plane.blocks("gold").await.unwrap().len(), 4);

    // A specification that cannot be used changes nothing, and is told where somebody looks.
    let pools = Api::<IPPool>::all(plane.client().await.unwrap());
    let change = async |spec| {
        let patch = Patch::Merge(json!({"spec": spec}));
        pools.patch("gold", &PatchParams::default(), &patch).await
    };
    let refused = change(json!({"subnet": "10.2.0.0/24"})).await.unwrap_err().to_string();
    assert!(refused.contains("make another IPPool"), "{refused}");
    change(json!({"gateway": "10.9.0.1"})).await.unwrap();
    wait_for(folder.path(), "the fault is in the log", async || {
        let log = std::fs::read_to_string(folder.path().join("n2.log")).unwrap();
        log.contains("the last good one stays") && log.contains("10.9.0.1")
    })
    .await;
    assert!(used.insert(second.add("c5").unwrap()));
    change(json!({"gateway": null})).await.unwrap();

    assert_eq!(refusals(folder.path()), 0, "the agents were allowed everything that they tried");

    // The API server is away for a minute: pods come and go, with addresses from the blocks that are there.
    plane.stop_api_server();
    for container in 6..12 {
        assert!(used.insert(second.add(&format!("c{container}")).unwrap()));
    }
    let away = Instant::now();
    while away.elapsed() < Duration::from_secs(60) {
        assert!(!used.contains(&second.add("passing").unwrap()));
        second.del("passing").unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    for container in 12..16 {
        assert!(used.insert(second.add(&format!("c{container}")).unwrap()));
    }
    let error = second.add("c16").unwrap_err().to_string();
    assert!(error.contains("all 16 addresses of the 2 blocks"), "{error}");
    second.del("c1").unwrap();
    assert!(second.add("c16").is_ok(), "what is released is leased again");
    plane.start_api_server().await.unwrap();
    wait_for(folder.path(), "a further block, once it is back", async || second.blocks().unwrap() == 3).await;
    // One that has just started refuses everything until it has read the roles.
    let refused_at_start = refusals(folder.path());

    // The killed agent comes back and finds what it had.
    let _agent = Agent::start(&plane, folder.path(), first, "gold");
    for container in 6..10 {
        assert!(used.insert(first.add(&format!("c{container}")).unwrap()));
    }
    wait_for(folder.path(), "the agent goes on", async || first.blocks().unwrap() >= 2).await;

    // What is empty and not needed goes back.
    for container in 0..17 {
        second.del(&format!("c{container}")).unwrap();
    }
    wait_for(folder.path(), "empty blocks are returned", async || {
        let own = plane.blocks("gold").await.unwrap();
        let own = own.iter().filter(|block| block.spec.holder.node == "n2").count();
        own <= 2 && second.blocks().unwrap() == own
    })
    .await;

    // Nothing is in two ledgers, and what the API server says is what the ledgers say.
    let mut all = BTreeSet::new();
    for node in &nodes {
        for block in node.ledger().unwrap().blocks_of("gold").unwrap() {
            assert!(all.insert(block.net.to_string()), "{} is in two ledgers", block.net);
        }
    }
    let claimed: BTreeSet<String> =
        plane.blocks("gold").await.unwrap().into_iter().map(|block| block.spec.block).collect();
    assert_eq!(claimed, all);
    let status = async || pools.get("gold").await.unwrap().status.unwrap_or_default();
    wait_for(folder.path(), "a node tells of the pool", async || status().await.blocks == 16).await;
    assert!(
        pools.get("gold").await.unwrap().metadata.finalizers.is_some(),
        "guarded while blocks are claimed"
    );

    assert_eq!(
        refusals(folder.path()),
        refused_at_start,
        "the agents were allowed everything that they tried"
    );
}

/// How often an agent was not allowed what it tried.
fn refusals(folder: &Path) -> usize {
    let log = |node: &str| std::fs::read_to_string(folder.join(format!("{node}.log"))).unwrap_or_default();
    ["n1", "n2", "n3"].map(|node| log(node).matches("does not allow").count()).iter().sum()
}
