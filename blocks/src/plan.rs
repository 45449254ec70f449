//! What a node does next about its blocks of one pool: pure judgement.

use std::collections::{BTreeMap, BTreeSet};

use crate::Pool;
use crate::crd::Holder;

/// The object of a block, as the API server had it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Its UID: an object of the same name that is made later has another one.
    pub uid: String,
    /// Its version, which every write changes.
    pub version: String,
    /// Whose it is.
    pub holder: Holder,
}

/// A block in this node's ledger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Addresses that are leased.
    pub leased: u32,
    /// Addresses that rest.
    pub resting: u32,
    /// Whether no further address is leased from it.
    pub draining: bool,
}

/// What is known at one moment about the blocks of one pool, by index.
#[derive(Clone, Copy, Debug)]
pub struct Situation<'a> {
    /// The pool.
    pub pool: &'a Pool,
    /// This node's ledger, now.
    pub me: &'a Holder,
    /// What is in the ledger.
    pub held: &'a BTreeMap<u32, Held>,
    /// The objects of this node, as last heard.
    pub claims: &'a BTreeMap<u32, Claim>,
    /// Blocks in the ledger that the API server, when asked, had no object of.
    pub absent: &'a BTreeSet<u32>,
    /// Blocks in the ledger that the API server, when asked, called somebody else's.
    pub lost: &'a BTreeSet<u32>,
    /// Objects of earlier ledgers of this node whose leases are proven dead.
    pub orphans: &'a BTreeSet<u32>,
    /// Blocks that others had when they were last heard of.
    pub taken: &'a BTreeSet<u32>,
    /// Blocks with addresses that are to be reserved for pods: this node gives its own back, and claims none.
    pub wanted: &'a BTreeSet<u32>,
    /// Whether other nodes lack blocks.
    pub scarce: bool,
}

/// One thing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// Lease no further address from a block.
    Drain(u32),
    /// Lease from a draining block again.
    Resume(u32),
    /// Take an empty block out of the ledger.
    Leave(u32),
    /// Ask the API server whose a block is.
    Verify(u32),
    /// Make the object of a block, and enter the block upon success.
    Claim(u32),
    /// Write an object of this node again, and enter its block upon success.
    Adopt(u32),
    /// Write the object of a block in the ledger again, because it names an earlier boot.
    Renew(u32),
    /// Delete the object of a block that is not in the ledger.
    Delete(u32),
    /// No block is known to be free: ask the API server who has which.
    Survey,
}

/// What to do, the most urgent first. Empty when all is well.
#[must_use]
pub fn plan(situation: &Situation<'_>) -> Vec<Action> {
    let mut actions = confirmations(situation);
    let mut free = situation.free();
    let Situation { pool, held, claims, scarce, .. } = *situation;

    for index in situation.usable(|held| held.draining) {
        if free < pool.min_free {
            actions.push(Action::Resume(index));
            free += situation.room(index);
        } else if held[&index].is_empty() {
            actions.push(Action::Leave(index));
        }
    }
    for (index, claim) in claims.iter().filter(|(index, _)| !held.contains_key(index)) {
        if !situation.is_own(claim) {
            if situation.orphans.contains(index) {
                actions.push(Action::Delete(*index));
            }
        } else if free < pool.min_free && pool.gives_out(*index) > 0 && !situation.wanted.contains(index) {
            actions.push(Action::Adopt(*index));
            free += pool.gives_out(*index);
        } else {
            actions.push(Action::Delete(*index));
        }
    }
    if free < pool.min_free {
        actions.extend(claims_for(situation, free));
        return actions;
    }

    let floor = if scarce { pool.min_free } else { pool.max_free };
    let mut returned = false;
    for index in situation.usable(|held| !held.draining && held.is_empty()) {
        let size = pool.gives_out(index);
        if free.saturating_sub(size) >= floor {
            actions.push(Action::Leave(index));
            free -= size;
            returned = true;
        }
    }
    let is_draining = held.values().any(|held| held.draining);
    if scarce && !returned && !is_draining {
        actions.extend(emptiest_to_spare(situation, free).map(Action::Drain));
    }
    actions
}

/// What is in the ledger must be this node's at the API server. What was somebody else's once, or is to be reserved for pods,
/// is used no more.
fn confirmations(situation: &Situation<'_>) -> Vec<Action> {
    let mut actions = Vec::new();
    for (&index, held) in situation.held {
        if situation.is_ceded(index) {
            if held.is_empty() {
                actions.push(Action::Leave(index));
            } else if !held.draining {
                actions.push(Action::Drain(index));
            }
            continue;
        }
        match situation.claims.get(&index) {
            Some(claim) if situation.is_own(claim) => {
                if claim.holder.boot_id != situation.me.boot_id {
                    actions.push(Action::Renew(index));
                }
            }
            _ if situation.absent.contains(&index) => actions.push(Action::Claim(index)),
            _ => actions.push(Action::Verify(index)),
        }
    }
    actions
}

fn claims_for(situation: &Situation<'_>, mut free: u32) -> Vec<Action> {
    let pool = situation.pool;
    let mut actions = Vec::new();
    for index in pool.order_for(&situation.me.node) {
        let known = situation.held.contains_key(&index)
            || situation.claims.contains_key(&index)
            || situation.taken.contains(&index)
            || situation.wanted.contains(&index);
        if !known && pool.gives_out(index) > 0 {
            actions.push(Action::Claim(index));
            free += pool.gives_out(index);
            if free >= pool.min_free {
                return actions;
            }
        }
    }
    actions.push(Action::Survey);
    actions
}

/// The block with the fewest addresses in use that the node can do without.
fn emptiest_to_spare(situation: &Situation<'_>, free: u32) -> Option<u32> {
    let spared = |index: &u32| free.saturating_sub(situation.room(*index)) >= situation.pool.min_free;
    let used = |index: &u32| situation.held[index].leased + situation.held[index].resting;
    let blocks = situation.usable(|held| !held.draining);
    // Draining what is nearly full would end never, and free little.
    let half = |index: &u32| used(index) * 2 <= situation.pool.gives_out(*index);
    blocks.into_iter().filter(spared).filter(half).min_by_key(used)
}

impl Situation<'_> {
    /// Addresses that can be leased now.
    #[must_use]
    pub fn free(&self) -> u32 {
        self.usable(|held| !held.draining).into_iter().map(|index| self.room(index)).sum()
    }

    fn room(&self, index: u32) -> u32 {
        let used = self.held.get(&index).map_or(0, |held| held.leased + held.resting);
        self.pool.gives_out(index).saturating_sub(used)
    }

    fn usable(&self, which: impl Fn(&Held) -> bool) -> Vec<u32> {
        let blocks = self.held.iter().filter(|(index, held)| !self.is_ceded(**index) && which(held));
        blocks.map(|(index, _)| *index).collect()
    }

    fn is_ceded(&self, index: u32) -> bool {
        self.lost.contains(&index) || self.wanted.contains(&index)
    }

    fn is_own(&self, claim: &Claim) -> bool {
        claim.holder.node == self.me.node && claim.holder.incarnation == self.me.incarnation
    }
}

impl Held {
    /// Whether nothing of it is promised.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.leased == 0 && self.resting == 0
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Sixteen blocks of sixteen, of which the first and the last give out fewer; claims below 8 free, returns above 24.
    fn pool() -> Pool {
        let spec = json!({"subnet": "10.0.0.0/24", "blockSize": 16, "minFree": 8, "maxFree": 24});
        Pool::parse("gold", &spec).unwrap()
    }

    fn holder(incarnation: &str, boot_id: &str) -> Holder {
        Holder { node: "n1".to_owned(), incarnation: incarnation.to_owned(), boot_id: boot_id.to_owned() }
    }

    #[derive(Default)]
    struct Case {
        held: BTreeMap<u32, Held>,
        claims: BTreeMap<u32, Claim>,
        absent: BTreeSet<u32>,
        lost: BTreeSet<u32>,
        orphans: BTreeSet<u32>,
        taken: BTreeSet<u32>,
        wanted: BTreeSet<u32>,
        scarce: bool,
    }

    impl Case {
        /// In the ledger and at the API server.
        fn block(self, index: u32, leased: u32, resting: u32) -> Self {
            self.held(index, leased, resting, false).claim(index, "a", "b1")
        }

        fn held(mut self, index: u32, leased: u32, resting: u32, draining: bool) -> Self {
            self.held.insert(index, Held { leased, resting, draining });
            self
        }

        fn claim(mut self, index: u32, incarnation: &str, boot_id: &str) -> Self {
            let holder = holder(incarnation, boot_id);
            self.claims.insert(index, Claim { uid: "u".to_owned(), version: "1".to_owned(), holder });
            self
        }

        fn plan(&self) -> Vec<Action> {
            plan(&Situation {
                pool: &pool(),
                me: &holder("a", "b1"),
                held: &self.held,
                claims: &self.claims,
                absent: &self.absent,
                lost: &self.lost,
                orphans: &self.orphans,
                taken: &self.taken,
                wanted: &self.wanted,
                scarce: self.scarce,
            })
        }
    }

    fn order() -> Vec<u32> {
        pool().order_for("n1").collect()
    }

    #[test]
    fn a_node_claims_ahead_of_need() {
        assert_eq!(Case::default().plan(), [Action::Claim(order()[0])]);
        assert_eq!(Case::default().block(3, 8, 0).plan(), [], "eight are free");
        let next = order().into_iter().find(|index| *index != 3).unwrap();
        assert_eq!(Case::default().block(3, 8, 1).plan(), [Action::Claim(next)], "what rests is not free");
    }

    #[test]
    fn what_others_have_is_passed_over_and_asked_about_when_nothing_is_left() {
        let first = order()[0];
        let mut case = Case { taken: [first].into(), ..Case::default() };
        assert_eq!(case.plan(), [Action::Claim(order()[1])]);
        case.taken = (0..16).collect();
        assert_eq!(case.plan(), [Action::Survey]);
    }

    #[test]
    fn only_empty_blocks_are_returned_and_only_above_the_mark() {
        let three = Case::default().block(3, 0, 0).block(4, 0, 0).block(5, 0, 0);
        assert_eq!(three.plan(), [Action::Leave(3)], "32 remain");
        let used = Case::default().block(3, 1, 0).block(4, 0, 1).block(5, 1, 0);
        assert_eq!(used.plan(), []);
        let two = Case::default().block(3, 0, 0).block(4, 0, 0);
        assert_eq!(two.plan(), []);
        assert_eq!(Case { scarce: true, ..two }.plan(), [Action::Leave(3)], "others lack blocks");
    }

    #[test]
    fn when_others_lack_blocks_the_emptiest_is_drained() {
        let case = || Case { scarce: true, ..Case::default().block(3, 3, 0).block(4, 2, 0).block(5, 9, 0) };
        assert_eq!(case().plan(), [Action::Drain(4)]);
        let draining = case().held(4, 2, 0, true);
        assert_eq!(draining.plan(), [], "one at a time, and not while it is used");
        assert_eq!(case().held(4, 0, 0, true).plan()[0], Action::Leave(4));
        let needed = Case::default().block(5, 12, 0).block(4, 2, 0).held(4, 2, 0, true);
        assert_eq!(needed.plan(), [Action::Resume(4)]);
    }

    #[test]
    fn what_the_ledger_has_and_the_api_server_has_not_is_asked_about_first() {
        let unheard = || Case::default().held(3, 5, 0, false);
        assert_eq!(unheard().plan(), [Action::Verify(3)]);
        assert_eq!(Case { absent: [3].into(), ..unheard() }.plan(), [Action::Claim(3)]);
        let lost = Case { lost: [3].into(), ..unheard() };
        let instead = order().into_iter().find(|index| *index != 3).unwrap();
        assert_eq!(lost.plan(), [Action::Drain(3), Action::Claim(instead)]);
        let lost = Case { lost: [3].into(), ..Case::default().held(3, 0, 0, true) };
        assert_eq!(lost.plan()[0], Action::Leave(3));
        assert_eq!(unheard().claim(3, "earlier", "b1").plan(), [Action::Verify(3)]);
    }

    #[test]
    fn a_block_that_pods_are_to_have_addresses_of_is_given_back_and_not_claimed() {
        let first = order()[0];
        let wanted = |case: Case| Case { wanted: [3, first].into(), ..case }.plan();
        assert_eq!(wanted(Case::default()), [Action::Claim(order()[1])]);
        let instead = Action::Claim(order()[1]);
        assert_eq!(wanted(Case::default().block(3, 2, 0)), [Action::Drain(3), instead]);
        assert_eq!(wanted(Case::default().held(3, 0, 1, true).claim(3, "a", "b1")), [instead]);
        assert_eq!(
            wanted(Case::default().held(3, 0, 0, true).claim(3, "a", "b1")),
            [Action::Leave(3), instead]
        );
        assert_eq!(wanted(Case::default().claim(3, "a", "b1")), [Action::Delete(3), instead]);
    }

    #[test]
    fn an_object_without_its_block_is_adopted_or_deleted() {
        assert_eq!(Case::default().claim(7, "a", "b1").plan(), [Action::Adopt(7)]);
        assert_eq!(Case::default().block(3, 0, 0).claim(7, "a", "b1").plan(), [Action::Delete(7)]);
    }

    #[test]
    fn an_earlier_ledgers_object_goes_only_when_its_leases_are_proven_dead() {
        let case = || Case::default().block(3, 0, 0).claim(7, "earlier", "b0");
        assert_eq!(case().plan(), []);
        assert_eq!(Case { orphans: [7].into(), ..case() }.plan(), [Action::Delete(7)]);
    }

    #[test]
    fn after_a_boot_the_objects_say_so() {
        assert_eq!(Case::default().held(3, 0, 0, false).claim(3, "a", "b0").plan(), [Action::Renew(3)]);
    }
}
