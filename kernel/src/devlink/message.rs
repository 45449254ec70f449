//! Generic netlink's frame, as far as devlink needs it.
//!
//! Layout: `struct genlmsghdr` of the kernel's `linux/genetlink.h`, then attributes.

use netlink_packet_core::{
    DecodeError, DefaultNla, NetlinkDeserializable, NetlinkHeader, NetlinkSerializable,
};

use crate::netlink::attributes::{Attributes, encoded};

/// Length of `struct genlmsghdr`: command, version, and two reserved bytes.
const HEADER_LEN: usize = 4;

/// A message of a generic netlink family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GenericMessage {
    family: u16,
    command: u8,
    version: u8,
    attributes: Vec<u8>,
}

impl GenericMessage {
    /// A request with text attributes, the only kind that is needed; each is sent with the zero byte that ends it.
    pub(super) fn request(family: u16, command: u8, version: u8, attributes: &[(u16, &str)]) -> Self {
        let nlas: Vec<DefaultNla> = attributes
            .iter()
            .map(|(kind, text)| DefaultNla::new(*kind, [text.as_bytes(), b"\0"].concat()))
            .collect();
        Self { family, command, version, attributes: encoded(&nlas) }
    }

    pub(super) fn attributes(&self) -> Attributes<'_> {
        Attributes::of(&self.attributes)
    }
}

impl NetlinkSerializable for GenericMessage {
    fn message_type(&self) -> u16 {
        self.family
    }

    fn buffer_len(&self) -> usize {
        HEADER_LEN + self.attributes.len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        buffer[..HEADER_LEN].copy_from_slice(&[self.command, self.version, 0, 0]);
        buffer[HEADER_LEN..].copy_from_slice(&self.attributes);
    }
}

impl NetlinkDeserializable for GenericMessage {
    type Error = DecodeError;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, DecodeError> {
        let [command, version, _, _, attributes @ ..] = payload else {
            return Err(DecodeError::buffer_too_small(payload.len(), HEADER_LEN));
        };
        let (family, attributes) = (header.message_type, attributes.to_vec());
        Ok(Self { family, command: *command, version: *version, attributes })
    }
}
