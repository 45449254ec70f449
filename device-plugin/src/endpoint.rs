//! One pool's presence at the kubelet: its socket, its gRPC server, its registration.
//!
//! Looks at the facts whenever something may have changed, and does the next step that `registration` names. The server
//! outlives its socket: when the socket is deleted, only a new listener is made, and open streams stay open.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinHandle};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{self, Server};
use tonic::{Status, transport::Endpoint};
use tracing::{debug, info, warn};
use zerobridge_proto::deviceplugin::{DevicePluginServer, RegisterRequest, RegistrationClient, VERSION};

use crate::device_info::DeviceInfoFolder;
use crate::inventory::DeviceWatch;
use crate::kubelet_dir::{FileId, KubeletDir};
use crate::registration::{Facts, Memory, Step, Waiting};
use crate::resource::ResourceName;
use crate::server::{PoolService, options};
use zerobridge_proto::chain;

/// The kubelet answers only after it has dialled back, for which it gives itself 10 seconds.
const REGISTER_LIMIT: Duration = Duration::from_secs(15);

/// Pause when connections cannot be accepted, which means that the process has no file descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Pause when the socket cannot be made.
const LISTEN_PAUSE: Duration = Duration::from_secs(1);

/// Streams end when the inventory does; a call that is under way then has this long.
const FAREWELL: Duration = Duration::from_secs(1);

/// A pool that is to be present at the kubelet.
#[derive(Debug)]
pub(crate) struct PoolEndpoint {
    /// The pool's resource.
    pub(crate) pool: ResourceName,
    /// Its devices.
    pub(crate) devices: DeviceWatch,
    /// Where its device-info files go.
    pub(crate) infos: Arc<DeviceInfoFolder>,
    /// Where its socket goes.
    pub(crate) folder: KubeletDir,
    /// Changes of that folder.
    pub(crate) changes: watch::Receiver<u64>,
    /// File name of its socket, used by no other process.
    pub(crate) socket_name: String,
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

/// A registration that failed.
#[derive(Debug, Error)]
enum RegisterError {
    #[error("cannot connect to {}", path.display())]
    Connect {
        path: PathBuf,
        #[source]
        source: transport::Error,
    },
    #[error("the kubelet refused: {}", .0.message())]
    Refused(Status),
    #[error("the kubelet did not answer within {} seconds", REGISTER_LIMIT.as_secs())]
    Silent,
}

/// A socket that is listened on. Dropping it closes it, and removes the file if it is still this one.
#[derive(Debug)]
struct Listening {
    path: PathBuf,
    file: Option<FileId>,
    acceptor: JoinHandle<()>,
}

impl PoolEndpoint {
    /// Stays present until `stop` turns true, then leaves and removes the socket.
    ///
    /// # Errors
    ///
    /// [`EndpointError`] if the server ends on its own.
    pub(crate) async fn run(self, stop: watch::Receiver<bool>) -> Result<(), EndpointError> {
        let Self { pool, devices, infos, folder, changes, socket_name } = self;
        let streams = watch::Sender::new(0);
        let (connections, incoming) = mpsc::channel(16);
        let service = PoolService::new(pool.clone(), devices, infos, streams.clone());
        let mut server = tokio::spawn(
            Server::builder().add_service(DevicePluginServer::new(service)).serve_with_incoming_shutdown(
                ReceiverStream::new(incoming).map(Ok::<_, io::Error>),
                stopped(stop.clone()),
            ),
        );
        let mut presence = Presence {
            socket: folder.socket(&socket_name),
            pool,
            folder,
            socket_name,
            connections,
            listening: None,
            memory: Memory::default(),
            told: None,
            told_failure: None,
        };
        let ended = tokio::select! {
            () = presence.keep(changes, streams.subscribe()) => None,
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

/// Resolves when the daemon stops, or is gone.
async fn stopped(mut stop: watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

struct Presence {
    pool: ResourceName,
    folder: KubeletDir,
    socket_name: String,
    socket: PathBuf,
    connections: mpsc::Sender<UnixStream>,
    listening: Option<Listening>,
    memory: Memory,
    told: Option<Waiting>,
    told_failure: Option<String>,
}

impl Presence {
    async fn keep(&mut self, mut changes: watch::Receiver<u64>, mut streams: watch::Receiver<usize>) {
        let mut open = 0;
        loop {
            // Marked as seen before the look: what happens during it causes another.
            changes.borrow_and_update();
            let facts = self.look(*streams.borrow_and_update());
            if open > 0 && facts.streams == 0 {
                info!(pool = %self.pool, "the kubelet has gone");
                self.memory.stream_ended(facts.kubelet, facts.now);
            }
            open = facts.streams;
            match self.memory.decide(&facts) {
                Step::Listen => self.listen().await,
                Step::Register(kubelet) => self.register(kubelet).await,
                Step::Wait(waiting, until) => {
                    self.tell(waiting);
                    tokio::select! {
                        changed = changes.changed() => if changed.is_err() { return },
                        changed = streams.changed() => if changed.is_err() { return },
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

    async fn listen(&mut self) {
        // Closed first: dropping the old one later would not touch the new file, but the name has to be free.
        self.listening = None;
        match Listening::open(&self.socket, self.connections.clone()) {
            Ok(listening) => {
                debug!(pool = %self.pool, socket = %self.socket.display(), "listening");
                self.listening = Some(listening);
            }
            Err(error) => {
                self.tell_failure(&format!("cannot listen on {}: {error}", self.socket.display()));
                sleep(LISTEN_PAUSE).await;
            }
        }
    }

    async fn register(&mut self, kubelet: FileId) {
        let path = self.folder.kubelet_socket();
        match timeout(REGISTER_LIMIT, register(&path, &self.pool, &self.socket_name)).await {
            Ok(Ok(())) => {
                info!(pool = %self.pool, socket = self.socket_name, "registered");
                self.memory.registered(kubelet, Instant::now());
                (self.told, self.told_failure) = (None, None);
            }
            Ok(Err(error)) => self.registration_failed(kubelet, &error),
            Err(_) => self.registration_failed(kubelet, &RegisterError::Silent),
        }
    }

    fn registration_failed(&mut self, kubelet: FileId, error: &RegisterError) {
        self.memory.failed(kubelet, Instant::now());
        self.tell_failure(&chain(error));
    }

    /// What is waited for is told once, and not again when only an attempt lay between.
    fn tell(&mut self, waiting: Waiting) {
        if waiting == Waiting::Retry || self.told == Some(waiting) {
            return;
        }
        self.told = Some(waiting);
        let (pool, folder) = (&self.pool, self.folder.path().display());
        match waiting {
            Waiting::Folder => warn!(%pool, %folder, "waiting for the folder; is --kubelet-root right?"),
            Waiting::Kubelet => info!(%pool, %folder, "waiting for the kubelet"),
            Waiting::Stream | Waiting::Registered | Waiting::Retry => {
                debug!(%pool, ?waiting, "nothing to do");
            }
        }
    }

    fn tell_failure(&mut self, failure: &str) {
        if self.told_failure.as_deref() == Some(failure) {
            debug!(pool = %self.pool, error = failure, "not registered, still");
        } else {
            warn!(pool = %self.pool, error = failure, "not registered, trying again");
            self.told_failure = Some(failure.to_owned());
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

async fn register(kubelet: &Path, pool: &ResourceName, socket_name: &str) -> Result<(), RegisterError> {
    let connect = |source| RegisterError::Connect { path: kubelet.to_owned(), source };
    let endpoint = Endpoint::from_shared(format!("unix://{}", kubelet.display())).map_err(connect)?;
    let channel = endpoint.connect().await.map_err(connect)?;
    let request = RegisterRequest {
        version: VERSION.to_owned(),
        endpoint: socket_name.to_owned(),
        resource_name: pool.to_string(),
        options: Some(options()),
    };
    RegistrationClient::new(channel).register(request).await.map_err(RegisterError::Refused)?;
    Ok(())
}

impl Listening {
    fn open(path: &Path, connections: mpsc::Sender<UnixStream>) -> io::Result<Self> {
        let listener = UnixListener::bind(path)?;
        let acceptor = tokio::spawn(accept(listener, connections));
        Ok(Self { path: path.to_owned(), file: FileId::of(path), acceptor })
    }

    fn is_in_place(&self) -> bool {
        self.file.is_some() && FileId::of(&self.path) == self.file
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.acceptor.abort();
        if self.is_in_place()
            && let Err(error) = fs::remove_file(&self.path)
        {
            debug!(socket = %self.path.display(), %error, "cannot remove the socket");
        }
    }
}

async fn accept(listener: UnixListener, connections: mpsc::Sender<UnixStream>) {
    loop {
        match listener.accept().await {
            Ok((connection, _)) => {
                if connections.send(connection).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                warn!(%error, "cannot accept a connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
