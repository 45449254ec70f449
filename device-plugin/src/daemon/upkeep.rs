//! What the daemon does now and then: asks the kubelet what pods hold, puts in order what nobody owns, and sees to the
//! files of devices.
//!
//! Refuses to decide any of it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, warn};
use zerobridge_proto::chain;

use super::{DaemonError, Settings, repairer};
use crate::answers::Giving;
use crate::blocking::blocking;
use crate::cluster::{Event, EventSink, Subject};
use crate::device::Device;
use crate::health::DirtyVfs;
use crate::inventory::Look;
use crate::operations::{Metrics, Outcome};
use crate::pod_resources::{Held, PodResourcesClient};
use crate::reconcile::{Reconciler, Reconciliation, Report};

/// How often the kubelet is asked without a cause. An allocation is a cause; that a pod has ended is what this finds.
const ASK_PERIOD: Duration = Duration::from_secs(10);

/// How long after an allocation the kubelet is asked: it lists a pod when it has admitted it.
const ASK_AFTER_ALLOCATION: Duration = Duration::from_secs(1);

/// How often promises are compared with what is so, and files with who needs them.
const PASS_PERIOD: Duration = Duration::from_secs(30);

/// How old a promise or a file must be before anything is concluded from nobody holding its device: a CNI call that is
/// under way takes seconds, an admission that has allocated and not yet been listed less.
const GRACE: Duration = Duration::from_secs(60);

/// Does it.
#[derive(Debug)]
pub(super) struct Upkeep {
    kubelet: PodResourcesClient,
    /// Away while it works.
    reconciler: Option<Reconciler>,
    told: BTreeSet<Report>,
    held: watch::Sender<Option<Arc<Held>>>,
    dirty: watch::Sender<Arc<DirtyVfs>>,
    metrics: Metrics,
    cluster: EventSink,
}

impl Upkeep {
    /// # Errors
    /// [`DaemonError::BootId`].
    pub(super) fn new(
        settings: &Settings,
        metrics: Metrics,
        cluster: EventSink,
    ) -> Result<Self, DaemonError> {
        let repairer = repairer(settings, "the reconciler of the device plugin")?;
        Ok(Self {
            kubelet: PodResourcesClient::new(settings.kubelet_root.clone()),
            reconciler: Some(Reconciler::new(settings.state_dir.clone(), repairer, GRACE)),
            told: BTreeSet::new(),
            held: watch::Sender::default(),
            dirty: watch::Sender::default(),
            metrics,
            cluster,
        })
    }

    /// What pods hold; `None` until the kubelet has said it once. While it does not answer, its last word stands: pods
    /// outlive a kubelet.
    pub(super) fn held(&self) -> watch::Receiver<Option<Arc<Held>>> {
        self.held.subscribe()
    }

    /// VFs that dead pods left behind and that could not be restored.
    pub(super) fn dirty(&self) -> watch::Receiver<Arc<DirtyVfs>> {
        self.dirty.subscribe()
    }

    /// Asks the kubelet what pods hold. Returns whether it said.
    pub(super) async fn ask_kubelet(&mut self) -> bool {
        let Some(answer) = self.kubelet.ask().await else { return false };
        self.held.send_if_modified(|held| {
            let news = held.as_deref() != Some(&answer);
            if news {
                *held = Some(Arc::new(answer));
            }
            news
        });
        true
    }

    /// Goes on for ever.
    pub(super) async fn run(mut self, giving: Arc<Giving>) {
        let mut ask = Instant::now() + ASK_PERIOD;
        let mut pass = Instant::now();
        loop {
            tokio::select! {
                () = giving.given.notified() => ask = ask.min(Instant::now() + ASK_AFTER_ALLOCATION),
                () = sleep_until(ask) => {
                    self.ask_kubelet().await;
                    ask = Instant::now() + ASK_PERIOD;
                }
                () = sleep_until(pass) => {
                    self.pass(&giving).await;
                    pass = Instant::now() + PASS_PERIOD;
                }
            }
        }
    }

    async fn pass(&mut self, giving: &Arc<Giving>) {
        // Asked now, because what it says must not be older than the namespaces that are looked at.
        let answered = self.ask_kubelet().await;
        let held = if answered { self.held.borrow().clone() } else { None };
        self.reconcile(held.clone(), giving).await;
        if let Some(held) = held {
            let giving = Arc::clone(giving);
            blocking(move || see_to_files(&giving, &held)).await;
        }
    }

    async fn reconcile(&mut self, held: Option<Arc<Held>>, giving: &Giving) {
        let Some(mut reconciler) = self.reconciler.take() else { return };
        let look = Arc::clone(&giving.looks.borrow());
        let work = move || {
            let passed = reconciler.pass(held.as_deref(), &look.around.machine, SystemTime::now());
            (passed, reconciler)
        };
        let (passed, reconciler) = blocking(work).await;
        self.reconciler = Some(reconciler);
        match passed {
            Ok(passed) => self.tell(&passed),
            Err(error) => warn!(error = chain(&error), "cannot compare the ledger with what is so"),
        }
    }

    fn tell(&mut self, passed: &Reconciliation) {
        for repair in &passed.repaired {
            self.metrics.repaired(repair.cause.name(), Outcome::Success);
            let event = Event::RepairDone { device: repair.device.into(), what: repair.cause.to_string() };
            self.cluster.send(Subject::Node, event);
        }
        for (repair, _) in &passed.failed {
            self.metrics.repaired(repair.cause.name(), Outcome::Failure);
        }
        for report in passed.reports.difference(&self.told) {
            if let Some(device) = report.device() {
                let event = Event::RepairRefused { device: device.into(), why: report.to_string() };
                self.cluster.send(Subject::Node, event);
            }
        }
        self.told.clone_from(&passed.reports);
        let dirty = passed.dirty.clone();
        self.dirty.send_if_modified(|present| {
            let news = **present != dirty;
            if news {
                *present = Arc::new(dirty);
            }
            news
        });
    }
}

/// Writes the files of held devices that are missing, and removes those that nobody needs.
fn see_to_files(giving: &Giving, held: &Held) {
    let look: Arc<Look> = Arc::clone(&giving.looks.borrow());
    let delivery = giving.delivery();
    for pool in &look.pools {
        let resource = pool.config.resource.to_string();
        let is_held = |device: &&Device| held.holds(&resource, &device.id.to_string());
        let devices: Vec<&Device> = pool.devices.values().filter(is_held).collect();
        for error in giving.allocator.restore(&pool.config, &devices, delivery) {
            debug!(pool = resource, error = chain(&error), "cannot write the files of a device in use");
        }
    }
    let collected = giving.allocator.collect(&held.of_pools(), SystemTime::now(), GRACE);
    for error in collected.errors {
        warn!(error = chain(&error), "cannot collect the files of devices that nobody holds");
    }
}
