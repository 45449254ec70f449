//! Starts the daemon, and turns its end into an exit code.
#![forbid(unsafe_code)]

use std::error::Error;
use std::process::{self, ExitCode};
use std::time::SystemTime;

use clap::Parser as _;
use tokio::runtime;
use tokio::signal::unix::{SignalKind, signal};
use tracing::error;
use zerobridge_device_plugin::{Cli, Config, run};
use zerobridge_proto::chain;

fn main() -> ExitCode {
    let cli = Cli::parse();
    tracing_subscriber::fmt()
        .with_max_level(cli.log_level)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    match daemon(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            error!(error = chain(failure.as_ref()), "cannot run");
            ExitCode::FAILURE
        }
    }
}

fn daemon(cli: Cli) -> Result<(), Box<dyn Error>> {
    let config = Config::load(&cli.config)?;
    // Two: one may wait for sysfs while the other answers the kubelet.
    let runtime = runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let stop = async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        run(cli.settings(process::id(), SystemTime::now()), config, stop).await?;
        Ok(())
    })
}
