//! What the kubelet says that it can allocate and what it has allocated, from its pod-resources socket.
//!
//! Runs in the guest so that a measured time does not include the way to the host.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime};

use serde::Serialize;
use thiserror::Error;
use tonic::transport::{Channel, Endpoint};
use zerobridge_proto::podresources::{
    AllocatableResourcesRequest, ContainerDevices, ListPodResourcesRequest, MAX_MESSAGE_BYTES,
    PodResourcesListerClient,
};

const POD_RESOURCES: &str = "unix:///var/lib/kubelet/pod-resources/kubelet.sock";
const REGISTRATION: &str = "/var/lib/kubelet/device-plugins/kubelet.sock";
const POLL: Duration = Duration::from_millis(20);
/// How long the kubelet may take to open its registration socket.
const APPEARANCE: Duration = Duration::from_secs(180);

/// Device IDs by resource name.
type Devices = BTreeMap<String, Vec<String>>;

/// Why there is no answer.
#[derive(Debug, Error)]
pub(crate) enum ResourcesError {
    /// The arguments are not as they should be.
    #[error(
        "resources {arguments}: write allocatable, pods, or wait RESOURCE COUNT SECONDS [OLD-SOCKET-INODE]"
    )]
    Usage {
        /// What was given.
        arguments: String,
    },
    /// The client's own set-up failed.
    #[error("set up a client of {POD_RESOURCES}")]
    Client {
        /// What failed.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The kubelet cannot be reached.
    #[error("connect to {POD_RESOURCES}")]
    Connect {
        /// What failed.
        #[source]
        source: tonic::transport::Error,
    },
    /// The kubelet refused.
    #[error("{call} at {POD_RESOURCES}")]
    Call {
        /// The remote procedure.
        call: &'static str,
        /// Its answer.
        #[source]
        source: Box<tonic::Status>,
    },
    /// The condition did not come true in time.
    #[error("{seconds} s after the kubelet's socket {resource} has not {count} allocatable devices: {last}")]
    TooLate {
        /// The limit.
        seconds: u64,
        /// The resource.
        resource: String,
        /// How many were waited for.
        count: usize,
        /// What was seen last.
        last: String,
    },
    /// The answer could not be printed.
    #[error("print the answer")]
    Print {
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

/// A pod as `resources pods` prints it.
#[derive(Serialize)]
struct Pod {
    namespace: String,
    name: String,
    devices: Devices,
}

/// How long a resource took to be allocatable, as `resources wait` prints it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Waited {
    /// Milliseconds from the registration socket's appearance.
    milliseconds: u128,
    devices: Vec<String>,
}

/// Asks as told and prints one line of JSON.
pub(crate) fn run(arguments: &[&str]) -> Result<(), ResourcesError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| ResourcesError::Client { source: error.into() })?;
    let usage = || ResourcesError::Usage { arguments: arguments.join(" ") };
    match *arguments {
        ["allocatable"] => print(&runtime.block_on(allocatable())?),
        ["pods"] => print(&runtime.block_on(pods())?),
        ["wait", resource, count, seconds, ref old @ ..] => {
            let count = count.parse().map_err(|_| usage())?;
            let seconds = seconds.parse().map_err(|_| usage())?;
            let old = match old {
                [] => None,
                [inode] => Some(inode.parse().map_err(|_| usage())?),
                _ => return Err(usage()),
            };
            print(&runtime.block_on(wait(resource, count, seconds, old))?)
        }
        _ => Err(usage()),
    }
}

fn print(answer: &impl Serialize) -> Result<(), ResourcesError> {
    let fail = |source| ResourcesError::Print { source };
    let text = serde_json::to_string(answer).map_err(|error| fail(error.into()))?;
    writeln!(io::stdout(), "{text}").map_err(fail)
}

async fn client() -> Result<PodResourcesListerClient<Channel>, ResourcesError> {
    let fail = |source| ResourcesError::Connect { source };
    let channel = Endpoint::from_static(POD_RESOURCES).connect().await.map_err(fail)?;
    Ok(PodResourcesListerClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES))
}

async fn allocatable() -> Result<Devices, ResourcesError> {
    let answer =
        client().await?.get_allocatable_resources(AllocatableResourcesRequest {}).await.map_err(
            |status| ResourcesError::Call { call: "GetAllocatableResources", source: status.into() },
        )?;
    Ok(by_resource(answer.into_inner().devices))
}

async fn pods() -> Result<Vec<Pod>, ResourcesError> {
    let answer = client()
        .await?
        .list(ListPodResourcesRequest {})
        .await
        .map_err(|status| ResourcesError::Call { call: "List", source: status.into() })?;
    let pods = answer.into_inner().pod_resources.into_iter().map(|pod| Pod {
        namespace: pod.namespace,
        name: pod.name,
        devices: by_resource(pod.containers.into_iter().flat_map(|container| container.devices)),
    });
    Ok(pods.collect())
}

/// The kubelet splits one resource into an entry per NUMA node: gathers them.
fn by_resource(entries: impl IntoIterator<Item = ContainerDevices>) -> Devices {
    let mut devices = Devices::new();
    for entry in entries {
        devices.entry(entry.resource_name).or_default().extend(entry.device_ids);
    }
    for list in devices.values_mut() {
        list.sort();
    }
    devices
}

async fn wait(
    resource: &str,
    count: usize,
    seconds: u64,
    old: Option<u64>,
) -> Result<Waited, ResourcesError> {
    let mut deadline = SystemTime::now() + APPEARANCE;
    let mut appeared = None;
    let mut last = format!("{REGISTRATION} has not appeared");
    while SystemTime::now() < deadline {
        if appeared.is_none() {
            appeared = bound_at(old);
            deadline = appeared.map_or(deadline, |since| since + Duration::from_secs(seconds));
        }
        if let Some(since) = appeared {
            match allocatable().await {
                Ok(mut devices) => match devices.remove(resource) {
                    Some(list) if list.len() == count => {
                        let milliseconds = since.elapsed().unwrap_or_default().as_millis();
                        return Ok(Waited { milliseconds, devices: list });
                    }
                    list => last = format!("{:?}", list.unwrap_or_default()),
                },
                // The kubelet opens this socket later than the one for registration.
                Err(error) => last = zerobridge_proto::chain(&error),
            }
        }
        tokio::time::sleep(POLL).await;
    }
    Err(ResourcesError::TooLate { seconds, resource: resource.into(), count, last })
}

/// When the registration socket was bound, unless it still is the old one: nothing writes to a socket's inode later.
fn bound_at(old: Option<u64>) -> Option<SystemTime> {
    let socket = fs::metadata(REGISTRATION).ok().filter(|socket| Some(socket.ino()) != old)?;
    socket.modified().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_of_one_resource_are_gathered_and_sorted() {
        let entry = |name: &str, ids: &[&str]| ContainerDevices {
            resource_name: name.into(),
            device_ids: ids.iter().map(|id| (*id).into()).collect(),
            topology: None,
        };
        let gathered = by_resource([entry("a/x", &["2"]), entry("a/y", &["9"]), entry("a/x", &["1"])]);
        assert_eq!(gathered["a/x"], ["1", "2"]);
        assert_eq!(gathered["a/y"], ["9"]);
    }
}
