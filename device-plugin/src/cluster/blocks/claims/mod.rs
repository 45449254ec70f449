//! Pods with addresses of their own: keeps the ledger's list of them, fetches an address when its pod is on this node, and
//! lets it go when the pod is not.
//!
//! What to do is decided in `zerobridge-blocks`; here are the API server, the ledger and the clock. Refuses to know how
//! addresses are leased.

mod agent;
mod book;
mod known;
mod proofs;
mod report;
mod requests;

use std::collections::BTreeSet;

use zerobridge_blocks::Pool;

pub(super) use self::agent::ClaimAgent;

/// What the agent of a pool tells the one of its claims.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Outline {
    /// The pool in force; it is in the ledger.
    pub(super) pool: Pool,
    /// Whether it is this node that tells of the pool: it then sees to its claims, too.
    pub(super) is_clerk: bool,
}

/// What it tells in return: the blocks that nodes are to give back, `None` until the ledger has the names of all pods with
/// addresses of their own. Before that, no block may be entered: one of those pods could get an address of it.
pub(super) type Wanted = Option<BTreeSet<u32>>;
