//! What to write next about reserved addresses of one pool: pure judgement.
//!
//! Addresses that are reserved for pods lie in blocks that no node leases from, because an IPBlock of the holder
//! [`RESERVED`] claims them as a node would. Each has a row in that object, by address, and the row says in whose ledger the
//! address is. All of it is written by comparing versions, so that an address has one row, and one ledger.
//!
//! An address that nobody asked for by number is chosen in two steps, because two nodes that choose at once may do so in two
//! blocks: first a row is made, then the IPClaim's status names it, once and for all, and only a row that is named there (or
//! by the specification) is ever used. Other rows of the pod are dropped.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::Pool;
use crate::crd::{ClaimedAddress, Holder, IPClaim, RESERVED, Reservation};
use crate::wish::{PodName, Wish, Wishes, name_of};

/// A block of reserved addresses, as the API server had it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReservedBlock {
    /// The object's UID.
    pub uid: String,
    /// Its version, which every write changes.
    pub version: String,
    /// Who has which address.
    pub reservations: BTreeMap<IpAddr, Reservation>,
}

/// What is known at one moment about the reserved addresses of one pool.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Register<'a> {
    pub(crate) pool: &'a Pool,
    /// This node's ledger, now.
    pub(crate) me: &'a Holder,
    pub(crate) wishes: &'a Wishes,
    /// What the wishes were read from.
    pub(crate) claims: &'a [IPClaim],
    /// The pods on this node.
    pub(crate) here: &'a BTreeSet<PodName>,
    /// The addresses in this node's ledger.
    pub(crate) entered: &'a BTreeMap<PodName, IpAddr>,
    /// What was just read.
    pub(crate) blocks: &'a BTreeMap<u32, ReservedBlock>,
    /// Blocks that nodes hold.
    pub(crate) taken: &'a BTreeSet<u32>,
    /// Whether `taken` are all of them.
    pub(crate) is_surveyed: bool,
    /// Ledgers whose leases are proven dead.
    pub(crate) dead: &'a BTreeSet<String>,
    /// Whether this node sees to what concerns no node: addresses for pods that are not there yet, and the end of claims.
    pub(crate) is_clerk: bool,
}

/// One thing to write, or to ask first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit {
    /// Make the object of a block that nobody has.
    Create {
        /// The block.
        index: u32,
        /// Its rows.
        reservations: BTreeMap<IpAddr, Reservation>,
    },
    /// Write all rows of a block, if it still has this UID and version.
    Replace {
        /// The block.
        index: u32,
        /// The object's UID.
        uid: String,
        /// Its version.
        version: String,
        /// Its rows.
        reservations: BTreeMap<IpAddr, Reservation>,
    },
    /// Delete the object of a block without rows, if it still has this UID and version.
    Delete {
        /// The block.
        index: u32,
        /// The object's UID.
        uid: String,
        /// Its version.
        version: String,
    },
    /// Write into the status of an IPClaim which addresses its pods have, if the claim still has this version.
    Choose {
        /// The claim's UID.
        claim: String,
        /// Its version.
        version: String,
        /// The addresses by pod, those that it had among them.
        pods: Vec<ClaimedAddress>,
    },
    /// List which blocks of the pool have an object.
    Survey,
}

/// A pod's address that is in this node's ledger once the edit is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) pod: PodName,
    pub(crate) claim: String,
    pub(crate) address: IpAddr,
}

/// What follows from a register.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Judgement {
    /// The first thing to do; `None` when all is written.
    pub(crate) edit: Option<Edit>,
    pub(crate) entries: Vec<Entry>,
    /// What keeps claims from addresses, by UID.
    pub(crate) problems: BTreeMap<String, String>,
    /// Ledgers that have addresses which are wanted elsewhere.
    pub(crate) in_the_way: BTreeSet<Holder>,
    /// Addresses in this node's ledger that are another's at the API server.
    pub(crate) lost: BTreeSet<PodName>,
}

/// A block as it is to be.
#[derive(Debug, Default)]
struct Draft {
    reservations: BTreeMap<IpAddr, Reservation>,
    is_changed: bool,
    entries: Vec<Entry>,
}

/// What to do.
pub(crate) fn judge(register: &Register<'_>) -> Judgement {
    let mut judgement = Judgement::default();
    let mut drafts: BTreeMap<u32, Draft> = BTreeMap::new();
    for (index, block) in register.blocks {
        drafts.insert(*index, register.review(block, &mut judgement));
    }
    let missing = register.reserve(&mut drafts, &mut judgement);
    // Where a pod waits for the answer comes first.
    let mut changed: Vec<(u32, Draft)> = drafts.into_iter().filter(|(_, draft)| draft.is_changed).collect();
    changed.sort_by_key(|(_, draft)| draft.entries.is_empty());
    let Some((index, draft)) = changed.into_iter().next() else {
        judgement.edit = missing.or_else(|| register.choose());
        return judgement;
    };
    let Draft { reservations, entries, .. } = draft;
    judgement.entries = entries;
    judgement.edit = Some(match register.blocks.get(&index) {
        None => Edit::Create { index, reservations },
        Some(ReservedBlock { uid, version, .. }) => {
            let (uid, version) = (uid.clone(), version.clone());
            match reservations.is_empty() {
                true => Edit::Delete { index, uid, version },
                false => Edit::Replace { index, uid, version, reservations },
            }
        }
    });
    judgement
}

impl Register<'_> {
    /// What becomes of the rows that there are.
    fn review(&self, block: &ReservedBlock, judgement: &mut Judgement) -> Draft {
        let mut draft = Draft::default();
        for (address, row) in &block.reservations {
            let mut row = row.clone();
            let before = (row.turns, row.holder.clone());
            let pod = row.pod_name();
            let wish = self.wishes.pods.get(&pod).filter(|wish| wish.claim == row.claim);
            // One that is not chosen yet may be.
            let is_wished = wish.is_some_and(|wish| wish.address.is_none_or(|chosen| chosen == *address));
            let is_usable = wish.is_some_and(|wish| wish.address == Some(*address));
            let is_entered = self.entered.get(&pod) == Some(address);
            let is_wanted =
                is_entered || (is_usable && self.here.contains(&pod) && !self.entered.contains_key(&pod));
            match &before.1 {
                Some(holder) if self.is_me(holder) && is_wanted => {
                    // One that is in the ledger was answered; a boot later it says so.
                    if !is_entered || holder.boot_id != self.me.boot_id {
                        self.take(&mut row, *address, &mut draft);
                    }
                }
                Some(holder) if self.is_me(holder) => row.turn_to(None),
                Some(holder) if !self.dead.contains(&holder.incarnation) => {
                    if is_entered {
                        judgement.lost.insert(pod);
                    } else if is_wanted || (self.is_clerk && !is_wished) {
                        judgement.in_the_way.insert(holder.clone());
                    }
                }
                Some(_) | None if is_wanted => self.take(&mut row, *address, &mut draft),
                Some(_) if self.is_clerk => row.turn_to(None),
                Some(_) | None => {}
            }
            // A claim that cannot be used as it is keeps what it has. What was not chosen is dropped.
            let is_over = !is_wished && !self.wishes.unusable.contains_key(&row.claim);
            if self.is_clerk && is_over && row.holder.is_none() {
                draft.is_changed = true;
                continue;
            }
            draft.is_changed |= before != (row.turns, row.holder.clone());
            draft.reservations.insert(*address, row);
        }
        draft.is_changed |= self.is_clerk && draft.reservations.is_empty();
        draft
    }

    /// Makes rows for pods that have none. Returns what must be asked first.
    fn reserve(&self, drafts: &mut BTreeMap<u32, Draft>, judgement: &mut Judgement) -> Option<Edit> {
        let rows = drafts.values().flat_map(|draft| draft.reservations.values());
        let rows: BTreeMap<PodName, String> = rows.map(|row| (row.pod_name(), row.claim.clone())).collect();
        let has_its_own = |drafts: &BTreeMap<u32, Draft>, pod: &PodName, wish: &Wish| match wish.address {
            None => rows.get(pod).is_some_and(|claim| *claim == wish.claim),
            Some(address) => {
                let draft = self.pool.block_of(address).and_then(|index| drafts.get(&index));
                let row = draft.and_then(|draft| draft.reservations.get(&address));
                row.is_some_and(|row| row.pod_name() == *pod && row.claim == wish.claim)
            }
        };
        let asked_for: BTreeSet<IpAddr> = self.wishes.pods.values().filter_map(|wish| wish.address).collect();
        let mut free = None;
        for (pod, wish) in &self.wishes.pods {
            let concerns = self.is_clerk || self.here.contains(pod);
            if !concerns || self.wishes.unusable.contains_key(&wish.claim) {
                continue;
            }
            let mut problem = |told: String| {
                judgement.problems.entry(wish.claim.clone()).or_insert(told);
            };
            if has_its_own(drafts, pod, wish) {
                continue;
            }
            if rows.get(pod).is_some_and(|claim| *claim != wish.claim) {
                problem(format!(
                    "an earlier IPClaim of pod {pod} has not ended, because its address is in use"
                ));
                continue;
            }
            if let Some(address) = wish.address {
                let Some(index) = self.pool.block_of(address) else {
                    problem(format!(
                        "{address} of pod {pod} is none that pool {} gives out any more",
                        self.pool.name()
                    ));
                    continue;
                };
                match drafts.get_mut(&index) {
                    Some(draft) => match draft.reservations.get(&address) {
                        Some(row) => problem(self.reserved(address, row)),
                        None => self.add(draft, pod, wish, address),
                    },
                    None if self.taken.contains(&index) => problem(self.in_use(address, index)),
                    None => self.add(drafts.entry(index).or_default(), pod, wish, address),
                }
                continue;
            }
            let is_free = |draft: &Draft, address: &IpAddr| {
                !draft.reservations.contains_key(address) && !asked_for.contains(address)
            };
            let free = free.get_or_insert_with(|| {
                let all = drafts.iter().flat_map(|(index, draft)| {
                    let free = self.pool.addresses_of(*index).filter(|address| is_free(draft, address));
                    free.map(|address| (*index, address)).collect::<Vec<_>>()
                });
                all.collect::<Vec<_>>().into_iter()
            });
            if let Some((index, address)) = free.next() {
                self.add(drafts.entry(index).or_default(), pod, wish, address);
                continue;
            }
            if !self.is_surveyed {
                return Some(Edit::Survey);
            }
            let known = |index: &u32| self.taken.contains(index) || drafts.contains_key(index);
            let unused = self.pool.order_for(RESERVED).filter(|index| !known(index)).find_map(|index| {
                let address = self.pool.addresses_of(index).find(|address| !asked_for.contains(address));
                address.map(|address| (index, address))
            });
            match unused {
                // The others that have none come into this block once it is there.
                Some((index, address)) => {
                    self.add(drafts.entry(index).or_default(), pod, wish, address);
                    return None;
                }
                None => problem(format!(
                    "no block of pool {} is free to choose an address from for pod {pod}; it is tried again",
                    self.pool.name()
                )),
            }
        }
        None
    }

    /// The first claim with pods whose address is not chosen, though they have rows.
    fn choose(&self) -> Option<Edit> {
        self.claims.iter().find_map(|object| {
            let claim = object.metadata.uid.clone()?;
            let status = object.status.clone().unwrap_or_default();
            let mut pods: BTreeMap<String, ClaimedAddress> =
                status.pods.into_iter().map(|known| (known.pod.clone(), known)).collect();
            let before = pods.len();
            for (address, row) in self.blocks.values().flat_map(|block| &block.reservations) {
                let wish = self.wishes.pods.get(&row.pod_name());
                let is_open = wish.is_some_and(|wish| wish.claim == claim && wish.address.is_none());
                let concerns = self.is_clerk || self.here.contains(&row.pod_name());
                if is_open && concerns && row.claim == claim && row.holder.is_none() {
                    let chosen =
                        ClaimedAddress { pod: row.pod.clone(), address: address.to_string(), node: None };
                    pods.entry(row.pod.clone()).or_insert(chosen);
                }
            }
            let version = object.metadata.resource_version.clone()?;
            (pods.len() > before).then(|| Edit::Choose { claim, version, pods: pods.into_values().collect() })
        })
    }

    fn add(&self, draft: &mut Draft, pod: &PodName, wish: &Wish, address: IpAddr) {
        let mut row = Reservation {
            namespace: pod.namespace.clone(),
            pod: pod.name.clone(),
            claim: wish.claim.clone(),
            holder: None,
            turns: 0,
        };
        let is_usable = wish.address == Some(address) && self.here.contains(pod);
        if is_usable && self.entered.get(pod).is_none_or(|entered| *entered == address) {
            self.take(&mut row, address, draft);
        }
        draft.reservations.insert(address, row);
        draft.is_changed = true;
    }

    /// The address is in this node's ledger once that is answered.
    fn take(&self, row: &mut Reservation, address: IpAddr, draft: &mut Draft) {
        row.turn_to(Some(self.me.clone()));
        draft.entries.push(Entry { pod: row.pod_name(), claim: row.claim.clone(), address });
    }

    fn is_me(&self, holder: &Holder) -> bool {
        (&holder.node, &holder.incarnation) == (&self.me.node, &self.me.incarnation)
    }

    fn reserved(&self, address: IpAddr, row: &Reservation) -> String {
        let holder = row.pod_name();
        let claim = self.claims.iter().find(|object| object.metadata.uid.as_ref() == Some(&row.claim));
        match claim.map(name_of) {
            Some(claim) => {
                format!("{address} is reserved for pod {holder} by IPClaim {claim}; choose another")
            }
            None => format!("{address} is reserved for pod {holder} until that has ended"),
        }
    }

    fn in_use(&self, address: IpAddr, index: u32) -> String {
        let block = self.pool.block(index).map(|block| block.to_string()).unwrap_or_default();
        format!(
            "{address} lies in block {block}, which a node leases from (IPBlock {}); the node gives it back once its pods there \
             have ended, or choose an address of a block that nobody has",
            self.pool.object_name(index)
        )
    }
}

impl Reservation {
    /// The pod that it is for.
    #[must_use]
    pub fn pod_name(&self) -> PodName {
        PodName { namespace: self.namespace.clone(), name: self.pod.clone() }
    }

    fn turn_to(&mut self, holder: Option<Holder>) {
        self.holder = holder;
        self.turns += 1;
    }
}

#[cfg(test)]
mod tests;
