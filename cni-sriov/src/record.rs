//! A VF's states, its delegated addresses and its namespace as the ledger keeps them.
//!
//! What a delegated IPAM plugin was told and answered stands beside the wanted state, under the key `ipam`: whoever ends
//! the attachment must call that plugin again, and whoever repeats the ADD must not.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use thiserror::Error;
use zerobridge_kernel::{Netns, NetnsId};
use zerobridge_ledger::{Attachment, Sandbox};
use zerobridge_proto::PciAddress;
use zerobridge_proto::cni::{CniError, ErrorCode};

use crate::attachment::VfState;
use crate::delegate::Delegation;

/// Where the delegated plugin stands in a wanted state.
const IPAM: &str = "ipam";

/// A record whose states make no sense: somebody edited the ledger.
#[derive(Debug, Error)]
#[error("the ledger's record of VF {device} cannot be read")]
pub struct RecordError {
    device: PciAddress,
    source: serde_json::Error,
}

/// A state as the ledger keeps it.
pub(crate) fn encode(state: &VfState) -> Result<String, CniError> {
    serde_json::to_string(state).map_err(encode_error)
}

/// A wanted state as the ledger keeps it, with the part of the delegated IPAM plugin, where there is one.
pub(crate) fn encode_wanted(state: &VfState, delegation: Option<&Delegation>) -> Result<String, CniError> {
    let Some(delegation) = delegation else { return encode(state) };
    let encode = || -> serde_json::Result<String> {
        let mut value = serde_json::to_value(state)?;
        value[IPAM] = serde_json::to_value(delegation)?;
        Ok(value.to_string())
    };
    encode().map_err(encode_error)
}

fn encode_error(error: serde_json::Error) -> CniError {
    CniError::new(ErrorCode::IO, error.to_string())
}

/// What the VF was before its attachment.
pub(crate) fn original(record: &Attachment) -> Result<VfState, RecordError> {
    decode(record, &record.original)
}

/// What ADD made of the VF.
pub(crate) fn wanted(record: &Attachment) -> Result<VfState, RecordError> {
    decode(record, &record.wanted)
}

/// The part of the delegated IPAM plugin; `None` when the addresses, if any, are leases of the ledger.
pub(crate) fn delegation(record: &Attachment) -> Result<Option<Delegation>, RecordError> {
    let wanted: Value = decode(record, &record.wanted)?;
    let part = wanted.get(IPAM).map(Delegation::deserialize).transpose();
    part.map_err(|source| RecordError { device: record.device, source })
}

fn decode<T: DeserializeOwned>(record: &Attachment, text: &str) -> Result<T, RecordError> {
    serde_json::from_str(text).map_err(|source| RecordError { device: record.device, source })
}

/// A namespace as the ledger keeps it.
pub(crate) fn sandbox(netns: &Netns) -> Sandbox {
    let NetnsId { device, inode } = netns.id();
    Sandbox { path: netns.path().to_owned(), dev: device, ino: inode }
}
