//! A VF's states and namespace as the ledger keeps them.

use zerobridge_kernel::{Netns, NetnsId};
use zerobridge_ledger::{Attachment, Sandbox};
use zerobridge_proto::cni::{CniError, ErrorCode};

use crate::attachment::VfState;

/// A state as the ledger keeps it.
pub(crate) fn encode(state: &VfState) -> Result<String, CniError> {
    serde_json::to_string(state).map_err(|error| CniError::new(ErrorCode::IO, error.to_string()))
}

/// What the VF was before its attachment.
pub(crate) fn original(record: &Attachment) -> Result<VfState, CniError> {
    decode(record, &record.original)
}

/// What ADD made of the VF.
pub(crate) fn wanted(record: &Attachment) -> Result<VfState, CniError> {
    decode(record, &record.wanted)
}

fn decode(record: &Attachment, state: &str) -> Result<VfState, CniError> {
    serde_json::from_str(state).map_err(|error| {
        let msg = format!("the ledger's record of VF {} cannot be read", record.device);
        CniError::new(ErrorCode::DECODE, msg).with_details(error.to_string())
    })
}

/// A namespace as the ledger keeps it.
pub(crate) fn sandbox(netns: &Netns) -> Sandbox {
    let NetnsId { device, inode } = netns.id();
    Sandbox { path: netns.path().to_owned(), dev: device, ino: inode }
}
