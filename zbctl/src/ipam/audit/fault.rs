//! What can be wrong with the addresses of a node, and how it is put.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use zerobridge_ledger::Lease;

/// Something that two of ledger, namespaces and API objects say differently. It is what a report holds, so it names
/// everything by which the same fault is known again.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub(crate) enum Fault {
    /// An address is leased, and no interface has it.
    Abandoned(Held),
    /// An address was leased before the last reboot and never released.
    OfEarlierBoot(Held),
    /// An interface has an address that is not leased.
    NotLeased(Held),
    /// An interface has an address that is leased to another.
    UsedByOther { network: String, address: IpAddr, leased_to: String, used_by: String },
    /// A device has an address, and nobody knows in which network.
    Unplaced { address: IpAddr, place: String },
    /// The bitmap says that an address is free that is not: it could be given away.
    NotMarked { network: String, address: IpAddr },
    /// The bitmap says that an address is taken that is free: it is lost to the pool.
    MarkedInVain { network: String, address: IpAddr },
    /// The ledger contradicts itself otherwise.
    Contradiction { what: String },
    /// An address of a cluster-wide pool is leased, and its block is not this node's: another node may give it away.
    OutsideBlocks { network: String, address: IpAddr, pool: String },
    /// A block is in the ledger, and the API server has given it to nobody, or to another.
    BlockNotClaimed { pool: String, block: String },
    /// The API server holds a block for this ledger that is not in it: nobody uses it.
    BlockNotEntered { pool: String, block: String },
    /// A namespace that could not be looked into; what is in it is not known.
    Unseen { what: String },
}

/// An address, and the interface that has it or was promised it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Held {
    pub(crate) network: String,
    pub(crate) address: IpAddr,
    container_id: String,
    ifname: String,
}

impl From<&Lease> for Held {
    fn from(lease: &Lease) -> Self {
        let Lease { network, address, owner, .. } = lease.clone();
        Self { network, address, container_id: owner.container_id, ifname: owner.ifname }
    }
}

/// What would put a fault right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Mend {
    /// The lease ends, and the address rests.
    Release,
    /// The address is leased to who has it.
    Lease(Box<Lease>),
    /// The bit is set, or cleared.
    Mark(bool),
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Abandoned(Held { network, address, container_id, ifname }) => write!(
                out,
                "{address} of network {network} is leased to {ifname} of container {container_id}, and no interface has it"
            ),
            Self::OfEarlierBoot(Held { network, address, container_id, ifname }) => write!(
                out,
                "{address} of network {network} was leased to {ifname} of container {container_id} before the last reboot"
            ),
            Self::NotLeased(Held { network, address, container_id, ifname }) => write!(
                out,
                "{address} of network {network} is in use by {ifname} of container {container_id}, and not leased"
            ),
            Self::UsedByOther { network, address, leased_to, used_by } => write!(
                out,
                "{address} of network {network} is in use by {used_by}, and leased to {leased_to}: two may have it"
            ),
            Self::Unplaced { address, place } => {
                write!(
                    out,
                    "{address} is in use by {place}, and nobody knows its network; name it with --network"
                )
            }
            Self::NotMarked { network, address } => {
                write!(out, "{address} of network {network} is taken, and counted as free")
            }
            Self::MarkedInVain { network, address } => {
                write!(out, "{address} of network {network} is free, and counted as taken")
            }
            Self::Contradiction { what } => write!(out, "{what}; `zbctl ledger rebuild` makes a new ledger"),
            Self::OutsideBlocks { network, address, pool } => write!(
                out,
                "{address} of network {network} is leased, and is of pool {pool} in a block that is not this node's"
            ),
            Self::BlockNotClaimed { pool, block } => write!(
                out,
                "block {block} of pool {pool} is in the ledger, and no IPBlock object gives it to this ledger"
            ),
            Self::BlockNotEntered { pool, block } => write!(
                out,
                "block {block} of pool {pool} is this ledger's by its IPBlock object, and not in the ledger"
            ),
            Self::Unseen { what } => write!(out, "it is not known which addresses are in use there: {what}"),
        }
    }
}

impl fmt::Display for Mend {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Release => "release it",
            Self::Lease(_) => "lease it",
            Self::Mark(true) => "count it as taken",
            Self::Mark(false) => "count it as free",
        })
    }
}
