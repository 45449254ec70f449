//! The values that selectors compare: how each is written, and what is refused because no device can have it.

use std::fmt;
use std::str::FromStr;

use zerobridge_kernel::LinkType;

use super::SelectorError;

/// The longest alternative name of a network interface: `ALTIFNAMSIZ` in the kernel's `linux/if.h`, without the zero.
const LONGEST_NAME: usize = 127;

/// How link types are written: as `ip link` shows them.
pub(crate) const LINK_TYPES: [(&str, LinkType); 2] =
    [("ether", LinkType::Ethernet), ("infiniband", LinkType::Infiniband)];

/// How types of vDPA devices are written.
pub(crate) const VDPA_TYPES: [(&str, VdpaType); 2] =
    [("vhost", VdpaType::Vhost), ("virtio", VdpaType::Virtio)];

/// The `type` of a vDPA device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VdpaType {
    /// Bound to `vhost_vdpa`: a character device for a virtual machine or a userspace driver.
    Vhost,
    /// Bound to `virtio_vdpa`: a netdev.
    Virtio,
}

/// A PCI vendor or device ID, written as four hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HexId(pub u16);

/// A partition key of InfiniBand, `0x8001`; its highest bit says that the membership is a full one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionKey(pub u16);

impl VdpaType {
    /// The driver on the vDPA bus that makes a device one of this type.
    #[must_use]
    pub const fn driver(self) -> &'static str {
        match self {
            Self::Vhost => "vhost_vdpa",
            Self::Virtio => "virtio_vdpa",
        }
    }
}

impl FromStr for HexId {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        hexadecimal(without_0x(text), 4..=4)
            .map(Self)
            .ok_or_else(|| SelectorError::HexId { text: text.to_owned() })
    }
}

impl fmt::Display for HexId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:04x}", self.0)
    }
}

impl FromStr for PartitionKey {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        hexadecimal(without_0x(text), 1..=4)
            .map(Self)
            .ok_or_else(|| SelectorError::PartitionKey { text: text.to_owned() })
    }
}

impl fmt::Display for PartitionKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:#06x}", self.0)
    }
}

fn without_0x(text: &str) -> &str {
    text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")).unwrap_or(text)
}

fn hexadecimal(digits: &str, count: std::ops::RangeInclusive<usize>) -> Option<u16> {
    let valid = count.contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    valid.then(|| u16::from_str_radix(digits, 16).ok())?
}

/// Whether the kernel would let a network interface have this name, or this alternative name (`dev_valid_name` in
/// `net/core/dev.c`: no slash, colon or blank).
pub(super) fn names_an_interface(text: &str) -> bool {
    let strange = |c: char| c == '/' || c == ':' || c.is_whitespace();
    !text.is_empty() && text.len() <= LONGEST_NAME && !text.contains(strange)
}

pub(crate) fn interface(text: &str) -> Result<String, SelectorError> {
    names_an_interface(text)
        .then(|| text.to_owned())
        .ok_or_else(|| SelectorError::Interface { text: text.to_owned() })
}

pub(crate) fn driver(text: &str) -> Result<String, SelectorError> {
    let strange = |c: char| c == '/' || c.is_whitespace();
    (!text.is_empty() && !text.contains(strange))
        .then(|| text.to_owned())
        .ok_or_else(|| SelectorError::Driver { text: text.to_owned() })
}

pub(crate) fn aux_type(text: &str) -> Result<String, SelectorError> {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    (!text.is_empty() && text.bytes().all(known))
        .then(|| text.to_owned())
        .ok_or_else(|| SelectorError::AuxType { text: text.to_owned() })
}

/// Names of profiles are free texts: "GTPv1-C/U IPv4/IPv6 payload".
pub(crate) fn ddp_profile(text: &str) -> Result<String, SelectorError> {
    (!text.trim().is_empty())
        .then(|| text.to_owned())
        .ok_or_else(|| SelectorError::DdpProfile { text: text.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_in_any_case_with_and_without_0x_and_shown_in_one_form() {
        for text in ["10ca", "10CA", "0x10ca", "0X10Ca"] {
            assert_eq!(text.parse::<HexId>().unwrap().to_string(), "10ca");
        }
        for text in ["", "0x", "10c", "10caa", "+0ca", "10cg", "0x010ca", " 10ca"] {
            assert_eq!(text.parse::<HexId>(), Err(SelectorError::HexId { text: text.to_owned() }));
        }
    }

    #[test]
    fn partition_keys_may_be_short() {
        for (text, shown) in [("0x1", "0x0001"), ("0xABCD", "0xabcd"), ("8001", "0x8001")] {
            assert_eq!(text.parse::<PartitionKey>().unwrap().to_string(), shown);
        }
        for text in ["", "0x", "0x10000", "-1", "key"] {
            assert_eq!(
                text.parse::<PartitionKey>(),
                Err(SelectorError::PartitionKey { text: text.to_owned() })
            );
        }
    }

    #[test]
    fn what_no_device_can_have_is_refused() {
        let long = "n".repeat(128);
        for text in ["", "en p1", "a/b", "0000:01:00.0", &long] {
            assert_eq!(interface(text), Err(SelectorError::Interface { text: text.to_owned() }));
        }
        assert_eq!(interface("sixteen-bytes-xx").unwrap(), "sixteen-bytes-xx", "an alternative name");
        for text in ["", "a/b", "vfio pci"] {
            assert_eq!(driver(text), Err(SelectorError::Driver { text: text.to_owned() }));
        }
        for text in ["", "mlx5_core.sf.4", "s f"] {
            assert_eq!(aux_type(text), Err(SelectorError::AuxType { text: text.to_owned() }));
        }
        assert_eq!(ddp_profile(" "), Err(SelectorError::DdpProfile { text: " ".to_owned() }));
    }
}
