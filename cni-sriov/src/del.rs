//! DEL: the VF back to the host as it was, then the addresses given up.

use tracing::{debug, warn};
use zerobridge_ledger::Ledger;
use zerobridge_proto::cni::{CniError, Command};

use crate::call::Call;
use crate::config::network_names;
use crate::delegate::Delegate;
use crate::failure::{all, ledger_error, repair_error};

/// Ends the attachment of the call's interface. Success when there is none: a DEL may come twice, late, or for an ADD
/// that failed, and neither the namespace nor the configuration of the ADD is needed.
///
/// A delegated IPAM plugin is told in any case: it may know of addresses that the ledger does not.
///
/// # Errors
/// The VF could not be restored, or an IPAM plugin failed; the record stays for the next DEL.
pub(crate) fn del(call: &Call<'_>) -> Result<(), CniError> {
    let delegates: Vec<Delegate> = call.delegates().collect();
    if end_recorded(call, &delegates)? {
        return Ok(());
    }
    // ADD writes a record before it asks a plugin, so without one a plugin that is not there has given nothing.
    let (there, absent): (Vec<_>, Vec<_>) =
        delegates.into_iter().partition(|delegate| delegate.require().is_ok());
    if let Some(absent) = absent.first() {
        warn!(network = absent.network(), "the IPAM plugin is not in CNI_PATH and is not told");
    }
    all(there.iter().map(|delegate| delegate.forward(Command::Del)))
}

/// Ends what the ledger knows of the interface; `false` when it knows nothing.
fn end_recorded(call: &Call<'_>, delegates: &[Delegate]) -> Result<bool, CniError> {
    // None is made to find nothing in it.
    if !call.paths.state_dir.exists() {
        return Ok(false);
    }
    let mut ledger = call.ledger()?;
    let owner = call.owner();
    let Some(record) = ledger.attachment_of(&owner).map_err(ledger_error)? else {
        debug!(%owner, "nothing is attached");
        return release_alone(call, &mut ledger).map(|()| false);
    };
    // Another call may have given it back, or attached the VF anew, while this one waits for the lock.
    let is_meant = |current: &zerobridge_ledger::Attachment| current.owner == owner;
    let ended = call.repairer().end_if(&mut ledger, record.device, call.now, delegates, is_meant);
    ended.map_err(repair_error)
}

/// Releases the addresses of an owner without a device, which only an edited ledger has.
fn release_alone(call: &Call<'_>, ledger: &mut Ledger) -> Result<(), CniError> {
    let owner = call.owner();
    let names = network_names(call.config);
    let leases = ledger.leases_of(&owner).map_err(ledger_error)?;
    if !leases.iter().any(|lease| names.contains(&lease.network.as_str())) {
        return Ok(());
    }
    let mut transaction = ledger.begin().map_err(ledger_error)?;
    for name in names {
        zerobridge_ipam::release(&mut transaction, &owner, name, call.now)?;
    }
    transaction.commit().map_err(ledger_error)
}
