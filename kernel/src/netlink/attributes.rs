//! Netlink attributes (`struct nlattr` of the kernel's `linux/netlink.h`), for families that no crate speaks.
//!
//! Refuses to know what a number means.

use netlink_packet_core::{DefaultNla, Emitable, NlaBuffer, NlasIterator};

/// Length of `struct nlattr`: length and kind.
const ATTRIBUTE_HEADER_LEN: usize = 4;

/// Attributes as they stand in a message.
pub(crate) fn encoded(attributes: &[DefaultNla]) -> Vec<u8> {
    let mut bytes = vec![0; attributes.buffer_len()];
    attributes.emit(&mut bytes);
    bytes
}

/// Attributes side by side. One that is cut short ends them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attributes<'a>(&'a [u8]);

impl<'a> Attributes<'a> {
    pub(crate) fn of(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The values of the attributes of this kind.
    pub(crate) fn all(self, kind: u16) -> impl Iterator<Item = &'a [u8]> {
        NlasIterator::new(self.0)
            .map_while(Result::ok)
            .filter(move |attribute: &NlaBuffer<&[u8]>| attribute.kind() == kind)
            // Not `value()`: it would borrow from the iterator's item.
            .map(|attribute| {
                let length = usize::from(attribute.length());
                attribute.into_inner().get(ATTRIBUTE_HEADER_LEN..length).unwrap_or_default()
            })
    }

    /// Whether there is an attribute of this kind: how a true flag is written.
    pub(crate) fn has(self, kind: u16) -> bool {
        self.all(kind).next().is_some()
    }

    /// The attributes inside each attribute of this kind.
    pub(crate) fn nested(self, kind: u16) -> impl Iterator<Item = Attributes<'a>> {
        self.all(kind).map(Attributes)
    }

    /// A text, without the zero byte that ends it.
    pub(crate) fn text(self, kind: u16) -> Option<&'a str> {
        std::str::from_utf8(self.all(kind).next()?).ok().map(|text| text.trim_end_matches('\0'))
    }

    /// A number of eight bits.
    pub(crate) fn u8(self, kind: u16) -> Option<u8> {
        self.all(kind).next()?.first().copied()
    }

    /// A number of 16 bits.
    pub(crate) fn u16(self, kind: u16) -> Option<u16> {
        Some(u16::from_ne_bytes(self.all(kind).next()?.try_into().ok()?))
    }

    /// A number of 32 bits.
    pub(crate) fn u32(self, kind: u16) -> Option<u32> {
        Some(u32::from_ne_bytes(self.all(kind).next()?.try_into().ok()?))
    }

    /// A number of 64 bits.
    pub(crate) fn u64(self, kind: u16) -> Option<u64> {
        Some(u64::from_ne_bytes(self.all(kind).next()?.try_into().ok()?))
    }
}
