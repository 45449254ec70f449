//! What one node at a time tells of a pool as a whole, and frees of nodes that are gone.
//!
//! Who tells is not elected: whoever sees that nobody has told for a while tries to write the status, naming the version
//! that it saw, and of several the API server takes one. To be the one has no meaning beyond that.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use serde_json::json;
use tracing::{debug, info, warn};
use zerobridge_blocks::{
    FINALIZER, Forecast, IPBlock, IPPool, IPPoolStatus, Pool, RESERVED, Silence, turn_of,
};
use zerobridge_proto::chain;

use super::requests::claim;
use crate::cluster::api::{ApiError, ApiServer};

/// How often a pool's status is written.
const PERIOD: Duration = Duration::from_secs(60);
/// How long a reporter is waited for before another takes its place, and how far apart the others try.
const ABSENCE: (Duration, Duration) = (Duration::from_secs(150), Duration::from_secs(90));
/// How long a node that is no longer in the cluster must also have been silent before its blocks are free.
pub(super) const REMOVED_AFTER: Duration = Duration::from_secs(3600);
/// A pool with fewer free blocks than one in this many is scarce.
pub(super) const SCARCE: u32 = 20;

/// Tells of one pool.
#[derive(Debug)]
pub(super) struct Reporter {
    server: Arc<ApiServer>,
    node: String,
    silence: Silence,
    forecast: Forecast,
    /// The last status that was seen, and since when.
    seen: Option<(u64, String, Duration)>,
}

impl Reporter {
    pub(super) fn new(server: Arc<ApiServer>, node: String) -> Self {
        let (silence, forecast) = (Silence::default(), Forecast::default());
        Self { server, node, silence, forecast, seen: None }
    }

    /// The pool was seen at `now`.
    pub(super) fn saw(&mut self, object: &IPPool, now: Duration) {
        let status = object.status.clone().unwrap_or_default();
        let is_same = |(sequence, reporter, _): &(u64, String, Duration)| {
            (*sequence, reporter.as_str()) == (status.sequence, status.reporter.as_str())
        };
        if !self.seen.as_ref().is_some_and(is_same) {
            self.seen = Some((status.sequence, status.reporter, now));
        }
    }

    /// When this node has to tell, if nobody does before.
    pub(super) fn due(&self) -> Option<Duration> {
        let (sequence, reporter, since) = self.seen.as_ref()?;
        if *reporter == self.node {
            return Some(*since + PERIOD);
        }
        let turn = turn_of(&self.node, "report", ABSENCE.1);
        // Of a new pool something is told soon.
        Some(*since + if *sequence == 0 { turn / 10 } else { ABSENCE.0 + turn })
    }

    /// Tells. `problem` is what this node finds wrong with the specification.
    pub(super) async fn report(
        &mut self,
        object: &IPPool,
        pool: &Pool,
        problem: Option<&str>,
        now: Duration,
    ) {
        // Whatever comes of it: not again at once.
        if let Some((.., since)) = &mut self.seen {
            *since = now;
        }
        if let Err(error) = self.attempt(object, pool, problem, now).await {
            match error {
                ApiError::Exists { .. } => debug!(pool = pool.name(), "another node told of the pool"),
                error => warn!(pool = pool.name(), error = chain(&error), "cannot tell of the pool"),
            }
        }
    }

    async fn attempt(
        &mut self,
        object: &IPPool,
        pool: &Pool,
        problem: Option<&str>,
        now: Duration,
    ) -> Result<(), ApiError> {
        let parameters = ListParams::default().fields(&format!("spec.pool={}", pool.name())).match_any();
        let list = async |client| Api::<IPBlock>::all(client).list(&parameters).await;
        let blocks = self.server.ask("list blocks", || "IPBlock".to_owned(), list).await?.items;
        let claimed = u32::try_from(blocks.len()).unwrap_or(u32::MAX);
        self.forecast.sample(now, claimed);
        self.write(object, self.status(object, pool, &blocks, problem)).await?;
        self.see_to_finalizer(object, blocks.is_empty()).await?;
        self.free_removed(&blocks, now).await
    }

    fn status(
        &self,
        object: &IPPool,
        pool: &Pool,
        blocks: &[IPBlock],
        problem: Option<&str>,
    ) -> IPPoolStatus {
        let told = blocks.iter().filter_map(|block| block.status.as_ref());
        let (used, resting) = told.fold((0_u64, 0_u64), |(used, resting), status| {
            (used + u64::from(status.used), resting + u64::from(status.resting))
        });
        let nodes: BTreeSet<&str> = blocks.iter().map(|block| block.spec.holder.node.as_str()).collect();
        let nodes = nodes.into_iter().filter(|node| *node != RESERVED).count();
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        // Blocks in which nothing can be given out are never claimed; few, at the ends, so they are not counted out.
        let free_blocks = pool.blocks().saturating_sub(count(blocks.len()));
        IPPoolStatus {
            blocks: pool.blocks(),
            free_blocks,
            capacity: pool.capacity(),
            used,
            resting,
            nodes: count(nodes),
            exhausted_in_seconds: self.forecast.exhausted_in(free_blocks).map(|time| time.as_secs()),
            problem: problem.map(str::to_owned),
            reporter: self.node.clone(),
            sequence: object.status.as_ref().map_or(0, |status| status.sequence) + 1,
        }
    }

    async fn write(&self, object: &IPPool, status: IPPoolStatus) -> Result<(), ApiError> {
        let name = object.metadata.name.clone().unwrap_or_default();
        let object = IPPool { status: Some(status), ..object.clone() };
        let write = async |client| {
            Api::<IPPool>::all(client).replace_status(&name, &PostParams::default(), &object).await
        };
        self.server.ask("write the status of an IPPool", || format!("IPPool {name}"), write).await.map(drop)
    }

    /// A pool stays while there are blocks of it: a pool of the same name could be cut otherwise.
    async fn see_to_finalizer(&self, object: &IPPool, is_empty: bool) -> Result<(), ApiError> {
        let mut finalizers = object.metadata.finalizers.clone().unwrap_or_default();
        let present = finalizers.iter().position(|finalizer| finalizer == FINALIZER);
        match (object.metadata.deletion_timestamp.is_some(), present) {
            (false, None) => finalizers.push(FINALIZER.to_owned()),
            (true, Some(place)) if is_empty => drop(finalizers.remove(place)),
            _ => return Ok(()),
        }
        let name = object.metadata.name.clone().unwrap_or_default();
        let patch = Patch::Merge(json!({"metadata": {"finalizers": finalizers, "uid": object.metadata.uid}}));
        let patch =
            async |client| Api::<IPPool>::all(client).patch(&name, &PatchParams::default(), &patch).await;
        self.server.ask("guard an IPPool", || format!("IPPool {name}"), patch).await.map(drop)
    }

    /// Frees the blocks of nodes that are gone by two proofs that do not depend on each other: the cluster knows no such
    /// node, and the node's own agent has been silent, by this node's clock.
    async fn free_removed(&mut self, blocks: &[IPBlock], now: Duration) -> Result<(), ApiError> {
        let named = |block: &IPBlock| {
            let (name, version) = (block.metadata.name.clone(), block.metadata.resource_version.clone());
            Some((name?, version?))
        };
        let versions: Vec<(String, String)> = blocks.iter().filter_map(named).collect();
        self.silence.heard(versions.iter().map(|(name, version)| (name.as_str(), version.as_str())), now);
        let mut by_node: BTreeMap<&str, Vec<&IPBlock>> = BTreeMap::new();
        // What is reserved for pods is no node's, and its claims end by themselves.
        for block in blocks.iter().filter(|block| block.spec.holder.node != RESERVED) {
            by_node.entry(&block.spec.holder.node).or_default().push(block);
        }
        for (node, blocks) in by_node {
            let silent = |block: &&IPBlock| {
                let name = block.metadata.name.as_deref().unwrap_or_default();
                self.silence.of(name, now) >= REMOVED_AFTER
            };
            if !blocks.iter().all(silent) {
                continue;
            }
            let get = async |client| Api::<Node>::all(client).get_metadata(node).await;
            match self.server.ask("get the node", || format!("node {node}"), get).await {
                Err(ApiError::NotFound { .. }) => {}
                Ok(_) => continue,
                Err(error) => return Err(error),
            }
            for block in blocks {
                self.free(block).await?;
            }
        }
        Ok(())
    }

    async fn free(&self, block: &IPBlock) -> Result<(), ApiError> {
        let name = block.metadata.name.clone().unwrap_or_default();
        let claim = claim(block);
        let preconditions = Preconditions { uid: Some(claim.uid), resource_version: Some(claim.version) };
        let parameters = DeleteParams::default().preconditions(preconditions);
        let delete = async |client| Api::<IPBlock>::all(client).delete(&name, &parameters).await;
        match self.server.ask("free a block", || format!("IPBlock {name}"), delete).await {
            Ok(_) => info!(
                block = name,
                node = claim.holder.node,
                "freed a block: its node is no longer in the cluster"
            ),
            Err(ApiError::NotFound { .. } | ApiError::Exists { .. }) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}
