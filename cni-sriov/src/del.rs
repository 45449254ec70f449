//! DEL: the VF back to the host as it was.

use tracing::debug;
use zerobridge_proto::cni::CniError;

use crate::call::Call;
use crate::failure::ledger_error;
use crate::give_back::give_back;

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
    let find = |ledger: &zerobridge_ledger::Ledger| ledger.attachment_of(&owner).map_err(ledger_error);
    let Some(record) = find(&ledger)? else {
        debug!(%owner, "nothing is attached");
        return Ok(());
    };
    let _lock = call.lock(record.device)?;
    // Another call may have given it back, or attached the VF anew, while this one waited for the lock.
    match find(&ledger)? {
        Some(record) => give_back(call, &mut ledger, &record),
        None => Ok(()),
    }
}
