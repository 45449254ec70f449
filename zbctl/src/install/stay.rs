//! Waiting to be told to end: what the only container of a DaemonSet does after its work.

use tokio::runtime;
use tokio::signal::unix::{SignalKind, signal};

use super::InstallError;

/// Waits for SIGTERM or SIGINT, asleep.
pub(super) fn until_told() -> Result<(), InstallError> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build().map_err(InstallError::Stay)?;
    runtime.block_on(async {
        let mut terminated = signal(SignalKind::terminate()).map_err(InstallError::Stay)?;
        let mut interrupted = signal(SignalKind::interrupt()).map_err(InstallError::Stay)?;
        tokio::select! {
            _ = terminated.recv() => {}
            _ = interrupted.recv() => {}
        }
        Ok(())
    })
}
