//! GC: end every attachment that the runtime no longer knows.

use std::collections::HashSet;

use zerobridge_ledger::Attachment;
use zerobridge_proto::cni::{CniError, ErrorCode, ValidAttachment};

use crate::call::Call;
use crate::config::Config;
use crate::failure::{ledger_error, repair_error};

/// Gives back each VF of the configured networks whose owner is not among `cni.dev/valid-attachments`.
///
/// # Errors
/// Those that could not be given back; all others have been.
pub(crate) fn gc(call: &Call<'_>) -> Result<(), CniError> {
    let Some(valid) = &call.config.valid_attachments else {
        return Err(CniError::new(
            ErrorCode::INVALID_CONFIG,
            "cni.dev/valid-attachments is missing; without it GC would take every pod's VF",
        ));
    };
    let valid: HashSet<&ValidAttachment> = valid.iter().collect();
    let config = Config::parse(call.config, &call.environment.args)?;
    let networks: HashSet<&str> = config.networks.iter().map(|network| network.name.as_str()).collect();
    let mut ledger = call.ledger()?;
    let repairer = call.repairer();
    let mut failures = Vec::new();
    for record in ledger.attachments().map_err(ledger_error)? {
        let owner = ValidAttachment {
            container_id: record.owner.container_id.clone(),
            ifname: record.owner.ifname.clone(),
        };
        if !networks.contains(record.network.as_str()) || valid.contains(&owner) {
            continue;
        }
        let is_meant = |current: &Attachment| current.owner == record.owner;
        let ended = repairer.end_if(&mut ledger, record.device, call.now, is_meant);
        failures.extend(ended.map_err(repair_error).err());
    }
    match failures.split_first() {
        None => Ok(()),
        Some((first, rest)) => {
            let rest: Vec<String> = rest.iter().map(ToString::to_string).collect();
            let details = [vec![first.details.clone()], rest].concat().join("; ");
            Err(CniError::new(first.code, first.msg.clone()).with_details(details))
        }
    }
}
