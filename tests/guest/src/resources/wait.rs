//! How long after the kubelet's start a resource is allocatable.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::ResourcesError;
use super::lister::Lister;

const REGISTRATION: &str = "/var/lib/kubelet/device-plugins/kubelet.sock";
const POLL: Duration = Duration::from_millis(20);
/// How long the kubelet may take to open its registration socket.
const APPEARANCE: Duration = Duration::from_secs(180);

/// How long a resource took to be allocatable, as `resources wait` prints it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Waited {
    /// Milliseconds from the registration socket's appearance.
    milliseconds: u128,
    devices: Vec<String>,
}

/// Waits until `resource` has `count` devices, at most `seconds` from the appearance of the registration socket; with
/// `old`, of one with another inode.
pub(super) async fn wait(
    lister: &mut Lister,
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
            match lister.allocatable().await {
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
    let event = "the kubelet's socket".into();
    Err(ResourcesError::TooLate { seconds, event, wanted: format!("{resource}={count}"), last })
}

/// When the registration socket was bound, unless it still is the old one: nothing writes to a socket's inode later.
fn bound_at(old: Option<u64>) -> Option<SystemTime> {
    let socket = fs::metadata(REGISTRATION).ok().filter(|socket| Some(socket.ino()) != old)?;
    socket.modified().ok()
}
