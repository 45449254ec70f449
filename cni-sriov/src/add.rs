//! ADD: a VF into a pod.

use std::time::{Duration, Instant};

use tracing::{info, warn};
use zerobridge_ipam::{LeaseRequest, Leased};
use zerobridge_kernel::{Netns, Route, announce};
use zerobridge_ledger::{Attachment, Ledger, Transaction};
use zerobridge_proto::cni::{AddResult, CniError, Dns, ErrorCode, Interface, Ip};

use crate::attachment::{OnRefusal, Place, VfAccess, VfState, wanted};
use crate::call::Call;
use crate::codes;
use crate::config::Config;
use crate::failure::{attachment_error, ledger_error, lock_error, netns_error, record_error, repair_error};
use crate::pod_resources::devices_of_pod;
use crate::record;
use crate::repairer::Repairer;
use crate::selection::{Selection, of_allocated_devices, of_named_device};

/// How long a carrier is waited for before the addresses are announced. A pod on a dead wire starts all the same.
const CARRIER_PATIENCE: Duration = Duration::from_millis(1000);

/// Attaches the pod's VF and returns what the pod now has.
///
/// For an interface that is attached already it does whatever is still missing and returns the same result.
///
/// # Errors
/// Anything wrong with the input, the device or the pool before the first change; then nothing has changed. A refusal
/// of the kernel after it; then what had changed has been taken back.
pub(crate) fn add(call: &Call<'_>) -> Result<AddResult, CniError> {
    let config = Config::parse(call.config, &call.environment.args)?;
    let requested_ips = call.config.requested_ips(&call.environment.args)?;
    let netns = sandbox_netns(call)?;
    let mut ledger = call.ledger()?;
    let selection = select(call, &config, &ledger)?;
    let device = selection.device;
    let dns = match &selection.network.pool {
        Some(pool) => pool.name_resolution()?,
        None => Dns::default(),
    };

    let repairer = call.repairer();
    let _lock = repairer.lock(device).map_err(lock_error)?;
    let existing = existing_record(call, &repairer, &mut ledger, &selection)?;
    let sandbox = record::sandbox(&netns);
    let mut access = VfAccess::open(&call.sysfs(), device, Some(netns)).map_err(attachment_error)?;
    let original = match &existing {
        Some(record) => record::original(record).map_err(record_error)?,
        None => observe_original(call, &mut access)?,
    };

    let mut transaction = ledger.begin().map_err(ledger_error)?;
    let request = LeaseRequest {
        owner: call.owner(),
        device: Some(device),
        requested: requested_ips,
        now: call.now,
        boot_id: call.boot_id.clone(),
    };
    let leased = Leased { dns, ..lease(&mut transaction, &selection, &request)? };
    let routes = leased.routes.iter().map(|route| kernel_route(route, &leased)).collect();
    let addresses = leased.ips.iter().map(|ip| ip.address).collect();
    let wanted = wanted(&original, selection.network, &call.environment.ifname, addresses, routes);
    let record = Attachment {
        device,
        owner: call.owner(),
        network: selection.network.name.clone(),
        sandbox,
        pod: call.pod(),
        original: record::encode(&original)?,
        wanted: record::encode(&wanted)?,
        boot_id: call.boot_id.clone(),
        created_at: call.now,
    };
    let write = |mut transaction: Transaction<'_>| {
        transaction.remove_attachment(&record.owner)?;
        transaction.insert_attachment(&record)?;
        transaction.commit()
    };
    write(transaction).map_err(ledger_error)?;

    let converged = match existing {
        Some(_) => access.converge(&wanted, OnRefusal::Stop),
        // What the VF was before is what it was a moment ago.
        None => access.converge_from(&original, &wanted, OnRefusal::Stop),
    };
    if let Err(error) = converged {
        let failure = attachment_error(error);
        drop(access);
        return Err(match repairer.give_back(&mut ledger, &record, call.now).map_err(repair_error) {
            Ok(()) => failure,
            Err(second) => {
                let details = format!("{}; and the VF could not be given back: {second}", failure.details);
                failure.with_details(details)
            }
        });
    }
    announce_when_carried(call, &mut access, &wanted);
    info!(%device, owner = %record.owner, network = record.network, "attached the VF");
    Ok(result(call, &config, &wanted, &leased, &selection))
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
    repairer.give_back(ledger, &record, call.now).map_err(repair_error)?;
    Ok(None)
}

fn observe_original(call: &Call<'_>, access: &mut VfAccess) -> Result<VfState, CniError> {
    let original = access.observe().map_err(attachment_error)?;
    let ifname = &call.environment.ifname;
    let exists = |what: &str| {
        Err(CniError::new(codes::INTERFACE_EXISTS, format!("the sandbox already has {what}"))
            .with_details("each ADD needs an interface name of its own; DEL the other one first"))
    };
    if access.sandbox_has_other(ifname).map_err(attachment_error)? {
        return exists(&format!("an interface {ifname}"));
    }
    match original.link.place {
        Place::Host => Ok(original),
        Place::Sandbox => {
            exists(&format!("the VF, as {}, and the ledger does not know how it came", original.link.name))
        }
    }
}

fn lease(
    transaction: &mut Transaction<'_>,
    selection: &Selection<'_>,
    request: &LeaseRequest,
) -> Result<Leased, CniError> {
    match &selection.network.pool {
        Some(pool) => zerobridge_ipam::lease(transaction, &selection.network.name, pool, request)
            .map_err(CniError::from),
        None => Ok(Leased { ips: Vec::new(), routes: Vec::new(), dns: Dns::default() }),
    }
}

/// A route of the pool as the kernel takes it: without a next hop, the gateway of its family is meant.
fn kernel_route(route: &zerobridge_proto::cni::Route, leased: &Leased) -> Route {
    let same_family = |ip: &&Ip| ip.address.addr().is_ipv4() == route.dst.addr().is_ipv4();
    Route {
        destination: route.dst,
        gateway: route.gw.or_else(|| leased.ips.iter().find(same_family)?.gateway),
        table: route.table,
        priority: route.priority,
        mtu: route.mtu,
        advmss: route.advmss,
        scope: route.scope,
    }
}

/// Neighbours that knew the addresses' last holder learn the new one. Failing to tell them fails nothing: their caches
/// age.
fn announce_when_carried(call: &Call<'_>, access: &mut VfAccess, wanted: &VfState) {
    if wanted.addresses.is_empty() {
        return;
    }
    match access.wait_for_carrier(Instant::now() + CARRIER_PATIENCE) {
        Ok(true) => {}
        Ok(false) => {
            return warn!(
                ifname = call.environment.ifname,
                "no carrier yet; the addresses are not announced"
            );
        }
        Err(error) => return warn!(%error, "the addresses are not announced"),
    }
    let Some(netns) = access.sandbox_netns() else { return };
    let addresses: Vec<_> = wanted.addresses.iter().map(ipnet::IpNet::addr).collect();
    if let Err(error) = announce(netns, &wanted.link.name, &addresses) {
        warn!(%error, "the addresses are not announced");
    }
}

fn result(
    call: &Call<'_>,
    config: &Config,
    wanted: &VfState,
    leased: &Leased,
    selection: &Selection<'_>,
) -> AddResult {
    let sandbox = call.environment.netns.as_deref().map(|path| path.to_string_lossy().into_owned());
    let link = &wanted.link;
    let interface =
        Interface::of_device(&link.name, link.mac, link.mtu, &sandbox.unwrap_or_default(), selection.device);
    let on_interface = |ip: &Ip| Ip { interface: Some(0), ..ip.clone() };
    AddResult {
        interfaces: vec![interface],
        ips: leased.ips.iter().map(on_interface).collect(),
        routes: leased.routes.clone(),
        dns: if leased.dns.is_empty() { config.dns.clone() } else { leased.dns.clone() },
    }
}
