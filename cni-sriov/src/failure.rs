//! Which CNI code a failed attachment has: some runtimes act on it, and people search for it.

use std::error::Error;

use zerobridge_kernel::SysfsError;
use zerobridge_proto::cni::{CniError, ErrorCode};

use crate::attachment::AttachmentError;
use crate::codes;

/// An attachment's failure as the runtime is told it.
pub(crate) fn attachment_error(error: &AttachmentError) -> CniError {
    let (code, subject): (ErrorCode, &dyn Error) = match error {
        AttachmentError::Sysfs { source: source @ SysfsError::NoSuchFunction { .. }, .. } => {
            (codes::BAD_DEVICE, source)
        }
        AttachmentError::NotAVf { .. } | AttachmentError::NoNetdev { .. } => (codes::BAD_DEVICE, error),
        // Between two moments of a VF or PF that comes and goes: the next try finds it settled.
        AttachmentError::PfWithoutLink { .. } | AttachmentError::LinkLost { .. } => {
            (ErrorCode::TRY_AGAIN_LATER, error)
        }
        AttachmentError::Rtnl { .. } | AttachmentError::NotConverged { .. } => (codes::REFUSED, error),
        AttachmentError::Sysfs { .. } | AttachmentError::Netns { .. } => (ErrorCode::IO, error),
    };
    CniError::from_chain(code, subject)
}
