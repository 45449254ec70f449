//! What pods hold, as the kubelet tells at its pod-resources socket.
//!
//! The kubelet has no call for "give back", so this is the only way to learn of it. Before Kubernetes 1.34 pods that have
//! ended are listed beside living ones (kubernetes#132028): a device that is listed may be free, one that is not listed is.
//! Refuses to know what a device is.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;
use tracing::{debug, info, warn};
use zerobridge_cni_sriov::{PodResourcesError, list_pod_resources};
use zerobridge_proto::podresources::PodResources;
use zerobridge_proto::{PciAddress, chain};

use crate::device::{DeviceId, Hardware};
use crate::resource::ResourceName;

/// How long the kubelet may take. It answers in milliseconds, or is in no state to.
const PATIENCE: Duration = Duration::from_secs(5);

/// The devices that pods hold at one moment, of every resource, not only of this daemon's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// By resource, by device ID.
    holders: BTreeMap<String, BTreeMap<String, Vec<Holder>>>,
}

/// A container that holds a device.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Holder {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The container's name.
    pub container: String,
}

impl Held {
    /// Gathers what the kubelet listed. It lists a resource of one container in several entries, one for each NUMA node,
    /// and a device under two pods when one of them has ended.
    #[must_use]
    pub fn new(pods: &[PodResources]) -> Self {
        let mut held = Self::default();
        for pod in pods {
            for container in &pod.containers {
                let holder = Holder {
                    namespace: pod.namespace.clone(),
                    pod: pod.name.clone(),
                    container: container.name.clone(),
                };
                for devices in &container.devices {
                    let of_resource = held.holders.entry(devices.resource_name.clone()).or_default();
                    for id in &devices.device_ids {
                        of_resource.entry(id.clone()).or_default().push(holder.clone());
                    }
                }
            }
        }
        for holders in held.holders.values_mut().flat_map(BTreeMap::values_mut) {
            holders.sort();
            holders.dedup();
        }
        held
    }

    /// What could be a pool's: whatever the configuration says by now, the pods of a pool that is no longer in it need the
    /// files of their devices.
    #[must_use]
    pub fn of_pools(&self) -> BTreeSet<(ResourceName, DeviceId)> {
        let named = |(resource, id): (&str, &str)| {
            let (prefix, name) = resource.split_once('/')?;
            Some((ResourceName::new(prefix, name).ok()?, id.parse::<DeviceId>().ok()?))
        };
        self.devices().filter_map(named).collect()
    }

    /// Resource and ID of every device that is held.
    pub fn devices(&self) -> impl Iterator<Item = (&str, &str)> {
        self.holders
            .iter()
            .flat_map(|(resource, devices)| devices.keys().map(move |id| (resource.as_str(), id.as_str())))
    }

    /// The containers that hold a device, in order.
    pub fn holders(&self, resource: &str, id: &str) -> &[Holder] {
        self.holders.get(resource).and_then(|devices| devices.get(id)).map_or(&[], Vec::as_slice)
    }

    /// Whether a pod holds a device.
    pub fn holds(&self, resource: &str, id: &str) -> bool {
        !self.holders(resource, id).is_empty()
    }

    /// The containers that hold a PCI function, or a share of it, under whatever resource.
    pub(crate) fn holders_of(&self, function: PciAddress) -> Vec<&Holder> {
        let is_it =
            |id: &str| id.parse::<DeviceId>().is_ok_and(|id| id.hardware == Hardware::Function(function));
        let devices = self.holders.values().flatten();
        devices.filter(|(id, _)| is_it(id)).flat_map(|(_, holders)| holders).collect()
    }
}

/// Asks the kubelet.
#[derive(Debug)]
pub(crate) struct PodResourcesClient {
    kubelet_root: PathBuf,
    patience: Duration,
    told_failure: bool,
}

impl PodResourcesClient {
    /// Asks the kubelet whose root directory is `kubelet_root`.
    pub(crate) fn new(kubelet_root: PathBuf) -> Self {
        Self { kubelet_root, patience: PATIENCE, told_failure: false }
    }

    /// What pods hold now. `None` while the kubelet does not say, which is not the same as nothing.
    pub(crate) async fn ask(&mut self) -> Option<Held> {
        match list_pod_resources(&self.kubelet_root, self.patience).await {
            Ok(pods) => {
                if self.told_failure {
                    info!("the kubelet says again what pods hold");
                    self.told_failure = false;
                }
                Some(Held::new(&pods))
            }
            Err(error) => {
                self.tell(&error);
                None
            }
        }
    }

    /// A failure that lasts is told once.
    fn tell(&mut self, error: &PodResourcesError) {
        let error = chain(error);
        if self.told_failure {
            debug!(error, "the kubelet does not say what pods hold, still");
        } else {
            warn!(error, "the kubelet does not say what pods hold; nothing is repaired until it does");
            self.told_failure = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tokio::net::UnixListener;
    use tokio_stream::wrappers::UnixListenerStream;
    use tonic::transport::Server;
    use tonic::{Request, Response, Status};
    use zerobridge_proto::podresources::{
        AllocatableResourcesRequest, AllocatableResourcesResponse, ContainerDevices, ContainerResources,
        DIRECTORY, GetPodResourcesRequest, GetPodResourcesResponse, ListPodResourcesRequest,
        ListPodResourcesResponse, PodResourcesLister, PodResourcesListerServer, SOCKET,
    };

    use super::*;

    /// A kubelet that lists the same pods whenever it is asked.
    struct Kubelet(Vec<PodResources>);

    #[tonic::async_trait]
    impl PodResourcesLister for Kubelet {
        async fn list(
            &self,
            _: Request<ListPodResourcesRequest>,
        ) -> Result<Response<ListPodResourcesResponse>, Status> {
            Ok(Response::new(ListPodResourcesResponse { pod_resources: self.0.clone() }))
        }

        async fn get_allocatable_resources(
            &self,
            _: Request<AllocatableResourcesRequest>,
        ) -> Result<Response<AllocatableResourcesResponse>, Status> {
            Err(Status::unimplemented("nobody asks"))
        }

        async fn get(
            &self,
            _: Request<GetPodResourcesRequest>,
        ) -> Result<Response<GetPodResourcesResponse>, Status> {
            Err(Status::unimplemented("nobody asks"))
        }
    }

    fn listen(root: &Path) -> UnixListener {
        let folder = root.join(DIRECTORY);
        std::fs::create_dir_all(&folder).unwrap();
        UnixListener::bind(folder.join(SOCKET)).unwrap()
    }

    fn serve(root: &Path, pods: Vec<PodResources>) -> tokio::task::JoinHandle<()> {
        let incoming = UnixListenerStream::new(listen(root));
        let service = PodResourcesListerServer::new(Kubelet(pods));
        tokio::spawn(async {
            Server::builder().add_service(service).serve_with_incoming(incoming).await.unwrap();
        })
    }

    /// Each container is its name and its entries, each a resource and IDs joined by commas.
    fn pod(name: &str, containers: &[(&str, &[(&str, &str)])]) -> PodResources {
        let entry = |(resource, ids): &(&str, &str)| ContainerDevices {
            resource_name: (*resource).to_owned(),
            device_ids: ids.split(',').map(str::to_owned).collect(),
            topology: None,
        };
        let container = |(name, entries): &(&str, &[(&str, &str)])| ContainerResources {
            name: (*name).to_owned(),
            devices: entries.iter().map(entry).collect(),
            ..ContainerResources::default()
        };
        PodResources {
            name: name.to_owned(),
            namespace: "default".to_owned(),
            containers: containers.iter().map(container).collect(),
        }
    }

    fn names(holders: &[Holder]) -> Vec<String> {
        holders.iter().map(|holder| format!("{}/{}", holder.pod, holder.container)).collect()
    }

    #[tokio::test]
    async fn entries_of_all_pods_containers_and_numa_nodes_are_gathered() {
        let folder = tempfile::tempdir().unwrap();
        let pods = vec![
            pod("web", &[("app", &[("x/vf", "0000:01:10.2"), ("x/vf", "0000:01:10.0,0000:01:10.4")])]),
            // The successor of a pod that has ended, and two containers with shares.
            pod("old", &[("app", &[("x/vf", "0000:01:10.0")])]),
            pod("hpc", &[("a", &[("x/rdma", "0000:01:00.0#1")]), ("b", &[("y/hca", "0000:01:00.0#2")])]),
            pod("idle", &[("app", &[])]),
        ];
        let _server = serve(folder.path(), pods);
        let held = PodResourcesClient::new(folder.path().to_owned()).ask().await.unwrap();
        assert_eq!(
            held.devices().collect::<Vec<_>>(),
            [
                ("x/rdma", "0000:01:00.0#1"),
                ("x/vf", "0000:01:10.0"),
                ("x/vf", "0000:01:10.2"),
                ("x/vf", "0000:01:10.4"),
                ("y/hca", "0000:01:00.0#2"),
            ]
        );
        assert_eq!(names(held.holders("x/vf", "0000:01:10.0")), ["old/app", "web/app"]);
        assert!(held.holds("x/vf", "0000:01:10.4") && !held.holds("y/vf", "0000:01:10.4"));
        let of_function = held.holders_of("0000:01:00.0".parse().unwrap()).into_iter().cloned();
        assert_eq!(names(&of_function.collect::<Vec<_>>()), ["hpc/a", "hpc/b"]);
        assert!(held.holders_of("0000:01:10.6".parse().unwrap()).is_empty());
    }

    #[tokio::test]
    async fn a_kubelet_that_does_not_say_is_no_kubelet_without_pods() {
        let folder = tempfile::tempdir().unwrap();
        let mut client = PodResourcesClient::new(folder.path().to_owned());
        assert_eq!(client.ask().await, None, "no socket");
        assert!(client.told_failure);

        // Connections are taken by the kernel, and nobody answers them.
        let silent = listen(folder.path());
        client.patience = Duration::from_millis(50);
        assert_eq!(client.ask().await, None, "no answer");
        drop(silent);
        assert_eq!(client.ask().await, None, "nobody listens");

        std::fs::remove_file(folder.path().join(DIRECTORY).join(SOCKET)).unwrap();
        client.patience = PATIENCE;
        let _server = serve(folder.path(), Vec::new());
        assert_eq!(client.ask().await, Some(Held::default()), "no pods");
        assert!(!client.told_failure, "the next failure is news");
    }

    /// Beyond gRPC's default of 4 MiB, and beyond the limit that replaces it.
    #[tokio::test]
    async fn the_answer_of_a_large_node_is_taken_and_one_without_end_is_not() {
        for (mebibytes, is_taken) in [(5, true), (17, false)] {
            let folder = tempfile::tempdir().unwrap();
            let long = "x".repeat(1024 * 1024);
            let pods = (0..mebibytes).map(|_| pod(&long, &[("app", &[("x/vf", "0000:01:10.0")])])).collect();
            let _server = serve(folder.path(), pods);
            let held = PodResourcesClient::new(folder.path().to_owned()).ask().await;
            assert_eq!(held.is_some_and(|held| held.holds("x/vf", "0000:01:10.0")), is_taken, "{mebibytes}");
        }
    }

    #[test]
    fn a_device_is_held_although_its_pool_is_no_longer_configured() {
        let devices = |resource: &str, id: &str| ContainerDevices {
            resource_name: resource.to_owned(),
            device_ids: vec![id.to_owned()],
            ..ContainerDevices::default()
        };
        let devices = vec![devices("example.com/old", "0000:01:10.0"), devices("cpu", "1")];
        let containers = vec![ContainerResources { devices, ..ContainerResources::default() }];
        let held = Held::new(&[PodResources { containers, ..PodResources::default() }]);
        let old = ResourceName::new("example.com", "old").unwrap();
        assert_eq!(held.of_pools(), [(old, "0000:01:10.0".parse().unwrap())].into());
    }
}
