//! How the nodes of a cluster share a pool of addresses without asking each other while a pod starts.
//!
//! A pool (`IPPool`) is cut into blocks of equal size. One object (`IPBlock`) is one claim of one block; its name follows
//! from pool and index, so that making the object is the claim, and of two nodes that try, the API server refuses one.
//! There is no shared counter and no lock. A node claims ahead of need, and enters what it has claimed into its ledger,
//! which is all that an ADD reads.
//!
//! Two orders keep an address from being in two ledgers:
//!
//! 1. A block enters the ledger only upon the answer to a write of this very agent, one that no earlier request of the
//!    node can undo any more: a creation makes an object with another UID, a replacement one with another version, and
//!    every deletion names both.
//! 2. A block leaves the ledger, in a transaction that proves that nothing of it is promised, before its object is deleted.
//!
//! Addresses that are one pod's own (`IPClaim`) lie in blocks that no node holds, and keep to the same two orders, one by
//! one: see [`Registrar`].
//!
//! [`plan`] decides what to do, [`Steward`] does one thing at a time and learns from the answers; neither does any I/O nor
//! has a clock, so the simulations in `tests/` run the code that the daemon runs. Refuses to know how the
//! API server is reached and how the ledger is written.
#![forbid(unsafe_code)]

mod crd;
mod forecast;
mod plan;
mod pool;
mod registrar;
mod reserve;
mod silence;
mod steward;
mod turn;
mod wish;

pub use crd::{
    CLAIM_FINALIZER, ClaimedAddress, FINALIZER, Holder, IPBlock, IPBlockSpec, IPBlockStatus, IPClaim,
    IPClaimSpec, IPClaimStatus, IPPool, IPPoolSpec, IPPoolStatus, PoolRoute, RESERVED, Reservation,
};
pub use forecast::Forecast;
pub use plan::{Action, Claim, Held, Situation, plan};
pub use pool::Pool;
pub use registrar::{ClaimReport, Question, Registrar, Reply, ReservationLedger, Step};
pub use reserve::{Edit, ReservedBlock};
pub use silence::Silence;
pub use steward::{Answer, BlockLedger, Next, Request, Steward, Timing};
pub use turn::turn_of;
pub use wish::{PodName, Wish, Wishes};
