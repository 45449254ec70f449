//! Starts the daemon, and turns its end into an exit code.
#![forbid(unsafe_code)]

use std::env;
use std::error::Error;
use std::io::{self, Write as _};
use std::process::{self, ExitCode};
use std::time::SystemTime;

use clap::Parser as _;
use tokio::runtime;
use tokio::signal::unix::{SignalKind, signal};
use tracing::error;
use zerobridge_device_plugin::{Cli, LogFormat, dry_run, node_config, run};
use zerobridge_proto::chain;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let log =
        tracing_subscriber::fmt().with_max_level(cli.log_level).with_writer(io::stderr).with_ansi(false);
    match cli.log_format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
    match perform(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            error!(error = chain(failure.as_ref()), "cannot run");
            ExitCode::FAILURE
        }
    }
}

fn perform(cli: Cli) -> Result<(), Box<dyn Error>> {
    let (print_config, dry) = (cli.print_config, cli.dry_run);
    let api = cli.api_access(env::var_os);
    let settings = cli.settings(process::id(), SystemTime::now(), api);
    // One thread: whatever waits for a driver or a disk does so elsewhere, and each more would have a heap of its own.
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        if print_config {
            let config = node_config(&settings).await?;
            return Ok(writeln!(io::stdout(), "{}", serde_json::to_string_pretty(&config)?)?);
        }
        if dry {
            let devices = dry_run(&settings).await?;
            return Ok(writeln!(io::stdout(), "{}", serde_json::to_string_pretty(&devices)?)?);
        }
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let stop = async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        Ok(run(settings, stop).await?)
    })
}
