//! Agents as processes of their own, and waiting for what they do.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use zerobridge_cluster::{ControlPlane, Node};

const LIMIT: Duration = Duration::from_secs(40);

/// An agent process; killed with SIGKILL when it is dropped.
pub(crate) struct Agent(Child);

impl Agent {
    pub(crate) fn start(plane: &ControlPlane, folder: &Path, node: &Node, pool: &str) -> Self {
        let log = folder.join(format!("{}.log", node.name()));
        let log = File::options().create(true).append(true).open(log).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_block-agent"));
        command.arg(plane.daemon_kubeconfig().unwrap()).arg(folder).arg(node.name()).arg(pool).stderr(log);
        Self(command.spawn().unwrap())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until something holds; in vain, shows what the agents said.
pub(crate) async fn wait_for(folder: &Path, what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !holds().await {
        if started.elapsed() > LIMIT {
            let logs = ["n1", "n2", "n3"].map(|node| {
                let log = std::fs::read_to_string(folder.join(format!("{node}.log"))).unwrap_or_default();
                format!("--- {node}\n{log}")
            });
            panic!("in vain waited for: {what}\n{}", logs.join("\n"));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
