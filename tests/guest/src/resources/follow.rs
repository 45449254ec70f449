//! How long after an event resources have the devices that it should bring or take.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde::Serialize;
use tokio::task::{JoinError, JoinHandle, spawn_blocking};
use tokio::time::{Instant, sleep};

use super::lister::{Devices, Lister};
use super::{ResourcesError, now};

/// Below the kubelet's own limit of 100 questions a second (pkg/kubelet/apis/podresources, `DefaultQPS`).
const POLL: Duration = Duration::from_millis(10);
/// How long the event itself may take.
const EVENT: Duration = Duration::from_secs(60);

/// How many devices each resource is to have.
pub(super) type Wanted = BTreeMap<String, usize>;

/// What `resources follow` prints: times in microseconds since 1970, by the guest's clock.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Followed {
    /// When the event's program was started.
    began: u64,
    /// When it had ended.
    ended: u64,
    /// When each resource was first seen to have its devices, and had them until all had.
    seen: BTreeMap<String, u64>,
}

/// `RESOURCE=COUNT… -- PROGRAM [ARGUMENT…]`.
pub(super) fn parse(words: &[&str]) -> Option<(Wanted, Vec<String>)> {
    let middle = words.iter().position(|word| *word == "--")?;
    let pair = |word: &&str| {
        let (resource, count) = word.split_once('=')?;
        Some((resource.to_owned(), count.parse().ok()?))
    };
    let wanted = words[..middle].iter().map(pair).collect::<Option<Wanted>>()?;
    let event: Vec<String> = words[middle + 1..].iter().map(|word| (*word).to_owned()).collect();
    (!wanted.is_empty() && !event.is_empty()).then_some((wanted, event))
}

/// Runs `event` and waits until every resource has the devices it should, at most `seconds` from the event's end.
pub(super) async fn follow(
    lister: &mut Lister,
    wanted: &Wanted,
    seconds: u64,
    event: &[String],
) -> Result<Followed, ResourcesError> {
    if satisfied(wanted, &lister.allocatable().await?).len() == wanted.len() {
        return Err(ResourcesError::AlreadySo { wanted: shown(wanted) });
    }
    let began = now();
    let mut running = Some(start(event)?);
    let mut ended = None;
    let mut deadline = Instant::now() + EVENT;
    let mut seen = BTreeMap::new();
    loop {
        if running.as_ref().is_some_and(JoinHandle::is_finished)
            && let Some(event) = running.take()
        {
            ended = Some(event.await.map_err(lost)??);
            deadline = Instant::now() + Duration::from_secs(seconds);
        }
        let devices = lister.allocatable().await?;
        let at = now();
        let holding = satisfied(wanted, &devices);
        seen.retain(|resource, _| holding.contains(resource));
        for resource in holding {
            seen.entry(resource).or_insert(at);
        }
        match ended {
            Some(ended) if seen.len() == wanted.len() => return Ok(Followed { began, ended, seen }),
            _ if Instant::now() > deadline => {
                let (event, wanted) = (event.join(" "), shown(wanted));
                return Err(ResourcesError::TooLate { seconds, event, wanted, last: format!("{devices:?}") });
            }
            _ => sleep(POLL).await,
        }
    }
}

/// Starts the event in a thread of its own; its value is the time at which it had ended.
fn start(event: &[String]) -> Result<JoinHandle<Result<u64, ResourcesError>>, ResourcesError> {
    let program = event.join(" ");
    let fail = |source| ResourcesError::Run { program: event.join(" "), source };
    let mut child = Command::new(&event[0])
        .args(&event[1..])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .map_err(fail)?;
    Ok(spawn_blocking(move || match child.wait() {
        Ok(status) if status.success() => Ok(now()),
        Ok(status) => Err(ResourcesError::Event { program, ended: format!("failed: {status}") }),
        Err(source) => Err(ResourcesError::Run { program, source }),
    }))
}

fn lost(error: JoinError) -> ResourcesError {
    ResourcesError::Client { source: error.into() }
}

/// The resources that have as many devices as wanted; one that the kubelet does not know has none.
fn satisfied(wanted: &Wanted, devices: &Devices) -> Vec<String> {
    let has = |resource: &str| devices.get(resource).map_or(0, Vec::len);
    wanted.iter().filter(|(name, count)| has(name) == **count).map(|(name, _)| name.clone()).collect()
}

fn shown(wanted: &Wanted) -> String {
    wanted.iter().map(|(name, count)| format!("{name}={count}")).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_event_is_what_follows_the_dashes() {
        let (wanted, event) = parse(&["a/x=4", "a/y=0", "--", "sh", "-c", "a=b"]).unwrap();
        assert_eq!(wanted, Wanted::from([("a/x".into(), 4), ("a/y".into(), 0)]));
        assert_eq!(event, ["sh", "-c", "a=b"]);
        for bad in [&["a/x=4", "true"][..], &["a/x", "--", "true"], &["--", "true"], &["a/x=1", "--"]] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn an_unknown_resource_has_no_devices() {
        let devices = Devices::from([("a/x".into(), vec!["1".into(), "2".into()])]);
        let wanted = Wanted::from([("a/x".into(), 2), ("a/y".into(), 0), ("a/z".into(), 1)]);
        assert_eq!(satisfied(&wanted, &devices), ["a/x", "a/y"]);
    }

    #[tokio::test]
    async fn an_event_that_fails_is_not_taken_for_one_that_happened() {
        let event = ["sh", "-c", "exit 3"].map(String::from);
        let outcome = start(&event).unwrap().await.unwrap();
        assert!(matches!(outcome, Err(ResourcesError::Event { .. })), "{outcome:?}");
        let event = ["true".to_owned()];
        let before = now();
        assert!(start(&event).unwrap().await.unwrap().unwrap() >= before);
    }
}
