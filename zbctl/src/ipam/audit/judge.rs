//! Comparing the ledger with the namespaces and with the API objects, in both directions.
//!
//! Reads the ledger and nothing else; what the kernel and the API server say is handed over.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde_json::Value;
use zerobridge_blocks::{IPBlock, Pool};
use zerobridge_ledger::{Discrepancy, Lease, LedgerError, Records, UnixSeconds};

use super::fault::{Fault, Mend};
use crate::ledger::cached::Cached;
use crate::ledger::living::Living;
use crate::ledger::plan::{Known, plan};

/// How long a lease may be without an interface in seconds: an ADD leases first. As long as the kubelet waits for a
/// sandbox (`--runtime-request-timeout`, two minutes).
const GRACE: i64 = 120;

/// What was found besides the ledger.
#[derive(Debug)]
pub(crate) struct Evidence<'a> {
    pub(crate) living: &'a [Living],
    /// What could not be looked into.
    pub(crate) unseen: &'a [String],
    pub(crate) cached: &'a [Cached],
    /// Networks that the operator named.
    pub(crate) networks: &'a [String],
    /// The API server's objects, if they were handed over, and this node's name.
    pub(crate) blocks: Option<(&'a str, &'a [IPBlock])>,
    pub(crate) boot_id: &'a str,
    pub(crate) now: UnixSeconds,
}

/// All faults, each with what would put it right, where something would.
pub(crate) fn judge(
    records: &Records,
    evidence: &Evidence<'_>,
) -> Result<BTreeMap<Fault, Option<Mend>>, LedgerError> {
    let mut faults = BTreeMap::new();
    faults.extend(records.audit()?.into_iter().map(of_itself));
    faults.extend(evidence.unseen.iter().map(|what| (Fault::Unseen { what: what.clone() }, None)));
    let (attachments, leases) = (records.attachments()?, records.leases()?);
    let in_use: BTreeSet<IpAddr> = evidence
        .living
        .iter()
        .flat_map(|interface| interface.addresses.iter().map(ipnet::IpNet::addr))
        .collect();
    // A leg's is the daemon's business, which has it over boots, and no namespace of a pod shows it.
    for lease in leases.iter().filter(|lease| !lease.owner.is_leg()) {
        // An attachment's end is the reconciler's business, and a device without an interface shows no address.
        let is_attached = attachments.iter().any(|attachment| attachment.owner == lease.owner);
        let is_settled = evidence.now.0.saturating_sub(lease.created_at.0) >= GRACE;
        if lease.boot_id != evidence.boot_id {
            faults.insert(Fault::OfEarlierBoot(lease.into()), Some(Mend::Release));
        } else if !is_attached && is_settled && evidence.unseen.is_empty() && !in_use.contains(&lease.address)
        {
            faults.insert(Fault::Abandoned(lease.into()), Some(Mend::Release));
        }
    }
    let known = Known {
        attachments: &attachments,
        leases: &leases,
        cached: evidence.cached,
        networks: evidence.networks,
        boot_id: evidence.boot_id,
        now: evidence.now,
    };
    let found = plan(evidence.living, &known);
    faults.extend(
        found
            .missing
            .into_iter()
            .map(|lease| (Fault::NotLeased((&lease).into()), Some(Mend::Lease(lease.into())))),
    );
    faults.extend(found.of_others.into_iter().map(|(lease, owner)| {
        let (leased_to, used_by) = (lease.owner.to_string(), owner.to_string());
        (Fault::UsedByOther { network: lease.network, address: lease.address, leased_to, used_by }, None)
    }));
    faults.extend(
        found.unplaced.into_iter().map(|(address, place)| (Fault::Unplaced { address, place }, None)),
    );
    let of_blocks = of_blocks(records, &leases, evidence)?;
    faults.extend(of_blocks.into_iter().map(|fault| (fault, None)));
    Ok(faults)
}

fn of_itself(discrepancy: Discrepancy) -> (Fault, Option<Mend>) {
    match discrepancy {
        Discrepancy::NotMarked { network, address } => {
            (Fault::NotMarked { network, address }, Some(Mend::Mark(true)))
        }
        Discrepancy::MarkedInVain { network, address } => {
            (Fault::MarkedInVain { network, address }, Some(Mend::Mark(false)))
        }
        other => (Fault::Contradiction { what: other.to_string() }, None),
    }
}

/// Cluster-wide pools: leases outside of this node's blocks and of its pods' own addresses, and blocks of which the API server knows something else.
fn of_blocks(
    records: &Records,
    leases: &[Lease],
    evidence: &Evidence<'_>,
) -> Result<Vec<Fault>, LedgerError> {
    let incarnation = records.incarnation()?.unwrap_or_default();
    let mut faults = Vec::new();
    let mut entered = BTreeSet::new();
    for record in records.pools()? {
        let blocks = records.blocks_of(&record.name)?;
        entered.extend(blocks.iter().map(|block| (record.name.clone(), block.net.to_string())));
        let spec: Value = serde_json::from_str(&record.spec).unwrap_or_default();
        let (Some(network), Ok(pool)) = (&record.network, Pool::parse(&record.name, &spec)) else { continue };
        let subnet = pool.addresses().subnet();
        let claims = records.claims_of(&record.name)?;
        let is_outside = |lease: &&Lease| {
            lease.network == *network
                && subnet.contains(&lease.address)
                && !blocks.iter().any(|block| block.net.contains(&lease.address))
                && !claims.iter().any(|pod| pod.address == Some(lease.address))
        };
        faults.extend(leases.iter().filter(is_outside).map(|lease| Fault::OutsideBlocks {
            network: network.clone(),
            address: lease.address,
            pool: record.name.clone(),
        }));
    }
    let Some((node, objects)) = evidence.blocks else { return Ok(faults) };
    let claimed: BTreeSet<(String, String)> = objects
        .iter()
        .filter(|object| object.spec.holder.node == node && object.spec.holder.incarnation == incarnation)
        .map(|object| (object.spec.pool.clone(), object.spec.block.clone()))
        .collect();
    let difference =
        |left: &BTreeSet<(String, String)>, right| left.difference(right).cloned().collect::<Vec<_>>();
    faults.extend(
        difference(&entered, &claimed)
            .into_iter()
            .map(|(pool, block)| Fault::BlockNotClaimed { pool, block }),
    );
    faults.extend(
        difference(&claimed, &entered)
            .into_iter()
            .map(|(pool, block)| Fault::BlockNotEntered { pool, block }),
    );
    Ok(faults)
}
