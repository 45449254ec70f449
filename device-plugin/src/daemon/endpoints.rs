//! The pools' presences at the kubelet: one begins when a pool is offered, and ends when it is offered no more.
//!
//! Refuses to know how a presence works and why the offers change.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use thiserror::Error;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tracing::info;

use crate::answers::{Giving, PoolAnswers};
use crate::inventory::Offer;
use crate::kubelet::{EndpointError, KubeletDir, PoolEndpoint, Registrations, hand_over, socket_name};
use crate::operations::Metrics;
use crate::resource::ResourceName;

/// `sun_path` of unix(7) has 108 bytes, the last of which is zero.
const LONGEST_SOCKET_PATH: usize = 107;

/// What every presence needs.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// Where sockets go.
    pub(super) folder: KubeletDir,
    /// Changes of that folder.
    pub(super) changes: watch::Receiver<u64>,
    /// Process ID, part of the names of sockets.
    pub(super) pid: u32,
    /// When this process started, part of the names of sockets.
    pub(super) start: SystemTime,
    /// Where presences tell how they stand.
    pub(super) registrations: Registrations,
    /// What they count.
    pub(super) metrics: Metrics,
    /// What it takes to answer an allocation.
    pub(super) giving: Arc<Giving>,
}

/// The presences.
#[derive(Debug)]
pub(super) struct Endpoints {
    place: Place,
    running: JoinSet<Result<(), EndpointError>>,
    stops: BTreeMap<ResourceName, watch::Sender<bool>>,
}

/// A presence that could not begin, or ended on its own.
#[derive(Debug, Error)]
pub enum PresenceError {
    /// The kubelet's directory is so deep that no socket fits below it.
    #[error("the socket path {} is longer than {LONGEST_SOCKET_PATH} bytes; use a shorter --kubelet-root", path.display())]
    SocketPath {
        /// The path.
        path: PathBuf,
    },
    /// A pool left on its own.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// A part of the daemon was lost.
    #[error("a part of the daemon was lost")]
    Task(#[source] JoinError),
}

impl Endpoints {
    pub(super) fn new(place: Place) -> Self {
        Self { place, running: JoinSet::new(), stops: BTreeMap::new() }
    }

    /// Begins the presences of pools that are new, and ends those of pools that are gone.
    ///
    /// # Errors
    /// [`PresenceError::SocketPath`].
    pub(super) fn follow(&mut self, offers: Vec<Offer>) -> Result<(), PresenceError> {
        let resource = |offer: &Offer| offer.config.borrow().resource.clone();
        let offered: Vec<ResourceName> = offers.iter().map(resource).collect();
        self.stops.retain(|pool, stop| {
            let stays = offered.contains(pool);
            if !stays {
                info!(%pool, "no longer configured");
                stop.send_replace(true);
            }
            stays
        });
        for (pool, offer) in offered.into_iter().zip(offers) {
            if !self.stops.contains_key(&pool) {
                self.begin(pool, offer)?;
            }
        }
        Ok(())
    }

    fn begin(&mut self, pool: ResourceName, offer: Offer) -> Result<(), PresenceError> {
        let place = self.place.clone();
        let socket_name = socket_name(&pool, place.pid, place.start);
        let path = place.folder.socket(&socket_name);
        if path.as_os_str().len() > LONGEST_SOCKET_PATH {
            return Err(PresenceError::SocketPath { path });
        }
        let (stop, stopped) = watch::channel(false);
        let endpoint = PoolEndpoint {
            devices: offer.devices.clone(),
            answers: Arc::new(PoolAnswers::new(offer, place.giving)),
            folder: place.folder,
            changes: place.changes,
            socket_name,
            seat: place.registrations.enter(&pool),
            metrics: place.metrics,
            pool: pool.clone(),
        };
        self.running.spawn(endpoint.run(stopped));
        self.stops.insert(pool, stop);
        Ok(())
    }

    /// Waits for a presence that ends on its own. Never returns while all is well.
    pub(super) async fn lost(&mut self) -> PresenceError {
        loop {
            match self.running.join_next().await {
                Some(Ok(Ok(()))) => {}
                Some(Ok(Err(error))) => return error.into(),
                Some(Err(error)) => return PresenceError::Task(error),
                None => std::future::pending().await,
            }
        }
    }

    /// Hands every pool over that another instance serves too. The streams have to be open still.
    pub(super) async fn hand_over(&self) {
        let Place { folder, pid, start, .. } = &self.place;
        let mut under_way = JoinSet::new();
        for pool in self.stops.keys() {
            let (folder, pool, own) = (folder.clone(), pool.clone(), socket_name(pool, *pid, *start));
            under_way.spawn(async move { hand_over(&folder, &pool, &own).await });
        }
        under_way.join_all().await;
    }

    /// Ends all presences, and waits for that.
    ///
    /// # Errors
    /// The first that did not end as it should; all have ended.
    pub(super) async fn leave(mut self) -> Result<(), PresenceError> {
        for stop in self.stops.values() {
            stop.send_replace(true);
        }
        let mut outcome = Ok(());
        while let Some(ended) = self.running.join_next().await {
            let ended =
                ended.map_err(PresenceError::Task).and_then(|ended| ended.map_err(PresenceError::from));
            outcome = outcome.and(ended);
        }
        outcome
    }
}
