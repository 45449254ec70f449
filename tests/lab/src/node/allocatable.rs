//! What the kubelet can allocate: now, once something has happened, and while it happens.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::Node;
use crate::machine::{Guest, GuestError, State, program};

/// How long the kubelet may take to open its registration socket, and a little more.
const SOCKET_LIMIT: Duration = Duration::from_secs(200);
/// How long an event may take that is followed, and a little more.
const EVENT_LIMIT: Duration = Duration::from_secs(90);
/// How long a watch may take to begin, and to notice that it is to end.
const WATCH_LIMIT: Duration = Duration::from_secs(30);
/// After which time a watch ends by itself.
const LONGEST_WATCH: &str = "1200";
const SIGTERM: i32 = 15;

/// How long a resource took to be allocatable.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Waited {
    /// From the appearance of the kubelet's registration socket.
    pub milliseconds: u64,
    /// The allocatable devices.
    pub devices: Vec<String>,
}

/// An event and when resources had the devices that it should bring or take; times in microseconds since 1970, by the
/// guest's clock.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Followed {
    /// When the event began.
    pub began: u64,
    /// When it had ended.
    pub ended: u64,
    /// When each resource was first seen to have its devices.
    pub seen: BTreeMap<String, u64>,
}

impl Followed {
    /// How long the event took.
    #[must_use]
    pub fn event(&self) -> Duration {
        Duration::from_micros(self.ended.saturating_sub(self.began))
    }

    /// How long after the event's end the last resource had its devices; zero if all had them before.
    #[must_use]
    pub fn delay(&self) -> Duration {
        let last = self.seen.values().max().copied().unwrap_or_default();
        Duration::from_micros(last.saturating_sub(self.ended))
    }
}

/// A running look at one resource.
#[derive(Debug)]
#[must_use = "it says what it saw when it is ended"]
pub struct Watch {
    pid: u32,
    log: String,
}

/// What a resource went through.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Watched {
    /// How often the kubelet answered.
    pub samples: u64,
    /// Why it did not answer, each time it did not.
    pub failures: Vec<String>,
    /// The fewest allocatable devices ever seen.
    pub minimum: usize,
    /// The most.
    pub maximum: usize,
    /// The first state and every later one that differed from the one before.
    pub changes: Vec<Change>,
}

/// A state of a resource.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Change {
    /// Since when, in microseconds since 1970 by the guest's clock.
    pub at: u64,
    /// The allocatable devices.
    pub devices: Vec<String>,
}

impl Node {
    /// Every resource and its allocatable devices, from the kubelet's pod-resources socket: the healthy ones, whether
    /// they are in a pod or free.
    ///
    /// # Errors
    /// When the kubelet does not answer.
    pub fn allocatable(&self, guest: &mut Guest) -> Result<BTreeMap<String, Vec<String>>, GuestError> {
        guest.json(&[&self.guest_program(), "resources", "allocatable"])
    }

    /// Waits until `count` devices of `resource` are allocatable, at most `limit` from the appearance of the kubelet's
    /// registration socket; with `old_socket`, of one with another inode.
    ///
    /// # Errors
    /// When that does not happen.
    pub fn wait_allocatable(
        &mut self,
        guest: &mut Guest,
        resource: &str,
        count: usize,
        limit: Duration,
        old_socket: Option<u64>,
    ) -> Result<Waited, GuestError> {
        let (count, seconds) = (count.to_string(), limit.as_secs().to_string());
        let old = old_socket.map(|inode| inode.to_string());
        let own = self.guest_program();
        let mut argv = vec![own.as_str(), "resources", "wait", resource, &count, &seconds];
        argv.extend(old.as_deref());
        answer(guest, &argv, limit + SOCKET_LIMIT)
    }

    /// Runs a shell script and waits until every resource has as many allocatable devices as given, at most `limit`
    /// from the script's end.
    ///
    /// # Errors
    /// When all of them had before, the script fails, or one does not get them.
    pub fn follow(
        &self,
        guest: &mut Guest,
        script: &str,
        wanted: &[(&str, usize)],
        limit: Duration,
    ) -> Result<Followed, GuestError> {
        let (own, seconds) = (self.guest_program(), limit.as_secs().to_string());
        let wanted: Vec<String> = wanted.iter().map(|(name, count)| format!("{name}={count}")).collect();
        let mut argv = vec![own.as_str(), "resources", "follow", &seconds];
        argv.extend(wanted.iter().map(String::as_str));
        argv.extend(["--", "sh", "-ec", script]);
        answer(guest, &argv, limit + EVENT_LIMIT)
    }

    /// Begins to look at `resource` at every `interval` and returns after the first look.
    ///
    /// # Errors
    /// When the kubelet does not answer.
    pub fn watch(
        &mut self,
        guest: &mut Guest,
        resource: &str,
        interval: Duration,
    ) -> Result<Watch, GuestError> {
        let name = self.log_name("watch");
        let interval = interval.as_millis().to_string();
        let argv = [&self.guest_program(), "resources", "watch", resource, LONGEST_WATCH, &interval];
        let watch = Watch { pid: guest.start(program(&argv), &name)?, log: format!("/out/{name}.log") };
        guest.wait_for("a first look", WATCH_LIMIT, |guest| {
            let text = guest.read(&watch.log)?.unwrap_or_default();
            Ok(if text.ends_with('\n') { Ok(()) } else { Err("nothing yet".into()) })
        })?;
        Ok(watch)
    }
}

impl Watch {
    /// Ends it and returns what it saw.
    ///
    /// # Errors
    /// When it does not end, or failed before.
    pub fn end(self, guest: &mut Guest) -> Result<Watched, GuestError> {
        guest.signal(self.pid, SIGTERM)?;
        guest.wait_for("the end of a watch", WATCH_LIMIT, |guest| match guest.state(self.pid)? {
            State::Ended(_) => Ok(Ok(())),
            State::Running => Ok(Err(format!("process {} runs", self.pid))),
        })?;
        let text = guest.read(&self.log)?.unwrap_or_default();
        let last = text.lines().last().unwrap_or_default();
        serde_json::from_str(last).map_err(|source| GuestError::NotJson { command: self.log, text, source })
    }
}

fn answer<T: DeserializeOwned>(guest: &mut Guest, argv: &[&str], limit: Duration) -> Result<T, GuestError> {
    let text = guest.run_within(argv, limit)?;
    serde_json::from_str(&text).map_err(|source| GuestError::NotJson {
        command: argv.join(" "),
        text,
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_that_was_there_before_the_end_of_the_event_was_not_late() {
        let seen = |times: [u64; 2]| Followed {
            began: 1_000,
            ended: 5_000,
            seen: BTreeMap::from([("a".into(), times[0]), ("b".into(), times[1])]),
        };
        assert_eq!(seen([2_000, 4_000]).delay(), Duration::ZERO);
        assert_eq!(seen([7_000, 4_000]).delay(), Duration::from_millis(2));
        assert_eq!(seen([7_000, 4_000]).event(), Duration::from_millis(4));
    }
}
