//! One node's dealings with one pool: what is known, the one request that is under way, and what follows from answers.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tracing::{debug, info, warn};

use crate::crd::Holder;
use crate::plan::{Action, Claim, Held, Situation, plan};
use crate::{Pool, Silence};

/// After so many refused creations in a row, the API server is asked who has which block.
const REFUSALS: u32 = 3;
/// More steps in the ledger than this before a request would be going round in circles.
const MOST_STEPS: usize = 64;

/// The node's ledger, as far as blocks of one pool are concerned. Every method is durable when it returns.
pub trait BlockLedger {
    /// Why the ledger cannot be read or written.
    type Error;

    /// What is in it, by index.
    ///
    /// # Errors
    /// The ledger's.
    fn held(&mut self) -> Result<BTreeMap<u32, Held>, Self::Error>;

    /// Enters a block: its addresses are leased from now on. One that is there already is no longer draining.
    ///
    /// # Errors
    /// The ledger's.
    fn enter(&mut self, index: u32) -> Result<(), Self::Error>;

    /// Takes a block out, unless something of it is promised; proof and removal are one transaction. Returns whether it is
    /// out.
    ///
    /// # Errors
    /// The ledger's.
    fn leave(&mut self, index: u32) -> Result<bool, Self::Error>;

    /// Says whether further addresses may be leased from a block.
    ///
    /// # Errors
    /// The ledger's.
    fn set_draining(&mut self, index: u32, draining: bool) -> Result<(), Self::Error>;
}

/// A request to the API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Make the object of a block.
    Create {
        /// The block.
        index: u32,
    },
    /// Write the present holder into an object, if it still has this UID and version.
    Replace {
        /// The block.
        index: u32,
        /// The object's UID.
        uid: String,
        /// Its version.
        version: String,
    },
    /// Delete an object, if it still has this UID and version.
    Delete {
        /// The block.
        index: u32,
        /// The object's UID.
        uid: String,
        /// Its version.
        version: String,
    },
    /// Read an object, not older than the request (no `resourceVersion` in a get).
    Read {
        /// The block.
        index: u32,
    },
    /// List which blocks of the pool have an object; the answer may be some seconds old.
    Survey,
}

/// What came of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The object as it is now.
    Object(Claim),
    /// There is no such object, or not any more.
    Gone,
    /// There is one, but not as the request supposed.
    Conflict,
    /// The blocks that have an object.
    Taken(BTreeSet<u32>),
    /// None in time: it may have been done, it may be done yet.
    None,
}

/// What to do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Make this request, and hand its answer to [`Steward::answered`]. After [`Answer::None`], a later answer to the same
    /// request must be thrown away.
    Ask(Request),
    /// Nothing until something is heard, the ledger changes, or the time comes.
    Wait(Option<Duration>),
}

/// How long things are waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// The pause after the first request without an answer; each further one doubles it.
    pub pause: Duration,
    /// The longest pause.
    pub longest_pause: Duration,
    /// The pause between two surveys while no block is free.
    pub survey: Duration,
    /// How long an object of an earlier ledger must have been silent before it is taken for dead.
    pub silence: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            pause: Duration::from_millis(500),
            longest_pause: Duration::from_secs(30),
            survey: Duration::from_secs(20),
            silence: Duration::from_secs(30 * 60),
        }
    }
}

/// The steward of one pool on one node.
#[derive(Clone, Debug)]
pub struct Steward {
    pool: Pool,
    me: Holder,
    /// Ledgers that this node had since it booted.
    of_this_boot: BTreeSet<String>,
    timing: Timing,
    claims: BTreeMap<u32, Claim>,
    silence: Silence,
    absent: BTreeSet<u32>,
    lost: BTreeSet<u32>,
    taken: BTreeSet<u32>,
    doubt: BTreeSet<u32>,
    wanted: BTreeSet<u32>,
    scarce: bool,
    under_way: Option<Request>,
    refusals: u32,
    failures: u32,
    not_before: Duration,
    survey_not_before: Duration,
}

impl Steward {
    /// A steward that knows nothing yet. `of_this_boot` are the incarnations of all ledgers that this node has had since it
    /// booted: their containers may live.
    #[must_use]
    pub fn new(pool: Pool, me: Holder, of_this_boot: BTreeSet<String>, timing: Timing) -> Self {
        Self {
            pool,
            me,
            of_this_boot,
            timing,
            claims: BTreeMap::new(),
            silence: Silence::default(),
            absent: BTreeSet::new(),
            lost: BTreeSet::new(),
            taken: BTreeSet::new(),
            doubt: BTreeSet::new(),
            wanted: BTreeSet::new(),
            scarce: false,
            under_way: None,
            refusals: 0,
            failures: 0,
            not_before: Duration::ZERO,
            survey_not_before: Duration::ZERO,
        }
    }

    /// The pool.
    #[must_use]
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// This node's ledger.
    #[must_use]
    pub fn holder(&self) -> &Holder {
        &self.me
    }

    /// The objects of this node, as last heard.
    #[must_use]
    pub fn claims(&self) -> &BTreeMap<u32, Claim> {
        &self.claims
    }

    /// Blocks in the ledger that are somebody else's at the API server.
    #[must_use]
    pub fn lost(&self) -> &BTreeSet<u32> {
        &self.lost
    }

    /// Whether no block is free, as far as is known.
    #[must_use]
    pub fn is_starved(&self) -> bool {
        self.survey_not_before > Duration::ZERO
    }

    /// The pool has changed, cut as before.
    pub fn set_pool(&mut self, pool: Pool) {
        if pool.is_cut_as(&self.pool) {
            self.pool = pool;
        }
    }

    /// The pool is to be given up: nothing is claimed any more, and what is empty is returned.
    pub fn retire(&mut self) {
        (self.pool.min_free, self.pool.max_free) = (0, 0);
    }

    /// Whether other nodes lack blocks.
    pub fn set_scarce(&mut self, scarce: bool) {
        self.scarce = scarce;
    }

    /// Blocks with addresses that are to be reserved for pods.
    pub fn set_wanted(&mut self, wanted: BTreeSet<u32>) {
        self.wanted = wanted;
    }

    /// A complete list of this node's objects.
    pub fn listed(&mut self, claims: BTreeMap<u32, Claim>) {
        self.claims = claims;
    }

    /// An object of this node was made or changed.
    pub fn changed(&mut self, index: u32, claim: Claim) {
        if claim.holder.node == self.me.node {
            self.claims.insert(index, claim);
        }
    }

    /// An object of this node was deleted.
    pub fn deleted(&mut self, index: u32) {
        self.claims.remove(&index);
    }

    /// Does what is to be done in the ledger, and says what to ask the API server. At `now`, counted from any moment.
    ///
    /// # Errors
    /// The ledger's.
    pub fn next<L: BlockLedger>(&mut self, ledger: &mut L, now: Duration) -> Result<Next, L::Error> {
        if self.under_way.is_some() {
            return Ok(Next::Wait(None));
        }
        for _ in 0..MOST_STEPS {
            let held = ledger.held()?;
            self.lost.retain(|index| held.contains_key(index));
            self.absent.retain(|index| held.contains_key(index));
            let actions = self.plan(&held, now);
            if !self.settle(ledger, &actions)? {
                return Ok(self.ask(&held, &actions, now));
            }
        }
        Ok(Next::Wait(Some(now + self.timing.pause)))
    }

    fn plan(&mut self, held: &BTreeMap<u32, Held>, now: Duration) -> Vec<Action> {
        let orphans = self.orphans(now);
        plan(&Situation {
            pool: &self.pool,
            me: &self.me,
            held,
            claims: &self.claims,
            absent: &self.absent,
            lost: &self.lost,
            orphans: &orphans,
            taken: &self.taken,
            wanted: &self.wanted,
            scarce: self.scarce,
        })
    }

    /// Objects of earlier ledgers of this node whose leases are dead by two proofs: no container outlives its boot, and
    /// whoever wrote the objects of that ledger has been silent.
    fn orphans(&mut self, now: Duration) -> BTreeSet<u32> {
        let earlier = |claim: &&Claim| claim.holder.incarnation != self.me.incarnation;
        let names: Vec<(u32, String, &Claim)> = self
            .claims
            .iter()
            .filter(|(_, claim)| earlier(claim))
            .map(|(index, claim)| (*index, index.to_string(), claim))
            .collect();
        self.silence.heard(names.iter().map(|(_, name, claim)| (name.as_str(), claim.version.as_str())), now);
        let is_silent = |incarnation: &str| {
            let of_it = names.iter().filter(|(.., claim)| claim.holder.incarnation == incarnation);
            of_it.map(|(_, name, _)| self.silence.of(name, now)).min() >= Some(self.timing.silence)
        };
        let dead = names.iter().filter(|(.., claim)| {
            claim.holder.boot_id != self.me.boot_id
                && !self.of_this_boot.contains(&claim.holder.incarnation)
                && is_silent(&claim.holder.incarnation)
        });
        dead.map(|(index, ..)| *index).collect()
    }

    /// Does what concerns the ledger alone. Returns whether anything was done.
    fn settle<L: BlockLedger>(&self, ledger: &mut L, actions: &[Action]) -> Result<bool, L::Error> {
        let pool = self.pool.name();
        let mut done = false;
        for action in actions {
            match *action {
                Action::Drain(index) => ledger.set_draining(index, true)?,
                Action::Resume(index) => ledger.set_draining(index, false)?,
                Action::Leave(index) => {
                    if !ledger.leave(index)? {
                        debug!(pool, index, "an address was leased meanwhile, so the block stays");
                    }
                }
                _ => continue,
            }
            debug!(pool, ?action, "ledger");
            done = true;
        }
        Ok(done)
    }

    fn ask(&mut self, held: &BTreeMap<u32, Held>, actions: &[Action], now: Duration) -> Next {
        let request = actions.iter().find_map(|action| self.request(held, *action, now));
        let doubt = self.doubt.first().map(|index| Request::Read { index: *index });
        match doubt.or(request) {
            Some(_) if now < self.not_before => Next::Wait(Some(self.not_before)),
            Some(request) => {
                self.under_way = Some(request.clone());
                Next::Ask(request)
            }
            None if actions.contains(&Action::Survey) => Next::Wait(Some(self.survey_not_before)),
            None if self.claims.values().any(|claim| claim.holder.incarnation != self.me.incarnation) => {
                Next::Wait(Some(now + self.timing.silence))
            }
            None => Next::Wait(None),
        }
    }

    fn request(&self, held: &BTreeMap<u32, Held>, action: Action, now: Duration) -> Option<Request> {
        let known =
            |index: u32| self.claims.get(&index).map(|claim| (claim.uid.clone(), claim.version.clone()));
        match action {
            Action::Verify(index) => Some(Request::Read { index }),
            // Refused again and again: what is known of others is out of date. What is in the ledger is claimed again
            // whatever others have.
            Action::Claim(index) if self.refusals >= REFUSALS && !held.contains_key(&index) => {
                Some(Request::Survey)
            }
            Action::Claim(index) => Some(Request::Create { index }),
            Action::Adopt(index) | Action::Renew(index) => {
                known(index).map(|(uid, version)| Request::Replace { index, uid, version })
            }
            Action::Delete(index) => {
                known(index).map(|(uid, version)| Request::Delete { index, uid, version })
            }
            Action::Survey if now >= self.survey_not_before => Some(Request::Survey),
            Action::Survey | Action::Drain(_) | Action::Resume(_) | Action::Leave(_) => None,
        }
    }

    /// Takes the answer to the request that is under way.
    ///
    /// # Errors
    /// The ledger's. What was answered is known all the same.
    pub fn answered<L: BlockLedger>(
        &mut self,
        ledger: &mut L,
        answer: Answer,
        now: Duration,
    ) -> Result<(), L::Error> {
        let Some(request) = self.under_way.take() else { return Ok(()) };
        if answer == Answer::None {
            self.failures = self.failures.saturating_add(1);
            let pause = self.timing.pause.saturating_mul(1 << self.failures.min(10).saturating_sub(1));
            self.not_before = now + pause.min(self.timing.longest_pause);
        } else {
            self.failures = 0;
            self.not_before = Duration::ZERO;
        }
        match request {
            Request::Create { index } => self.created(ledger, index, answer),
            Request::Replace { index, .. } => self.replaced(ledger, index, answer),
            Request::Delete { index, .. } => {
                match answer {
                    Answer::Gone => {
                        info!(pool = self.pool.name(), index, "returned a block");
                        self.claims.remove(&index);
                    }
                    _ => self.doubt_about(index),
                }
                Ok(())
            }
            Request::Read { index } => self.read(ledger, index, answer),
            Request::Survey => {
                if let Answer::Taken(taken) = answer {
                    self.refusals = 0;
                    let starved =
                        u64::try_from(taken.len()).is_ok_and(|all| all >= self.pool.blocks().into());
                    self.taken = taken;
                    self.survey_not_before = if starved { now + self.timing.survey } else { Duration::ZERO };
                    if starved {
                        warn!(pool = self.pool.name(), "no block is free");
                    }
                }
                Ok(())
            }
        }
    }

    fn created<L: BlockLedger>(
        &mut self,
        ledger: &mut L,
        index: u32,
        answer: Answer,
    ) -> Result<(), L::Error> {
        match answer {
            Answer::Object(claim) => {
                info!(pool = self.pool.name(), index, "claimed a block");
                (self.refusals, self.survey_not_before) = (0, Duration::ZERO);
                self.absent.remove(&index);
                self.claims.insert(index, claim);
                ledger.enter(index)
            }
            Answer::Conflict => {
                self.refusals += 1;
                self.taken.insert(index);
                if self.absent.remove(&index) {
                    self.doubt_about(index);
                }
                Ok(())
            }
            _ => {
                self.doubt_about(index);
                Ok(())
            }
        }
    }

    /// Only a write that was answered brings a block into the ledger: a deletion of ours that is still on its way names an
    /// earlier version.
    fn replaced<L: BlockLedger>(
        &mut self,
        ledger: &mut L,
        index: u32,
        answer: Answer,
    ) -> Result<(), L::Error> {
        let Answer::Object(claim) = answer else {
            self.doubt_about(index);
            return Ok(());
        };
        info!(pool = self.pool.name(), index, "confirmed a block");
        self.claims.insert(index, claim);
        match ledger.held()?.contains_key(&index) {
            true => Ok(()),
            false => ledger.enter(index),
        }
    }

    fn read<L: BlockLedger>(&mut self, ledger: &mut L, index: u32, answer: Answer) -> Result<(), L::Error> {
        let is_held = ledger.held()?.contains_key(&index);
        match answer {
            Answer::Object(claim) if claim.holder.node == self.me.node => {
                self.doubt.remove(&index);
                self.taken.remove(&index);
                self.absent.remove(&index);
                let earlier = claim.holder.incarnation != self.me.incarnation;
                self.claims.insert(index, claim);
                if is_held && earlier { self.lose(ledger, index) } else { Ok(()) }
            }
            Answer::Object(claim) => {
                self.doubt.remove(&index);
                self.claims.remove(&index);
                self.absent.remove(&index);
                self.taken.insert(index);
                debug!(
                    pool = self.pool.name(),
                    index,
                    holder = claim.holder.node,
                    "another node has the block"
                );
                if is_held { self.lose(ledger, index) } else { Ok(()) }
            }
            Answer::Gone => {
                self.doubt.remove(&index);
                self.claims.remove(&index);
                self.taken.remove(&index);
                if is_held {
                    self.absent.insert(index);
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn lose<L: BlockLedger>(&mut self, ledger: &mut L, index: u32) -> Result<(), L::Error> {
        warn!(
            pool = self.pool.name(),
            index, "a block of this node was given to another; nothing is leased from it any more"
        );
        self.lost.insert(index);
        ledger.set_draining(index, true)
    }

    fn doubt_about(&mut self, index: u32) {
        self.doubt.insert(index);
    }
}
