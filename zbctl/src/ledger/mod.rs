//! `zbctl ledger`: the ledger's files.

mod cached;
mod living;
mod plan;
pub(crate) mod rebuild;
