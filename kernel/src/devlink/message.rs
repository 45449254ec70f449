//! Generic netlink's frame and its attributes, as far as devlink needs them.
//!
//! Layout: `struct genlmsghdr` of the kernel's `linux/genetlink.h`, then attributes (`struct nlattr` of
//! `linux/netlink.h`).

use netlink_packet_core::{
    DecodeError, DefaultNla, Emitable, NetlinkDeserializable, NetlinkHeader, NetlinkSerializable, NlaBuffer,
    NlasIterator,
};

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
        let mut bytes = vec![0; nlas.as_slice().buffer_len()];
        nlas.as_slice().emit(&mut bytes);
        Self { family, command, version, attributes: bytes }
    }

    pub(super) fn attributes(&self) -> Attributes<'_> {
        Attributes(&self.attributes)
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

/// Attributes side by side. One that is cut short ends them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attributes<'a>(&'a [u8]);

impl<'a> Attributes<'a> {
    #[cfg(test)]
    pub(super) fn of(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The values of the attributes of this kind.
    pub(super) fn all(self, kind: u16) -> impl Iterator<Item = &'a [u8]> {
        NlasIterator::new(self.0)
            .map_while(Result::ok)
            .filter(move |attribute: &NlaBuffer<&[u8]>| attribute.kind() == kind)
            // Not `value()`: it would borrow from the iterator's item.
            .map(|attribute| {
                let length = usize::from(attribute.length());
                attribute.into_inner().get(HEADER_LEN..length).unwrap_or_default()
            })
    }

    /// Whether there is an attribute of this kind: how a true flag is written.
    pub(super) fn has(self, kind: u16) -> bool {
        self.all(kind).next().is_some()
    }

    /// The attributes inside each attribute of this kind.
    pub(super) fn nested(self, kind: u16) -> impl Iterator<Item = Attributes<'a>> {
        self.all(kind).map(Attributes)
    }

    /// A text, without the zero byte that ends it.
    pub(super) fn text(self, kind: u16) -> Option<&'a str> {
        std::str::from_utf8(self.all(kind).next()?).ok().map(|text| text.trim_end_matches('\0'))
    }

    /// A number of eight bits.
    pub(super) fn u8(self, kind: u16) -> Option<u8> {
        self.all(kind).next()?.first().copied()
    }

    /// A number of 16 bits.
    pub(super) fn u16(self, kind: u16) -> Option<u16> {
        Some(u16::from_ne_bytes(self.all(kind).next()?.try_into().ok()?))
    }

    /// A number of 32 bits.
    pub(super) fn u32(self, kind: u16) -> Option<u32> {
        Some(u32::from_ne_bytes(self.all(kind).next()?.try_into().ok()?))
    }

    /// A number of 64 bits.
    pub(super) fn u64(self, kind: u16) -> Option<u64> {
        Some(u64::from_ne_bytes(self.all(kind).next()?.try_into().ok()?))
    }
}
