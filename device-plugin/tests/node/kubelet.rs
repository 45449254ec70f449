//! A kubelet as a device plugin sees it (`pkg/kubelet/cm/devicemanager` in Kubernetes), that can be made to misbehave.
//!
//! At start it deletes every socket in the folder and makes its own; during `Register` it dials back and asks for
//! options; then it holds a device stream open, and counts no device of the resource as healthy once the stream has
//! ended. It is of one of two generations, which differ in whose registration ends with a stream.
//!
//! It lives in a runtime of its own, so that it can die as a process does: all its connections break at once.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::UnixListener;
use tokio::runtime::Runtime;
use tokio::sync::{Notify, watch};
use tokio::time::sleep;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status};
use zerobridge_proto::deviceplugin::{
    AllocateRequest, ContainerAllocateRequest, ContainerAllocateResponse, Device, DevicePluginClient,
    DevicePluginOptions, Empty, HEALTHY, RegisterRequest, Registration, RegistrationServer,
};

use super::rules::check_registration;
use super::soon;

/// What the kubelet knows at one moment, and what it has seen so far.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// Every registration that was accepted, in order.
    pub registrations: Vec<RegisterRequest>,
    /// The options that were asked for in each of them.
    pub options: Vec<DevicePluginOptions>,
    /// Number of calls of `Register`, whatever became of them.
    pub attempts: usize,
    /// What was wrong with registrations, from the rules that every kubelet has.
    pub violations: Vec<String>,
    /// The devices of every resource that is not stopped.
    pub devices: BTreeMap<String, Vec<Device>>,
    /// Number of device lists received.
    pub lists: usize,
    /// How many streams are open with each socket.
    pub streams: BTreeMap<String, usize>,
    /// What was allocatable of each resource after every change.
    pub allocatable: BTreeMap<String, Vec<usize>>,
}

impl View {
    /// The device IDs of a resource; `None` if it is not registered.
    pub fn ids(&self, resource: &str) -> Option<Vec<&str>> {
        Some(self.devices.get(resource)?.iter().map(|device| device.id.as_str()).collect())
    }

    /// Number of streams that are open.
    pub fn open(&self) -> usize {
        self.streams.values().sum()
    }

    fn note(&mut self, resource: &str) {
        let devices = self.devices.get(resource).into_iter().flatten();
        let healthy = devices.filter(|device| device.health == HEALTHY).count();
        self.allocatable.entry(resource.to_owned()).or_default().push(healthy);
    }
}

/// Whose registration ends with a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Generation {
    /// Before kubernetes#135437: that of whoever registered the resource last.
    ByName,
    /// Since: that of the socket that the stream belongs to. While it has one it answers a repetition without doing
    /// anything.
    BySocket,
}

/// What may happen to one call of `Register`.
#[derive(Clone, Debug)]
pub enum Fault {
    /// An error is the answer.
    Refuse,
    /// It is accepted, and that is all.
    AcceptOnly,
    /// No answer comes.
    Hang,
    /// The plugin's socket is deleted before it is dialled.
    DeleteSocket,
}

/// A kubelet. Dropping it kills it.
pub struct Kubelet {
    runtime: Option<Runtime>,
    state: Arc<State>,
}

struct State {
    folder: PathBuf,
    generation: Generation,
    view: watch::Sender<View>,
    clients: Mutex<Vec<Client>>,
    /// Who is asked for devices, by resource: whoever registered it last.
    endpoints: Mutex<BTreeMap<String, DevicePluginClient<Channel>>>,
    faults: Mutex<VecDeque<Fault>>,
    /// How long it takes to notice that a stream has ended.
    lag: Mutex<Duration>,
}

/// A connection to a plugin, in the order of registration.
#[derive(Clone)]
struct Client {
    resource: String,
    socket: String,
    plugin: DevicePluginClient<Channel>,
    closed: Arc<Notify>,
}

impl Kubelet {
    /// Starts in the order of the real one: other sockets go, then its own comes.
    pub fn start(folder: &Path, generation: Generation) -> Self {
        Self::clean(folder);
        Self::start_in(folder, generation)
    }

    /// Deletes every socket in the folder, as `CleanupPluginDirectory` does.
    pub fn clean(folder: &Path) {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_socket() {
                fs::remove_file(entry.path()).unwrap();
            }
        }
    }

    /// Starts without deleting other sockets.
    pub fn start_in(folder: &Path, generation: Generation) -> Self {
        let state = Arc::new(State {
            folder: folder.to_owned(),
            generation,
            view: watch::Sender::default(),
            clients: Mutex::default(),
            endpoints: Mutex::default(),
            faults: Mutex::default(),
            lag: Mutex::default(),
        });
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let context = runtime.enter();
        let socket = folder.join("kubelet.sock");
        let _ = fs::remove_file(&socket);
        let incoming = UnixListenerStream::new(UnixListener::bind(socket).unwrap());
        let service = RegistrationServer::new(Service(Arc::clone(&state)));
        runtime.spawn(Server::builder().add_service(service).serve_with_incoming(incoming));
        drop(context);
        Self { runtime: Some(runtime), state }
    }

    /// What happens to the next `count` registrations.
    pub fn fail(&self, fault: Fault, count: usize) {
        self.state.faults.lock().unwrap().extend(vec![fault; count]);
    }

    /// From now on it takes the kubelet so long to notice that a stream has ended.
    pub fn lag(&self, lag: Duration) {
        *self.state.lag.lock().unwrap() = lag;
    }

    /// Ends every device stream, but lives on.
    pub fn hang_up(&self) {
        for client in self.state.clients.lock().unwrap().iter() {
            client.closed.notify_one();
        }
    }

    pub fn view(&self) -> View {
        self.state.view.borrow().clone()
    }

    /// Waits until the kubelet knows something.
    pub async fn until(&self, what: &str, knows: impl Fn(&View) -> bool) -> View {
        let mut view = self.state.view.subscribe();
        soon(what, async { view.wait_for(|view| knows(view)).await.unwrap().clone() }).await
    }

    /// Waits until both pools of `TWO_POOLS` are registered and listed.
    pub async fn until_complete(&self) -> View {
        self.until("both pools are listed", |view| view.devices.len() == 2).await
    }

    /// Allocates devices to one container.
    pub async fn allocate(&self, resource: &str, ids: &[&str]) -> Result<ContainerAllocateResponse, Status> {
        let mut client = self.client(resource);
        let devices_ids = ids.iter().map(|id| (*id).to_owned()).collect();
        let request = AllocateRequest { container_requests: vec![ContainerAllocateRequest { devices_ids }] };
        let mut response = client.allocate(request).await?.into_inner();
        assert_eq!(response.container_responses.len(), 1);
        Ok(response.container_responses.remove(0))
    }

    /// The plugin that registered the resource last.
    pub fn client(&self, resource: &str) -> DevicePluginClient<Channel> {
        self.state.endpoints.lock().unwrap()[resource].clone()
    }
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }
}

struct Service(Arc<State>);

#[tonic::async_trait]
impl Registration for Service {
    async fn register(&self, request: Request<RegisterRequest>) -> Result<Response<Empty>, Status> {
        let state = Arc::clone(&self.0);
        let request = request.into_inner();
        state.view.send_modify(|view| {
            view.attempts += 1;
            if view.streams.get(&request.endpoint).is_some_and(|open| *open > 0) {
                view.violations.push(format!("{} registered with a stream open", request.endpoint));
            }
            view.violations.extend(check_registration(&request).err());
        });
        let fault = state.faults.lock().unwrap().pop_front();
        match fault {
            Some(Fault::Refuse) => return Err(Status::unavailable("not now")),
            Some(Fault::AcceptOnly) => return Ok(Response::new(Empty {})),
            Some(Fault::Hang) => return std::future::pending().await,
            Some(Fault::DeleteSocket) => fs::remove_file(state.folder.join(&request.endpoint)).unwrap(),
            None => {}
        }
        if state.generation == Generation::BySocket && state.knows(&request) {
            return Ok(Response::new(Empty {}));
        }
        let (client, options) = match state.connect(&request).await {
            Ok(connected) => connected,
            Err(refusal) => {
                if state.generation == Generation::ByName {
                    // `deregisterClient`: whoever has the name, and without a word to anybody.
                    state.clients.lock().unwrap().retain(|client| client.resource != request.resource_name);
                }
                return Err(refusal);
            }
        };
        state.endpoints.lock().unwrap().insert(request.resource_name.clone(), client.plugin.clone());
        state.view.send_modify(|view| {
            if request.options != Some(options) {
                view.violations.push(format!("{:?} registered, {options:?} answered", request.options));
            }
            view.options.push(options);
            view.registrations.push(request);
        });
        state.clients.lock().unwrap().push(client.clone());
        tokio::spawn(state.run(client));
        Ok(Response::new(Empty {}))
    }
}

impl State {
    fn knows(&self, request: &RegisterRequest) -> bool {
        self.clients.lock().unwrap().iter().any(|client| client.socket == request.endpoint)
    }

    /// Dials for as long as it takes, as `grpc.WithBlock` does; the plugin gives up sooner.
    async fn connect(&self, request: &RegisterRequest) -> Result<(Client, DevicePluginOptions), Status> {
        let socket = self.folder.join(&request.endpoint);
        let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display())).unwrap();
        let channel = loop {
            match endpoint.connect().await {
                Ok(channel) => break channel,
                Err(_) => sleep(Duration::from_millis(10)).await,
            }
        };
        let mut plugin = DevicePluginClient::new(channel);
        let options = plugin.get_device_plugin_options(Empty {}).await?.into_inner();
        let (resource, socket) = (request.resource_name.clone(), request.endpoint.clone());
        Ok((Client { resource, socket, plugin, closed: Arc::default() }, options))
    }

    /// `runClient`: holds the stream, and when that has ended takes away whom it finds in the place of its client.
    async fn run(self: Arc<Self>, client: Client) {
        let Client { resource, socket, plugin, closed } = client;
        self.view.send_modify(|view| *view.streams.entry(socket.clone()).or_default() += 1);
        tokio::select! {
            () = self.watch(&resource, plugin) => {}
            () = closed.notified() => {}
        }
        self.view.send_modify(|view| {
            view.streams.entry(socket.clone()).and_modify(|open| *open -= 1);
        });
        let lag = *self.lag.lock().unwrap();
        if !lag.is_zero() {
            sleep(lag).await;
        }
        let mut clients = self.clients.lock().unwrap();
        let Some(found) = clients.iter().rposition(|client| match self.generation {
            Generation::ByName => client.resource == resource,
            Generation::BySocket => client.socket == socket,
        }) else {
            return;
        };
        clients.remove(found).closed.notify_one();
        let others = clients.iter().any(|client| client.resource == resource);
        if self.generation == Generation::ByName {
            clients.retain(|client| client.resource != resource);
        }
        if self.generation == Generation::ByName || !others {
            self.view.send_modify(|view| {
                view.devices.remove(&resource);
                view.note(&resource);
            });
        }
    }

    async fn watch(&self, resource: &str, mut plugin: DevicePluginClient<Channel>) {
        let Ok(lists) = plugin.list_and_watch(Empty {}).await else { return };
        let mut lists = lists.into_inner();
        while let Some(Ok(list)) = lists.next().await {
            self.view.send_modify(|view| {
                view.devices.insert(resource.to_owned(), list.devices);
                view.lists += 1;
                view.note(resource);
            });
        }
    }
}
