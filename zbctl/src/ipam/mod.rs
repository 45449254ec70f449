//! `zbctl ipam`: address leases.

pub(crate) mod adopt;
pub(crate) mod audit;
mod host_local;
pub(crate) mod list;
