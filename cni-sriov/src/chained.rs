//! The place of rdma-cni in a chain of plugins: this program, called under that one's name after it has attached the VF.
//!
//! The attachment has its RDMA device already, so nothing is to be done but to say whether it has: a chain that was written for
//! two programs goes on as it is. Refuses to attach anything.

use zerobridge_proto::cni::{AddResult, CniError, Command, ErrorCode, reject_unknown_keys};

use crate::attachment::{RdmaPlace, RdmaState};
use crate::call::Call;
use crate::codes;
use crate::failure::{ledger_error, record_error};
use crate::record;

/// rdma-cni's name, as configurations call it.
pub(crate) const NAME: &str = "rdma";

/// Its keys, those that Multus adds, and ours for paths.
const KEYS: [&str; 4] = ["deviceID", "pciBusID", "logLevel", "logFile"];

/// Answers a call under rdma-cni's name. The result of ADD is `prevResult`.
///
/// # Errors
/// Without `prevResult`; without an attachment of ours before it in the chain; and when the attachment's RDMA device is not the
/// pod's alone, which is what the chain asks for.
pub(crate) fn chained(call: &Call<'_>) -> Result<Option<AddResult>, CniError> {
    let command = call.environment.command;
    if !matches!(command, Command::Add | Command::Check) {
        return Ok(None);
    }
    let mut known = KEYS.to_vec();
    known.extend(crate::config::Paths::KEYS);
    reject_unknown_keys(&call.config.own, "", &known)?;
    let previous = call.config.prev_result()?.ok_or_else(|| {
        let msg =
            format!("prevResult is missing; type \"{NAME}\" works after the plugin that attaches the VF");
        CniError::new(ErrorCode::INVALID_CONFIG, msg)
    })?;
    let owner = call.owner();
    let record = call.ledger()?.attachment_of(&owner).map_err(ledger_error)?.ok_or_else(|| {
        let msg = format!("no VF is attached as {owner} by this program");
        CniError::new(ErrorCode::UNKNOWN_CONTAINER, msg)
            .with_details("in a chain with another plugin's attachment, use rdma-cni itself")
    })?;
    let wanted = record::wanted(&record).map_err(record_error)?;
    require_own(wanted.rdma.as_ref())
        .map_err(|why| CniError::new(codes::BAD_DEVICE, format!("VF {} {why}", record.device)))?;
    Ok((command == Command::Add).then_some(previous))
}

/// Whether the RDMA device is the pod's alone.
fn require_own(rdma: Option<&RdmaState>) -> Result<(), String> {
    match rdma {
        None => Err("has no RDMA device; take type \"rdma\" out of the chain".to_owned()),
        Some(rdma) => match rdma.place {
            RdmaPlace::Sandbox => Ok(()),
            RdmaPlace::Host => Err(format!(
                "leaves its RDMA device {} on the host, since its network says so; remove \"rdma\": \"off\"",
                rdma.name
            )),
            RdmaPlace::Everywhere => Err(format!(
                "shares its RDMA device {}: the RDMA subsystem of this node is in shared mode; set it to exclusive mode before \
                 any pod runs, or take type \"rdma\" out of the chain",
                rdma.name
            )),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attachment::model::{at_home, in_pod, with_roce, with_soft_rdma};

    #[test]
    fn only_a_device_that_is_the_pods_alone_satisfies_the_chain() {
        require_own(with_roce(in_pod()).rdma.as_ref()).unwrap();
        for (rdma, part) in [
            (None, "no RDMA device"),
            (with_roce(at_home()).rdma, "\"rdma\": \"off\""),
            (with_soft_rdma(in_pod(), RdmaPlace::Everywhere).rdma, "shared mode"),
        ] {
            let why = require_own(rdma.as_ref()).unwrap_err();
            assert!(why.contains(part), "{why}");
        }
    }
}
