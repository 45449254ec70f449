//! `zbctl ledger`: the ledger's files.

pub(crate) mod cached;
pub(crate) mod living;
pub(crate) mod plan;
pub(crate) mod rebuild;
