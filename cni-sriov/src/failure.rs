//! Which CNI code a failure has: some runtimes act on it, and people search for it.

use std::error::Error;

use zerobridge_ipam::IpamError;
use zerobridge_kernel::{NetnsError, SysfsError};
use zerobridge_ledger::LedgerError;
use zerobridge_proto::cni::{CniError, ErrorCode};

use crate::attachment::AttachmentError;
use crate::codes;
use crate::lock::LockError;
use crate::record::RecordError;
use crate::repairer::RepairError;

/// An attachment's failure as the runtime is told it.
pub(crate) fn attachment_error(error: AttachmentError) -> CniError {
    let (code, subject): (ErrorCode, &dyn Error) = match &error {
        AttachmentError::Sysfs { source: source @ SysfsError::NoSuchFunction { .. }, .. } => {
            (codes::BAD_DEVICE, source)
        }
        AttachmentError::NotAVf { .. } | AttachmentError::NoNetdev { .. } => (codes::BAD_DEVICE, &error),
        // Between two moments of a VF or PF that comes and goes: the next try finds it settled.
        AttachmentError::PfWithoutLink { .. } | AttachmentError::LinkLost { .. } => {
            (ErrorCode::TRY_AGAIN_LATER, &error)
        }
        AttachmentError::Rtnl { .. } | AttachmentError::NotConverged { .. } => (codes::REFUSED, &error),
        AttachmentError::Sysfs { .. } | AttachmentError::Netns { .. } => (ErrorCode::IO, &error),
    };
    CniError::from_chain(code, subject)
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
        RepairError::Vf(error) => attachment_error(error),
    }
}

/// A namespace's failure as the runtime is told it.
pub(crate) fn netns_error(error: NetnsError) -> CniError {
    // Code 3 tells the runtime that there is nothing left to DEL.
    let code = if error.is_gone() { ErrorCode::UNKNOWN_CONTAINER } else { ErrorCode::IO };
    CniError::from_chain(code, &error)
}
