//! The claims of one pool on this node: hears of them and of pods, lets the registrar decide, and does what it says.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tracing::{error, warn};
use zerobridge_blocks::{IPClaim, Registrar, Step, Timing};
use zerobridge_ledger::LedgerError;
use zerobridge_proto::chain;

use super::book::ClaimBook;
use super::known::{Known, alive};
use super::proofs::Proofs;
use super::report::tell;
use super::requests::perform;
use super::{Outline, Wanted};
use crate::blocking::{blocking, blocking_on};
use crate::cluster::ApiServer;
use crate::cluster::blocks::IpBlocks;
use crate::cluster::blocks::follow::{News, follow};
use crate::cluster::blocks::identity::Identity;
use crate::folder_watch::watch_folder;

/// How often the ledger is looked at without a sign that it has changed.
const POLL: Duration = Duration::from_secs(15);
/// How often is looked whether ledgers that are in the way are dead.
const PROOFS: Duration = Duration::from_secs(30);
/// The pause after the ledger failed.
const LEDGER_PAUSE: Duration = Duration::from_secs(5);

/// The agent of one pool's claims.
pub(in crate::cluster::blocks) struct ClaimAgent {
    name: String,
    state_dir: PathBuf,
    identity: Identity,
    server: Arc<ApiServer>,
    outline: watch::Receiver<Option<Outline>>,
    wanted: watch::Sender<Wanted>,
    start: Instant,
    claims: Known<IPClaim>,
    pods: Known<Pod>,
    desk: Option<Desk>,
    proofs: Proofs,
    proofs_due: Duration,
}

/// What decides and what is decided about, away while it works on the disk.
struct Desk {
    registrar: Registrar,
    book: ClaimBook,
}

impl ClaimAgent {
    /// An agent that hears of its pool by `outline`, and says by `wanted` which blocks nodes are to give back.
    pub(in crate::cluster::blocks) fn new(
        name: &str,
        settings: &IpBlocks,
        identity: &Identity,
        server: &Arc<ApiServer>,
        outline: watch::Receiver<Option<Outline>>,
        wanted: watch::Sender<Wanted>,
    ) -> Self {
        Self {
            name: name.to_owned(),
            state_dir: settings.state_dir.clone(),
            identity: identity.clone(),
            server: Arc::clone(server),
            outline,
            wanted,
            start: Instant::now(),
            claims: Known::default(),
            pods: Known::default(),
            desk: None,
            proofs: Proofs::default(),
            proofs_due: Duration::ZERO,
        }
    }

    /// Goes on for as long as it can.
    pub(in crate::cluster::blocks) async fn run(mut self) {
        let mut parts = JoinSet::new();
        let (claim_news, mut claims) = mpsc::channel(64);
        let (pod_news, mut pods) = mpsc::channel(256);
        let of_pool = format!("spec.pool={}", self.name);
        parts.spawn(follow::<IPClaim>(Arc::clone(&self.server), of_pool, claim_news));
        let mut changes = match watch_folder(&self.state_dir, "claims-watch", Some(POLL)) {
            Ok(changes) => changes,
            Err(error) => {
                error!(%error, "cannot watch the ledger; nothing is done about IPClaims");
                return;
            }
        };
        // Pods are heard of only where there are claims.
        let mut unheard = Some(pod_news);
        let mut wake = None;
        loop {
            let due = wake.unwrap_or_else(|| Instant::now() + POLL);
            tokio::select! {
                Some(news) = claims.recv() => self.claims.hear(news),
                Some(news) = pods.recv() => self.pods.hear(news),
                Ok(()) = self.outline.changed() => {}
                Ok(()) = changes.changed() => {}
                () = sleep_until(due) => {}
            }
            // What has come meanwhile is heard before anything is decided.
            while let Ok(news) = claims.try_recv() {
                self.claims.hear(news);
            }
            while let Ok(news) = pods.try_recv() {
                self.pods.hear(news);
            }
            if let Some(pod_news) = unheard.take_if(|_| !self.claims.is_empty()) {
                let on_this_node = format!("spec.nodeName={}", self.identity.holder.node);
                parts.spawn(follow::<Pod>(Arc::clone(&self.server), on_this_node, pod_news));
            } else if unheard.is_some() {
                self.pods.hear(News::Undefined);
            }
            wake = match self.act().await {
                Ok(until) => until,
                Err(error) => {
                    warn!(pool = self.name, error = chain(&error), "cannot use the ledger");
                    Some(Instant::now() + LEDGER_PAUSE)
                }
            };
        }
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Does what is to be done now. Returns when something may be to be done without a cause.
    async fn act(&mut self) -> Result<Option<Instant>, LedgerError> {
        let Some(outline) = self.outline.borrow_and_update().clone() else { return Ok(None) };
        self.open(&outline).await?;
        let Some(desk) = &mut self.desk else { return Ok(None) };
        desk.registrar.set_pool(outline.pool);
        desk.registrar.set_clerk(outline.is_clerk);
        if let Some(claims) = self.claims.news() {
            desk.registrar.set_claims(claims.values().cloned().collect());
        }
        if let Some(pods) = self.pods.news() {
            desk.registrar.set_here(alive(pods));
        }
        loop {
            let now = self.now();
            let step = self.at_desk(move |desk| desk.registrar.next(&mut desk.book, now)).await;
            let (Some(step), Some(desk)) = (step, &self.desk) else { return Ok(None) };
            let (step, registrar) = (step?, &desk.registrar);
            if registrar.is_named() {
                let wanted = Some(registrar.wishes().blocks(registrar.pool()));
                self.wanted.send_if_modified(|known| {
                    let is_news = *known != wanted;
                    *known = wanted;
                    is_news
                });
            }
            match step {
                Step::Ask(question) => {
                    let reply = perform(&self.server, registrar.pool(), registrar.claims(), &question).await;
                    let now = self.now();
                    let take_note =
                        move |desk: &mut Desk| desk.registrar.answered(&mut desk.book, reply, now);
                    if let Some(outcome) = self.at_desk(take_note).await {
                        outcome?;
                    }
                }
                Step::Wait(until) if !self.prove().await => {
                    self.tell().await;
                    return Ok(until.map(|until| self.start + until));
                }
                Step::Wait(_) => {}
            }
        }
    }

    /// Opens the pool's part of the ledger; anew when the pool is cut otherwise.
    async fn open(&mut self, outline: &Outline) -> Result<(), LedgerError> {
        if self.desk.as_ref().is_some_and(|desk| desk.registrar.pool().is_cut_as(&outline.pool)) {
            return Ok(());
        }
        let (state_dir, name, pool) = (self.state_dir.clone(), self.name.clone(), outline.pool.clone());
        let Identity { holder, lock, .. } = self.identity.clone();
        let boot_id = holder.boot_id.clone();
        let book = blocking(move || ClaimBook::open(&state_dir, lock, &name, &boot_id)).await?;
        self.desk = Some(Desk { registrar: Registrar::new(pool, holder, Timing::default()), book });
        self.claims.tell_again();
        self.pods.tell_again();
        Ok(())
    }

    /// Does work that may take as long as the disk does. `None` before there is a desk.
    async fn at_desk<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Desk) -> T + Send + 'static,
    ) -> Option<T> {
        blocking_on(&mut self.desk, work).await
    }

    /// Finds out which ledgers are dead that are in the way, if it is time. Returns whether one is.
    async fn prove(&mut self) -> bool {
        let now = self.now();
        let Some(desk) = &mut self.desk else { return false };
        let suspects = desk.registrar.in_the_way();
        if suspects.is_empty() || now < self.proofs_due {
            return false;
        }
        self.proofs_due = now + PROOFS;
        let dead = self.proofs.dead(&self.server, &self.name, &self.identity, suspects, now).await;
        let is_news = !dead.is_empty();
        desk.registrar.set_dead(dead);
        is_news
    }

    async fn tell(&mut self) {
        let Some(Desk { registrar, .. }) = &mut self.desk else { return };
        if let Some(found) = registrar.take_report() {
            tell(&self.server, registrar.claims(), registrar.wishes(), &found).await;
        }
    }
}
