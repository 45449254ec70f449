//! The gRPC face of one pool. Thin: every answer is made elsewhere.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task;
use tokio::time::timeout;
use tokio_stream::Stream;
use tokio_stream::wrappers::WatchStream;
use tonic::{Request, Response, Status};
use tracing::{info, warn};
use zerobridge_proto::deviceplugin::{
    AllocateRequest, AllocateResponse, Device as OfferedDevice, DevicePlugin, DevicePluginOptions, Empty,
    HEALTHY, ListAndWatchResponse, NumaNode, PreStartContainerRequest, PreStartContainerResponse,
    PreferredAllocationRequest, PreferredAllocationResponse, TopologyInfo,
};

use crate::allocation::{Allocation, AllocationError, allocate};
use crate::device_info::DeviceInfoFolder;
use crate::inventory::DeviceWatch;
use crate::pool::PoolDevices;
use crate::resource::ResourceName;
use zerobridge_proto::chain;

/// The kubelet waits for `Allocate` without a limit of its own, and admits no other pod meanwhile. Writing a few files
/// takes milliseconds; a file system that hangs must not hang the node.
const ALLOCATE_LIMIT: Duration = Duration::from_secs(5);

/// What the kubelet may ask of a pool. Given in the registration and on request, and the same in both.
#[must_use]
pub(crate) fn options() -> DevicePluginOptions {
    DevicePluginOptions { pre_start_required: false, get_preferred_allocation_available: false }
}

/// One pool as the kubelet sees it.
#[derive(Debug)]
pub(crate) struct PoolService {
    pool: ResourceName,
    devices: DeviceWatch,
    infos: Arc<DeviceInfoFolder>,
    streams: watch::Sender<usize>,
}

impl PoolService {
    /// Serves `pool`. The number of open device streams is kept in `streams`: one is what a registration consists of.
    #[must_use]
    pub(crate) fn new(
        pool: ResourceName,
        devices: DeviceWatch,
        infos: Arc<DeviceInfoFolder>,
        streams: watch::Sender<usize>,
    ) -> Self {
        Self { pool, devices, infos, streams }
    }

    async fn allocate_all(&self, request: AllocateRequest) -> Result<AllocateResponse, Status> {
        let devices = Arc::clone(&self.devices.borrow());
        let mut container_responses = Vec::with_capacity(request.container_requests.len());
        for container in request.container_requests {
            let ids = container.devices_ids;
            let Allocation { response, infos } =
                allocate(&self.pool, &devices, &ids).map_err(|error| refusal(&error))?;
            let (folder, pool) = (Arc::clone(&self.infos), self.pool.clone());
            let writing = task::spawn_blocking(move || {
                infos.iter().try_for_each(|(device, info)| folder.write(&pool, *device, info))
            });
            writing
                .await
                .map_err(|error| Status::internal(error.to_string()))?
                .map_err(|error| Status::internal(chain(&error)))?;
            info!(pool = %self.pool, devices = ids.join(","), "allocated");
            container_responses.push(response);
        }
        Ok(AllocateResponse { container_responses })
    }
}

#[tonic::async_trait]
impl DevicePlugin for PoolService {
    type ListAndWatchStream = DeviceStream;

    async fn get_device_plugin_options(
        &self,
        _: Request<Empty>,
    ) -> Result<Response<DevicePluginOptions>, Status> {
        Ok(Response::new(options()))
    }

    async fn list_and_watch(&self, _: Request<Empty>) -> Result<Response<DeviceStream>, Status> {
        Ok(Response::new(DeviceStream::new(self.devices.clone(), self.streams.clone())))
    }

    async fn get_preferred_allocation(
        &self,
        _: Request<PreferredAllocationRequest>,
    ) -> Result<Response<PreferredAllocationResponse>, Status> {
        // No preference. An error here would fail the pod.
        Ok(Response::new(PreferredAllocationResponse::default()))
    }

    async fn allocate(
        &self,
        request: Request<AllocateRequest>,
    ) -> Result<Response<AllocateResponse>, Status> {
        let answer = match timeout(ALLOCATE_LIMIT, self.allocate_all(request.into_inner())).await {
            Ok(answer) => answer,
            Err(_) => Err(Status::deadline_exceeded("writing the device-info files takes too long")),
        };
        if let Err(refusal) = &answer {
            warn!(pool = %self.pool, reason = refusal.message(), "refused to allocate");
        }
        answer.map(Response::new)
    }

    async fn pre_start_container(
        &self,
        _: Request<PreStartContainerRequest>,
    ) -> Result<Response<PreStartContainerResponse>, Status> {
        Ok(Response::new(PreStartContainerResponse::default()))
    }
}

/// The device list of a pool, then its replacement whenever it differs. Ends when the inventory does.
#[derive(Debug)]
pub(crate) struct DeviceStream {
    devices: WatchStream<Arc<PoolDevices>>,
    sent: Option<ListAndWatchResponse>,
    _open: OpenStream,
}

impl DeviceStream {
    fn new(devices: DeviceWatch, streams: watch::Sender<usize>) -> Self {
        Self { devices: WatchStream::new(devices), sent: None, _open: OpenStream::count(streams) }
    }
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
                self.sent = Some(list.clone());
                return Poll::Ready(Some(Ok(list)));
            }
        }
    }
}

/// One open device stream, counted as long as it exists.
#[derive(Debug)]
struct OpenStream(watch::Sender<usize>);

impl OpenStream {
    fn count(streams: watch::Sender<usize>) -> Self {
        streams.send_modify(|open| *open += 1);
        Self(streams)
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.send_modify(|open| *open -= 1);
    }
}

fn refusal(error: &AllocationError) -> Status {
    let message = chain(error);
    match error {
        AllocationError::UnknownDevice { .. } => Status::not_found(message),
        AllocationError::NoDevice { .. } => Status::invalid_argument(message),
        AllocationError::NoIommuGroup { .. } => Status::failed_precondition(message),
    }
}

/// The device list in the kubelet's terms. A device without a NUMA node has no topology: with one of "node 0" it would
/// be kept from pods on other nodes.
fn offer(devices: &PoolDevices) -> ListAndWatchResponse {
    let devices = devices.values().map(|device| OfferedDevice {
        id: device.address.to_string(),
        health: HEALTHY.to_owned(),
        topology: device.numa_node.map(|node| TopologyInfo { nodes: vec![NumaNode { id: node.into() }] }),
    });
    ListAndWatchResponse { devices: devices.collect() }
}

#[cfg(test)]
mod tests {
    use tokio_stream::StreamExt as _;

    use super::*;
    use crate::pool::Device;

    fn devices(numa_node: Option<u32>, driver: &str) -> Arc<PoolDevices> {
        let device = Device {
            address: "0000:01:10.0".parse().unwrap(),
            pf: "0000:01:00.0".parse().unwrap(),
            driver: driver.to_owned(),
            numa_node,
            iommu_group: None,
        };
        Arc::new(PoolDevices::from([(device.address, device)]))
    }

    #[test]
    fn topology_is_told_where_the_machine_tells_it() {
        let list = offer(&devices(Some(1), "igbvf"));
        assert_eq!(list.devices[0].id, "0000:01:10.0");
        assert_eq!(list.devices[0].health, "Healthy");
        assert_eq!(list.devices[0].topology, Some(TopologyInfo { nodes: vec![NumaNode { id: 1 }] }));
        assert_eq!(offer(&devices(None, "igbvf")).devices[0].topology, None);
    }

    #[tokio::test]
    async fn only_what_the_kubelet_can_see_is_sent_and_the_end_is_the_end() {
        let sender = watch::Sender::new(devices(None, "igbvf"));
        let streams = watch::Sender::new(0);
        let mut stream = DeviceStream::new(sender.subscribe(), streams.clone());
        assert_eq!(*streams.borrow(), 1);
        assert_eq!(stream.next().await.unwrap().unwrap(), offer(&devices(None, "igbvf")));

        // Another driver is no change of the list. The next message is the one about the topology.
        sender.send_replace(devices(None, "vfio-pci"));
        let next = tokio::spawn(async move { (stream.next().await, stream) });
        tokio::task::yield_now().await;
        sender.send_replace(devices(Some(1), "vfio-pci"));
        let (next, mut stream) = next.await.unwrap();
        assert_eq!(next.unwrap().unwrap(), offer(&devices(Some(1), "vfio-pci")));

        drop(sender);
        assert!(stream.next().await.is_none());
        drop(stream);
        assert_eq!(*streams.borrow(), 0);
    }
}
