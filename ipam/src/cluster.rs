//! Cluster mode: the addresses come from blocks of a cluster-wide pool that the node daemon has claimed, and of a pod that
//! an IPClaim names, from that claim alone.
//!
//! Everything is read from the ledger; neither the API server nor the daemon is asked, so an ADD costs the same whether
//! they answer or not.

use std::borrow::Cow;
use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Map, Value};
use zerobridge_ledger::{Pod, Records, Transaction};
use zerobridge_proto::cni::Route;

use crate::pool::{exclusions, invalid, object, rest_seconds, routes};
use crate::range::Range;
use crate::range_set::RangeSet;
use crate::span::Span;
use crate::{IpamError, PoolConfig, PoolError};

/// The keys of a pool's specification that concern addresses; others are passed over.
pub const POOL_KEYS: [&str; 5] = ["subnet", "gateway", "exclude", "routes", "restSeconds"];

/// Keys of an `ipam` object that have their place in the IPPool when `mode` is `cluster`.
const IN_POOL: [&str; 8] =
    ["ranges", "subnet", "rangeStart", "rangeEnd", "gateway", "routes", "exclude", "restSeconds"];

/// What a cluster-wide pool says about addresses, the same for every node.
#[derive(Clone, Debug, PartialEq)]
pub struct ClusterPool {
    range: Range,
    reserved: Vec<Span>,
    routes: Vec<Route>,
    rest_seconds: u32,
}

impl ClusterPool {
    /// Reads a specification, in the keys of an `ipam` object; `place` is where it stands. Keys other than
    /// [`POOL_KEYS`] are for others.
    ///
    /// # Errors
    /// The first fault, with its field, its value and what is allowed.
    pub fn parse(spec: &Value, place: &str) -> Result<Self, PoolError> {
        let spec = object(spec, place)?;
        let kept = spec.iter().filter(|(key, value)| POOL_KEYS.contains(&key.as_str()) && !value.is_null());
        let spec: Map<String, Value> = kept.map(|(key, value)| (key.clone(), value.clone())).collect();
        let range = Range::read(&spec, place)?;
        let sets = [vec![range.clone()]];
        let reserved = range.reserved().chain(exclusions(&spec, place, &sets)?).collect();
        Ok(Self { reserved, routes: routes(&spec, place)?, rest_seconds: rest_seconds(&spec, place)?, range })
    }

    /// The subnet; its prefix length becomes that of the addresses.
    #[must_use]
    pub fn subnet(&self) -> IpNet {
        self.range.subnet()
    }

    /// How long an address rests after its release, in seconds.
    #[must_use]
    pub fn rest_seconds(&self) -> u32 {
        self.rest_seconds
    }

    /// How many addresses a part of the subnet gives out.
    #[must_use]
    pub fn gives_out(&self, part: IpNet) -> u128 {
        let all = Span::of_net(part);
        if !self.reserved.iter().any(|reserved| reserved.overlaps(&all)) {
            return all.size();
        }
        self.blocks(String::new(), &[(part, false)], &[]).size()
    }

    /// What these blocks give out: nothing of one that is draining, though what is leased there is still of this set. So is
    /// what pods have of their own (`claimed`), which is given out to them alone.
    fn blocks(&self, name: String, blocks: &[(IpNet, bool)], claimed: &[IpAddr]) -> RangeSet {
        let ranges = blocks.iter().map(|(net, _)| self.range.narrowed(net.network(), net.broadcast()));
        let own = claimed.iter().map(|address| self.range.narrowed(*address, *address));
        let draining = blocks.iter().filter(|(_, draining)| *draining).map(|(net, _)| Span::of_net(*net));
        let withheld = draining.chain(claimed.iter().copied().map(Span::of));
        let reserved: Vec<Span> = self.reserved.iter().copied().chain(withheld).collect();
        RangeSet::of_blocks(Some(name), ranges.collect(), &reserved).with_own(own.collect())
    }
}

/// The pools of an `ipam` object whose `mode` is `cluster`; `None` for any other.
pub(crate) fn pool_names(
    object: &Map<String, Value>,
    ip_ranges: Option<&Value>,
) -> Result<Option<Vec<String>>, PoolError> {
    match object.get("mode").map(|mode| (mode, mode.as_str())) {
        None | Some((_, Some("local"))) => {
            return match object.get("pool") {
                None => Ok(None),
                value => Err(invalid("ipam.pool", value, "it needs \"mode\": \"cluster\" beside it")),
            };
        }
        Some((_, Some("cluster"))) => {}
        Some((mode, _)) => {
            let rule = "write \"cluster\" for blocks of an IPPool, or \"local\", as without the key";
            return Err(invalid("ipam.mode", Some(mode), rule));
        }
    }
    if let Some(key) = IN_POOL.into_iter().find(|key| object.contains_key(*key)) {
        let rule = "with \"mode\": \"cluster\" it belongs into the specification of the IPPool";
        return Err(invalid(&format!("ipam.{key}"), object.get(key), rule));
    }
    if let Some(ranges) = ip_ranges.filter(|ranges| ranges.as_array().is_none_or(|list| !list.is_empty())) {
        let rule = "with \"mode\": \"cluster\" addresses come from an IPPool; leave the capability out";
        return Err(invalid("runtimeConfig.ipRanges", Some(ranges), rule));
    }
    let rule = "write the name of an IPPool, or a list of names for one address from each";
    let value = object.get("pool");
    let names: Option<Vec<String>> = match value {
        Some(Value::String(name)) => Some(vec![name.clone()]),
        Some(Value::Array(list)) => list.iter().map(|name| name.as_str().map(str::to_owned)).collect(),
        _ => None,
    };
    let names = names.filter(|names| !names.is_empty() && names.iter().all(|name| !name.is_empty()));
    let names = names.ok_or_else(|| invalid("ipam.pool", value, rule))?;
    let repeated = names.iter().enumerate().any(|(place, name)| names[..place].contains(name));
    if repeated {
        return Err(invalid("ipam.pool", value, "a pool gives one address; name it once"));
    }
    Ok(Some(names))
}

impl PoolConfig {
    /// This configuration with what it gives out at this moment: itself, or in cluster mode what the node's blocks are.
    ///
    /// # Errors
    /// [`IpamError::UnknownPool`], [`IpamError::PoolRecord`], [`IpamError::PoolOfOtherNetwork`], or the ledger's.
    pub(crate) fn in_force(&self, records: &Records, network: &str) -> Result<Cow<'_, Self>, IpamError> {
        if self.cluster.is_empty() {
            return Ok(Cow::Borrowed(self));
        }
        let mut pool = Self { cluster: Vec::new(), rest_seconds: 0, ..self.clone() };
        for name in &self.cluster {
            let unknown = || IpamError::UnknownPool { pool: name.clone() };
            let record = records.pool(name)?.ok_or_else(unknown)?;
            if let Some(other) = record.network.filter(|other| other != network) {
                return Err(self.of_other(name, network, other));
            }
            let parsed = serde_json::from_str(&record.spec)
                .map_err(|_| invalid(&format!("pools.{name}"), None, "its spec is no JSON"))
                .and_then(|spec| ClusterPool::parse(&spec, &format!("pools.{name}")));
            let ledger = || records.path().to_owned();
            let described = parsed.map_err(|source| IpamError::PoolRecord {
                pool: name.clone(),
                ledger: ledger(),
                source: Box::new(source),
            })?;
            let blocks = records.blocks_of(name)?;
            let blocks: Vec<_> = blocks.iter().map(|block| (block.net, block.draining)).collect();
            let claimed: Vec<_> =
                records.claims_of(name)?.into_iter().filter_map(|pod| pod.address).collect();
            pool.sets.push(described.blocks(name.clone(), &blocks, &claimed));
            pool.routes.extend(described.routes);
            pool.rest_seconds = pool.rest_seconds.max(described.rest_seconds);
        }
        Ok(Cow::Owned(pool))
    }

    /// Makes `network` the one that leases from the cluster-wide pools on this node.
    ///
    /// # Errors
    /// [`IpamError::PoolOfOtherNetwork`], or the ledger's.
    pub(crate) fn bind(&self, transaction: &mut Transaction<'_>, network: &str) -> Result<(), IpamError> {
        for name in &self.cluster {
            if let Some(other) = transaction.bind_pool(name, network)? {
                return Err(self.of_other(name, network, other));
            }
        }
        Ok(())
    }

    fn of_other(&self, pool: &str, network: &str, other: String) -> IpamError {
        IpamError::PoolOfOtherNetwork { pool: pool.to_owned(), network: network.to_owned(), other }
    }
}

/// What `pod` gets from a set: the address that an IPClaim reserves for it; any, when none does; and nothing else
/// while that address is not on this node.
///
/// # Errors
/// [`IpamError::ClaimElsewhere`], or the ledger's.
pub(crate) fn own_address(
    records: &Records,
    set: &RangeSet,
    pod: Option<&Pod>,
) -> Result<Option<IpAddr>, IpamError> {
    let (Some(pool), Some(pod)) = (&set.pool, pod) else { return Ok(None) };
    let Some(claimed) = records.claim_of(pool, &pod.namespace, &pod.name)? else { return Ok(None) };
    let elsewhere = || IpamError::ClaimElsewhere {
        pool: pool.clone(),
        namespace: pod.namespace.clone(),
        pod: pod.name.clone(),
    };
    claimed.address.map(Some).ok_or_else(elsewhere)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(ipam: Value) -> Result<PoolConfig, PoolError> {
        PoolConfig::parse(&ipam, None)
    }

    #[test]
    fn a_pool_is_named_and_says_the_rest_itself() {
        assert_eq!(parse(json!({"mode": "cluster", "pool": "gold"})).unwrap().cluster, ["gold"]);
        let two = json!({"mode": "cluster", "pool": ["v4", "v6"], "stateDir": "/s"});
        assert_eq!(parse(two).unwrap().cluster, ["v4", "v6"]);
        assert!(parse(json!({"mode": "local", "subnet": "10.0.0.0/24"})).unwrap().cluster.is_empty());
        for (ipam, field, word) in [
            (json!({"mode": "cluster"}), "ipam.pool is missing", "IPPool"),
            (json!({"mode": "cluster", "pool": ""}), "ipam.pool is \"\"", "IPPool"),
            (json!({"mode": "cluster", "pool": ["a", "a"]}), "ipam.pool", "once"),
            (json!({"mode": "global", "pool": "a"}), "ipam.mode is \"global\"", "cluster"),
            (json!({"pool": "a", "subnet": "10.0.0.0/24"}), "ipam.pool is \"a\"", "mode"),
            (json!({"mode": "cluster", "pool": "a", "exclude": []}), "ipam.exclude is []", "IPPool"),
        ] {
            let told = parse(ipam.clone()).unwrap_err().to_string();
            assert!(told.starts_with(field) && told.contains(word), "{ipam}: {told}");
        }
        let ranges = json!([[{"subnet": "10.0.0.0/24"}]]);
        let told = PoolConfig::parse(&json!({"mode": "cluster", "pool": "a"}), Some(&ranges)).unwrap_err();
        assert!(told.to_string().starts_with("runtimeConfig.ipRanges"), "{told}");
    }

    #[test]
    fn a_block_gives_out_what_the_pool_does_not_reserve() {
        let spec = json!({"subnet": "10.0.0.0/24", "gateway": "10.0.0.9", "exclude": ["10.0.0.16/30"], "blockSize": 16});
        let pool = ClusterPool::parse(&spec, "spec").unwrap();
        for (block, size) in
            [("10.0.0.0/28", 14), ("10.0.0.16/28", 12), ("10.0.0.32/28", 16), ("10.0.0.240/28", 15)]
        {
            assert_eq!(pool.gives_out(block.parse().unwrap()), size, "{block}");
        }
        let told = ClusterPool::parse(&json!({"subnet": "10.0.0.1/24"}), "spec").unwrap_err().to_string();
        assert!(told.starts_with("spec.subnet is \"10.0.0.1/24\""), "{told}");
        let told = ClusterPool::parse(&json!({"subnet": "10.0.0.0/24", "exclude": ["10.1.0.0/24"]}), "spec");
        assert!(told.unwrap_err().to_string().starts_with("spec.exclude[0]"));
    }
}
