//! What can go wrong with a pool and with a lease, and the CNI code of each.

use std::net::IpAddr;
use std::path::PathBuf;

use thiserror::Error;
use zerobridge_ledger::{LedgerError, Owner};
use zerobridge_proto::cni::{CniError, ErrorCode};

/// A configuration that describes no pool.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PoolError {
    /// A key that is not known.
    #[error("{0}")]
    UnknownKey(CniError),
    /// A value that is not allowed.
    #[error("{field} is {value}; {rule}")]
    Invalid {
        /// Where it stands, such as `ipam.ranges[0][1].rangeStart`.
        field: String,
        /// What stands there, as JSON.
        value: String,
        /// What is allowed, and what to do.
        rule: String,
    },
    /// Two ranges share addresses.
    #[error("{left} and {right} share addresses; an address may stand in one range only")]
    Overlap {
        /// One range, with its place.
        left: String,
        /// The other.
        right: String,
    },
    /// Nothing is left to give out.
    #[error(
        "{place} has no address to give out: gateways, network and broadcast addresses and \"exclude\" take all of it"
    )]
    Empty {
        /// The ranges, with their place.
        place: String,
    },
    /// A probe was asked of a program without a link.
    #[error(
        "ipam.{key} asks for a probe, and zerobridge-ipam has no link to send one on: only the plugin zerobridge does it; \
         remove {key}"
    )]
    NoLink {
        /// The key.
        key: &'static str,
    },
}

/// An address that could not be leased.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum IpamError {
    /// Every address is leased, and none rests.
    #[error(
        "all {size} addresses that network {network} gives out of {ranges} are leased{}; add a range, or see whose they are: \
         sqlite3 {} \"SELECT address, container_id, ifname FROM leases WHERE network = '{network}'\"",
        if *set_aside == 0 { String::new() } else { format!(" or in the hands of foreign hosts ({set_aside})") },
        ledger.display()
    )]
    Exhausted {
        /// The network.
        network: String,
        /// The set's ranges.
        ranges: String,
        /// How many addresses the set gives out.
        size: u128,
        /// How many of them foreign hosts were just found to have.
        set_aside: usize,
        /// The ledger's file.
        ledger: PathBuf,
    },
    /// Nothing is known of a cluster-wide pool.
    #[error(
        "nothing is known of the cluster-wide pool {pool} on this node: is there an IPPool of this name, and does the \
         device plugin run with --ip-pool {pool}?"
    )]
    UnknownPool {
        /// The pool.
        pool: String,
    },
    /// What the ledger says of a cluster-wide pool cannot be read.
    #[error("what {} says of the cluster-wide pool {pool} cannot be read; start the device plugin again", ledger.display())]
    PoolRecord {
        /// The pool.
        pool: String,
        /// The ledger's file.
        ledger: PathBuf,
        /// What is wrong.
        #[source]
        source: Box<PoolError>,
    },
    /// Another network leases from a cluster-wide pool on this node.
    #[error(
        "the cluster-wide pool {pool} gives its addresses to network {other} on this node, and to one network only: \
         give both configurations one name if they are of one segment, or make another IPPool for network {network}"
    )]
    PoolOfOtherNetwork {
        /// The pool.
        pool: String,
        /// Who wants to lease.
        network: String,
        /// Who does.
        other: String,
    },
    /// Every address of the node's blocks is leased, and none rests.
    #[error(
        "all {size} addresses of the {blocks} blocks that this node holds of the cluster-wide pool {pool} are leased; the \
         device plugin claims more: if that does not help, see `kubectl describe ippool {pool}`, and whose they are: \
         sqlite3 {} \"SELECT address, container_id, ifname FROM leases\"",
        ledger.display()
    )]
    BlocksExhausted {
        /// The pool.
        pool: String,
        /// How many blocks the node holds.
        blocks: usize,
        /// How many addresses they give out.
        size: u128,
        /// The ledger's file.
        ledger: PathBuf,
    },
    /// An IPClaim reserves an address for the pod, and it is not on this node.
    #[error(
        "an IPClaim reserves an address of the cluster-wide pool {pool} for pod {namespace}/{pod}, and it is not on this node \
         yet: the device plugin fetches it once no other node has it; if that does not help, see `kubectl describe ipclaims \
         --namespace {namespace}`"
    )]
    ClaimElsewhere {
        /// The pool.
        pool: String,
        /// The pod's namespace.
        namespace: String,
        /// Its name.
        pod: String,
    },
    /// An address was asked for, and an IPClaim reserves another one for the pod.
    #[error("{asked} was asked for, and an IPClaim reserves {own} for the pod; ask for none")]
    OtherClaimed {
        /// The address asked for.
        asked: IpAddr,
        /// The pod's own.
        own: IpAddr,
    },
    /// An address was asked for that the pool does not give out.
    #[error(
        "{address} was asked for, and network {network} gives out {ranges} without gateways and exclusions"
    )]
    NotInPool {
        /// The network.
        network: String,
        /// The address.
        address: IpAddr,
        /// All ranges of the network.
        ranges: String,
    },
    /// Two addresses were asked for where one is given.
    #[error("{first} and {second} were asked for, and network {network} gives one address from {ranges}")]
    TwoOfOneSet {
        /// The network.
        network: String,
        /// One address.
        first: IpAddr,
        /// The other.
        second: IpAddr,
        /// The set's ranges.
        ranges: String,
    },
    /// An address was asked for that another container has.
    #[error("{address} of network {network} was asked for and is leased to {holder}")]
    Taken {
        /// The network.
        network: String,
        /// The address.
        address: IpAddr,
        /// Who has it.
        holder: Owner,
    },
    /// An address was asked for, and its owner has another already.
    #[error("{asked} of network {network} was asked for, and {owner} has {held} already; detach it first")]
    OtherHeld {
        /// The network.
        network: String,
        /// The address asked for.
        asked: IpAddr,
        /// What the owner has.
        held: IpAddr,
        /// The owner.
        owner: Owner,
    },
    /// CHECK found an owner without its address.
    #[error("{owner} has no address of network {network} from {ranges}")]
    NotLeased {
        /// The network.
        network: String,
        /// The owner.
        owner: Owner,
        /// The set's ranges.
        ranges: String,
    },
    /// The ledger failed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl IpamError {
    /// Whether others have all addresses that could have been given.
    pub(crate) fn is_for_want_of_addresses(&self) -> bool {
        matches!(
            self,
            Self::Exhausted { .. }
                | Self::BlocksExhausted { .. }
                | Self::ClaimElsewhere { .. }
                | Self::Taken { .. }
        )
    }
}

impl From<PoolError> for CniError {
    fn from(error: PoolError) -> Self {
        match error {
            PoolError::UnknownKey(error) => error,
            other => Self::from_chain(ErrorCode::INVALID_CONFIG, &other),
        }
    }
}

impl From<&IpamError> for ErrorCode {
    /// What may pass by itself is 11, so that the runtime tries again; what an operator must change is 7 or 5.
    fn from(error: &IpamError) -> Self {
        match error {
            IpamError::Exhausted { .. }
            | IpamError::BlocksExhausted { .. }
            | IpamError::UnknownPool { .. }
            | IpamError::ClaimElsewhere { .. }
            | IpamError::Taken { .. } => Self::TRY_AGAIN_LATER,
            IpamError::PoolRecord { .. } => Self::IO,
            IpamError::PoolOfOtherNetwork { .. }
            | IpamError::OtherClaimed { .. }
            | IpamError::NotInPool { .. }
            | IpamError::TwoOfOneSet { .. }
            | IpamError::OtherHeld { .. } => Self::INVALID_CONFIG,
            IpamError::NotLeased { .. } => Self::plugin(0),
            IpamError::Ledger(LedgerError::Busy { .. } | LedgerError::Replaced { .. }) => {
                Self::TRY_AGAIN_LATER
            }
            IpamError::Ledger(_) => Self::IO,
        }
    }
}

impl From<IpamError> for CniError {
    fn from(error: IpamError) -> Self {
        Self::from_chain(ErrorCode::from(&error), &error)
    }
}
