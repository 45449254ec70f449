//! Gets events to the API server without ever holding up whoever has something to say.
//!
//! What is said within half a second and differs in devices only becomes one event; what was said within the last
//! minutes is counted. What does not fit, or is refused, is dropped and counted.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1 as k8s;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use prometheus_client::metrics::counter::Counter;
use serde_json::json;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use tracing::{debug, info, warn};
use zerobridge_proto::chain;

use super::api::{ApiAccess, ApiError, ApiServer};
use super::event::{Event, Severity, Subject};
use super::series::{Key, Occurrences, Ration, Series};

/// How many events wait while the API server takes its time.
const QUEUE: usize = 256;

/// How long to wait for more of the same before an event is written.
const GATHER: Duration = Duration::from_millis(500);

/// How often repetitions are told.
const RETELL: Duration = Duration::from_secs(30);

/// How long an event is worth telling. The API server itself forgets after an hour by default.
const WORTH: Duration = Duration::from_secs(10 * 60);

/// The pauses before an event is tried again.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// The name under which this program reports (`reportingController`, a qualified name).
const CONTROLLER: &str = "zerobridge.io/device-plugin";

/// The namespace for events about objects that have none (`ValidateEventCreate` in Kubernetes).
const NODE_NAMESPACE: &str = "default";

/// Takes events. Cheap to clone, never waits, and does nothing where there is no access to an API server.
#[derive(Clone, Debug)]
pub(crate) struct EventSink {
    queue: Option<Sender<Said>>,
    dropped: Counter,
    clock: fn() -> SystemTime,
}

/// Writes what its [`EventSink`] takes.
#[derive(Debug)]
pub(crate) struct EventRecorder {
    server: Arc<ApiServer>,
    node: String,
    queue: Receiver<Said>,
    dropped: Counter,
    series: Series,
    ration: Ration,
    told: Told,
    written: u64,
}

#[derive(Debug)]
struct Said {
    subject: Subject,
    event: Event,
    at: SystemTime,
}

/// Which troubles were said already.
#[derive(Debug, Default)]
struct Told {
    refused: bool,
    away: bool,
    dropped: bool,
}

impl EventSink {
    /// A sink that takes everything and keeps nothing.
    #[must_use]
    pub(crate) fn none() -> Self {
        Self { queue: None, dropped: Counter::default(), clock: SystemTime::now }
    }

    /// Says that something happened, now.
    pub(crate) fn send(&self, subject: Subject, event: Event) {
        let Some(queue) = &self.queue else { return };
        if queue.try_send(Said { subject, event, at: (self.clock)() }).is_err() {
            self.dropped.inc();
        }
    }
}

impl EventRecorder {
    /// A recorder for events of this node, and where to put them. Without access to an API server the sink is
    /// [`EventSink::none`]. `dropped` counts what is lost: to a full queue, to the ration, or because the API server did
    /// not take it.
    #[must_use]
    pub(crate) fn new(
        server: Arc<ApiServer>,
        node: String,
        dropped: Counter,
        clock: fn() -> SystemTime,
    ) -> (EventSink, Self) {
        let (sender, queue) = mpsc::channel(QUEUE);
        let sender = (*server.access() != ApiAccess::None).then_some(sender);
        let sink = EventSink { queue: sender, dropped: dropped.clone(), clock };
        let (series, ration) = (Series::default(), Ration::new(Instant::now()));
        (sink, Self { server, node, queue, dropped, series, ration, told: Told::default(), written: 0 })
    }

    /// Writes events until every sink is gone and what they took is written, or dropped because the API server is away.
    pub(crate) async fn run(mut self) {
        if *self.server.access() == ApiAccess::None {
            info!("no access to the API server: no events, and no labels of the node");
            return;
        }
        let mut retell = Instant::now() + RETELL;
        loop {
            let has_news = self.series.has_news();
            tokio::select! {
                said = self.queue.recv() => match said {
                    Some(said) => self.write_with_more(said).await,
                    None => break,
                },
                () = sleep_until(retell), if has_news => {
                    self.retell().await;
                    retell = Instant::now() + RETELL;
                }
            }
        }
        self.retell().await;
    }

    async fn write_with_more(&mut self, first: Said) {
        let mut batch = vec![first];
        let deadline = Instant::now() + GATHER;
        while batch.len() < QUEUE
            && let Ok(Some(said)) = timeout_at(deadline, self.queue.recv()).await
        {
            gather(&mut batch, said);
        }
        for said in batch {
            self.write(said).await;
        }
        self.tell_dropped();
    }

    async fn write(&mut self, Said { subject, event, at }: Said) {
        let key = Key { subject, reason: event.reason(), note: event.note() };
        let now = Instant::now();
        if self.series.counts(&key, now, at) {
            return;
        }
        if !self.ration.take(now) {
            self.drop_one();
            return;
        }
        self.written += 1;
        let object = self.object(&key, &event, at);
        if self.create_patiently(&object, now + WORTH).await {
            self.series.remember(key, object.metadata.name.unwrap_or_default(), now, at);
        }
    }

    /// Whether the event is at the API server in the end.
    async fn create_patiently(&mut self, object: &k8s::Event, until: Instant) -> bool {
        let mut pause = PAUSES.0;
        loop {
            let Err(error) = self.create(object).await else {
                self.tell_success();
                return true;
            };
            self.tell(&error);
            // A closed queue: the daemon stops, and does not wait for an API server that is away.
            if !error.is_transient() || Instant::now() + pause > until || self.queue.is_closed() {
                self.drop_one();
                return false;
            }
            sleep(pause).await;
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    async fn create(&self, object: &k8s::Event) -> Result<(), ApiError> {
        let namespace = object.metadata.namespace.clone().unwrap_or_default();
        let missing = || format!("namespace {namespace}");
        let request = async |client| {
            Api::<k8s::Event>::namespaced(client, &namespace).create(&PostParams::default(), object).await
        };
        match self.server.ask("record an event", missing, request).await {
            // An earlier try arrived, and only its answer was lost.
            Ok(_) | Err(ApiError::Exists { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Tells how often events were repeated.
    async fn retell(&mut self) {
        for Occurrences { key, name, count, last, .. } in self.series.news() {
            let series = k8s::EventSeries { count, last_observed_time: micro_time(last) };
            let patch = Patch::Merge(json!({"series": series}));
            let namespace = namespace(&key.subject);
            let request = async |client| {
                let events = Api::<k8s::Event>::namespaced(client, namespace);
                events.patch(&name, &PatchParams::default(), &patch).await
            };
            match self.server.ask("count an event", || format!("event {name}"), request).await {
                Ok(_) => self.tell_success(),
                Err(error) => {
                    // Gone, or out of reach: the next occurrence begins a new event.
                    self.series.forget(&key);
                    self.drop_one();
                    self.tell(&error);
                }
            }
        }
    }

    fn object(&self, key: &Key, event: &Event, at: SystemTime) -> k8s::Event {
        let regarding = regarding(&key.subject, &self.node);
        let name = object_name(regarding.name.as_deref().unwrap_or_default(), at, self.written);
        let metadata = ObjectMeta {
            name: Some(name),
            namespace: Some(namespace(&key.subject).to_owned()),
            ..ObjectMeta::default()
        };
        let severity = match event.severity() {
            Severity::Normal => "Normal",
            Severity::Warning => "Warning",
        };
        k8s::Event {
            metadata,
            event_time: Some(micro_time(at)),
            reporting_controller: Some(CONTROLLER.to_owned()),
            // Longer instances than this are refused (`ReportingInstanceLengthLimit`).
            reporting_instance: Some(self.node.chars().take(128).collect()),
            action: Some(event.action().to_owned()),
            reason: Some(key.reason.to_owned()),
            note: Some(key.note.clone()),
            type_: Some(severity.to_owned()),
            regarding: Some(regarding),
            ..k8s::Event::default()
        }
    }

    fn drop_one(&self) {
        self.dropped.inc();
    }

    fn tell(&mut self, error: &ApiError) {
        let told = if error.is_transient() { &mut self.told.away } else { &mut self.told.refused };
        if *told {
            debug!(error = chain(error), "the API server does not take an event, still");
        } else {
            *told = true;
            warn!(
                error = chain(error),
                "the API server does not take an event; everything else goes on without it"
            );
        }
    }

    fn tell_success(&mut self) {
        if self.told.away {
            self.told.away = false;
            info!("the API server takes events again");
        }
    }

    fn tell_dropped(&mut self) {
        let dropped = self.dropped.get();
        if dropped > 0 && !self.told.dropped {
            self.told.dropped = true;
            warn!(dropped, "events were dropped; from now on they are only counted");
        }
    }
}

/// Puts an event to those that wait, into one that differs in devices only if there is one.
fn gather(batch: &mut Vec<Said>, said: Said) {
    let Said { subject, mut event, at } = said;
    for waiting in batch.iter_mut().filter(|waiting| waiting.subject == subject) {
        match waiting.event.absorb(event) {
            Ok(()) => return,
            Err(other) => event = other,
        }
    }
    batch.push(Said { subject, event, at });
}

fn namespace(subject: &Subject) -> &str {
    match subject {
        Subject::Node => NODE_NAMESPACE,
        Subject::Pod { namespace, .. } => namespace,
    }
}

fn regarding(subject: &Subject, node: &str) -> ObjectReference {
    let reference = |kind: &str| ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some(kind.to_owned()),
        ..ObjectReference::default()
    };
    match subject {
        // The kubelet too gives the name as the UID of a node; `kubectl describe node` looks for both.
        Subject::Node => {
            ObjectReference { name: Some(node.to_owned()), uid: Some(node.to_owned()), ..reference("Node") }
        }
        Subject::Pod { namespace, name, uid } => ObjectReference {
            namespace: Some(namespace.clone()),
            name: Some(name.clone()),
            uid: uid.clone(),
            ..reference("Pod")
        },
    }
}

/// `object.time`, as client-go names events, within the 253 characters of a DNS subdomain.
fn object_name(object: &str, at: SystemTime, number: u64) -> String {
    let nanoseconds = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
    let object: String = object.chars().take(200).collect();
    let object = object.trim_end_matches(['.', '-']);
    format!("{object}.{:x}", nanoseconds + u128::from(number))
}

fn micro_time(at: SystemTime) -> MicroTime {
    MicroTime(Timestamp::try_from(at).unwrap_or(Timestamp::UNIX_EPOCH))
}

#[cfg(test)]
mod tests;
