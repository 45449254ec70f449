//! STATUS: would an ADD find what it needs?

use zerobridge_ipam::{IpamError, require_room};
use zerobridge_kernel::{RdmaSocket, SysfsError};
use zerobridge_ledger::{Attachment, Ledger};
use zerobridge_proto::PciAddress;
use zerobridge_proto::cni::{CniError, Command, ErrorCode};

use crate::attachment::machine_obstacle;
use crate::call::Call;
use crate::codes;
use crate::config::{Config, Ipam, Network, RdmaSetting};
use crate::failure::ledger_error;
use crate::pod_resources::allocatable_devices;

/// Checks what an ADD of each network needs: a ledger, a kubelet that answers, a VF that is not attached, a free address, the RDMA
/// subsystem in the mode that is asked for.
/// One network that can take a pod is enough, because pods of the others are told by their own ADD.
///
/// A VF counts as free until it is attached, though the kubelet may have promised it to a pod: that pod's ADD is the one
/// that STATUS speaks of. Under Multus, with neither `deviceID` nor `resourceName`, nobody knows which VFs are meant.
///
/// With `readyWhenFull`, it is no obstacle that no VF or no address is free: a runtime tells the kubelet that its network is
/// not ready when STATUS fails, and a node that is merely full would lose the pods that fill it.
///
/// # Errors
/// The configuration's own error. Code 50 with the first obstacle of each network; code 51 when moreover a VF that a pod of
/// these networks has is gone or has lost its PF, so that the pod may have no connectivity either.
pub(crate) fn status(call: &Call<'_>) -> Result<(), CniError> {
    let config = Config::parse(call.config, &call.environment.args)?;
    let unavailable = |error: CniError| match error.code {
        ErrorCode::NOT_AVAILABLE_LIMITED => error,
        _ => CniError { code: ErrorCode::NOT_AVAILABLE, ..error },
    };
    let ledger = call.ledger().map_err(unavailable)?;
    let attached = ledger.attachments().map_err(ledger_error).map_err(unavailable)?;
    let obstacles = config.networks.iter().map(|network| ready(call, &config, network, &ledger, &attached));
    let mut obstacles = match obstacles.collect::<Vec<_>>() {
        found if found.iter().any(Result::is_ok) => return Ok(()),
        found => found.into_iter().filter_map(Result::err).map(unavailable),
    };
    let Some(first) = obstacles.next() else { return Ok(()) };
    let mut details = vec![first.details.clone()];
    details.extend(obstacles.map(|other| other.msg));
    let is_ours = |record: &&Attachment| {
        !record.owner.is_leg() && config.networks.iter().any(|network| network.name == record.network)
    };
    let lost = attached.iter().filter(is_ours).find_map(|record| lost(call, record));
    let code = if lost.is_some() { ErrorCode::NOT_AVAILABLE_LIMITED } else { first.code };
    details.extend(lost);
    details.retain(|text| !text.is_empty());
    Err(CniError { code, ..first }.with_details(details.join("; ")))
}

/// The first obstacle of a network.
fn ready(
    call: &Call<'_>,
    config: &Config,
    network: &Network,
    ledger: &Ledger,
    attached: &[Attachment],
) -> Result<(), CniError> {
    let is_attached = |device: PciAddress| {
        let record = attached.iter().find(|record| record.device == device);
        // One of a dead pod is given back by the ADD that wants the VF.
        record.is_some_and(|record| !matches!(call.repairer().sandbox_of(record), Ok(None)))
    };
    rdma_ready(call, network)?;
    match (config.device, &network.resource_name) {
        (Some(device), _) => {
            call.sysfs()
                .vf_position(device)
                .map_err(|error| CniError::from_chain(codes::BAD_DEVICE, &error))?;
            if is_attached(device) && !config.ready_when_full {
                let msg = format!("VF {device}, the only one of network {}, is attached", network.name);
                return Err(CniError::new(codes::DEVICES_IN_USE, msg));
            }
        }
        (None, Some(resource)) => {
            let devices = allocatable_devices(&call.paths.kubelet_root, resource)
                .map_err(|error| CniError::from_chain(ErrorCode::NOT_AVAILABLE, &error))?;
            if devices.is_empty() && !config.ready_when_full {
                let msg = format!("the kubelet has no healthy device of {resource}");
                return Err(CniError::new(codes::NO_DEVICE, msg).with_details(
                    "see with `zbctl devices` what there is, and whether the device plugin runs",
                ));
            }
            if devices.iter().all(|id| id.parse().is_ok_and(is_attached)) && !config.ready_when_full {
                let msg = format!("all {} devices of {resource} are attached", devices.len());
                return Err(CniError::new(codes::DEVICES_IN_USE, msg));
            }
        }
        (None, None) => {}
    }
    match &network.ipam {
        None => Ok(()),
        Some(Ipam::Own(pool)) => match require_room(ledger, &network.name, pool, &call.boot_id) {
            Err(IpamError::Exhausted { .. }) if config.ready_when_full => Ok(()),
            room => Ok(room?),
        },
        Some(Ipam::Delegated(_)) => {
            call.delegate(network).map_or(Ok(()), |delegate| delegate.forward(Command::Status))
        }
    }
}

/// Whether the machine has what the network asks of RDMA.
fn rdma_ready(call: &Call<'_>, network: &Network) -> Result<(), CniError> {
    let setting = network.settings.rdma;
    if matches!(setting, RdmaSetting::Auto | RdmaSetting::Off) {
        return Ok(());
    }
    let mode = RdmaSocket::open(&call.sysfs())
        .and_then(|socket| socket.map(|mut socket| socket.netns_mode()).transpose());
    let mode = mode.map_err(|error| CniError::from_chain(ErrorCode::NOT_AVAILABLE, &error))?;
    match machine_obstacle(setting, mode) {
        None => Ok(()),
        Some(why) => {
            let msg = format!("rdma of network {} is \"{}\", and {why}", network.name, setting.as_str());
            Err(CniError::new(ErrorCode::NOT_AVAILABLE, msg))
        }
    }
}

/// Why the pod of `record` may have no connectivity, as far as sysfs tells.
fn lost(call: &Call<'_>, record: &Attachment) -> Option<String> {
    if record.boot_id != call.boot_id {
        return None;
    }
    let sysfs = call.sysfs();
    let vf = record.device;
    match sysfs.vf_position(vf).map(|position| position.map(|position| sysfs.pf_netdev(position.pf))) {
        Err(SysfsError::NoSuchFunction { .. }) => {
            Some(format!("VF {vf} of {} no longer exists", record.owner))
        }
        Ok(Some(Err(error @ SysfsError::NoPfNetdev { .. }))) => {
            Some(format!("VF {vf} of {} has lost its PF: {error}", record.owner))
        }
        _ => None,
    }
}
