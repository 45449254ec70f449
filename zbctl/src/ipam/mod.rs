//! `zbctl ipam`: address leases.

pub(crate) mod adopt;
mod host_local;
