//! Ending an attachment: the VF as it was before, then the record and the leases gone in one transaction.
//!
//! DEL is this for the owner's record, GC for records that the runtime no longer knows, and ADD for a record whose pod
//! died without either.

use tracing::{info, warn};
use zerobridge_kernel::SysfsError;
use zerobridge_ledger::{Attachment, Ledger};
use zerobridge_proto::cni::CniError;

use crate::attachment::{AttachmentError, OnRefusal, VfAccess};
use crate::call::Call;
use crate::failure::{attachment_error, ledger_error};
use crate::record;

/// Brings the VF of `record` back to what it was and forgets the record. The caller holds the VF's lock.
///
/// # Errors
/// The VF could not be restored; the record and the leases are then kept, so that a later call tries again.
pub(crate) fn give_back(call: &Call<'_>, ledger: &mut Ledger, record: &Attachment) -> Result<(), CniError> {
    let device = record.device;
    if record.boot_id == call.boot_id {
        restore(call, record)?;
    } else {
        // Its VF was made anew by this boot, so what it was before is as gone as the pod.
        info!(%device, owner = %record.owner, "forget an attachment of an earlier boot");
    }
    let mut forget = || {
        let mut transaction = ledger.begin()?;
        transaction.remove_attachment(&record.owner)?;
        // Only now: an address is free when nobody carries it any more, not when somebody is about to drop it.
        transaction.release_leases(&record.owner, None, call.now)?;
        transaction.commit()
    };
    forget().map_err(ledger_error)?;
    info!(%device, owner = %record.owner, "gave the VF back");
    Ok(())
}

fn restore(call: &Call<'_>, record: &Attachment) -> Result<(), CniError> {
    let device = record.device;
    let original = record::original(record)?;
    let sandbox = call.sandbox_of(record)?;
    let restored = VfAccess::open(&call.sysfs(), device, sandbox).and_then(|mut access| {
        match access.converge(&original, OnRefusal::GoOn) {
            // The driver was changed under the pod: no netdev is left to restore, but the PF still has its settings.
            Err(error @ AttachmentError::NoNetdev { .. }) => {
                warn!(%device, %error, "restore only what the PF imposes");
                access.restore_admin(&original.admin)
            }
            other => other,
        }
    });
    match restored {
        Err(AttachmentError::Sysfs { source: SysfsError::NoSuchFunction { .. }, .. }) => {
            warn!(%device, "the VF no longer exists; there is nothing to restore");
            Ok(())
        }
        other => other.map_err(attachment_error),
    }
}
