//! Which CNI code a failure has: some runtimes act on it, and people search for it.

use std::error::Error;

use zerobridge_ipam::IpamError;
use zerobridge_kernel::{NetnsError, SysfsError};
use zerobridge_ledger::LedgerError;
use zerobridge_proto::cni::{CniError, ErrorCode};

use crate::attachment::AttachmentError;
use crate::codes;

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

/// A namespace's failure as the runtime is told it.
pub(crate) fn netns_error(error: NetnsError) -> CniError {
    // Code 3 tells the runtime that there is nothing left to DEL.
    let code = if error.is_gone() { ErrorCode::UNKNOWN_CONTAINER } else { ErrorCode::IO };
    CniError::from_chain(code, &error)
}
