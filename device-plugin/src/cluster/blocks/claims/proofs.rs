//! Which ledgers are dead that have addresses which are wanted elsewhere: by the two proofs by which the blocks of a node are
//! freed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::ListParams;
use tracing::{info, warn};
use zerobridge_blocks::{Holder, IPBlock, Silence, Timing};
use zerobridge_proto::chain;

use super::super::identity::Identity;
use super::super::report::REMOVED_AFTER;
use crate::cluster::api::{ApiError, ApiServer};

/// What is known of ledgers that are perhaps dead.
#[derive(Debug, Default)]
pub(super) struct Proofs {
    /// Since when there has been a first proof, by incarnation.
    since: BTreeMap<String, Duration>,
    /// Of the blocks that those ledgers have.
    silence: Silence,
}

impl Proofs {
    /// Looks at these ledgers, and returns the incarnations of those that are dead at `now`. What cannot be found out is no
    /// proof.
    pub(super) async fn dead(
        &mut self,
        server: &ApiServer,
        pool: &str,
        identity: &Identity,
        suspects: &BTreeSet<Holder>,
        now: Duration,
    ) -> BTreeSet<String> {
        let (mut first, mut blocks) = (Vec::new(), Vec::new());
        for holder in suspects {
            match self.suspect(server, pool, identity, holder).await {
                Ok(Some(of_holder)) => {
                    first.push(holder);
                    blocks.extend(of_holder);
                }
                Ok(None) => {}
                Err(error) => {
                    warn!(node = holder.node, error = chain(&error), "cannot find out whether it is gone");
                }
            }
        }
        self.judge(identity, &first, &blocks, now)
    }

    /// The first proof: the cluster knows no such node, or that of this node is of an earlier boot. Then returns the
    /// holder's blocks.
    async fn suspect(
        &self,
        server: &ApiServer,
        pool: &str,
        identity: &Identity,
        holder: &Holder,
    ) -> Result<Option<Vec<IPBlock>>, ApiError> {
        let node = &holder.node;
        let is_over = if *node == identity.holder.node {
            holder.boot_id != identity.holder.boot_id && !identity.of_this_boot.contains(&holder.incarnation)
        } else {
            let get = async |client| Api::<Node>::all(client).get_metadata(node).await;
            match server.ask("get the node", || format!("node {node}"), get).await {
                Err(ApiError::NotFound { .. }) => true,
                other => other.map(|_| false)?,
            }
        };
        if !is_over {
            return Ok(None);
        }
        let fields = format!("spec.pool={pool},spec.holder.node={node}");
        let parameters = ListParams::default().fields(&fields);
        let list = async |client| Api::<IPBlock>::all(client).list(&parameters).await;
        let blocks = server.ask("list blocks", || "IPBlock".to_owned(), list).await?.items;
        let of_holder = |block: &IPBlock| block.spec.holder.incarnation == holder.incarnation;
        Ok(Some(blocks.into_iter().filter(of_holder).collect()))
    }

    /// The second: its agent has been silent for long, by this node's clock. One that has no blocks any more says nothing.
    fn judge(
        &mut self,
        identity: &Identity,
        first: &[&Holder],
        blocks: &[IPBlock],
        now: Duration,
    ) -> BTreeSet<String> {
        let before = std::mem::take(&mut self.since);
        let since = |holder: &&Holder| {
            let since = before.get(&holder.incarnation).copied().unwrap_or(now);
            (holder.incarnation.clone(), since)
        };
        self.since = first.iter().map(since).collect();
        let named =
            |block: &IPBlock| Some((block.metadata.name.clone()?, block.metadata.resource_version.clone()?));
        let versions: Vec<(String, String)> = blocks.iter().filter_map(named).collect();
        self.silence.heard(versions.iter().map(|(name, version)| (name.as_str(), version.as_str())), now);
        let is_dead = |holder: &&&Holder| {
            let long = match holder.node == identity.holder.node {
                true => Timing::default().silence,
                false => REMOVED_AFTER,
            };
            let own = blocks.iter().filter(|block| block.spec.holder.incarnation == holder.incarnation);
            let names = own.filter_map(|block| block.metadata.name.as_deref());
            let is_silent = names.map(|name| self.silence.of(name, now)).all(|silence| silence >= long);
            let since = self.since.get(&holder.incarnation).copied().unwrap_or(now);
            is_silent && now.saturating_sub(since) >= long
        };
        let dead: BTreeSet<String> =
            first.iter().filter(is_dead).map(|holder| holder.incarnation.clone()).collect();
        if !dead.is_empty() {
            info!(ledgers = ?dead, "these are gone, and what they had is free");
        }
        dead
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;

    fn holder(node: &str, incarnation: &str, boot_id: &str) -> Holder {
        Holder { node: node.to_owned(), incarnation: incarnation.to_owned(), boot_id: boot_id.to_owned() }
    }

    fn block(holder: &Holder, version: &str) -> IPBlock {
        serde_json::from_value(json!({
            "metadata": {"name": "gold-1", "resourceVersion": version},
            "spec": {"pool": "gold", "index": 1, "block": "10.0.0.8/29", "holder": holder}
        }))
        .unwrap()
    }

    #[test]
    fn a_ledger_is_dead_when_it_has_been_gone_and_silent_for_long() {
        let identity = Identity {
            holder: holder("n1", "a", "b2"),
            of_this_boot: ["a".to_owned()].into(),
            lock: Arc::new(tempfile::tempfile().unwrap()),
        };
        let (other, own) = (holder("n2", "x", "b"), holder("n1", "old", "b1"));
        let mut proofs = Proofs::default();
        let at = |minutes: u64| Duration::from_secs(minutes * 60);
        let mut dead = |first: &[&Holder], version: &str, minutes: u64| {
            let dead = proofs.judge(&identity, first, &[block(&other, version)], at(minutes));
            dead.into_iter().collect::<Vec<_>>()
        };
        assert!(dead(&[&other, &own], "1", 0).is_empty());
        assert_eq!(dead(&[&other, &own], "2", 30), ["old"], "of another boot");
        assert_eq!(dead(&[&other, &own], "2", 61), ["old"], "it spoke 31 minutes ago");
        assert_eq!(dead(&[&other], "2", 91), ["x"]);
        assert!(dead(&[], "2", 92).is_empty(), "it is back");
        assert!(dead(&[&other], "2", 93).is_empty(), "and gone again, but not for long");
        assert_eq!(dead(&[&other], "2", 153), ["x"]);
    }
}
