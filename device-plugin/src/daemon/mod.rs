//! The daemon as a whole: which parts there are, who tells whom, and how it begins and ends.
//!
//! Every part is a task that listens to `watch` channels and keeps one up to date. Refuses to do any of their work.

mod configuration;
mod doors;
mod endpoints;
mod legs;
mod rehearsal;
mod report;
mod upkeep;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use thiserror::Error;
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::task;
use tracing::info;
use zerobridge_cni_sriov::Repairer;
use zerobridge_kernel::{BootIdError, DevFolder, Sysfs, boot_id, watch_devices};

use crate::allocation::Allocator;
use crate::answers::Giving;
use crate::cluster::{ApiAccess, ApiServer, EventRecorder, EventSink, IpBlocks};
use crate::inventory::Look;
use crate::kubelet::{KubeletDir, Registrations};
use crate::leg::Keeper;
use crate::lookout::{Audience, Lookout, Sources};
use crate::observer::{ObserveError, Observer, Roots};
use crate::operations::{Heartbeat, Metrics};
use configuration::{Configuration, Node};
use doors::Doors;
use endpoints::{Endpoints, Place};
use legs::Legs;
use report::Report;
use upkeep::Upkeep;

pub use configuration::ConfigurationError;
pub use endpoints::PresenceError;
pub use rehearsal::{dry_run, node_config};

/// How long a VF that a CNI call is changing is waited for; the next try is near.
const VF_PATIENCE: Duration = Duration::from_secs(1);

/// Where the daemon finds things, and who it is.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The configuration file.
    pub config: PathBuf,
    /// Prefix of resources for which the configuration names none, instead of the one that is usual in its format.
    pub resource_prefix: Option<String>,
    /// The name of this node's Node object.
    pub node_name: Option<String>,
    /// How the API server is reached.
    pub api: ApiAccess,
    /// The IPPools that blocks are claimed of for this node.
    pub ip_pools: Vec<String>,
    /// The kubelet's root directory, usually `/var/lib/kubelet`.
    pub kubelet_root: PathBuf,
    /// Where the kernel says what it is.
    pub roots: Roots,
    /// Where device-info files go, usually `/var/run/k8s.cni.cncf.io/devinfo/dp`.
    pub devinfo_dir: PathBuf,
    /// Where CDI specifications go, usually `/var/run/cdi`.
    pub cdi_dir: PathBuf,
    /// Where the CNI plugin keeps its ledger, usually `/var/lib/zerobridge`.
    pub state_dir: PathBuf,
    /// Where the CNI plugin keeps its locks, usually `/run/zerobridge`.
    pub run_dir: PathBuf,
    /// How often the machine is looked at without a kernel event.
    pub rescan: Duration,
    /// Where metrics and probes are answered; `None` for nowhere.
    pub http: Option<SocketAddr>,
    /// The socket file at which the same is answered, by this instance only; `None` for none.
    pub http_socket: Option<PathBuf>,
    /// Process ID, part of the names of sockets.
    pub pid: u32,
    /// When this process started, part of the names of sockets.
    pub start: SystemTime,
}

/// Why the daemon cannot run.
#[derive(Debug, Error)]
pub enum DaemonError {
    /// There is no configuration to begin with.
    #[error(transparent)]
    Configuration(#[from] ConfigurationError),
    /// The machine could not be looked at.
    #[error("cannot look at this machine")]
    Observe(#[from] ObserveError),
    /// Which boot this is, is not known.
    #[error(transparent)]
    BootId(BootIdError),
    /// The kernel's events cannot be listened to.
    #[error("cannot listen to the kernel's events")]
    Events(#[source] io::Error),
    /// The kubelet's folder cannot be watched.
    #[error("cannot watch the kubelet's folder {}", path.display())]
    Watch {
        /// The folder.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Metrics and probes cannot be answered at the address.
    #[error("cannot answer HTTP at {address}; use another --http")]
    Http {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Metrics and probes cannot be answered at the socket file.
    #[error("cannot answer HTTP at {}; use another --http-socket, in a folder that exists", path.display())]
    HttpSocket {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A pool cannot be present at the kubelet.
    #[error(transparent)]
    Presence(#[from] PresenceError),
}

/// Runs until `stop` resolves, or something is broken beyond repair from here.
///
/// # Errors
///
/// [`DaemonError`]. A kubelet or an API server that is not there, or refuses, is none: that is waited for.
pub async fn run(settings: Settings, stop: impl Future<Output = ()>) -> Result<(), DaemonError> {
    let doors = Doors::open(settings.http, settings.http_socket.as_deref())?;
    let metrics = Metrics::new();
    let server = Arc::new(ApiServer::new(settings.api.clone()));
    let node_name = settings.node_name.clone().unwrap_or_default();
    let (cluster, recorder) =
        EventRecorder::new(Arc::clone(&server), node_name, metrics.dropped_events(), SystemTime::now);
    let recording = task::spawn(recorder.run());
    let blocks = claim_blocks(&settings, &server, &metrics, &cluster)?;
    let node = Node { name: settings.node_name.clone(), server, refused: false };
    let configuration = Configuration::open(
        &settings.config,
        settings.resource_prefix.clone(),
        node,
        metrics.clone(),
        cluster.clone(),
    )
    .await?;
    let mut upkeep = Upkeep::new(&settings, metrics.clone(), cluster.clone())?;
    upkeep.ask_kubelet().await;

    let real = settings.roots.sysfs == Path::new("/sys");
    let events = real.then(|| watch_devices(&Handle::current())).transpose().map_err(DaemonError::Events)?;
    let observer = Observer::open(&settings.roots)?;
    let heartbeat = Heartbeat::new(settings.rescan, Instant::now());
    let audience = Audience {
        offers: watch::Sender::default(),
        looks: watch::Sender::default(),
        metrics: metrics.clone(),
        heartbeat: heartbeat.clone(),
        cluster,
    };
    let mut sources = Sources {
        config: configuration.configs(),
        method: configuration.methods(),
        held: upkeep.held(),
        dirty: upkeep.dirty(),
        events,
        rescan: settings.rescan,
    };
    let (mut offers, looks) = (audience.offers.subscribe(), audience.looks.subscribe());
    let lookout = Lookout::open(observer, &mut sources, audience).await?;

    let folder = KubeletDir::new(&settings.kubelet_root);
    folder.remove_stale_sockets().await;
    let watch_error = |source| DaemonError::Watch { path: folder.path().to_owned(), source };
    let giving = Arc::new(Giving {
        allocator: Allocator::new(
            Sysfs::new(&settings.roots.sysfs),
            DevFolder::new(&settings.roots.dev),
            &settings.devinfo_dir,
            &settings.cdi_dir,
            &settings.run_dir,
        ),
        method: configuration.methods(),
        looks: looks.clone(),
        held: upkeep.held(),
        given: Notify::new(),
    });
    let registrations = Registrations::default();
    let mut endpoints = Endpoints::new(Place {
        changes: folder.watch().map_err(watch_error)?,
        folder: folder.clone(),
        pid: settings.pid,
        start: settings.start,
        registrations: registrations.clone(),
        metrics: metrics.clone(),
        giving: Arc::clone(&giving),
    });
    let first = offers.borrow_and_update().clone();
    endpoints.follow(first)?;
    // After the pools are entered: a node is not ready because it has none yet.
    let legs = keep_legs(&settings, &configuration, &looks, &upkeep)?;
    let report = Report::new(looks.clone(), upkeep.held(), legs.statuses(), real);
    let answering = doors.answer(&report.operations(metrics, registrations, heartbeat));

    let outcome = {
        let mut parts = std::pin::pin!(async {
            // Of another machine's files nothing can be set up here.
            let legs = async {
                if real {
                    legs.run().await;
                }
            };
            tokio::join!(configuration.run(), upkeep.run(giving), lookout.run(sources), legs)
        });
        let mut stop = std::pin::pin!(stop);
        loop {
            tokio::select! {
                _ = &mut parts => break Ok(()),
                () = &mut stop => {
                    info!("stopping");
                    endpoints.hand_over().await;
                    break Ok(());
                }
                error = endpoints.lost() => break Err(error),
                changed = offers.changed() => {
                    let present = offers.borrow_and_update().clone();
                    if changed.is_ok() && let Err(error) = endpoints.follow(present) {
                        break Err(error);
                    }
                }
            }
        }
        // The parts end here, and with the inventory every device stream.
    };
    for task in answering {
        task.abort();
    }
    let left = endpoints.leave().await;
    recording.abort();
    if let Some(blocks) = blocks {
        blocks.abort();
    }
    Ok(outcome.and(left)?)
}

/// What changes VFs beside the CNI plugin.
fn repairer(settings: &Settings, on_behalf_of: &str) -> Result<Repairer, DaemonError> {
    Ok(Repairer {
        sysfs: Sysfs::new(&settings.roots.sysfs),
        run_dir: settings.run_dir.clone(),
        cdi_dir: settings.cdi_dir.clone(),
        boot_id: boot_id(&settings.roots.procfs).map_err(DaemonError::BootId)?,
        on_behalf_of: on_behalf_of.to_owned(),
        patience: VF_PATIENCE,
    })
}

/// What keeps the node's legs, not begun yet.
fn keep_legs(
    settings: &Settings,
    configuration: &Configuration,
    looks: &watch::Receiver<Arc<Look>>,
    upkeep: &Upkeep,
) -> Result<Legs, DaemonError> {
    let repairer = repairer(settings, "the keeper of the node's legs")?;
    let keeper = Keeper::new(settings.state_dir.clone(), repairer);
    Ok(Legs::new(keeper, configuration.configs(), looks.clone(), upkeep.held()))
}

/// Begins to claim blocks of cluster-wide pools, if there are any to claim from.
fn claim_blocks(
    settings: &Settings,
    server: &Arc<ApiServer>,
    metrics: &Metrics,
    events: &EventSink,
) -> Result<Option<task::JoinHandle<()>>, DaemonError> {
    if settings.ip_pools.is_empty() {
        return Ok(None);
    }
    let blocks = IpBlocks {
        pools: settings.ip_pools.clone(),
        node: settings.node_name.clone().unwrap_or_default(),
        state_dir: settings.state_dir.clone(),
        run_dir: settings.run_dir.clone(),
        procfs: settings.roots.procfs.clone(),
        boot_id: boot_id(&settings.roots.procfs).map_err(DaemonError::BootId)?,
    };
    Ok(Some(task::spawn(blocks.run(Arc::clone(server), metrics.clone(), events.clone()))))
}
