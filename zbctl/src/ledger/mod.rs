//! `zbctl ledger`: the ledger's files.

pub(crate) mod cached;
#[cfg(test)]
pub(crate) mod fixture;
pub(crate) mod living;
pub(crate) mod plan;
pub(crate) mod rebuild;
