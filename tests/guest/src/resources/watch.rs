//! What a resource went through while other things happened.

use std::time::Duration;

use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, timeout_at};

use super::lister::Lister;
use super::{ResourcesError, now, print};

/// What `resources watch` prints.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Watched {
    /// How often the kubelet answered.
    samples: u64,
    /// Why it did not answer, each time it did not.
    failures: Vec<String>,
    /// The fewest devices ever seen.
    minimum: usize,
    /// The most devices ever seen.
    maximum: usize,
    /// The first state and every later one that differed from the one before.
    changes: Vec<Change>,
}

/// A state of the resource.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Change {
    /// Since when, in microseconds since 1970.
    at: u64,
    devices: Vec<String>,
}

impl Watched {
    fn note(&mut self, at: u64, devices: Vec<String>) {
        self.minimum = if self.samples == 0 { devices.len() } else { self.minimum.min(devices.len()) };
        self.maximum = self.maximum.max(devices.len());
        self.samples += 1;
        if self.changes.last().is_none_or(|last| last.devices != devices) {
            self.changes.push(Change { at, devices });
        }
    }
}

/// Looks at the allocatable devices of `resource` every so many milliseconds, until SIGTERM or for `seconds`. Prints the
/// first state at once: what happens after that is not missed.
pub(super) async fn watch(
    lister: &mut Lister,
    resource: &str,
    seconds: u64,
    milliseconds: u64,
) -> Result<Watched, ResourcesError> {
    let fail = |error: std::io::Error| ResourcesError::Client { source: error.into() };
    let mut stop = signal(SignalKind::terminate()).map_err(fail)?;
    let deadline = Instant::now() + Duration::from_secs(seconds);
    let pause = Duration::from_millis(milliseconds);
    let mut watched = Watched::default();
    while Instant::now() < deadline {
        match lister.allocatable().await {
            Ok(mut devices) => {
                watched.note(now(), devices.remove(resource).unwrap_or_default());
                if watched.samples == 1 {
                    print(&watched.changes)?;
                }
            }
            Err(error) => watched.failures.push(zerobridge_proto::chain(&error)),
        }
        if timeout_at(Instant::now() + pause, stop.recv()).await.is_ok() {
            break;
        }
    }
    Ok(watched)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_sample_without_devices_is_not_lost() {
        let ids = |list: &[&str]| list.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
        let mut watched = Watched::default();
        let states: [&[&str]; 5] = [&["1", "2"], &["1", "2"], &[], &["1", "2"], &["1", "3"]];
        for (at, state) in (0..).zip(states) {
            watched.note(at, ids(state));
        }
        assert_eq!((watched.samples, watched.minimum, watched.maximum), (5, 0, 2));
        let seen: Vec<u64> = watched.changes.iter().map(|change| change.at).collect();
        assert_eq!(seen, [0, 2, 3, 4], "an exchange of one device for another is a change, too");
    }
}
