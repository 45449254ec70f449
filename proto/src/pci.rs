//! How a PCI function is named in every contract: kubelet device ID, CNI `deviceID`, device-info file, sysfs folder.
//!
//! Refuses to know whether such a function exists.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::text::serde_as_text;

/// A PCI function's address, `domain:bus:device.function`.
///
/// Displayed in the one form that sysfs uses (`0000:01:10.0`): lower-case hexadecimal, full domain. Parsing also takes
/// the short form without a domain and upper case, because people paste it from `lspci`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PciAddress {
    domain: u32,
    bus: u8,
    device: u8,
    function: u8,
}

/// A text that names no PCI function.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "\"{text}\" is no PCI address; write domain:bus:device.function in hexadecimal, such as 0000:01:10.0"
)]
pub struct PciAddressError {
    text: String,
}

impl FromStr for PciAddress {
    type Err = PciAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).ok_or_else(|| PciAddressError { text: text.to_owned() })
    }
}

fn parse(text: &str) -> Option<PciAddress> {
    let (slot, function) = text.rsplit_once('.')?;
    let mut fields = slot.rsplit(':');
    let device = hex(fields.next()?, 1..=2)?;
    let bus = hex(fields.next()?, 1..=2)?;
    // Domains wider than 16 bits are real: VMD and Hyper-V number them so (drivers/pci/controller/vmd.c).
    let domain = fields.next().map_or(Some(0), |text| hex(text, 1..=8))?;
    let function = hex(function, 1..=1)?;
    if fields.next().is_some() || device > 0x1f || function > 7 {
        return None;
    }
    Some(PciAddress {
        domain,
        bus: u8::try_from(bus).ok()?,
        device: u8::try_from(device).ok()?,
        function: u8::try_from(function).ok()?,
    })
}

fn hex(text: &str, digits: std::ops::RangeInclusive<usize>) -> Option<u32> {
    let only_digits = text.bytes().all(|byte| byte.is_ascii_hexdigit());
    (digits.contains(&text.len()) && only_digits).then(|| u32::from_str_radix(text, 16).ok())?
}

impl fmt::Display for PciAddress {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:04x}:{:02x}:{:02x}.{:x}", self.domain, self.bus, self.device, self.function)
    }
}

serde_as_text!(PciAddress);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_accepted_form_is_displayed_as_sysfs_writes_it() {
        for (text, shown) in [
            ("0000:01:10.0", "0000:01:10.0"),
            ("01:10.0", "0000:01:10.0"),
            ("0000:3B:02.7", "0000:3b:02.7"),
            ("10000:e1:00.0", "10000:e1:00.0"),
        ] {
            assert_eq!(text.parse::<PciAddress>().unwrap().to_string(), shown);
        }
    }

    #[test]
    fn what_is_no_address_is_named_in_the_error() {
        for text in ["", "eth0", "0000:01:10", "0000:01:20.0", "0000:01:10.8", "0:0:0:0.0", "+1:10.0", "../x"]
        {
            let error = text.parse::<PciAddress>().unwrap_err();
            assert!(error.to_string().contains(&format!("\"{text}\"")), "{error}");
        }
    }

    #[test]
    fn order_is_by_position_on_the_bus() {
        let mut list: Vec<PciAddress> =
            ["0000:01:10.2", "0000:01:0a.0", "0000:00:1f.0"].map(|text| text.parse().unwrap()).to_vec();
        list.sort();
        let shown: Vec<String> = list.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["0000:00:1f.0", "0000:01:0a.0", "0000:01:10.2"]);
    }
}
