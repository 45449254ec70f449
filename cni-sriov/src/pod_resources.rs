//! Which devices the kubelet gave a pod, asked at its pod-resources socket.
//!
//! This is what makes a VF possible as a pod's first and only interface: without Multus nobody tells a CNI plugin which
//! device the pod was given, but the kubelet knows it before it has the sandbox made.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;
use tokio::runtime::Runtime;
use tonic::transport::{Channel, Endpoint, Error as TransportError};
use zerobridge_proto::podresources::{
    AllocatableResourcesRequest, DIRECTORY, ListPodResourcesRequest, MAX_MESSAGE_BYTES, PodResources,
    PodResourcesListerClient, SOCKET,
};

/// How long the kubelet may take while a pod waits. It answers in milliseconds; one that is starting does not answer at all.
const PATIENCE: Duration = Duration::from_secs(10);

/// One device that a pod holds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct AllocatedDevice {
    /// The extended resource, such as `zerobridge.io/vf`.
    pub resource: String,
    /// The device's ID; a PCI address for a VF.
    pub id: String,
}

/// Why the kubelet did not answer.
#[derive(Debug, Error)]
pub enum PodResourcesError {
    /// No event loop.
    #[error("cannot ask the kubelet at {}", path.display())]
    Runtime {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The socket is not there or nobody listens.
    #[error("cannot reach the kubelet at {}; is it running, and is kubeletRoot its --root-dir?", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: TransportError,
    },
    /// The kubelet refused or broke off.
    #[error("the kubelet at {} does not list its pods' devices", path.display())]
    List {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: Box<tonic::Status>,
    },
}

/// The devices of pod `name` in `namespace`, sorted by resource and ID; `None` when the kubelet knows no such pod.
///
/// # Errors
/// [`PodResourcesError`].
pub(crate) fn devices_of_pod(
    kubelet_root: &Path,
    namespace: &str,
    name: &str,
) -> Result<Option<Vec<AllocatedDevice>>, PodResourcesError> {
    let pods = runtime(kubelet_root)?.block_on(list_pod_resources(kubelet_root, PATIENCE))?;
    Ok(devices_among(&pods, namespace, name))
}

/// What the kubelet with root directory `kubelet_root` gave to all pods. `patience` is for reaching it, and once more for
/// its answer. Needs a runtime with time and I/O.
///
/// # Errors
/// [`PodResourcesError`], none of which says that there are no pods.
pub async fn list_pod_resources(
    kubelet_root: &Path,
    patience: Duration,
) -> Result<Vec<PodResources>, PodResourcesError> {
    let path = socket(kubelet_root);
    let answer = client(&path, patience).await?.list(ListPodResourcesRequest {}).await;
    let answer = answer.map_err(|status| PodResourcesError::List { path, source: Box::new(status) })?;
    Ok(answer.into_inner().pod_resources)
}

/// The healthy devices of `resource` that the kubelet gives or has given to pods.
///
/// # Errors
/// [`PodResourcesError`].
pub(crate) fn allocatable_devices(
    kubelet_root: &Path,
    resource: &str,
) -> Result<Vec<String>, PodResourcesError> {
    let path = socket(kubelet_root);
    let answer = runtime(kubelet_root)?.block_on(async {
        let answer =
            client(&path, PATIENCE).await?.get_allocatable_resources(AllocatableResourcesRequest {}).await;
        answer.map_err(|status| PodResourcesError::List { path, source: Box::new(status) })
    })?;
    let devices = answer.into_inner().devices.into_iter().filter(|devices| devices.resource_name == resource);
    Ok(devices.flat_map(|devices| devices.device_ids).collect())
}

async fn client(
    path: &Path,
    patience: Duration,
) -> Result<PodResourcesListerClient<Channel>, PodResourcesError> {
    let connect_error = |source| PodResourcesError::Connect { path: path.to_owned(), source };
    let endpoint = Endpoint::from_shared(format!("unix://{}", path.display())).map_err(connect_error)?;
    let channel =
        endpoint.connect_timeout(patience).timeout(patience).connect().await.map_err(connect_error)?;
    Ok(PodResourcesListerClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES))
}

fn runtime(kubelet_root: &Path) -> Result<Runtime, PodResourcesError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|source| PodResourcesError::Runtime { path: socket(kubelet_root), source })
}

fn socket(kubelet_root: &Path) -> PathBuf {
    kubelet_root.join(DIRECTORY).join(SOCKET)
}

/// A container may list one resource several times, once for each NUMA node, and a kubelet before 1.34 lists pods that
/// have ended beside a living one of the same name.
fn devices_among(pods: &[PodResources], namespace: &str, name: &str) -> Option<Vec<AllocatedDevice>> {
    let mut ours = pods.iter().filter(|pod| pod.namespace == namespace && pod.name == name).peekable();
    ours.peek()?;
    let mut devices: Vec<AllocatedDevice> = ours
        .flat_map(|pod| &pod.containers)
        .flat_map(|container| &container.devices)
        .flat_map(|devices| {
            let device =
                |id: &String| AllocatedDevice { resource: devices.resource_name.clone(), id: id.clone() };
            devices.device_ids.iter().map(device)
        })
        .collect();
    devices.sort();
    // An application container goes on with the device of an init container.
    devices.dedup();
    Some(devices)
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerobridge_proto::podresources::{ContainerDevices, ContainerResources};

    fn container(devices: &[(&str, &str)]) -> ContainerResources {
        let devices = devices.iter().map(|(resource, id)| ContainerDevices {
            resource_name: (*resource).to_owned(),
            device_ids: vec![(*id).to_owned()],
            topology: None,
        });
        ContainerResources { devices: devices.collect(), ..ContainerResources::default() }
    }

    #[test]
    fn all_containers_and_numa_nodes_of_the_pod_count_and_no_other_pod() {
        let pod = |namespace: &str, name: &str, containers| PodResources {
            name: name.to_owned(),
            namespace: namespace.to_owned(),
            containers,
        };
        let pods = [
            pod(
                "default",
                "web",
                vec![
                    container(&[("x/vf", "0000:01:10.2"), ("x/vf", "0000:01:10.0")]),
                    container(&[("x/gpu", "gpu-0"), ("x/vf", "0000:01:10.0")]),
                ],
            ),
            pod("other", "web", vec![container(&[("x/vf", "0000:01:10.4")])]),
            pod("default", "idle", vec![container(&[])]),
        ];
        let ids = |name: &str| {
            devices_among(&pods, "default", name)
                .map(|all| all.into_iter().map(|one| one.id).collect::<Vec<_>>())
        };
        assert_eq!(ids("web").unwrap(), ["gpu-0", "0000:01:10.0", "0000:01:10.2"]);
        assert_eq!(ids("idle").unwrap(), [""; 0]);
        assert_eq!(ids("absent"), None);
    }

    #[test]
    fn an_absent_kubelet_is_named_with_a_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let error = devices_of_pod(dir.path(), "default", "web").unwrap_err();
        let text = error.to_string();
        assert!(text.contains("pod-resources/kubelet.sock") && text.contains("kubeletRoot"), "{text}");
    }
}
