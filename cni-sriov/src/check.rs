//! CHECK: is the attachment still what ADD made of it?

use zerobridge_kernel::Netns;
use zerobridge_proto::cni::{CniError, ErrorCode};

use crate::attachment::{VfAccess, diff};
use crate::call::Call;
use crate::codes;
use crate::failure::{attachment_error, ledger_error, netns_error, record_error};
use crate::record;

/// Compares the VF with what ADD recorded. What later plugins added to it is not ours to judge.
///
/// # Errors
/// There is no record, or something that ADD made is missing; the message lists what would have to be done.
pub(crate) fn check(call: &Call<'_>) -> Result<(), CniError> {
    let owner = call.owner();
    let record = call.ledger()?.attachment_of(&owner).map_err(ledger_error)?;
    let record = record.ok_or_else(|| {
        CniError::new(ErrorCode::UNKNOWN_CONTAINER, format!("no VF is attached as {owner}"))
    })?;
    let wanted = record::wanted(&record).map_err(record_error)?;
    let netns = Netns::open(call.environment.netns.as_deref().unwrap_or("".as_ref()));
    let netns = netns.map_err(netns_error)?;
    let observe = || VfAccess::open(&call.sysfs(), record.device, Some(netns))?.observe();
    let observed = observe().map_err(attachment_error)?;
    let missing = diff(&observed, &wanted);
    if missing.is_empty() {
        return Ok(());
    }
    Err(CniError::new(codes::DRIFTED, format!("VF {} as {owner} is not as ADD left it", record.device))
        .with_details(format!("to be as it was it would need: {missing:?}")))
}
