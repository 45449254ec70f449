//! Keeps the inventory current: what causes a look at the machine, and what follows from it.
//!
//! Kernel events, gathered into bursts; a new configuration; news about what pods hold or left behind; a check that has
//! waited long enough; and, should an event be lost, a slow timer. Refuses to know what a look consists of.

use std::sync::Arc;
use std::time::{self, Duration};

use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until};
use tracing::{debug, info, warn};
use zerobridge_kernel::{DeviceEvent, DeviceEvents};
use zerobridge_proto::chain;

use crate::blocking::blocking;
use crate::cdi::NodeMethod;
use crate::cluster::{Event, EventSink, Subject};
use crate::config::{Config, LegConfig};
use crate::debounce::Burst;
use crate::health::DirtyVfs;
use crate::inventory::{Inventory, Look, Offer, Update};
use crate::observer::{Needs, ObserveError, Observer};
use crate::operations::{Heartbeat, Metrics, Outcome};
use crate::pod_resources::Held;
use crate::pool::Surroundings;
use crate::rdma::Obstacle;

/// What the lookout listens to.
#[derive(Debug)]
pub(crate) struct Sources {
    /// The configuration for this node.
    pub(crate) config: watch::Receiver<Arc<Config>>,
    /// How device nodes reach containers.
    pub(crate) method: watch::Receiver<NodeMethod>,
    /// What pods hold; `None` while the kubelet does not say.
    pub(crate) held: watch::Receiver<Option<Arc<Held>>>,
    /// VFs that dead pods left behind.
    pub(crate) dirty: watch::Receiver<Arc<DirtyVfs>>,
    /// What the kernel reports; `None` for a tree of files, of which it reports nothing.
    pub(crate) events: Option<DeviceEvents>,
    /// How often to look without a cause.
    pub(crate) rescan: Duration,
}

/// Whom the lookout tells.
#[derive(Clone, Debug)]
pub(crate) struct Audience {
    /// What to offer to the kubelet: another list whenever the configuration changes.
    pub(crate) offers: watch::Sender<Vec<Offer>>,
    /// What the latest look found and made of it.
    pub(crate) looks: watch::Sender<Arc<Look>>,
    /// Counters.
    pub(crate) metrics: Metrics,
    /// Beats with every look.
    pub(crate) heartbeat: Heartbeat,
    /// Kubernetes events.
    pub(crate) cluster: EventSink,
}

/// Looks, and tells.
#[derive(Debug)]
pub(crate) struct Lookout {
    observer: Option<Observer>,
    needs: Needs,
    legs: Vec<LegConfig>,
    inventory: Inventory,
    audience: Audience,
    /// When a check of the first look wants to be made again.
    check: Option<Instant>,
    told_failure: Option<String>,
}

/// Why there is a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    Start,
    Event,
    Timer,
    Configuration,
    Pods,
    Check,
}

impl Lookout {
    /// Takes the first look, so that the pools are complete before anybody registers them.
    ///
    /// # Errors
    /// What kept the machine from being read. Later looks that fail only leave things as they were.
    pub(crate) async fn open(
        observer: Observer,
        sources: &mut Sources,
        audience: Audience,
    ) -> Result<Self, ObserveError> {
        let config = Arc::clone(&sources.config.borrow_and_update());
        let mut lookout = Self {
            observer: Some(observer),
            needs: Needs::of(&config.pools),
            legs: config.legs.clone(),
            inventory: Inventory::default(),
            audience,
            check: None,
            told_failure: None,
        };
        lookout.inventory.configure(config.pools.clone());
        let around = lookout.observe(Cause::Start).await?;
        lookout.check = lookout.digest(around, sources);
        lookout.audience.offers.send_replace(lookout.inventory.offers().collect());
        Ok(lookout)
    }

    /// Looks whenever there is a cause. Returns when there is nobody left to report one.
    pub(crate) async fn run(mut self, mut sources: Sources) {
        // The first look has just been taken.
        let mut timer = interval_at(Instant::now() + sources.rescan, sources.rescan);
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut check = self.check.take();
        loop {
            let cause = tokio::select! {
                event = next(&mut sources.events) => {
                    self.gather(&event, &mut sources.events).await;
                    Cause::Event
                }
                _ = timer.tick() => Cause::Timer,
                changed = sources.config.changed() => match changed {
                    Ok(()) => Cause::Configuration,
                    Err(_) => return,
                },
                changed = sources.method.changed() => match changed {
                    Ok(()) => Cause::Configuration,
                    Err(_) => return,
                },
                changed = sources.held.changed() => match changed {
                    Ok(()) => Cause::Pods,
                    Err(_) => return,
                },
                changed = sources.dirty.changed() => match changed {
                    Ok(()) => Cause::Pods,
                    Err(_) => return,
                },
                () = due(check) => Cause::Check,
            };
            if cause == Cause::Configuration {
                let config = Arc::clone(&sources.config.borrow_and_update());
                self.needs = Needs::of(&config.pools);
                self.legs.clone_from(&config.legs);
                self.inventory.configure(config.pools.clone());
            }
            match self.observe(cause).await {
                Ok(around) => check = self.digest(around, &mut sources),
                Err(error) => self.tell_failure(&error),
            }
            if cause == Cause::Configuration {
                // After the look: a new pool is complete before it is registered.
                self.audience.offers.send_replace(self.inventory.offers().collect());
            }
        }
    }

    /// Waits until a burst of events is over.
    async fn gather(&self, first: &DeviceEvent, events: &mut Option<DeviceEvents>) {
        self.audience.metrics.heard(kind(first));
        let mut burst = Burst::at(Instant::now());
        loop {
            tokio::select! {
                event = next(events) => {
                    self.audience.metrics.heard(kind(&event));
                    burst.again(Instant::now());
                }
                () = sleep_until(burst.due()) => return,
            }
        }
    }

    /// The kernel answers from memory, but asks drivers on the way, and a driver may sleep: so not on an async worker.
    async fn observe(&mut self, cause: Cause) -> Result<Surroundings, ObserveError> {
        let Some(mut observer) = self.observer.take() else { return Ok(Surroundings::default()) };
        let thorough = !matches!(cause, Cause::Event | Cause::Pods | Cause::Check);
        let needs = self.needs;
        let began = Instant::now();
        let (result, observer) = blocking(move || (observer.look(needs, thorough), observer)).await;
        self.observer = Some(observer);
        self.audience.metrics.rescanned(cause.name(), Outcome::of(&result), began.elapsed());
        self.audience.heartbeat.beat(time::Instant::now());
        debug!(cause = cause.name(), took = ?began.elapsed(), ok = result.is_ok(), "looked at the machine");
        result.map(|around| around.with_legs(&self.legs))
    }

    /// Publishes a look. Returns when a check wants to be made again.
    fn digest(&mut self, around: Surroundings, sources: &mut Sources) -> Option<Instant> {
        self.told_failure = None;
        let held = sources.held.borrow_and_update().clone();
        let dirty = Arc::clone(&sources.dirty.borrow_and_update());
        let update = self.inventory.update(&around, held.as_deref(), &dirty, Instant::now());
        self.tell(&update, held.as_deref());
        let look = self.inventory.look(around, *sources.method.borrow_and_update());
        tell_obstacles(&self.audience.looks.borrow().obstacles, &look.obstacles);
        self.audience.looks.send_replace(Arc::new(look));
        update.next
    }

    fn tell(&self, update: &Update, held: Option<&Held>) {
        for (pool, transition) in &update.transitions {
            self.audience.metrics.health_changed(pool, transition.check, transition.failure.is_none());
            let (id, check) = (&transition.device, transition.check);
            let (pool_name, devices) = (pool.clone(), [id.clone()].into());
            let event = if transition.failure.is_none() {
                Event::DeviceHealthy { pool: pool_name, devices, check }
            } else {
                Event::DeviceUnhealthy { pool: pool_name, devices, check }
            };
            let holders =
                held.map(|held| held.holders(&pool.to_string(), &id.to_string())).unwrap_or_default();
            for holder in holders {
                let (namespace, name) = (holder.namespace.clone(), holder.pod.clone());
                self.audience.cluster.send(Subject::Pod { namespace, name, uid: None }, event.clone());
            }
            self.audience.cluster.send(Subject::Node, event);
        }
        for (pool, device, reason) in &update.withheld {
            let devices = [device.clone().into()].into();
            let event = Event::DevicesWithheld { pool: pool.clone(), devices, why: reason.to_string() };
            self.audience.cluster.send(Subject::Node, event);
        }
    }

    /// A failure that lasts is told once.
    fn tell_failure(&mut self, error: &ObserveError) {
        let failure = chain(error);
        if self.told_failure.as_ref() == Some(&failure) {
            debug!(error = failure, "cannot look at the machine, still");
        } else {
            warn!(error = failure, "cannot look at the machine; the pools stay as they are");
            self.told_failure = Some(failure);
        }
    }
}

/// Each once when it appears, and once when it is gone.
fn tell_obstacles(former: &[Obstacle], present: &[Obstacle]) {
    for obstacle in present.iter().filter(|obstacle| !former.contains(obstacle)) {
        warn!(reason = obstacle.cause.name(), "{obstacle}");
    }
    for Obstacle { cause, pools } in former.iter().filter(|obstacle| !present.contains(obstacle)) {
        let pools = pools.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        info!(reason = cause.name(), pools, "no longer in the way");
    }
}

impl Cause {
    fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Event => "event",
            Self::Timer => "timer",
            Self::Configuration => "configuration",
            Self::Pods => "pods",
            Self::Check => "check",
        }
    }
}

fn kind(event: &DeviceEvent) -> &'static str {
    match event {
        DeviceEvent::Device(_) => "device",
        DeviceEvent::Link => "link",
        DeviceEvent::Address => "address",
        DeviceEvent::Route => "route",
        DeviceEvent::Overrun => "overrun",
    }
}

async fn next(events: &mut Option<DeviceEvents>) -> DeviceEvent {
    match events {
        Some(events) => events.next().await,
        None => std::future::pending().await,
    }
}

async fn due(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
