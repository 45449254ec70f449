//! One node's dealings with the reserved addresses of one pool: what is known, the one request that is under way, and what
//! follows from answers.
//!
//! Keeps to the two orders that blocks keep to: an address enters the ledger upon the answer to a write of this very agent,
//! and leaves it before the row says so. Everything else is forgotten and read again.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use tracing::{debug, info, warn};

use crate::crd::{ClaimedAddress, Holder, IPClaim};
use crate::reserve::{Edit, Entry, Register, ReservedBlock, judge};
use crate::wish::{PodName, Wish, Wishes};
use crate::{Pool, Timing};

/// How often the clerk looks without a cause: by then, what other nodes have written is told.
const CLERK_PERIOD: Duration = Duration::from_secs(60);
/// The same while some claim waits for others: for its end, or for an address.
const BUSY_PERIOD: Duration = Duration::from_secs(10);
/// A write that was not answered has been done or refused by now: the API server gives a request up after a minute.
const CERTAINTY: Duration = Duration::from_secs(75);
/// More edits than this from one look would be going round in circles.
const MOST_EDITS: u32 = 4096;

/// The node's ledger, as far as pods with addresses of their own are concerned. Every method is durable when it returns.
pub trait ReservationLedger {
    /// Why the ledger cannot be read or written.
    type Error;

    /// Which pods have addresses of their own, whether these are on this node or not.
    ///
    /// # Errors
    /// The ledger's.
    fn name(&mut self, pods: &BTreeMap<PodName, Wish>) -> Result<(), Self::Error>;

    /// The addresses that are in it, with the UIDs of their claims.
    ///
    /// # Errors
    /// The ledger's.
    fn entered(&mut self) -> Result<BTreeMap<PodName, (String, IpAddr)>, Self::Error>;

    /// Enters an address: it is leased to the pod from now on.
    ///
    /// # Errors
    /// The ledger's.
    fn enter(&mut self, pod: &PodName, claim: &str, address: IpAddr) -> Result<(), Self::Error>;

    /// Takes a pod's address out, unless a container has it; proof and removal are one transaction. Returns whether it is
    /// out.
    ///
    /// # Errors
    /// The ledger's.
    fn leave(&mut self, pod: &PodName) -> Result<bool, Self::Error>;
}

/// A request to the API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// List the blocks of reserved addresses, and after that the IPClaims; neither older than the request.
    List,
    /// Do this.
    Edit(Edit),
}

/// What came of it.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// The blocks, and the claims.
    Listed(BTreeMap<u32, ReservedBlock>, Vec<IPClaim>),
    /// The block as it is now.
    Object(ReservedBlock),
    /// The claim as it is now.
    Claim(Box<IPClaim>),
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
pub enum Step {
    /// Make this request, and hand its reply to [`Registrar::answered`]. After [`Reply::None`], a later reply to the same
    /// request must be thrown away.
    Ask(Question),
    /// Nothing until something is heard, the ledger changes, or the time comes.
    Wait(Option<Duration>),
}

/// What the clerk found of the claims, by their UIDs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClaimReport {
    /// What is reserved.
    pub addresses: BTreeMap<String, Vec<ClaimedAddress>>,
    /// What keeps claims from addresses.
    pub problems: BTreeMap<String, String>,
}

/// The registrar of one pool on one node.
#[derive(Clone, Debug)]
pub struct Registrar {
    pool: Pool,
    me: Holder,
    timing: Timing,
    claims: Option<Vec<IPClaim>>,
    wishes: Wishes,
    here: Option<BTreeSet<PodName>>,
    dead: BTreeSet<String>,
    in_the_way: BTreeSet<Holder>,
    is_clerk: bool,
    /// Claims that have addresses, as last read.
    established: BTreeSet<String>,
    /// What was read for the present round of edits.
    read: Option<BTreeMap<u32, ReservedBlock>>,
    edits: u32,
    taken: BTreeSet<u32>,
    is_surveyed: bool,
    under_way: Option<(Question, Vec<Entry>)>,
    /// The ledger does not have the names of the present claims yet.
    is_unnamed: bool,
    /// There is a cause to look.
    is_due: bool,
    failures: u32,
    waits: u32,
    not_before: Duration,
    /// When to look again though nothing is heard.
    look_at: Option<Duration>,
    report: Option<ClaimReport>,
}

impl Registrar {
    /// A registrar that knows nothing yet. It looks once in any case: an earlier agent of this ledger may have been stopped
    /// in the middle of something.
    #[must_use]
    pub fn new(pool: Pool, me: Holder, timing: Timing) -> Self {
        Self {
            pool,
            me,
            timing,
            claims: None,
            wishes: Wishes::default(),
            here: None,
            dead: BTreeSet::new(),
            in_the_way: BTreeSet::new(),
            is_clerk: false,
            established: BTreeSet::new(),
            read: None,
            edits: 0,
            taken: BTreeSet::new(),
            is_surveyed: false,
            under_way: None,
            is_unnamed: false,
            is_due: true,
            failures: 0,
            waits: 0,
            not_before: Duration::ZERO,
            look_at: None,
            report: None,
        }
    }

    /// The pool.
    #[must_use]
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// What is asked for.
    #[must_use]
    pub fn wishes(&self) -> &Wishes {
        &self.wishes
    }

    /// The IPClaims, as last heard or read.
    #[must_use]
    pub fn claims(&self) -> &[IPClaim] {
        self.claims.as_deref().unwrap_or_default()
    }

    /// The pool has changed, cut as before.
    pub fn set_pool(&mut self, pool: Pool) {
        if pool.is_cut_as(&self.pool) && pool != self.pool {
            self.pool = pool;
            self.read_wishes();
        }
    }

    /// The IPClaims of the pool, completely.
    pub fn set_claims(&mut self, claims: Vec<IPClaim>) {
        self.claims = Some(claims);
        self.read_wishes();
        self.waits = 0;
        self.is_due |= self.is_clerk;
    }

    /// The pods that are on this node, by the API server.
    pub fn set_here(&mut self, here: BTreeSet<PodName>) {
        self.here = Some(here);
        self.waits = 0;
    }

    /// Whether this node sees to what concerns no node.
    pub fn set_clerk(&mut self, is_clerk: bool) {
        self.is_due |= is_clerk && !self.is_clerk;
        self.is_clerk = is_clerk;
    }

    /// Ledgers, by incarnation, whose leases are proven dead.
    pub fn set_dead(&mut self, dead: BTreeSet<String>) {
        self.is_due |= !dead.is_subset(&self.dead);
        self.dead = dead;
    }

    /// Ledgers that had addresses which are wanted elsewhere, when that was last looked at.
    #[must_use]
    pub fn in_the_way(&self) -> &BTreeSet<Holder> {
        &self.in_the_way
    }

    /// What the clerk has found since it was last asked for that.
    pub fn take_report(&mut self) -> Option<ClaimReport> {
        self.report.take()
    }

    /// Whether the ledger has the names of all pods with addresses of their own, so that none of them gets another one.
    #[must_use]
    pub fn is_named(&self) -> bool {
        self.claims.is_some() && !self.is_unnamed
    }

    fn read_wishes(&mut self) {
        let Some(claims) = &self.claims else { return };
        let before = std::mem::take(&mut self.wishes);
        self.wishes = Wishes::of(&self.pool, claims, &self.established);
        self.wishes.keep(before.pods);
        self.is_unnamed = true;
    }

    /// Does what is to be done in the ledger, and says what to ask the API server. At `now`, counted from any moment.
    ///
    /// # Errors
    /// The ledger's.
    pub fn next<L: ReservationLedger>(&mut self, ledger: &mut L, now: Duration) -> Result<Step, L::Error> {
        if self.under_way.is_some() || self.claims.is_none() {
            return Ok(Step::Wait(None));
        }
        let mut entered = ledger.entered()?;
        if self.is_unnamed {
            self.established.extend(entered.values().map(|(claim, _)| claim.clone()));
            self.read_wishes();
            let known = entered.iter().map(|(pod, (claim, address))| {
                (pod.clone(), Wish { claim: claim.clone(), address: Some(*address) })
            });
            self.wishes.keep(known);
            ledger.name(&self.wishes.pods)?;
            self.is_unnamed = false;
        }
        let Some(here) = self.here.clone() else { return Ok(Step::Wait(None)) };
        let is_needed = |pod: &PodName, claim: &str| {
            here.contains(pod) && self.wishes.pods.get(pod).is_some_and(|wish| wish.claim == claim)
        };
        let unneeded: Vec<PodName> = entered
            .iter()
            .filter(|(pod, (claim, _))| !is_needed(pod, claim))
            .map(|(pod, _)| pod.clone())
            .collect();
        for pod in unneeded {
            if ledger.leave(&pod)? {
                info!(pool = self.pool.name(), %pod, "its address is no longer on this node");
                entered.remove(&pod);
                self.is_unnamed = true;
                self.is_due = true;
            }
        }
        if self.is_unnamed {
            ledger.name(&self.wishes.pods)?;
            self.is_unnamed = false;
        }
        let lacks = here.iter().any(|pod| self.wishes.pods.contains_key(pod) && !entered.contains_key(pod));
        self.ask(ledger, &here, &entered, lacks, now)
    }

    fn ask<L: ReservationLedger>(
        &mut self,
        ledger: &mut L,
        here: &BTreeSet<PodName>,
        entered: &BTreeMap<PodName, (String, IpAddr)>,
        lacks: bool,
        now: Duration,
    ) -> Result<Step, L::Error> {
        if now < self.not_before {
            return Ok(Step::Wait(Some(self.not_before)));
        }
        let Some(read) = &self.read else {
            let first = lacks && self.waits == 0;
            if !self.is_due && !first && self.look_at.is_none_or(|at| now < at) {
                return Ok(Step::Wait(self.look_at));
            }
            self.look_at = self.look_at.filter(|at| now < *at);
            return Ok(self.put(Question::List, Vec::new()));
        };
        let addresses = entered.iter().map(|(pod, (_, address))| (pod.clone(), *address)).collect();
        let judgement = judge(&Register {
            pool: &self.pool,
            me: &self.me,
            wishes: &self.wishes,
            claims: self.claims(),
            here,
            entered: &addresses,
            blocks: read,
            taken: &self.taken,
            is_surveyed: self.is_surveyed,
            dead: &self.dead,
            is_clerk: self.is_clerk,
        });
        for pod in &judgement.lost {
            let left = ledger.leave(pod)?;
            warn!(pool = self.pool.name(), %pod, left, "its address was given to another node");
        }
        self.in_the_way = judgement.in_the_way;
        if let Some(edit) = judgement.edit.filter(|_| self.edits < MOST_EDITS) {
            self.edits += 1;
            return Ok(self.put(Question::Edit(edit), judgement.entries));
        }
        self.conclude(judgement.problems, lacks, now);
        Ok(Step::Wait(self.look_at))
    }

    fn put(&mut self, question: Question, entries: Vec<Entry>) -> Step {
        self.under_way = Some((question.clone(), entries));
        Step::Ask(question)
    }

    /// All is written that can be.
    fn conclude(&mut self, problems: BTreeMap<String, String>, lacks: bool, now: Duration) {
        let read = self.read.take().unwrap_or_default();
        self.is_due = false;
        self.edits = 0;
        let mut again = self.look_at;
        let mut at_latest = |at: Duration| again = Some(again.map_or(at, |other| other.min(at)));
        if lacks {
            let pause = self.timing.pause.saturating_mul(1 << self.waits.min(10));
            at_latest(now + pause.min(self.timing.longest_pause));
            self.waits = self.waits.saturating_add(1);
        }
        if self.is_clerk {
            let is_ending = |claim: &IPClaim| claim.metadata.deletion_timestamp.is_some();
            let is_busy = !problems.is_empty() || self.claims().iter().any(is_ending);
            at_latest(now + if is_busy { BUSY_PERIOD } else { CLERK_PERIOD });
            let mut report = ClaimReport { problems, ..ClaimReport::default() };
            let wrong = self.wishes.unusable.iter().chain(&self.wishes.conflicts);
            report.problems.extend(wrong.map(|(claim, told)| (claim.clone(), told.clone())));
            for (address, row) in read.values().flat_map(|block| &block.reservations) {
                let node = row.holder.as_ref().map(|holder| holder.node.clone());
                let told = ClaimedAddress { pod: row.pod.clone(), address: address.to_string(), node };
                report.addresses.entry(row.claim.clone()).or_default().push(told);
            }
            self.report = Some(report);
        }
        self.look_at = again;
    }

    /// Takes the reply to the request that is under way.
    ///
    /// # Errors
    /// The ledger's. What was answered is done all the same, and is seen again at the next look.
    pub fn answered<L: ReservationLedger>(
        &mut self,
        ledger: &mut L,
        reply: Reply,
        now: Duration,
    ) -> Result<(), L::Error> {
        let Some((question, entries)) = self.under_way.take() else { return Ok(()) };
        if reply == Reply::None {
            self.failures = self.failures.saturating_add(1);
            let pause = self.timing.pause.saturating_mul(1 << self.failures.min(10).saturating_sub(1));
            self.not_before = now + pause.min(self.timing.longest_pause);
            self.read = None;
            self.is_due = true;
            if matches!(question, Question::Edit(_)) {
                // It may be done after it was looked for.
                self.look_at = Some(now + CERTAINTY);
            }
            return Ok(());
        }
        self.failures = 0;
        match (question, reply) {
            (Question::List, Reply::Listed(blocks, claims)) => {
                let rows = blocks.values().flat_map(|block| block.reservations.values());
                self.established = rows.map(|row| row.claim.clone()).collect();
                self.claims = Some(claims);
                self.read_wishes();
                self.read = Some(blocks);
                (self.taken, self.is_surveyed) = (BTreeSet::new(), false);
            }
            (Question::Edit(Edit::Survey), Reply::Taken(taken)) => {
                self.taken.extend(taken);
                self.is_surveyed = true;
            }
            (
                Question::Edit(Edit::Create { index, .. } | Edit::Replace { index, .. }),
                Reply::Object(block),
            ) => {
                if let Some(read) = &mut self.read {
                    read.insert(index, block);
                }
                for Entry { pod, claim, address } in entries {
                    info!(pool = self.pool.name(), %pod, %address, "its own address is on this node from now on");
                    ledger.enter(&pod, &claim, address)?;
                }
            }
            (Question::Edit(Edit::Choose { claim, .. }), Reply::Claim(object)) => {
                let same = |known: &&mut IPClaim| known.metadata.uid.as_ref() == Some(&claim);
                if let Some(known) = self.claims.iter_mut().flatten().find(same) {
                    *known = *object;
                }
                self.read_wishes();
            }
            (Question::Edit(Edit::Create { index, .. }), Reply::Conflict) => drop(self.taken.insert(index)),
            (Question::Edit(Edit::Delete { index, .. }), Reply::Gone) => {
                if let Some(read) = &mut self.read {
                    read.remove(&index);
                }
            }
            (question, reply) => {
                debug!(pool = self.pool.name(), ?question, ?reply, "others wrote meanwhile; reading again");
                self.read = None;
                self.is_due = true;
            }
        }
        Ok(())
    }
}
