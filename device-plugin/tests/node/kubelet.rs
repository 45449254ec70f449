//! A kubelet as a device plugin sees it (`pkg/kubelet/cm/devicemanager` in Kubernetes): at start it deletes every socket
//! in the folder and makes its own; during `Register` it dials back and asks for options; then it holds a device stream
//! open, and forgets the resource when the stream ends.
//!
//! It lives in a runtime of its own, so that it can die as a process does: all its connections break at once.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tokio::net::UnixListener;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status};
use zerobridge_proto::deviceplugin::{
    AllocateRequest, ContainerAllocateRequest, ContainerAllocateResponse, Device, DevicePluginClient, Empty,
    RegisterRequest, Registration, RegistrationServer,
};

use super::soon;

/// What the kubelet knows at one moment.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// Every registration, in order.
    pub registrations: Vec<RegisterRequest>,
    /// The devices of every resource that has a stream open.
    pub devices: BTreeMap<String, Vec<Device>>,
    /// Number of device lists received.
    pub lists: usize,
}

impl View {
    /// The device IDs of a resource; `None` if it is not registered.
    pub fn ids(&self, resource: &str) -> Option<Vec<&str>> {
        Some(self.devices.get(resource)?.iter().map(|device| device.id.as_str()).collect())
    }
}

/// A kubelet. Dropping it kills it.
pub struct Kubelet {
    runtime: Option<Runtime>,
    state: Arc<State>,
}

struct State {
    folder: PathBuf,
    view: watch::Sender<View>,
    clients: Mutex<BTreeMap<String, DevicePluginClient<Channel>>>,
    streams: Mutex<Vec<tokio::task::AbortHandle>>,
    refusals: watch::Sender<usize>,
}

impl Kubelet {
    /// Starts in the order of the real one: other sockets go, then its own comes.
    pub fn start(folder: &Path) -> Self {
        Self::clean(folder);
        Self::start_in(folder)
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
    pub fn start_in(folder: &Path) -> Self {
        let state = Arc::new(State {
            folder: folder.to_owned(),
            view: watch::Sender::new(View::default()),
            clients: Mutex::default(),
            streams: Mutex::default(),
            refusals: watch::Sender::new(0),
        });
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let _context = runtime.enter();
        let socket = folder.join("kubelet.sock");
        let _ = fs::remove_file(&socket);
        let incoming = UnixListenerStream::new(UnixListener::bind(socket).unwrap());
        let service = RegistrationServer::new(Service(Arc::clone(&state)));
        runtime.spawn(Server::builder().add_service(service).serve_with_incoming(incoming));
        drop(_context);
        Self { runtime: Some(runtime), state }
    }

    /// Refuses the next `count` registrations.
    pub fn refuse(&self, count: usize) {
        self.state.refusals.send_replace(count);
    }

    /// Ends every device stream, but lives on.
    pub fn hang_up(&self) {
        for stream in self.state.streams.lock().unwrap().drain(..) {
            stream.abort();
        }
        self.state.clients.lock().unwrap().clear();
        self.state.view.send_modify(|view| view.devices.clear());
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

    pub fn client(&self, resource: &str) -> DevicePluginClient<Channel> {
        self.state.clients.lock().unwrap()[resource].clone()
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
        if *state.refusals.borrow() > 0 {
            state.refusals.send_modify(|left| *left -= 1);
            return Err(Status::unavailable("not now"));
        }
        if request.version != "v1beta1" {
            return Err(Status::invalid_argument(format!("version {}", request.version)));
        }
        let socket = state.folder.join(&request.endpoint);
        let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display())).unwrap();
        let channel = endpoint.connect().await.map_err(|error| Status::internal(error.to_string()))?;
        let mut client = DevicePluginClient::new(channel);
        let options = client.get_device_plugin_options(Empty {}).await?.into_inner();
        assert_eq!(request.options, Some(options), "both places say the same");

        let resource = request.resource_name.clone();
        state.clients.lock().unwrap().insert(resource.clone(), client.clone());
        state.view.send_modify(|view| view.registrations.push(request));
        let stream = tokio::spawn(watch_devices(Arc::clone(&state), resource, client));
        state.streams.lock().unwrap().push(stream.abort_handle());
        Ok(Response::new(Empty {}))
    }
}

async fn watch_devices(state: Arc<State>, resource: String, mut client: DevicePluginClient<Channel>) {
    if let Ok(lists) = client.list_and_watch(Empty {}).await {
        let mut lists = lists.into_inner();
        while let Some(Ok(list)) = lists.next().await {
            state.view.send_modify(|view| {
                view.devices.insert(resource.clone(), list.devices);
                view.lists += 1;
            });
        }
    }
    state.view.send_modify(|view| {
        view.devices.remove(&resource);
    });
}
