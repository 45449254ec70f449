//! A GUID of InfiniBand (EUI-64) as it is written in CNI configuration and NAD annotations.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::text::serde_as_text;

/// A 64-bit GUID, displayed as `02:00:00:00:00:00:00:01`. As a number, the first octet is the highest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Guid(pub u64);

/// A text that is no GUID.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("\"{text}\" is no GUID; write eight octets in hexadecimal, such as 02:00:00:00:00:00:00:01")]
pub struct GuidError {
    text: String,
}

impl Guid {
    /// The all-zero GUID: nobody has set one.
    pub const ZERO: Self = Self(0);

    /// Whether this is [`Guid::ZERO`].
    #[must_use]
    pub fn is_zero(self) -> bool {
        self == Self::ZERO
    }
}

impl FromStr for Guid {
    type Err = GuidError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).ok_or_else(|| GuidError { text: text.to_owned() })
    }
}

fn parse(text: &str) -> Option<Guid> {
    let mut octets = [0; 8];
    let mut fields = text.split(':');
    for octet in &mut octets {
        let field = fields.next()?;
        let digits = field.len() == 2 && field.bytes().all(|byte| byte.is_ascii_hexdigit());
        *octet = digits.then(|| u8::from_str_radix(field, 16).ok())??;
    }
    fields.next().is_none().then(|| Guid(u64::from_be_bytes(octets)))
}

impl fmt::Display for Guid {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, octet) in self.0.to_be_bytes().into_iter().enumerate() {
            let separator = if number > 0 { ":" } else { "" };
            write!(out, "{separator}{octet:02x}")?;
        }
        Ok(())
    }
}

serde_as_text!(Guid);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guid_is_read_and_written_with_its_first_octet_highest() {
        let guid: Guid = "02:AB:00:00:00:00:00:01".parse().unwrap();
        assert_eq!(guid, Guid(0x02ab_0000_0000_0001));
        assert_eq!(guid.to_string(), "02:ab:00:00:00:00:00:01");
        assert_eq!(serde_json::to_string(&guid).unwrap(), "\"02:ab:00:00:00:00:00:01\"");
    }

    #[test]
    fn what_is_no_guid_is_named_in_the_error() {
        for text in ["", "02:00:00:00:00:00:01", "02:00:00:00:00:00:00:01:00", "02:00:00:00:00:00:00:0g"] {
            let error = text.parse::<Guid>().unwrap_err();
            assert!(error.to_string().contains(&format!("\"{text}\"")), "{error}");
        }
    }
}
