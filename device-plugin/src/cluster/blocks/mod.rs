//! Cluster-wide address pools: claims blocks of them for this node ahead of need, and enters them into the ledger, which
//! is all that the CNI and IPAM programs read.
//!
//! What to do is decided in `zerobridge-blocks`; here are the API server, the ledger and the clock. While the API server is
//! away, addresses are leased from the blocks that the node has. Refuses to know of pods, but for those with addresses of
//! their own (`claims`).

mod agent;
mod book;
mod claims;
mod follow;
mod identity;
mod report;
mod requests;

use std::path::PathBuf;
use std::sync::Arc;

use tokio::task::JoinSet;
use tracing::info;

use self::agent::{Ended, PoolAgent};
use self::identity::identify;
pub(crate) use self::identity::{INCARNATIONS, LOCK};
use super::{ApiAccess, ApiServer, EventSink};
use crate::operations::Metrics;

/// Which pools this node takes blocks of, and where it keeps them.
#[derive(Clone, Debug)]
pub struct IpBlocks {
    /// Names of IPPools.
    pub pools: Vec<String>,
    /// The name of this node's Node object.
    pub node: String,
    /// The ledger's folder.
    pub state_dir: PathBuf,
    /// A folder that a boot empties: which ledgers the node had since is noted there.
    pub run_dir: PathBuf,
    /// Where procfs is mounted, for a random UUID.
    pub procfs: PathBuf,
    /// The present boot.
    pub boot_id: String,
}

impl IpBlocks {
    /// Goes on for ever, with a connection, counters and no events of its own: for programs that are nothing but this.
    pub async fn run_alone(self, api: ApiAccess) {
        self.run(Arc::new(ApiServer::new(api)), Metrics::new(), EventSink::none()).await;
    }

    /// Goes on for ever.
    pub(crate) async fn run(self, server: Arc<ApiServer>, metrics: Metrics, events: EventSink) {
        while self.act(&server, &metrics, &events).await == Ended::LedgerReplaced {
            info!(
                "another ledger stands in the place of the one that blocks were claimed for; beginning anew"
            );
        }
    }

    /// Acts for the ledger that there is, until an agent ends for its sake.
    async fn act(&self, server: &Arc<ApiServer>, metrics: &Metrics, events: &EventSink) -> Ended {
        let Some(identity) = identify(self).await else { return Ended::Unwatched };
        info!(pools = ?self.pools, incarnation = identity.holder.incarnation, "claiming blocks of cluster-wide pools");
        let mut agents = JoinSet::new();
        for pool in &self.pools {
            let agent = PoolAgent::new(pool, self, &identity, server, metrics, events);
            agents.spawn(agent.run());
        }
        while let Some(ended) = agents.join_next().await {
            if matches!(ended, Ok(Ended::LedgerReplaced)) {
                // All of them stop before another identity is taken.
                agents.shutdown().await;
                return Ended::LedgerReplaced;
            }
        }
        Ended::Unwatched
    }
}
