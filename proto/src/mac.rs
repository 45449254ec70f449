//! An Ethernet address as it is written in CNI configuration and results.
//!
//! Refuses to know InfiniBand's 20-byte addresses: those belong to a link, not to an attachment's configuration.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::text::serde_as_text;

/// A 48-bit Ethernet address, displayed as `02:00:00:00:01:00`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac([u8; 6]);

/// A text that is no Ethernet address.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("\"{text}\" is no Ethernet address; write six octets in hexadecimal, such as 02:00:00:00:01:00")]
pub struct MacError {
    text: String,
}

impl Mac {
    /// The all-zero address: as a VF's admin MAC it means that the PF imposes none.
    pub const ZERO: Self = Self([0; 6]);

    /// The six octets in transmission order.
    #[must_use]
    pub const fn octets(self) -> [u8; 6] {
        self.0
    }

    /// Whether this is [`Mac::ZERO`].
    #[must_use]
    pub fn is_zero(self) -> bool {
        self == Self::ZERO
    }

    /// Whether a network interface may carry this address: neither a group address (lowest bit of the first octet set)
    /// nor all zero, as `is_valid_ether_addr` in the kernel's `linux/etherdevice.h` demands.
    #[must_use]
    pub fn is_unicast(self) -> bool {
        self.0[0] & 1 == 0 && !self.is_zero()
    }
}

impl From<[u8; 6]> for Mac {
    fn from(octets: [u8; 6]) -> Self {
        Self(octets)
    }
}

impl TryFrom<&[u8]> for Mac {
    type Error = MacError;

    fn try_from(bytes: &[u8]) -> Result<Self, Self::Error> {
        bytes.try_into().map(Self).map_err(|_| MacError { text: format!("{bytes:02x?}") })
    }
}

impl FromStr for Mac {
    type Err = MacError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).ok_or_else(|| MacError { text: text.to_owned() })
    }
}

fn parse(text: &str) -> Option<Mac> {
    let mut octets = [0; 6];
    let mut fields = text.split([':', '-']);
    for octet in &mut octets {
        let field = fields.next()?;
        let digits = field.len() == 2 && field.bytes().all(|byte| byte.is_ascii_hexdigit());
        *octet = digits.then(|| u8::from_str_radix(field, 16).ok())??;
    }
    fields.next().is_none().then_some(Mac(octets))
}

impl fmt::Display for Mac {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, f] = self.0;
        write!(out, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    }
}

serde_as_text!(Mac);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_separators_and_cases_are_read_and_one_form_is_written() {
        for text in ["02:AB:00:00:01:ff", "02-ab-00-00-01-FF"] {
            assert_eq!(text.parse::<Mac>().unwrap().to_string(), "02:ab:00:00:01:ff");
        }
    }

    #[test]
    fn what_is_no_address_is_named_in_the_error() {
        for text in [
            "",
            "02:00:00:00:01",
            "02:00:00:00:01:00:00",
            "02:00:00:00:01:0g",
            "2:0:0:0:1:0",
            "+2:00:00:00:01:00",
        ] {
            let error = text.parse::<Mac>().unwrap_err();
            assert!(error.to_string().contains(&format!("\"{text}\"")), "{error}");
        }
    }

    #[test]
    fn group_and_zero_addresses_are_not_for_an_interface() {
        assert!("02:00:00:00:01:00".parse::<Mac>().unwrap().is_unicast());
        assert!(!"01:00:5e:00:00:01".parse::<Mac>().unwrap().is_unicast());
        assert!(!Mac::ZERO.is_unicast());
    }
}
