//! A cluster of many nodes that lease addresses of one pool, against a real etcd and API server on this machine: addresses a
//! second, requests to the API server for each pod, and that no address is leased twice.
//!
//! `cargo run --release -p zerobridge-cluster --example addresses -- --nodes 1000 --pods 100`. The nodes share this machine's
//! processors with the API server, and their ledgers are in memory (`/dev/shm`), since a thousand nodes have a thousand
//! disks.

use std::collections::HashSet;
use std::error::Error;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;
use tokio::task::JoinSet;
use zerobridge_blocks::IPPoolSpec;
use zerobridge_cluster::{ControlPlane, Node, NodeError};
use zerobridge_device_plugin::ApiAccess;

type Failure = Box<dyn Error + Send + Sync>;

/// Leases the addresses of a cluster's pods.
#[derive(Parser)]
struct Arguments {
    /// Nodes
    #[arg(long, default_value_t = 1000)]
    nodes: usize,
    /// Pods on each
    #[arg(long, default_value_t = 100)]
    pods: usize,
    /// Addresses in a block
    #[arg(long, default_value_t = 128)]
    block_size: u32,
    /// Free addresses below which another block is claimed
    #[arg(long, default_value_t = 16)]
    min_free: u32,
    /// The subnet
    #[arg(long, default_value = "10.0.0.0/12")]
    subnet: String,
    /// Nodes that start pods at the same time
    #[arg(long, default_value_t = 2)]
    at_once: usize,
}

fn main() -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(measure(&Arguments::parse()))
}

async fn measure(arguments: &Arguments) -> Result<(), Failure> {
    let out = &mut io::stdout();
    let plane = ControlPlane::start().await?;
    let folder = tempfile::tempdir_in(if Path::new("/dev/shm").is_dir() { "/dev/shm" } else { "/tmp" })?;
    let spec = IPPoolSpec {
        subnet: arguments.subnet.clone(),
        block_size: arguments.block_size,
        min_free: Some(arguments.min_free),
        ..IPPoolSpec::default()
    };
    plane.make_pool("gold", spec).await?;
    let nodes: Vec<Node> =
        (0..arguments.nodes).map(|node| Node::new(&format!("node-{node}"), folder.path(), "gold")).collect();

    let idle = plane.requests().await?;
    let started = Instant::now();
    let mut agents = JoinSet::new();
    for node in &nodes {
        agents.spawn(node.agent().run_alone(ApiAccess::Kubeconfig(plane.daemon_kubeconfig()?)));
    }
    while plane.blocks("gold").await?.len() < nodes.len() {
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    for node in &nodes {
        while node.blocks()? == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    writeln!(
        out,
        "{} nodes from nothing to a block each: {:.1} s",
        nodes.len(),
        started.elapsed().as_secs_f64()
    )?;
    // The answers of the last watches are on their way.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let before = plane.requests().await?;
    show(out, "requests until then", &idle, &before, nodes.len(), "node")?;

    let started = Instant::now();
    let nodes: Arc<[Node]> = nodes.into();
    let (pods, threads) = (arguments.pods, arguments.at_once.max(1));
    let mut workers = JoinSet::new();
    for worker in 0..threads {
        let nodes = Arc::clone(&nodes);
        workers.spawn_blocking(move || start_pods(&nodes, pods, worker, threads));
    }
    let (mut addresses, mut retried, mut slowest) = (Vec::new(), 0, Duration::ZERO);
    while let Some(outcome) = workers.join_next().await {
        let (leased, again, slow) = outcome??;
        addresses.extend(leased);
        retried += again;
        slowest = slowest.max(slow);
    }
    let took = started.elapsed();
    let all = nodes.len() * pods;
    let distinct: HashSet<IpAddr> = addresses.iter().copied().collect();
    let number = u32::try_from(addresses.len()).map(f64::from).unwrap_or(f64::NAN);
    writeln!(
        out,
        "{all} pods: {:.1} s, {:.0} addresses a second",
        took.as_secs_f64(),
        number / took.as_secs_f64()
    )?;
    writeln!(out, "{} addresses, {} of them twice", addresses.len(), addresses.len() - distinct.len())?;
    writeln!(out, "{retried} ADDs were tried again, the slowest took {} ms in all", slowest.as_millis())?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    show(out, "requests for the pods", &before, &plane.requests().await?, all, "pod")?;
    writeln!(out, "{} blocks are claimed", plane.blocks("gold").await?.len())?;
    if distinct.len() != all {
        return Err("an address was leased twice, or not at all".into());
    }
    agents.abort_all();
    Ok(())
}

type Started = (Vec<IpAddr>, usize, Duration);

/// Starts every pod of every `of`th node, one after the other over all nodes, as a scheduler spreads them.
fn start_pods(nodes: &[Node], pods: usize, worker: usize, of: usize) -> Result<Started, Failure> {
    let (mut addresses, mut retried, mut slowest) = (Vec::new(), 0, Duration::ZERO);
    for pod in 0..pods {
        for node in nodes.iter().skip(worker).step_by(of) {
            let began = Instant::now();
            let address = loop {
                match node.add(&format!("c{pod}")) {
                    Ok(address) => break address,
                    Err(NodeError::Ipam(error)) if began.elapsed() < Duration::from_secs(60) => {
                        let _ = error;
                        retried += 1;
                        std::thread::sleep(Duration::from_millis(100));
                    }
                    Err(error) => return Err(error.into()),
                }
            };
            slowest = slowest.max(began.elapsed());
            addresses.push(address);
        }
    }
    Ok((addresses, retried, slowest))
}

fn show(
    out: &mut impl io::Write,
    what: &str,
    before: &[(String, u64)],
    after: &[(String, u64)],
    number: usize,
    each: &str,
) -> io::Result<()> {
    let earlier = |verb: &str| before.iter().find(|(known, _)| known == verb).map_or(0, |(_, count)| *count);
    let counts: Vec<(&str, u64)> = after
        .iter()
        .map(|(verb, count)| (verb.as_str(), count - earlier(verb)))
        .filter(|(_, count)| *count > 0)
        .collect();
    let sum: u64 = counts.iter().map(|(_, count)| count).sum();
    let ratio = |number: u64| u32::try_from(number).map(f64::from).unwrap_or(f64::NAN);
    let by_verb: Vec<String> = counts.iter().map(|(verb, count)| format!("{verb} {count}")).collect();
    let each_one = ratio(sum) / u32::try_from(number).map(f64::from).unwrap_or(f64::NAN);
    writeln!(out, "{what}: {sum} ({}), {each_one:.4} for each {each}", by_verb.join(", "))
}
