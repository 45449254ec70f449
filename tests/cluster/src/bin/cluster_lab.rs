//! A cluster with SR-IOV nodes until Ctrl-C.
#![forbid(unsafe_code)]

use std::error::Error;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::time::Instant;

use clap::Parser;
use zerobridge_cluster::{Cluster, ClusterOptions};
use zerobridge_lab::Progress;

/// A control plane on this machine, two VMs with SR-IOV cards as nodes.
#[derive(Parser)]
struct Arguments {
    /// Give the nodes Multus and a default network; without, they wait for somebody who configures their network
    #[arg(long)]
    multus: bool,
    /// How many nodes, 1 or 2
    #[arg(long, default_value_t = 2)]
    nodes: u8,
    /// An archive of an image that every node shall know; may be given several times
    #[arg(long, value_name = "ARCHIVE")]
    image: Vec<PathBuf>,
    /// VFs on each card, at most 7
    #[arg(long, value_delimiter = ',', default_value = "7,4")]
    vfs: Vec<u8>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let Arguments { multus, nodes, image: images, vfs } = Arguments::parse();
    let begun = Instant::now();
    let progress = Progress::to(io::stdout());
    let cluster = Cluster::start(&ClusterOptions { nodes, multus, vfs, images }, &progress)?;
    progress.say(&format!("up after {:.0} s; Ctrl-C ends it\n", begun.elapsed().as_secs_f32()));
    let (kubeconfig, kubectl) = (cluster.kubeconfig(), cluster.kubectl_program());
    writeln!(io::stdout(), "export KUBECONFIG={}", kubeconfig.display())?;
    writeln!(io::stdout(), "{} get pods -A -o wide", kubectl.display())?;
    Ok(cluster.block_on(tokio::signal::ctrl_c())?)
}
