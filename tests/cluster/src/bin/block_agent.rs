//! The agent that claims blocks of an IPPool, as a process of its own, so that a test can kill it.
#![forbid(unsafe_code)]

use std::error::Error;
use std::io;
use std::path::PathBuf;

use clap::Parser;
use zerobridge_cluster::Node;
use zerobridge_device_plugin::ApiAccess;

/// Claims blocks for a node until it is killed.
#[derive(Parser)]
struct Arguments {
    /// How the API server is reached
    kubeconfig: PathBuf,
    /// The folder of nodes
    folder: PathBuf,
    /// The node
    node: String,
    /// The IPPool
    pool: String,
}

fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().with_writer(io::stderr).with_ansi(false).init();
    let Arguments { kubeconfig, folder, node, pool } = Arguments::parse();
    let agent = Node::new(&node, &folder, &pool).agent();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(agent.run_alone(ApiAccess::Kubeconfig(kubeconfig)));
    Ok(())
}
