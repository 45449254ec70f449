//! GC: end every attachment that the runtime no longer knows, and every lease that nobody has.

use std::collections::HashSet;

use zerobridge_ledger::{Attachment, Ledger, Owner};
use zerobridge_proto::cni::{CniError, Command, ErrorCode, ValidAttachment};

use crate::call::Call;
use crate::config::Config;
use crate::failure::{all, ledger_error, repair_error};

/// Gives back each VF of the configured networks whose owner is not in the runtime's list, releases what such owners have
/// without a VF, and passes the command on to delegated IPAM plugins.
///
/// # Errors
/// All that could not be ended; the rest has been.
pub(crate) fn gc(call: &Call<'_>) -> Result<(), CniError> {
    let Some(valid) = &call.config.valid_attachments else {
        return Err(CniError::new(
            ErrorCode::INVALID_CONFIG,
            "cni.dev/valid-attachments is missing; without it GC would take every pod's VF",
        ));
    };
    let valid: HashSet<&ValidAttachment> = valid.iter().collect();
    let is_stale = |owner: &Owner| {
        let Owner { container_id, ifname } = owner.clone();
        // No runtime knows the node's legs.
        !owner.is_leg() && !valid.contains(&ValidAttachment { container_id, ifname })
    };
    let config = Config::parse(call.config, &call.environment.args)?;
    let networks: HashSet<&str> = config.networks.iter().map(|network| network.name.as_str()).collect();

    let mut outcomes = Vec::new();
    match call.ledger() {
        Ok(mut ledger) => {
            let records = ledger.attachments().map_err(ledger_error);
            let records = records.unwrap_or_else(|error| {
                outcomes.push(Err(error));
                Vec::new()
            });
            let stale = |record: &&Attachment| networks.contains(&*record.network) && is_stale(&record.owner);
            for record in records.iter().filter(stale) {
                let is_meant = |current: &Attachment| current.owner == record.owner;
                let ended = call.repairer().end_if(&mut ledger, record.device, call.now, &[], is_meant);
                outcomes.push(ended.map(drop).map_err(repair_error));
            }
            for network in networks {
                outcomes.push(release_stale(call, &mut ledger, network, is_stale));
            }
        }
        Err(error) => outcomes.push(Err(error)),
    }
    for delegate in config.networks.iter().filter_map(|network| call.delegate(network)) {
        outcomes.push(delegate.forward(Command::Gc));
    }
    all(outcomes)
}

/// Releases the leases of stale owners that have no VF. Those of one that could not be given back stay with it.
fn release_stale(
    call: &Call<'_>,
    ledger: &mut Ledger,
    network: &str,
    is_stale: impl Fn(&Owner) -> bool,
) -> Result<(), CniError> {
    let mut transaction = ledger.begin().map_err(ledger_error)?;
    for lease in transaction.leases_in(network).map_err(ledger_error)? {
        let has_vf = transaction.attachment_of(&lease.owner).map_err(ledger_error)?.is_some();
        if is_stale(&lease.owner) && !has_vf {
            zerobridge_ipam::release(&mut transaction, &lease.owner, network, call.now)?;
        }
    }
    transaction.commit().map_err(ledger_error)
}
