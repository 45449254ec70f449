//! A VF's states and namespace as the ledger keeps them.

use thiserror::Error;
use zerobridge_kernel::{Netns, NetnsId};
use zerobridge_ledger::{Attachment, Sandbox};
use zerobridge_proto::PciAddress;
use zerobridge_proto::cni::{CniError, ErrorCode};

use crate::attachment::VfState;

/// A record whose states make no sense: somebody edited the ledger.
#[derive(Debug, Error)]
#[error("the ledger's record of VF {device} cannot be read")]
pub struct RecordError {
    device: PciAddress,
    source: serde_json::Error,
}

/// A state as the ledger keeps it.
pub(crate) fn encode(state: &VfState) -> Result<String, CniError> {
    serde_json::to_string(state).map_err(|error| CniError::new(ErrorCode::IO, error.to_string()))
}

/// What the VF was before its attachment.
pub(crate) fn original(record: &Attachment) -> Result<VfState, RecordError> {
    decode(record, &record.original)
}

/// What ADD made of the VF.
pub(crate) fn wanted(record: &Attachment) -> Result<VfState, RecordError> {
    decode(record, &record.wanted)
}

fn decode(record: &Attachment, state: &str) -> Result<VfState, RecordError> {
    serde_json::from_str(state).map_err(|source| RecordError { device: record.device, source })
}

/// A namespace as the ledger keeps it.
pub(crate) fn sandbox(netns: &Netns) -> Sandbox {
    let NetnsId { device, inode } = netns.id();
    Sandbox { path: netns.path().to_owned(), dev: device, ino: inode }
}
