//! The gRPC face of one pool. Thin: every answer is made elsewhere.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task;
use tokio::time::timeout;
use tokio_stream::Stream;
use tokio_stream::wrappers::WatchStream;
use tonic::{Request, Response, Status};
use tracing::{debug, warn};
use zerobridge_proto::deviceplugin::{
    AllocateRequest, AllocateResponse, ContainerPreferredAllocationResponse, Device as OfferedDevice,
    DevicePlugin, DevicePluginOptions, Empty, HEALTHY, ListAndWatchResponse, NumaNode,
    PreStartContainerRequest, PreStartContainerResponse, PreferredAllocationRequest,
    PreferredAllocationResponse, TopologyInfo, UNHEALTHY,
};

use super::answers::{Answers, options};
use crate::inventory::DeviceWatch;
use crate::operations::{AllocationResult, Metrics};
use crate::pool::PoolDevices;
use crate::resource::ResourceName;

/// The kubelet waits for `Allocate` without a limit of its own, and admits no other pod meanwhile. Writing a few files
/// takes milliseconds; a file system that hangs must not hang the node.
const ALLOCATE_LIMIT: Duration = Duration::from_secs(5);

/// The kubelet waits for a preference in the same way. It is no more than a wish.
const PREFER_LIMIT: Duration = Duration::from_secs(1);

/// The device streams of one pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Streams {
    /// How many are open.
    pub(super) open: usize,
    /// How many there have been.
    pub(super) opened: u64,
}

/// One pool as the kubelet sees it.
pub(super) struct PoolService {
    pool: ResourceName,
    devices: DeviceWatch,
    answers: Arc<dyn Answers>,
    streams: watch::Sender<Streams>,
    metrics: Metrics,
    allocate_limit: Duration,
    prefer_limit: Duration,
}

impl PoolService {
    /// Serves `pool`. The number of open device streams is kept in
    /// `streams`: one is what a registration consists of.
    #[must_use]
    pub(super) fn new(
        pool: ResourceName,
        devices: DeviceWatch,
        answers: Arc<dyn Answers>,
        streams: watch::Sender<Streams>,
        metrics: Metrics,
    ) -> Self {
        metrics.begin(&pool);
        let (allocate_limit, prefer_limit) = (ALLOCATE_LIMIT, PREFER_LIMIT);
        Self { pool, devices, answers, streams, metrics, allocate_limit, prefer_limit }
    }

    async fn allocate_all(&self, request: AllocateRequest) -> Result<AllocateResponse, Status> {
        let answers = Arc::clone(&self.answers);
        let allocating = task::spawn_blocking(move || {
            let containers = request.container_requests.iter();
            containers.map(|container| answers.allocate(&container.devices_ids)).collect::<Result<_, _>>()
        });
        match timeout(self.allocate_limit, allocating).await {
            Ok(Ok(answer)) => Ok(AllocateResponse { container_responses: answer? }),
            Ok(Err(lost)) => Err(Status::internal(lost.to_string())),
            Err(_) => Err(Status::deadline_exceeded(format!(
                "an allocation from pool {} took more than {:?}",
                self.pool, self.allocate_limit
            ))),
        }
    }

    async fn prefer_all(&self, request: PreferredAllocationRequest) -> PreferredAllocationResponse {
        if !self.answers.has_preference() {
            return PreferredAllocationResponse::default();
        }
        let answers = Arc::clone(&self.answers);
        let preferring = task::spawn_blocking(move || {
            let containers = request.container_requests.iter();
            let prefer = containers.map(|container| ContainerPreferredAllocationResponse {
                device_i_ds: answers.prefer(
                    &container.available_device_i_ds,
                    &container.must_include_device_i_ds,
                    container.allocation_size.try_into().unwrap_or(0),
                ),
            });
            prefer.collect()
        });
        let container_responses = match timeout(self.prefer_limit, preferring).await {
            Ok(Ok(preferred)) => preferred,
            Ok(Err(error)) => {
                warn!(pool = %self.pool, %error, "no preference");
                Vec::new()
            }
            Err(_) => {
                warn!(pool = %self.pool, limit = ?self.prefer_limit, "no preference in time");
                Vec::new()
            }
        };
        PreferredAllocationResponse { container_responses }
    }
}

#[tonic::async_trait]
impl DevicePlugin for PoolService {
    type ListAndWatchStream = DeviceStream;

    async fn get_device_plugin_options(
        &self,
        _: Request<Empty>,
    ) -> Result<Response<DevicePluginOptions>, Status> {
        Ok(Response::new(options(self.answers.as_ref())))
    }

    async fn list_and_watch(&self, _: Request<Empty>) -> Result<Response<DeviceStream>, Status> {
        Ok(Response::new(DeviceStream {
            pool: self.pool.clone(),
            devices: WatchStream::new(self.devices.clone()),
            sent: None,
            metrics: self.metrics.clone(),
            _open: OpenStream::count(self.streams.clone()),
        }))
    }

    async fn get_preferred_allocation(
        &self,
        request: Request<PreferredAllocationRequest>,
    ) -> Result<Response<PreferredAllocationResponse>, Status> {
        self.metrics.preferred(&self.pool);
        Ok(Response::new(self.prefer_all(request.into_inner()).await))
    }

    async fn allocate(
        &self,
        request: Request<AllocateRequest>,
    ) -> Result<Response<AllocateResponse>, Status> {
        let begin = Instant::now();
        let answer = self.allocate_all(request.into_inner()).await;
        let result = match &answer {
            Ok(_) => AllocationResult::Success,
            Err(refusal) => {
                warn!(pool = %self.pool, reason = refusal.message(), "refused to allocate");
                AllocationResult::of(refusal)
            }
        };
        self.metrics.allocated(&self.pool, result, begin.elapsed());
        answer.map(Response::new)
    }

    async fn pre_start_container(
        &self,
        _: Request<PreStartContainerRequest>,
    ) -> Result<Response<PreStartContainerResponse>, Status> {
        Ok(Response::new(PreStartContainerResponse::default()))
    }
}

/// The device list of a pool, then its replacement whenever it differs. Ends when the inventory does, and for no other
/// reason: to the kubelet the end of this is the end of the plugin.
pub(super) struct DeviceStream {
    pool: ResourceName,
    devices: WatchStream<Arc<PoolDevices>>,
    sent: Option<ListAndWatchResponse>,
    metrics: Metrics,
    _open: OpenStream,
}

impl Stream for DeviceStream {
    type Item = Result<ListAndWatchResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let Some(devices) = ready!(Pin::new(&mut self.devices).poll_next(context)) else {
                return Poll::Ready(None);
            };
            // Not every change of a device is one for the kubelet, and each message makes it write its checkpoint.
            let list = offer(&devices);
            if self.sent.as_ref() != Some(&list) {
                debug!(pool = %self.pool, devices = list.devices.len(), "told the kubelet");
                self.metrics.listed(&self.pool);
                self.sent = Some(list.clone());
                return Poll::Ready(Some(Ok(list)));
            }
        }
    }
}

/// One open device stream, counted as long as it exists.
#[derive(Debug)]
struct OpenStream(watch::Sender<Streams>);

impl OpenStream {
    fn count(streams: watch::Sender<Streams>) -> Self {
        streams.send_modify(|streams| {
            streams.open += 1;
            streams.opened += 1;
        });
        Self(streams)
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.send_modify(|streams| streams.open -= 1);
    }
}

/// The device list in the kubelet's terms. A device of which no NUMA node is told has no topology: with one of "node 0"
/// it would be kept from pods on other nodes.
fn offer(devices: &PoolDevices) -> ListAndWatchResponse {
    let nodes = |node: u32| TopologyInfo { nodes: vec![NumaNode { id: node.into() }] };
    let devices = devices.values().map(|device| OfferedDevice {
        id: device.id.to_string(),
        health: if device.healthy { HEALTHY } else { UNHEALTHY }.to_owned(),
        topology: device.topology.map(nodes),
    });
    ListAndWatchResponse { devices: devices.collect() }
}

#[cfg(test)]
mod tests;
