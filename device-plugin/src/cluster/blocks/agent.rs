//! One pool on this node: hears of it, lets the steward decide, and does what it says.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tracing::{error, warn};
use zerobridge_blocks::{
    BlockLedger as _, Claim, Held, IPBlock, IPPool, Next, Pool, Steward, Timing, turn_of,
};
use zerobridge_ledger::LedgerError;
use zerobridge_proto::chain;

use super::IpBlocks;
use super::book::{Book, kept};
use super::claims::{ClaimAgent, Outline, Wanted};
use super::follow::{News, follow};
use super::identity::Identity;
use super::report::{Reporter, SCARCE};
use super::requests::{claim, index_of, perform, tell_use};
use crate::blocking::{blocking, blocking_on};
use crate::cluster::{ApiServer, Event, EventSink, Subject};
use crate::folder_watch::watch_folder;
use crate::operations::Metrics;

/// How often the ledger is looked at without a sign that it has changed.
const POLL: Duration = Duration::from_secs(15);
/// How often is told what of the blocks is in use; by that, others see that this node lives.
const BEAT: Duration = Duration::from_secs(600);
/// The pause after the ledger failed.
const LEDGER_PAUSE: Duration = Duration::from_secs(5);

/// Why an agent ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// Another ledger stands in the place of the one that it acted for.
    LedgerReplaced,
    /// It would not hear of changes.
    Unwatched,
}

/// The agent of one pool.
pub(super) struct PoolAgent {
    name: String,
    state_dir: PathBuf,
    identity: Identity,
    server: Arc<ApiServer>,
    metrics: Metrics,
    events: EventSink,
    reporter: Reporter,
    start: Instant,
    /// The pool as the API server has it.
    object: Option<IPPool>,
    problem: Option<String>,
    /// Objects of this node that were heard of before the pool was.
    listed: Option<Vec<IPBlock>>,
    desk: Option<Desk>,
    /// What the agent of this pool's claims hears, and that agent until it begins.
    outline: watch::Sender<Option<Outline>>,
    claims: Option<(ClaimAgent, watch::Receiver<Wanted>)>,
    wanted: Wanted,
    starved: bool,
    beat_due: Duration,
    ledger_replaced: bool,
}

/// What decides and what is decided about, away while it works on the disk.
struct Desk {
    steward: Steward,
    book: Book,
}

impl PoolAgent {
    pub(super) fn new(
        name: &str,
        settings: &IpBlocks,
        identity: &Identity,
        server: &Arc<ApiServer>,
        metrics: &Metrics,
        events: &EventSink,
    ) -> Self {
        let reporter = Reporter::new(Arc::clone(server), settings.node.clone());
        let ((outline, heard), (told, wanted)) = (watch::channel(None), watch::channel(None));
        let claims = ClaimAgent::new(name, settings, identity, server, heard, told);
        Self {
            name: name.to_owned(),
            state_dir: settings.state_dir.clone(),
            identity: identity.clone(),
            server: Arc::clone(server),
            metrics: metrics.clone(),
            events: events.clone(),
            reporter,
            start: Instant::now(),
            object: None,
            problem: None,
            listed: None,
            desk: None,
            outline,
            claims: Some((claims, wanted)),
            wanted: None,
            starved: false,
            // Not all nodes of a cluster that has just been started at the same moment.
            beat_due: BEAT / 2 + turn_of(&settings.node, "beat", BEAT / 2),
            ledger_replaced: false,
        }
    }

    /// Goes on for as long as it can.
    pub(super) async fn run(mut self) -> Ended {
        let mut parts = JoinSet::new();
        let (pool_news, mut pools) = mpsc::channel(16);
        let (block_news, mut blocks) = mpsc::channel(256);
        parts.spawn(follow::<IPPool>(
            Arc::clone(&self.server),
            format!("metadata.name={}", self.name),
            pool_news,
        ));
        let fields = format!("spec.pool={},spec.holder.node={}", self.name, self.identity.holder.node);
        parts.spawn(follow::<IPBlock>(Arc::clone(&self.server), fields, block_news));
        let changes = watch_folder(&self.state_dir, "ledger-watch", Some(POLL));
        let mut changes = match changes {
            Ok(changes) => changes,
            Err(error) => {
                error!(%error, "cannot watch the ledger; no blocks are claimed");
                return Ended::Unwatched;
            }
        };
        let Some((claims, mut wanted)) = self.claims.take() else { return Ended::Unwatched };
        parts.spawn(claims.run());
        let mut wake = Some(Instant::now());
        loop {
            let due =
                [wake, self.reporter.due().map(|due| self.start + due), Some(self.start + self.beat_due)];
            let due = due.into_iter().flatten().min().unwrap_or_else(|| Instant::now() + POLL);
            tokio::select! {
                Some(news) = pools.recv() => self.hear_of_pool(news).await,
                Some(news) = blocks.recv() => self.hear_of_block(news),
                () = changed(&mut changes) => {}
                () = changed(&mut wanted) => {}
                () = sleep_until(due) => {}
            }
            // What has come meanwhile is heard before anything is decided.
            while let Ok(news) = blocks.try_recv() {
                self.hear_of_block(news);
            }
            self.wanted.clone_from(&wanted.borrow_and_update());
            wake = self.act().await;
            if self.ledger_replaced {
                return Ended::LedgerReplaced;
            }
            self.tell().await;
        }
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    async fn hear_of_pool(&mut self, news: News<IPPool>) {
        let object = match news {
            News::All(objects) => objects.into_iter().next(),
            News::Changed(object) => Some(object),
            News::Deleted(_) => None,
            News::Undefined => return,
        };
        self.object.clone_from(&object);
        let Some(object) = object else {
            if let Some(desk) = &mut self.desk {
                warn!(
                    pool = self.name,
                    "there is no such IPPool; blocks of it are returned as they become empty"
                );
                desk.steward.retire();
            }
            return;
        };
        self.reporter.saw(&object, self.now());
        let spec = serde_json::to_value(&object.spec).unwrap_or_default();
        let judged = match Pool::parse(&self.name, &spec) {
            Ok(pool) => self.take_over(pool, &spec).await,
            Err(error) => Err(chain(&error)),
        };
        let problem = judged.err();
        if let Some(problem) = problem.clone().filter(|_| problem != self.problem) {
            warn!(pool = self.name, problem, "the IPPool cannot be used as it is; the last good one stays");
            self.events.send(Subject::Node, Event::AddressPoolRejected { pool: self.name.clone(), problem });
        }
        self.problem = problem;
        if let Some(desk) = &mut self.desk {
            let status = object.status.unwrap_or_default();
            desk.steward.set_scarce(status.blocks > 0 && status.free_blocks < status.blocks / SCARCE + 1);
            if object.metadata.deletion_timestamp.is_some() {
                desk.steward.retire();
            }
        }
        // What is told of a pool tells its problem too.
        if self.desk.is_none() && self.problem.is_some() {
            self.open_kept().await;
        }
    }

    /// Makes a pool the one in force, or says why not.
    async fn take_over(&mut self, pool: Pool, spec: &Value) -> Result<(), String> {
        if self.desk.is_none() {
            self.open_kept().await;
        }
        if self.desk.as_ref().is_some_and(|desk| !pool.is_cut_as(desk.steward.pool())) {
            if self.held().await.is_none_or(|held| !held.is_empty()) {
                return Err(format!(
                    "spec.subnet and spec.blockSize cannot change while this node holds blocks of {}; make another IPPool",
                    self.name
                ));
            }
            self.desk = None;
        }
        let (recorded, described) = (pool.clone(), spec.clone());
        let record = move |desk: &mut Desk| {
            desk.steward.set_pool(recorded.clone());
            desk.book.record(recorded, &described)
        };
        let outcome = match self.at_desk(record).await {
            Some(outcome) => outcome,
            None => self.open(pool, Some(spec.clone())).await,
        };
        outcome.map_err(|error| chain(&error))
    }

    /// Opens what the ledger has kept, if anything.
    async fn open_kept(&mut self) {
        let (state_dir, name) = (self.state_dir.clone(), self.name.clone());
        let outcome = match blocking(move || kept(&state_dir, &name)).await {
            Ok(Some(pool)) => self.open(pool, None).await,
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = outcome {
            warn!(
                pool = self.name,
                error = chain(&error),
                "cannot read what the ledger has kept of the pool"
            );
        }
    }

    async fn open(&mut self, pool: Pool, spec: Option<Value>) -> Result<(), LedgerError> {
        let (state_dir, opened) = (self.state_dir.clone(), pool.clone());
        let Identity { holder, of_this_boot, lock } = self.identity.clone();
        let book = blocking(move || Book::open(&state_dir, lock, opened, spec.as_ref())).await?;
        let mut steward = Steward::new(pool, holder, of_this_boot, Timing::default());
        if let Some(listed) = &self.listed {
            let claims = listed.iter().filter_map(|object| indexed(steward.pool(), object)).collect();
            steward.listed(claims);
        }
        self.desk = Some(Desk { steward, book });
        Ok(())
    }

    fn hear_of_block(&mut self, news: News<IPBlock>) {
        let Some(desk) = &mut self.desk else {
            let known = self.listed.get_or_insert_default();
            match news {
                News::All(objects) => *known = objects,
                News::Changed(object) => known.push(object),
                News::Deleted(object) => known.retain(|known| known.metadata.uid != object.metadata.uid),
                News::Undefined => {}
            }
            return;
        };
        match news {
            News::All(objects) => {
                let claims =
                    objects.iter().filter_map(|object| indexed(desk.steward.pool(), object)).collect();
                desk.steward.listed(claims);
                self.listed = Some(Vec::new());
            }
            News::Changed(object) => {
                if let Some((index, claim)) = indexed(desk.steward.pool(), &object) {
                    desk.steward.changed(index, claim);
                }
            }
            News::Deleted(object) => {
                if let Some((index, _)) = indexed(desk.steward.pool(), &object) {
                    desk.steward.deleted(index);
                }
            }
            News::Undefined => {}
        }
    }

    /// Tells the agent of this pool's claims what it is about.
    fn tell_claims(&self) -> Option<()> {
        let status = self.object.as_ref().and_then(|object| object.status.as_ref());
        let is_clerk = status.is_some_and(|status| status.reporter == self.identity.holder.node);
        let outline = Some(Outline { pool: self.desk.as_ref()?.steward.pool().clone(), is_clerk });
        self.outline.send_if_modified(|known| {
            let is_news = *known != outline;
            *known = outline;
            is_news
        });
        Some(())
    }

    /// Does what is to be done now. Returns when something may be to be done without a cause.
    async fn act(&mut self) -> Option<Instant> {
        self.tell_claims()?;
        // Before the objects of this node are known, everything in the ledger would seem to lack one.
        self.listed.as_ref()?;
        let wanted = self.wanted.clone()?;
        self.desk.as_mut()?.steward.set_wanted(wanted);
        loop {
            let now = self.now();
            let request = match self.at_desk(move |desk| desk.steward.next(&mut desk.book, now)).await? {
                Ok(Next::Ask(request)) => request,
                Ok(Next::Wait(until)) => {
                    self.account().await;
                    return until.map(|until| self.start + until);
                }
                Err(error) => return self.ledger_failed(&error),
            };
            let desk = self.desk.as_ref()?;
            let answer = perform(&self.server, desk.steward.pool(), desk.steward.holder(), &request).await;
            self.metrics.asked_for_blocks(&self.name, &request, &answer);
            let now = self.now();
            let take_note = move |desk: &mut Desk| desk.steward.answered(&mut desk.book, answer, now);
            if let Err(error) = self.at_desk(take_note).await? {
                return self.ledger_failed(&error);
            }
        }
    }

    fn ledger_failed(&mut self, error: &LedgerError) -> Option<Instant> {
        warn!(pool = self.name, error = chain(error), "cannot use the ledger");
        self.ledger_replaced = matches!(error, LedgerError::Replaced { .. });
        Some(Instant::now() + LEDGER_PAUSE)
    }

    async fn held(&mut self) -> Option<BTreeMap<u32, Held>> {
        self.at_desk(|desk| desk.book.held()).await?.ok()
    }

    /// Does work that may take as long as the disk does. `None` before there is a desk.
    async fn at_desk<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Desk) -> T + Send + 'static,
    ) -> Option<T> {
        blocking_on(&mut self.desk, work).await
    }

    /// Counts what there is, and says what is lacking.
    async fn account(&mut self) {
        let Some(held) = self.held().await else { return };
        let Some(desk) = &self.desk else { return };
        let pool = desk.steward.pool();
        let lost = desk.steward.lost().len();
        self.metrics.blocks_held(&self.name, pool, &held, lost);
        for index in
            desk.steward.lost().iter().filter(|index| held.get(index).is_some_and(|held| held.leased > 0))
        {
            let block = pool.block(*index).map(|block| block.to_string()).unwrap_or_default();
            self.events.send(Subject::Node, Event::AddressBlockLost { pool: self.name.clone(), block });
        }
        let starved = desk.steward.is_starved();
        if starved && !self.starved {
            self.events.send(Subject::Node, Event::AddressPoolExhausted { pool: self.name.clone() });
        }
        self.starved = starved;
    }

    /// Tells of this node's blocks, and of the pool when it is this node's turn.
    async fn tell(&mut self) {
        let now = self.now();
        if now >= self.beat_due {
            self.beat_due = now + BEAT;
            let held = self.held().await.unwrap_or_default();
            let Some(desk) = &self.desk else { return };
            // The time of day, since an agent that starts again must not say what it said before.
            let beat = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            if let Err(error) = tell_use(&self.server, desk.steward.pool(), beat, &held).await {
                warn!(pool = self.name, error = chain(&error), "cannot tell what of the blocks is in use");
            }
        }
        let now = self.now();
        if self.reporter.due().is_some_and(|due| now >= due)
            && let (Some(object), Some(desk)) = (&self.object, &self.desk)
        {
            self.reporter.report(object, desk.steward.pool(), self.problem.as_deref(), now).await;
        }
    }
}

async fn changed<T>(changes: &mut watch::Receiver<T>) {
    if changes.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// The block that an object claims; none if it was made for a pool of this name that was cut otherwise.
fn indexed(pool: &Pool, object: &IPBlock) -> Option<(u32, Claim)> {
    let index = index_of(pool.name(), object.metadata.name.as_deref()?)?;
    (pool.block(index)?.to_string() == object.spec.block).then(|| (index, claim(object)))
}
