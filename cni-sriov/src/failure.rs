//! Which CNI code a failure has: some runtimes act on it, and people search for it.

use zerobridge_ipam::IpamError;
use zerobridge_kernel::{NetnsError, SysfsError};
use zerobridge_ledger::LedgerError;
use zerobridge_proto::cni::{CniError, ErrorCode};

use crate::attachment::AttachmentError;
use crate::codes;
use crate::lock::LockError;
use crate::record::RecordError;
use crate::repairer::RepairError;

/// An attachment's failure as the runtime is told it. Code 11 where a VF or a PF comes and goes: the next try finds it
/// settled.
pub(crate) fn attachment_error(error: AttachmentError) -> CniError {
    match &error {
        AttachmentError::Sysfs { source: source @ SysfsError::NoSuchFunction { .. }, .. } => {
            CniError::from_chain(codes::BAD_DEVICE, source).with_details(
                "if a pod was given it, its PF's VFs have been made anew since: delete the pod, so that it is given one that \
                 there is",
            )
        }
        AttachmentError::NotAVf { .. }
        | AttachmentError::NotANic { .. }
        | AttachmentError::NoNetdev { .. }
        | AttachmentError::DriverChanged { .. }
        | AttachmentError::PfHasVfs { .. }
        | AttachmentError::SeveralNetdevs { .. }
        | AttachmentError::HostAddress { .. } => CniError::from_chain(codes::BAD_DEVICE, &error),
        AttachmentError::NoSuchSetting { .. } | AttachmentError::RdmaUnavailable { .. } => CniError::from_chain(ErrorCode::INVALID_CONFIG, &error),
        AttachmentError::PfWithoutLink { .. }
        | AttachmentError::LinkLost { .. }
        | AttachmentError::RdmaLost { .. }
        | AttachmentError::RdmaNotReady { .. }
        | AttachmentError::Sysfs { source: SysfsError::Unlinked { .. }, .. } => {
            CniError::from_chain(ErrorCode::TRY_AGAIN_LATER, &error)
        }
        error if error.is_transient() => CniError::from_chain(ErrorCode::TRY_AGAIN_LATER, error),
        AttachmentError::Rtnl { .. }
        | AttachmentError::Rdma { .. }
        | AttachmentError::NoSoftRdma { .. }
        | AttachmentError::NotConverged { .. }
        | AttachmentError::SettingRefused { .. }
        | AttachmentError::Sysfs { source: SysfsError::Write { .. }, .. } => {
            CniError::from_chain(codes::REFUSED, &error)
        }
        AttachmentError::Sysfs { .. }
        | AttachmentError::SandboxSysfs { .. }
        | AttachmentError::Netns { .. }
        | AttachmentError::Probe { .. } => CniError::from_chain(ErrorCode::IO, &error),
    }
}

/// A ledger's failure as the runtime is told it; the same as when the IPAM plugin tells it.
pub(crate) fn ledger_error(error: LedgerError) -> CniError {
    IpamError::from(error).into()
}

/// An unreadable record as the runtime is told it.
pub(crate) fn record_error(error: RecordError) -> CniError {
    CniError::from_chain(ErrorCode::DECODE, &error)
}

/// A lock's failure as the runtime is told it.
pub(crate) fn lock_error(error: LockError) -> CniError {
    let code = match error {
        LockError::Held { .. } => ErrorCode::TRY_AGAIN_LATER,
        LockError::Open { .. } => ErrorCode::IO,
    };
    CniError::from_chain(code, &error)
}

/// The failure to end an attachment as the runtime is told it.
pub(crate) fn repair_error(error: RepairError) -> CniError {
    match error {
        RepairError::Lock(error) => lock_error(error),
        RepairError::Ledger(error) => ledger_error(error),
        RepairError::Record(error) => record_error(error),
        // Not gone, which would be no error, but out of reach.
        RepairError::Sandbox(error) => CniError::from_chain(ErrorCode::IO, &error),
        RepairError::Nodes(error) => CniError::from_chain(ErrorCode::IO, &error),
        RepairError::Vf(error) => attachment_error(error),
        RepairError::Ipam(error) => error,
    }
}

/// A namespace's failure as the runtime is told it.
pub(crate) fn netns_error(error: NetnsError) -> CniError {
    // Code 3 tells the runtime that there is nothing left to DEL.
    let code = if error.is_gone() { ErrorCode::UNKNOWN_CONTAINER } else { ErrorCode::IO };
    CniError::from_chain(code, &error)
}

/// Success when all succeed; else the first failure, with the others among its details. All are tried.
pub(crate) fn all(outcomes: impl IntoIterator<Item = Result<(), CniError>>) -> Result<(), CniError> {
    let failures: Vec<CniError> = outcomes.into_iter().filter_map(Result::err).collect();
    let Some((first, rest)) = failures.split_first() else { return Ok(()) };
    let mut details = vec![first.details.clone()];
    details.extend(rest.iter().map(ToString::to_string));
    details.retain(|text| !text.is_empty());
    Err(first.clone().with_details(details.join("; ")))
}
