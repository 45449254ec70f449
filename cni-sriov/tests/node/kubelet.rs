//! A kubelet's pod-resources socket.

use std::path::Path;

use tokio::net::UnixListener;
use tokio::runtime::Runtime;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status};
use zerobridge_proto::podresources as api;

/// Answers until it is dropped.
pub struct Kubelet {
    _runtime: Runtime,
}

struct Allocatable(Vec<String>);

impl Kubelet {
    /// A kubelet whose root directory is `root` and which can give these devices of `x/vf` to pods, and has given none.
    pub fn start(root: &Path, devices: &[&str]) -> Self {
        let directory = root.join(api::DIRECTORY);
        std::fs::create_dir_all(&directory).unwrap();
        let runtime = Runtime::new().unwrap();
        let listener = {
            let _inside = runtime.enter();
            UnixListenerStream::new(UnixListener::bind(directory.join(api::SOCKET)).unwrap())
        };
        let answers = Allocatable(devices.iter().map(|id| (*id).to_owned()).collect());
        let service = api::PodResourcesListerServer::new(answers);
        runtime.spawn(Server::builder().add_service(service).serve_with_incoming(listener));
        Self { _runtime: runtime }
    }
}

#[tonic::async_trait]
impl api::PodResourcesLister for Allocatable {
    async fn list(
        &self,
        _: Request<api::ListPodResourcesRequest>,
    ) -> Result<Response<api::ListPodResourcesResponse>, Status> {
        Ok(Response::new(api::ListPodResourcesResponse::default()))
    }

    async fn get_allocatable_resources(
        &self,
        _: Request<api::AllocatableResourcesRequest>,
    ) -> Result<Response<api::AllocatableResourcesResponse>, Status> {
        // As the kubelet does, one entry for each NUMA node, and other resources beside.
        let devices = |resource: &str, id: &String| api::ContainerDevices {
            resource_name: resource.to_owned(),
            device_ids: vec![id.clone()],
            topology: None,
        };
        let mut all: Vec<_> = self.0.iter().map(|id| devices("x/vf", id)).collect();
        all.push(devices("x/gpu", &"gpu-0".to_owned()));
        Ok(Response::new(api::AllocatableResourcesResponse {
            devices: all,
            ..api::AllocatableResourcesResponse::default()
        }))
    }

    async fn get(
        &self,
        _: Request<api::GetPodResourcesRequest>,
    ) -> Result<Response<api::GetPodResourcesResponse>, Status> {
        Err(Status::unimplemented("nobody asks for it"))
    }
}
