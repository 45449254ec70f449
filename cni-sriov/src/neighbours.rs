//! Who else is on the pod's link: nobody with its addresses, and its gateways.
//!
//! Addresses are probed for when the VF is in the pod and up, and before it has them, so that the kernel never answers for
//! an address that is another's. Only then are gateways asked, which learn the pod's address from the question. An
//! address that a foreign host has is replaced in the ledger, record and all, before it was anywhere else: so a plugin that
//! is killed in the middle leaves what any killed ADD leaves.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use tracing::{info, warn};
use zerobridge_ipam::{ConflictProbe, Foreign, GatewayProbe};
use zerobridge_kernel::{Holder, ProbePace};
use zerobridge_ledger::Ledger;
use zerobridge_proto::cni::CniError;

use crate::attachment::VfAccess;
use crate::codes;
use crate::failure::attachment_error;
use crate::promise::{Attempt, PoolSource, Promise};

/// How long a carrier is waited for before it is asked who is there: longer than for an announcement, since whoever wants
/// to be sure of his addresses would rather wait for a slow card.
const CARRIER_PATIENCE: Duration = Duration::from_secs(5);

/// Probes for the promised addresses and has those replaced that foreign hosts have, until nobody has any. Addresses that
/// the pod has already are its own.
///
/// Without a carrier there is nobody to be asked, and the pod starts all the same, as it does on a dead wire.
///
/// # Errors
/// Foreign hosts have the addresses that were asked for, or all that were tried; no other address is free; the link or the
/// ledger fails. The caller takes the attempt back.
pub(crate) fn settle(
    attempt: &Attempt<'_>,
    source: &PoolSource<'_>,
    probe: &ConflictProbe,
    promise: Promise,
    ledger: &mut Ledger,
    access: &mut VfAccess,
) -> Result<Promise, CniError> {
    let (owner, network) = (attempt.call.owner(), &attempt.wish.network.name);
    if promise.wanted.addresses.is_empty() {
        info!(%owner, network, "the device has no interface here; its addresses are not probed for");
        return Ok(promise);
    }
    let own: Vec<IpAddr> =
        access.addresses().map_err(attachment_error)?.iter().map(|net| net.addr()).collect();
    let addresses_of = |promise: &Promise| promise.wanted.addresses.iter().map(|net| net.addr()).collect();
    let promised: Vec<IpAddr> = addresses_of(&promise);
    if promised.iter().all(|address| own.contains(address)) {
        return Ok(promise);
    }
    if access.wait_for_carrier(Instant::now() + CARRIER_PATIENCE).map_err(attachment_error)?.is_none() {
        warn!(%owner, network, "no carrier; nobody can be asked whether the addresses are another's");
        return Ok(promise);
    }
    let pace = pace(probe);
    let probe_for = |addresses: &[IpAddr]| {
        let holders = access.foreign_holders(addresses, &pace).map_err(attachment_error)?;
        Ok(holders.into_iter().map(|Holder { address, mac }| Foreign { address, mac }).collect())
    };
    let replace = |found: &[Foreign], is_last| attempt.replace(source, ledger, found, is_last);
    let settled = until_nobody_has_them(promise, addresses_of, probe.tries, own, probe_for, replace)?;
    info!(%owner, network, addresses = ?settled.wanted.addresses, "nobody else on the link has the addresses");
    Ok(settled)
}

/// Probes for each address once, and for each that came in another's place. `probe_for` returns which of the given
/// addresses are foreign; `replace` returns what is promised instead, and fails when it is told that this was the last try.
fn until_nobody_has_them<P>(
    mut promise: P,
    addresses_of: impl Fn(&P) -> Vec<IpAddr>,
    tries: u32,
    mut clear: Vec<IpAddr>,
    mut probe_for: impl FnMut(&[IpAddr]) -> Result<Vec<Foreign>, CniError>,
    mut replace: impl FnMut(&[Foreign], bool) -> Result<P, CniError>,
) -> Result<P, CniError> {
    let mut tried = 0;
    loop {
        let mut unproven = addresses_of(&promise);
        unproven.retain(|address| !clear.contains(address));
        if unproven.is_empty() {
            return Ok(promise);
        }
        let found = probe_for(&unproven)?;
        tried += 1;
        let is_foreign = |address: &IpAddr| found.iter().any(|foreign| foreign.address == *address);
        clear.extend(unproven.into_iter().filter(|address| !is_foreign(address)));
        if !found.is_empty() {
            promise = replace(&found, tried >= tries)?;
        }
    }
}

/// Asks for the gateways of the promised addresses, where the pool wants that. The pod must have its addresses.
///
/// A repeated ADD finds a pod that has been running for a while: it only warns, since a failure would end the attachment.
///
/// # Errors
/// Code 109 when one does not answer that must; what the link refuses.
pub(crate) fn look_for_gateways(
    attempt: &Attempt<'_>,
    promise: &Promise,
    access: &mut VfAccess,
) -> Result<(), CniError> {
    let Some(source) = attempt.pool_source() else { return Ok(()) };
    let is_required = match source.pool.gateway_probe {
        GatewayProbe::Off => return Ok(()),
        GatewayProbe::Warn => false,
        GatewayProbe::Require => attempt.existing.is_none(),
    };
    let given = promise.leased.ips.iter().filter(|ip| promise.wanted.addresses.contains(&ip.address));
    let pairs: Vec<(IpAddr, IpAddr)> =
        given.filter_map(|ip| Some((ip.address.addr(), ip.gateway?))).collect();
    if pairs.is_empty() {
        return Ok(());
    }
    let pace = pace(&source.pool.conflict_probe.unwrap_or_default());
    let outcome = access
        .wait_for_carrier(Instant::now() + CARRIER_PATIENCE)
        .and_then(|carried| carried.map_or(Ok(Vec::new()), |_| access.answering_gateways(&pairs, &pace)));
    let outcome = outcome
        .map_err(attachment_error)
        .and_then(|answers| all_answered(&attempt.wish.network.name, &pairs, &answers));
    match outcome {
        Err(error) if !is_required => {
            warn!(owner = %attempt.call.owner(), %error, "the pod starts all the same");
            Ok(())
        }
        outcome => outcome,
    }
}

/// Whether each gateway is among those that answered.
fn all_answered(network: &str, pairs: &[(IpAddr, IpAddr)], answers: &[Holder]) -> Result<(), CniError> {
    let is_silent =
        |(_, gateway): &&(IpAddr, IpAddr)| !answers.iter().any(|answer| answer.address == *gateway);
    let silent: Vec<String> = pairs
        .iter()
        .filter(is_silent)
        .map(|(own, gateway)| format!("gateway {gateway} does not answer {own}"))
        .collect();
    if silent.is_empty() {
        return Ok(());
    }
    let msg = format!("{} in network {network}", silent.join(", and "));
    Err(CniError::new(codes::GATEWAY_SILENT, msg).with_details(
        "it is down, or the VF is in another VLAN than it; a pod that needs no gateway yet starts with ipam.gatewayProbe \
         \"warn\"",
    ))
}

fn pace(probe: &ConflictProbe) -> ProbePace {
    ProbePace { count: probe.probes, interval: probe.interval, wait: probe.wait }
}

#[cfg(test)]
mod tests;
