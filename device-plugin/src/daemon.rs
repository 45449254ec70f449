//! The daemon as a whole: reads the machine, brings every pool to the kubelet, and leaves without a trace when asked.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use thiserror::Error;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tracing::info;
use zerobridge_kernel::{Sysfs, SysfsError};

use crate::config::Config;
use crate::device_info::DeviceInfoFolder;
use crate::endpoint::{EndpointError, PoolEndpoint};
use crate::inventory::Inventory;
use crate::kubelet_dir::{KubeletDir, socket_name};

/// `sun_path` of unix(7) has 108 bytes, the last of which is zero.
const LONGEST_SOCKET_PATH: usize = 107;

/// Where the daemon finds things, and who it is.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The kubelet's root directory, usually `/var/lib/kubelet`.
    pub kubelet_root: PathBuf,
    /// Where sysfs is mounted, usually `/sys`. It must show the network namespace of the host.
    pub sysfs: PathBuf,
    /// Where device-info files go, usually `/var/run/k8s.cni.cncf.io/devinfo/dp`.
    pub devinfo_dir: PathBuf,
    /// How often the machine is looked at again.
    pub rescan: Duration,
    /// Process ID, part of the names of sockets.
    pub pid: u32,
    /// When this process started, part of the names of sockets.
    pub start: SystemTime,
}

/// Why the daemon cannot run.
#[derive(Debug, Error)]
pub enum DaemonError {
    /// The machine's devices could not be read at start.
    #[error("cannot read the devices of this machine")]
    Devices(#[source] SysfsError),
    /// The kubelet's directory is so deep that no socket fits below it.
    #[error("the socket path {} is longer than {LONGEST_SOCKET_PATH} bytes; use a shorter --kubelet-root", path.display())]
    SocketPath {
        /// The path.
        path: PathBuf,
    },
    /// The kubelet's folder cannot be watched.
    #[error("cannot watch the kubelet's folder")]
    Watch(#[source] io::Error),
    /// A pool left on its own.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// A part of the daemon was lost.
    #[error("a part of the daemon was lost")]
    Task(#[source] JoinError),
}

/// Runs until `stop` resolves, or something is broken beyond repair from here.
///
/// # Errors
///
/// [`DaemonError`]. A kubelet that is not there, or refuses, is none: that is waited for.
pub async fn run(
    settings: Settings,
    config: Config,
    stop: impl Future<Output = ()>,
) -> Result<(), DaemonError> {
    let folder = KubeletDir::new(&settings.kubelet_root);
    let names = socket_names(&settings, &config, &folder)?;
    let resources: Vec<_> = config.pools.iter().map(|pool| pool.resource.clone()).collect();
    let inventory =
        Inventory::open(Sysfs::new(settings.sysfs), config.pools).await.map_err(DaemonError::Devices)?;
    let infos = Arc::new(DeviceInfoFolder::new(settings.devinfo_dir));
    folder.remove_stale_sockets().await;
    let changes = folder.watch().map_err(DaemonError::Watch)?;

    let (stopping, stopped) = watch::channel(false);
    let mut endpoints = JoinSet::new();
    for ((pool, devices), socket_name) in resources.into_iter().zip(inventory.subscribe()).zip(names) {
        let (infos, folder, changes) = (Arc::clone(&infos), folder.clone(), changes.clone());
        let endpoint = PoolEndpoint { pool, devices, infos, folder, changes, socket_name };
        endpoints.spawn(endpoint.run(stopped.clone()));
    }
    tokio::select! {
        // Dropped when another branch is done, which ends every device stream.
        () = inventory.run(settings.rescan) => {}
        () = stop => info!("stopping"),
        Some(ended) = endpoints.join_next() => ended.map_err(DaemonError::Task)??,
    }
    stopping.send_replace(true);
    while let Some(ended) = endpoints.join_next().await {
        ended.map_err(DaemonError::Task)??;
    }
    Ok(())
}

fn socket_names(
    settings: &Settings,
    config: &Config,
    folder: &KubeletDir,
) -> Result<Vec<String>, DaemonError> {
    let name = |(position, pool): (usize, &crate::config::PoolConfig)| {
        let name = socket_name(pool.resource.name(), position, settings.pid, settings.start);
        let path = folder.socket(&name);
        if path.as_os_str().len() > LONGEST_SOCKET_PATH {
            return Err(DaemonError::SocketPath { path });
        }
        Ok(name)
    };
    config.pools.iter().enumerate().map(name).collect()
}
