//! A control plane until standard input ends, and on standard output the kubeconfig of the daemon's service account.

use std::error::Error;
use std::io::{self, Read as _, Write as _};

use zerobridge_cluster::ControlPlane;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let plane = ControlPlane::start().await?;
    writeln!(io::stdout(), "{}", plane.daemon_kubeconfig()?.display())?;
    io::stdin().read_to_end(&mut Vec::new())?;
    drop(plane);
    Ok(())
}
