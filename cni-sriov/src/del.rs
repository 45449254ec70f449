//! DEL: the VF back to the host as it was.

use tracing::debug;
use zerobridge_proto::cni::CniError;

use crate::call::Call;
use crate::failure::{ledger_error, repair_error};

/// Ends the attachment of the call's interface. Success when there is none: a DEL may come twice, late, or for an ADD
/// that failed, and neither the namespace nor the configuration of the ADD is needed.
///
/// # Errors
/// The VF could not be restored; the record stays for the next DEL.
pub(crate) fn del(call: &Call<'_>) -> Result<(), CniError> {
    if !call.paths.state_dir.exists() {
        return Ok(());
    }
    let mut ledger = call.ledger()?;
    let owner = call.owner();
    let Some(record) = ledger.attachment_of(&owner).map_err(ledger_error)? else {
        debug!(%owner, "nothing is attached");
        return Ok(());
    };
    // Another call may have given it back, or attached the VF anew, while this one waits for the lock.
    let ended =
        call.repairer().end_if(&mut ledger, record.device, call.now, |current| current.owner == owner);
    ended.map(drop).map_err(repair_error)
}
