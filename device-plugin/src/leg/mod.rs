//! The node's own legs: interfaces by which the node itself is in the networks of its pods.
//!
//! A leg is a value, as an attachment is: `state` says what there is, `diff` what is missing, `access` does it, and it is
//! looked at again until nothing is missing. `place` finds the device, `promise` the addresses, which come out of the
//! ledger that pods' addresses come from, `stale` what no leg wants any more, and [`Keeper`] makes one pass over all.
//! Whatever a leg has is known from its leases, from its VF's record and from the note on its link, so nothing is
//! remembered elsewhere. Refuses to know what the node uses a leg for, and touches no route but those of its addresses.

mod access;
mod diff;
mod keeper;
mod place;
mod promise;
mod stale;
mod state;
mod status;

pub use keeper::end_legs;
pub(crate) use keeper::{Keeper, Moment};
pub(crate) use place::kept_vfs;
pub use status::{LegStanding, LegStatus, LegsError, look_at_legs};
