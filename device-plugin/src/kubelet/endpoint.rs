//! One pool's presence at the kubelet: its socket, its gRPC server, its registration.
//!
//! Looks at the facts whenever something may have changed, and does the next step that `registration` names. The server
//! outlives its socket: when the socket is deleted, only a new listener is made, and open streams stay open. Nothing here
//! blocks the looking: while a registration is under way a deleted socket is made again, so that the kubelet can dial
//! back, and a new kubelet is asked instead of the old one.

use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinError;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{self, Server};
use tracing::{debug, info, warn};
use zerobridge_proto::chain;
use zerobridge_proto::deviceplugin::DevicePluginServer;

use super::answers::{Answers, options};
use super::kubelet_dir::{FileId, KubeletDir};
use super::listening::Listening;
use super::register::{RegisterError, register, withdraw_name};
use super::registration::{Facts, Memory, Step, Waiting};
use super::server::{PoolService, Streams};
use super::standing::{Seat, Standing};
use crate::inventory::DeviceWatch;
use crate::operations::{Metrics, Outcome};
use crate::resource::ResourceName;

/// Pause when the socket cannot be made.
const LISTEN_PAUSE: Duration = Duration::from_secs(1);

/// A kubelet that is well answers in milliseconds, and a pod that has to go has little time.
const HAND_OVER_LIMIT: Duration = Duration::from_secs(2);

/// Streams end when the inventory does; a call that is under way then has this long.
const FAREWELL: Duration = Duration::from_secs(1);

/// A pool that is to be present at the kubelet.
pub(crate) struct PoolEndpoint {
    /// The pool's resource.
    pub(crate) pool: ResourceName,
    /// Its devices.
    pub(crate) devices: DeviceWatch,
    /// What it answers.
    pub(crate) answers: Arc<dyn Answers>,
    /// Where its socket goes.
    pub(crate) folder: KubeletDir,
    /// Changes of that folder.
    pub(crate) changes: watch::Receiver<u64>,
    /// File name of its socket, used by no other process.
    pub(crate) socket_name: String,
    /// Where it tells how it stands.
    pub(crate) seat: Seat,
    /// What it counts.
    pub(crate) metrics: Metrics,
}

/// Why a pool is not present at the kubelet any more, although nobody asked it to leave.
#[derive(Debug, Error)]
pub enum EndpointError {
    /// The gRPC server ended.
    #[error("the server of pool {pool} ended")]
    Server {
        /// The pool.
        pool: String,
        /// Why, if it says.
        #[source]
        source: Option<transport::Error>,
    },
    /// The gRPC server's task ended.
    #[error("the server of pool {pool} was lost")]
    Task {
        /// The pool.
        pool: String,
        /// How.
        #[source]
        source: JoinError,
    },
}

impl PoolEndpoint {
    /// Stays present until `stop` turns true, then leaves and removes the socket.
    ///
    /// # Errors
    ///
    /// [`EndpointError`] if the server ends on its own.
    pub(crate) async fn run(self, stop: watch::Receiver<bool>) -> Result<(), EndpointError> {
        let Self { pool, devices, answers, folder, changes, socket_name, seat, metrics } = self;
        let streams = watch::Sender::new(Streams::default());
        let (connections, incoming) = mpsc::channel(16);
        let service = PoolService::new(
            pool.clone(),
            devices.clone(),
            Arc::clone(&answers),
            streams.clone(),
            metrics.clone(),
        );
        let mut server = tokio::spawn(
            Server::builder().add_service(DevicePluginServer::new(service)).serve_with_incoming_shutdown(
                ReceiverStream::new(incoming).map(Ok::<_, io::Error>),
                stopped(stop.clone()),
            ),
        );
        let mut presence = Presence {
            socket: folder.socket(&socket_name),
            pool,
            answers,
            folder,
            socket_name,
            connections,
            seat,
            metrics,
            listening: None,
            attempt: None,
            memory: Memory::default(),
            told: None,
            told_failure: None,
        };
        let ended = tokio::select! {
            () = presence.keep(&devices, changes, streams.subscribe()) => None,
            () = stopped(stop.clone()) => None,
            ended = &mut server => Some(ended),
        };
        match ended {
            // It ends for the same reason as this task, and perhaps sooner.
            Some(_) if *stop.borrow() => return Ok(()),
            Some(ended) => return Err(presence.server_ended(ended)),
            None => {}
        }
        // The socket goes first, so that nobody dials a server that is leaving.
        let pool = presence.pool.clone();
        drop(presence);
        stopped(stop).await;
        if timeout(FAREWELL, &mut server).await.is_err() {
            debug!(%pool, "a call was still under way");
            server.abort();
        }
        Ok(())
    }
}

/// Lets another process that serves the pool, if there is one, have it without a gap when this one's stream ends.
pub(crate) async fn hand_over(folder: &KubeletDir, pool: &ResourceName, own_socket: &str) {
    if !folder.has_other_server(pool, own_socket).await {
        return;
    }
    match timeout(HAND_OVER_LIMIT, withdraw_name(&folder.kubelet_socket(), pool)).await {
        Ok(Ok(())) => info!(%pool, "handed over to another instance"),
        Ok(Err(error)) => warn!(%pool, error = chain(&error), "cannot hand over to another instance"),
        Err(_) => warn!(%pool, "the kubelet does not answer; left without handing over"),
    }
}

/// Resolves when the daemon stops, or is gone.
async fn stopped(mut stop: watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

type Attempt = Pin<Box<dyn Future<Output = Result<(), RegisterError>> + Send>>;

struct Presence {
    pool: ResourceName,
    answers: Arc<dyn Answers>,
    folder: KubeletDir,
    socket_name: String,
    socket: PathBuf,
    connections: mpsc::Sender<UnixStream>,
    seat: Seat,
    metrics: Metrics,
    listening: Option<Listening>,
    attempt: Option<Attempt>,
    memory: Memory,
    told: Option<Waiting>,
    told_failure: Option<String>,
}

impl Presence {
    /// Returns when the inventory has ended, and with it the streams: the daemon is about to stop.
    async fn keep(
        &mut self,
        devices: &DeviceWatch,
        mut changes: watch::Receiver<u64>,
        mut streams: watch::Receiver<Streams>,
    ) {
        let mut before = Streams::default();
        loop {
            // Marked as seen before the look: what happens during it causes another.
            changes.borrow_and_update();
            let now = *streams.borrow_and_update();
            if devices.has_changed().is_err() {
                return;
            }
            let facts = self.look(now.open);
            self.follow(before, now, &facts);
            before = now;
            match self.memory.decide(&facts) {
                Step::Listen => self.listen(facts.streams).await,
                Step::Register(kubelet) => self.register(kubelet),
                Step::Wait(waiting, until) => {
                    self.tell(waiting);
                    tokio::select! {
                        changed = changes.changed() => if changed.is_err() { return },
                        changed = streams.changed() => if changed.is_err() { return },
                        answer = answer(&mut self.attempt) => self.registered(answer, before.open),
                        () = due(until) => {}
                    }
                }
            }
        }
    }

    fn look(&self, streams: usize) -> Facts {
        Facts {
            folder: self.folder.exists(),
            own_socket: self.listening.as_ref().is_some_and(Listening::is_in_place),
            kubelet: FileId::of(&self.folder.kubelet_socket()),
            streams,
            now: Instant::now(),
        }
    }

    /// What became of the streams since the last look, also of one that came and went in between.
    fn follow(&mut self, before: Streams, now: Streams, facts: &Facts) {
        if before.open == 0 && now.opened > before.opened {
            if before.opened > 0 {
                self.metrics.reconnected(&self.pool);
            }
            self.memory.stream_opened(facts.now);
        }
        if now.open == 0 && (before.open > 0 || now.opened > before.opened) {
            info!(pool = %self.pool, "the kubelet has gone");
            self.told = None;
            self.memory.stream_ended(facts.kubelet, facts.now);
        }
    }

    async fn listen(&mut self, streams: usize) {
        // Closed first: dropping the old one later would not touch the new file, but the name has to be free.
        self.listening = None;
        match Listening::open(&self.socket, self.connections.clone()) {
            Ok(listening) => {
                debug!(pool = %self.pool, socket = %self.socket.display(), "listening");
                self.listening = Some(listening);
            }
            Err(error) => {
                self.tell_failure(format!("cannot listen on {}: {error}", self.socket.display()));
                if streams == 0 {
                    self.stand(Some(self.told_failure.as_deref().unwrap_or_default()));
                }
                sleep(LISTEN_PAUSE).await;
            }
        }
    }

    fn register(&mut self, kubelet: FileId) {
        let (path, pool, socket_name) =
            (self.folder.kubelet_socket(), self.pool.clone(), self.socket_name.clone());
        let options = options(self.answers.as_ref());
        self.memory.asked(kubelet, Instant::now());
        self.attempt = Some(Box::pin(async move { register(&path, &pool, &socket_name, options).await }));
    }

    fn registered(&mut self, answer: Result<(), RegisterError>, streams: usize) {
        self.attempt = None;
        self.metrics.registered(&self.pool, Outcome::of(&answer));
        match answer {
            Ok(()) => {
                info!(pool = %self.pool, socket = self.socket_name, "registered");
                self.memory.accepted(Instant::now());
                (self.told, self.told_failure) = (None, None);
            }
            // The stream is what counts, and may be there before the answer.
            Err(error) if streams > 0 => {
                debug!(pool = %self.pool, error = chain(&error), "registered without an answer");
            }
            Err(error) => {
                self.memory.failed(Instant::now());
                self.tell_failure(chain(&error));
            }
        }
    }

    fn stand(&self, unregistered: Option<&str>) {
        self.seat.set(match unregistered {
            None => Standing::Registered,
            Some(why) => Standing::Unregistered { why: why.to_owned() },
        });
    }

    /// What is waited for is told once, and not again when only an attempt lay between.
    fn tell(&mut self, waiting: Waiting) {
        let why = match waiting {
            Waiting::Registered => None,
            Waiting::Folder => Some("its folder of sockets is not there"),
            Waiting::Kubelet => Some("the kubelet's socket is not there"),
            Waiting::Stream => Some("the kubelet has not asked for the devices yet"),
            Waiting::Answer | Waiting::Retry => Some(self.told_failure.as_deref().unwrap_or("registering")),
        };
        self.stand(why);
        if matches!(waiting, Waiting::Answer | Waiting::Retry) || self.told == Some(waiting) {
            return;
        }
        self.told = Some(waiting);
        let (pool, folder) = (&self.pool, self.folder.path().display());
        match waiting {
            Waiting::Folder => warn!(%pool, %folder, "waiting for the folder; is --kubelet-root right?"),
            Waiting::Kubelet => info!(%pool, %folder, "waiting for the kubelet"),
            Waiting::Answer | Waiting::Stream | Waiting::Registered | Waiting::Retry => {
                debug!(%pool, ?waiting, "nothing to do");
            }
        }
    }

    fn tell_failure(&mut self, failure: String) {
        if self.told_failure.as_ref() == Some(&failure) {
            debug!(pool = %self.pool, error = failure, "not registered, still");
        } else {
            warn!(pool = %self.pool, error = failure, "not registered, trying again");
            self.told_failure = Some(failure);
        }
    }

    fn server_ended(&self, ended: Result<Result<(), transport::Error>, JoinError>) -> EndpointError {
        let pool = self.pool.to_string();
        match ended {
            Ok(result) => EndpointError::Server { pool, source: result.err() },
            Err(source) => EndpointError::Task { pool, source },
        }
    }
}

async fn due(until: Option<Instant>) {
    match until {
        Some(until) => sleep_until(until).await,
        None => std::future::pending().await,
    }
}

/// The answer to the attempt that is under way. Dropping this loses nothing.
async fn answer(attempt: &mut Option<Attempt>) -> Result<(), RegisterError> {
    match attempt {
        Some(attempt) => attempt.await,
        None => std::future::pending().await,
    }
}
