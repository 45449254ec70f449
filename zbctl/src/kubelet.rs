//! What the kubelet's pod-resources socket says about who has which device.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;
use tokio::runtime;
use zerobridge_cni_sriov::{PodResourcesError, list_pod_resources};
use zerobridge_device_plugin::{DeviceId, Held, is_served};
use zerobridge_proto::podresources::{DIRECTORY, PodResources, SOCKET};

use crate::owners::{Owner, Owners};

/// How long the kubelet may take. A person waits for it, and the ledger answers too.
const PATIENCE: Duration = Duration::from_secs(3);

/// Why the kubelet did not answer.
#[derive(Debug, Error)]
pub(crate) enum KubeletError {
    /// There is no socket.
    #[error("there is no kubelet at {}; is --kubelet-root its --root-dir?", path.display())]
    Absent {
        /// Where it should be.
        path: PathBuf,
    },
    /// It does not listen, or refuses.
    #[error(transparent)]
    List(#[from] PodResourcesError),
    /// No event loop.
    #[error("cannot ask the kubelet")]
    Runtime(#[source] io::Error),
}

/// The owners of all devices.
pub(crate) fn owners(kubelet_root: &Path) -> Result<Owners, KubeletError> {
    Ok(by_device(&ask(kubelet_root)?))
}

/// The devices that pods hold, as the daemon gathers them.
pub(crate) fn held(kubelet_root: &Path) -> Result<Held, KubeletError> {
    Ok(Held::new(&ask(kubelet_root)?))
}

/// Whether the daemon serves it.
pub(crate) fn has_daemon(kubelet_root: &Path) -> Result<bool, KubeletError> {
    let runtime =
        runtime::Builder::new_current_thread().enable_all().build().map_err(KubeletError::Runtime)?;
    Ok(runtime.block_on(is_served(kubelet_root)))
}

fn ask(kubelet_root: &Path) -> Result<Vec<PodResources>, KubeletError> {
    let path = kubelet_root.join(DIRECTORY).join(SOCKET);
    if !path.exists() {
        return Err(KubeletError::Absent { path });
    }
    let runtime =
        runtime::Builder::new_current_thread().enable_all().build().map_err(KubeletError::Runtime)?;
    Ok(runtime.block_on(list_pod_resources(kubelet_root, PATIENCE))?)
}

fn by_device(pods: &[PodResources]) -> Owners {
    let mut owners = Owners::default();
    let mut resources = BTreeMap::new();
    for pod in pods {
        for container in &pod.containers {
            for devices in &container.devices {
                for id in &devices.device_ids {
                    // Devices of other plugins may be called anything.
                    let Ok(id) = id.parse::<DeviceId>() else { continue };
                    let owner = Owner {
                        namespace: Some(pod.namespace.clone()),
                        pod: Some(pod.name.clone()),
                        container: container.name.clone(),
                        leg: None,
                    };
                    resources.insert(id.hardware.clone(), devices.resource_name.clone());
                    let known = owners.devices.entry(id.hardware).or_default();
                    // A container may list one resource once for each NUMA node.
                    if !known.contains(&owner) {
                        known.push(owner);
                    }
                }
            }
        }
    }
    owners.resources = Some(resources);
    owners
}
