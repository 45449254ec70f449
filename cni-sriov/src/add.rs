//! ADD: a VF into a pod.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use tracing::{info, warn};
use zerobridge_ipam::Leased;
use zerobridge_kernel::Netns;
use zerobridge_ledger::{Attachment, Ledger};
use zerobridge_proto::cni::{AddResult, CniError, ErrorCode, Gid, Interface, InterfaceRdma, Ip};
use zerobridge_proto::{PciAddress, chain};

use crate::attachment::{OnRefusal, Place, ReadyRdma, VfAccess, VfState, Wish};
use crate::call::Call;
use crate::codes;
use crate::config::Config;
use crate::failure::{attachment_error, ledger_error, lock_error, netns_error, record_error, repair_error};
use crate::neighbours::{look_for_gateways, settle};
use crate::pod_resources::devices_of_pod;
use crate::promise::{Attempt, Promise, Source};
use crate::rdma;
use crate::record;
use crate::repairer::Repairer;
use crate::selection::{Selection, of_allocated_devices, of_named_device};

/// How long a carrier is waited for before the addresses are announced. A pod on a dead wire starts all the same.
pub(crate) const CARRIER_PATIENCE: Duration = Duration::from_millis(1000);

/// Attaches the pod's VF and returns what the pod now has.
///
/// For an interface that is attached already it does whatever is still missing and returns the same result.
///
/// # Errors
/// Anything wrong with the input, the device or the pool before the first change; then nothing has changed. A refusal
/// of the kernel after it; then what had changed has been taken back.
pub(crate) fn add(call: &Call<'_>) -> Result<AddResult, CniError> {
    let config = Config::parse(call.config, &call.environment.args)?;
    let previous = call.config.prev_result()?;
    let netns = sandbox_netns(call)?;
    let mut ledger = call.ledger()?;
    let selection = select(call, &config, &ledger)?;
    let device = selection.device;
    let source = Source::of(call, selection)?;

    let repairer = call.repairer();
    let _lock = repairer.lock(device).map_err(lock_error)?;
    let existing = existing_record(call, &repairer, &mut ledger, &selection)?;
    let sandbox = record::sandbox(&netns);
    let mut access = VfAccess::open(&call.sysfs(), device, Some(netns)).map_err(attachment_error)?;
    let original = match &existing {
        Some(record) => record::original(record).map_err(record_error)?,
        None => observe_original(call, &mut access)?,
    };
    let Selection { network, .. } = selection;
    let wish = Wish { device, network, ifname: &call.environment.ifname, rdma_mode: access.rdma_mode() };
    let source = source.carried_by(wish, &original)?;

    let attempt = Attempt {
        call,
        repairer: &repairer,
        wish,
        source,
        sandbox,
        original: &original,
        existing: existing.as_ref(),
    };
    let promise = attempt.promise(&mut ledger)?;
    let record = promise.record.clone();
    let kept = keep(&attempt, promise, &mut ledger, &mut access).and_then(|kept| {
        let rdma = rdma::hand_over(call, network.settings.rdma, &kept.wanted, &mut access)?;
        Ok((kept, rdma))
    });
    let (Promise { wanted, leased, .. }, rdma) = match kept {
        Ok(kept) => kept,
        Err(failure) => {
            drop(access);
            return Err(attempt.take_back(&mut ledger, &record, failure));
        }
    };
    announce_when_carried(call, &mut access, &wanted);
    info!(%device, owner = %record.owner, network = record.network, "attached the VF");
    let interface = interface(call, &wanted, device, rdma);
    Ok(after(previous.unwrap_or_default(), result(&config, interface, &leased)))
}

/// Makes the VF what was promised of it, or of other addresses when foreign hosts have the promised ones.
fn keep(
    attempt: &Attempt<'_>,
    promise: Promise,
    ledger: &mut Ledger,
    access: &mut VfAccess,
) -> Result<Promise, CniError> {
    let converge = |access: &mut VfAccess, wanted: &VfState| {
        let converged = match attempt.existing {
            Some(_) => access.converge(wanted, OnRefusal::Stop),
            // What the VF was before is what it was a moment ago.
            None => access.converge_from(attempt.original, wanted, OnRefusal::Stop),
        };
        converged.map_err(attachment_error)
    };
    let probe = attempt.pool_source().and_then(|source| Some((source, source.pool.conflict_probe.as_ref()?)));
    let promise = match probe {
        None => {
            converge(access, &promise.wanted)?;
            promise
        }
        Some((source, probe)) => {
            converge(access, &promise.wanted.without_addresses())?;
            let settled = settle(attempt, source, probe, promise, ledger, access)?;
            access.converge(&settled.wanted, OnRefusal::Stop).map_err(attachment_error)?;
            settled
        }
    };
    look_for_gateways(attempt, &promise, access)?;
    let Some(answered) = attempt.ask(ledger, &promise)? else { return Ok(promise) };
    access.converge(&answered.wanted, OnRefusal::Stop).map_err(attachment_error)?;
    Ok(answered)
}

/// The pod's network namespace; never the host's, into which nothing can be moved.
fn sandbox_netns(call: &Call<'_>) -> Result<Netns, CniError> {
    let path = call.environment.netns.as_deref().unwrap_or("".as_ref());
    let open = || {
        let netns = Netns::open(path)?;
        let is_host = netns.id() == Netns::current()?.id();
        Ok((netns, is_host))
    };
    match open().map_err(netns_error)? {
        (netns, false) => Ok(netns),
        (_, true) => Err(CniError::new(
            ErrorCode::INVALID_ENVIRONMENT,
            format!(
                "CNI_NETNS is {}, the network namespace of the host; name that of a sandbox",
                path.display()
            ),
        )),
    }
}

fn select<'a>(call: &Call<'_>, config: &'a Config, ledger: &Ledger) -> Result<Selection<'a>, CniError> {
    if let Some(device) = config.device {
        return of_named_device(config, device);
    }
    let pod = call.pod();
    let (devices, pod) = match &pod {
        Some(pod) if config.networks.iter().any(|network| network.resource_name.is_some()) => {
            let devices = devices_of_pod(&call.paths.kubelet_root, &pod.namespace, &pod.name)
                .map_err(|error| CniError::from_chain(ErrorCode::TRY_AGAIN_LATER, &error))?;
            (devices.unwrap_or_default(), format!("{}/{}", pod.namespace, pod.name))
        }
        _ => (Vec::new(), "(not named by the runtime)".to_owned()),
    };
    let ours = call.owner();
    let attachments = ledger.attachments().map_err(ledger_error)?;
    let other_interface_has = |device| {
        attachments.iter().any(|record| {
            let owner = &record.owner;
            record.device == device && owner.container_id == ours.container_id && owner.ifname != ours.ifname
        })
    };
    of_allocated_devices(config, &pod, &devices, other_interface_has)
}

/// The record of this very interface, after records that are in the way have been dealt with.
fn existing_record(
    call: &Call<'_>,
    repairer: &Repairer,
    ledger: &mut Ledger,
    selection: &Selection<'_>,
) -> Result<Option<Attachment>, CniError> {
    let device = selection.device;
    let owner = call.owner();
    let own = ledger.attachment_of(&owner).map_err(ledger_error)?;
    if let Some(record) = own.filter(|record| record.device != device) {
        return Err(CniError::new(
            codes::INTERFACE_EXISTS,
            format!("{owner} already has VF {}, and VF {device} is asked for; DEL it first", record.device),
        ));
    }
    let Some(record) = ledger.attachment_of_device(device).map_err(ledger_error)? else {
        return Ok(None);
    };
    if record.owner == owner && record.boot_id == call.boot_id {
        return Ok(Some(record));
    }
    if record.owner.is_leg() {
        return Err(CniError::new(
            ErrorCode::TRY_AGAIN_LATER,
            format!("VF {device} is {}", record.owner),
        )
        .with_details("the node keeps it for itself; take the leg out of the device plugin's configuration, or name another VF"));
    }
    let lives = || repairer.sandbox_of(&record).map_err(|error| repair_error(error.into()));
    if record.owner != owner && lives()?.is_some() {
        let pod = record.pod.as_ref().map(|pod| format!(", pod {}/{}", pod.namespace, pod.name));
        return Err(CniError::new(
            ErrorCode::TRY_AGAIN_LATER,
            format!(
                "VF {device} is attached to {}{}, which still lives",
                record.owner,
                pod.unwrap_or_default()
            ),
        )
        .with_details("it is free once that pod is gone; if the pod hangs, delete it"));
    }
    repairer.give_back(ledger, &record, call.now, &[]).map_err(repair_error)?;
    Ok(None)
}

fn observe_original(call: &Call<'_>, access: &mut VfAccess) -> Result<VfState, CniError> {
    let original = access.observe_unattached().map_err(attachment_error)?;
    let ifname = &call.environment.ifname;
    let exists = |what: &str| {
        Err(CniError::new(codes::INTERFACE_EXISTS, format!("the sandbox already has {what}"))
            .with_details("each ADD needs an interface name of its own; DEL the other one first"))
    };
    if access.sandbox_has_other(ifname).map_err(attachment_error)? {
        return exists(&format!("an interface {ifname}"));
    }
    match original.link.as_ref().filter(|link| link.place == Place::Sandbox) {
        Some(link) => exists(&format!("the VF, as {}, and the ledger does not know how it came", link.name)),
        None => Ok(original),
    }
}

/// Neighbours that knew the addresses' last holder learn the new one. Failing to tell them fails nothing: their caches
/// age.
fn announce_when_carried(call: &Call<'_>, access: &mut VfAccess, wanted: &VfState) {
    if wanted.link.is_none() || wanted.addresses.is_empty() {
        return;
    }
    let link = match access.wait_for_carrier(Instant::now() + CARRIER_PATIENCE) {
        Ok(Some(link)) => link,
        Ok(None) => {
            return warn!(
                ifname = call.environment.ifname,
                "no carrier yet; the addresses are not announced"
            );
        }
        Err(error) => return warn!(%error, "the addresses are not announced"),
    };
    if let Err(error) = access.announce(&link, &wanted.addresses) {
        warn!(error = chain(&error), "the addresses are not announced");
    }
}

fn interface(call: &Call<'_>, wanted: &VfState, device: PciAddress, rdma: Option<ReadyRdma>) -> Interface {
    let sandbox = call.environment.netns.as_deref().map(|path| path.to_string_lossy().into_owned());
    let mtu = wanted.link.as_ref().map(|link| link.mtu);
    let ifname = &call.environment.ifname;
    let interface = Interface::of_device(ifname, wanted.mac(), mtu, &sandbox.unwrap_or_default(), device);
    let gid = |(address, index): (IpAddr, u16)| Gid { address, index };
    let rdma = rdma.map(|rdma| InterfaceRdma {
        device: rdma.name,
        gids: rdma.gid_indexes.into_iter().map(gid).collect(),
    });
    Interface { rdma, ..interface }
}

fn result(config: &Config, interface: Interface, leased: &Leased) -> AddResult {
    let on_interface = |ip: &Ip| Ip { interface: Some(0), ..ip.clone() };
    AddResult {
        interfaces: vec![interface],
        ips: leased.ips.iter().map(on_interface).collect(),
        routes: leased.routes.clone(),
        dns: if leased.dns.is_empty() { config.dns.clone() } else { leased.dns.clone() },
    }
}

/// What the plugins before this one in the chain have made, and then this one's. Their interfaces keep their numbers.
fn after(previous: AddResult, own: AddResult) -> AddResult {
    let shift = previous.interfaces.len();
    let shifted = |ip: Ip| Ip { interface: ip.interface.map(|number| number + shift), ..ip };
    AddResult {
        interfaces: [previous.interfaces, own.interfaces].concat(),
        ips: [previous.ips, own.ips.into_iter().map(shifted).collect()].concat(),
        routes: [previous.routes, own.routes].concat(),
        dns: if own.dns.is_empty() { previous.dns } else { own.dns },
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_came_before_in_the_chain_keeps_its_place() {
        let decode = |value| AddResult::decode(&value).unwrap();
        let previous = decode(json!({
            "interfaces": [{"name": "cni0"}, {"name": "eth0", "sandbox": "/run/netns/x"}],
            "ips": [{"address": "10.0.0.5/24", "interface": 1}],
            "routes": [{"dst": "0.0.0.0/0"}], "dns": {"nameservers": ["10.0.0.53"]},
        }));
        let own = decode(json!({
            "interfaces": [{"name": "net1", "sandbox": "/run/netns/x"}],
            "ips": [{"address": "10.1.0.5/24", "interface": 0}], "routes": [{"dst": "10.1.0.0/16"}],
        }));
        let both = decode(json!({
            "interfaces": [{"name": "cni0"}, {"name": "eth0", "sandbox": "/run/netns/x"},
                           {"name": "net1", "sandbox": "/run/netns/x"}],
            "ips": [{"address": "10.0.0.5/24", "interface": 1}, {"address": "10.1.0.5/24", "interface": 2}],
            "routes": [{"dst": "0.0.0.0/0"}, {"dst": "10.1.0.0/16"}], "dns": {"nameservers": ["10.0.0.53"]},
        }));
        assert_eq!(after(previous.clone(), own), both);
        assert_eq!(after(previous.clone(), AddResult::default()), previous);
    }
}
