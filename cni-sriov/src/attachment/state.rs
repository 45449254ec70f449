//! One VF, described completely: what ADD wants, what DEL restores, what the kernel says.
//!
//! The same value is written into the ledger as JSON, so its field names are a format: an operator reads them with
//! `sqlite3`, and a newer program must still read what an older one wrote.

use std::collections::BTreeSet;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use zerobridge_kernel::{Route, VfAdmin};
use zerobridge_proto::Mac;

/// Where a VF's netdev is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// The namespace that this program runs in.
    Host,
    /// The pod's network namespace.
    Sandbox,
}

/// A VF's netdev as the namespace that holds it sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkState {
    /// Which namespace holds it.
    pub place: Place,
    /// Its name there.
    pub name: String,
    /// Its alternative names. They travel with it; only on the host does anybody look at them.
    pub alt_names: BTreeSet<String>,
    /// The address that its frames carry.
    pub mac: Mac,
    /// MTU in bytes.
    pub mtu: u32,
    /// Administratively up.
    pub up: bool,
}

/// One VF completely.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VfState {
    /// What the PF imposes.
    pub admin: VfAdmin,
    /// The netdev.
    pub link: LinkState,
    /// Addresses of the netdev. Others that somebody added are not ours to judge.
    pub addresses: Vec<IpNet>,
    /// Routes by the netdev. Others that somebody added are not ours to judge.
    pub routes: Vec<Route>,
}
