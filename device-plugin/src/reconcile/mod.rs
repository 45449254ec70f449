//! What pods left behind: attachments that nobody asks about any more are ended, and what must not be touched is reported.
//!
//! `decision` judges one record by values, `report` names what only a person can decide, `sandbox` asks whether a record's
//! namespace still exists, and [`Reconciler`] acts: by the very code that a CNI DEL runs. Refuses to know how a VF is
//! restored.

mod decision;
mod reconciler;
mod report;
mod sandbox;

pub use decision::{Cause, Decision};
pub use reconciler::{Reconciler, Reconciliation, Repair};
pub use report::Report;
