//! Which VFs a pool takes: pure comparison of what was asked with what a function is.
//!
//! Within one selector any entry may match, between selectors all must. Refuses to know where the texts come from and
//! who else wants the same VF.

use std::ops::RangeInclusive;
use std::str::FromStr;

use thiserror::Error;
use zerobridge_kernel::{PciFunction, VfPosition};
use zerobridge_proto::PciAddress;

/// What a pool asks of a VF. An empty list asks nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selectors {
    /// The PF's netdev, and perhaps which of its VFs.
    pub pf_names: Vec<PfSelector>,
    /// The VF's vendor.
    pub vendors: Vec<HexId>,
    /// The VF's device ID; it differs from its PF's.
    pub devices: Vec<HexId>,
    /// The driver that the VF is bound to.
    pub drivers: Vec<String>,
    /// The VF's own address.
    pub pci_addresses: Vec<PciAddress>,
}

/// A VF and what its PF contributes to a choice.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// The VF.
    pub function: &'a PciFunction,
    /// Which one it is.
    pub position: VfPosition,
    /// The driver it is bound to.
    pub driver: &'a str,
    /// The netdevs that stand for its PF's port.
    pub pf_names: &'a [String],
}

/// A PF's netdev with, or without, the indexes of some of its VFs: `enp1s0`, `enp1s0#0-3,7`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PfSelector {
    name: String,
    /// `None` takes every VF.
    indexes: Option<Vec<RangeInclusive<u16>>>,
}

/// A PCI vendor or device ID, written as four hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HexId(u16);

/// A text that selects nothing that exists.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SelectorError {
    /// No PCI ID.
    #[error("\"{text}\" is no PCI ID; write four hexadecimal digits, such as 8086 or 0x10ca")]
    HexId {
        /// What was given.
        text: String,
    },
    /// The part before `#` cannot be the name of a network interface.
    #[error("\"{text}\" names no PF; write the name of its network interface, such as enp1s0 or enp1s0#0-3")]
    PfName {
        /// What was given.
        text: String,
    },
    /// The part behind `#` is no list of VF indexes.
    #[error(
        "\"{part}\" in \"{text}\" is no range of VFs; write numbers from 0 to 65535, such as enp1s0#0-3,7"
    )]
    Range {
        /// What was given.
        text: String,
        /// The faulty part.
        part: String,
    },
    /// A range that runs backwards, and so holds nothing.
    #[error(
        "\"{part}\" in \"{text}\" holds no VF, because it runs backwards; write the smaller number first"
    )]
    Backwards {
        /// What was given.
        text: String,
        /// The faulty part.
        part: String,
    },
}

impl Selectors {
    /// Whether nothing is asked, so that every VF is admitted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether the pool takes this VF.
    #[must_use]
    pub fn admit(&self, vf: &Candidate<'_>) -> bool {
        let PciFunction { address, vendor, device, .. } = vf.function;
        asks_for(&self.pf_names, |pf| pf.selects(vf))
            && asks_for(&self.vendors, |wanted| wanted.0 == *vendor)
            && asks_for(&self.devices, |wanted| wanted.0 == *device)
            && asks_for(&self.drivers, |wanted| wanted == vf.driver)
            && asks_for(&self.pci_addresses, |wanted| wanted == address)
    }
}

fn asks_for<T>(wanted: &[T], matches: impl FnMut(&T) -> bool) -> bool {
    wanted.is_empty() || wanted.iter().any(matches)
}

impl PfSelector {
    fn selects(&self, vf: &Candidate<'_>) -> bool {
        let index = vf.position.index;
        vf.pf_names.contains(&self.name)
            && self.indexes.as_ref().is_none_or(|ranges| ranges.iter().any(|range| range.contains(&index)))
    }
}

impl FromStr for PfSelector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, indexes) = text.split_once('#').map_or((text, None), |(name, list)| (name, Some(list)));
        // `dev_valid_name` in the kernel's net/core/dev.c: 1 to 15 bytes, no slash, colon or blank.
        let strange = |c: char| c == '/' || c == ':' || c.is_whitespace();
        if name.is_empty() || name.len() > 15 || name.contains(strange) {
            return Err(SelectorError::PfName { text: text.to_owned() });
        }
        let indexes =
            indexes.map(|list| list.split(',').map(|part| range(text, part)).collect()).transpose()?;
        Ok(Self { name: name.to_owned(), indexes })
    }
}

fn range(text: &str, part: &str) -> Result<RangeInclusive<u16>, SelectorError> {
    let number = |digits: &str| -> Option<u16> {
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
    };
    let (first, last) = part.split_once('-').unwrap_or((part, part));
    match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last => Ok(first..=last),
        (Some(_), Some(_)) => Err(SelectorError::Backwards { text: text.to_owned(), part: part.to_owned() }),
        _ => Err(SelectorError::Range { text: text.to_owned(), part: part.to_owned() }),
    }
}

impl FromStr for HexId {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")).unwrap_or(text);
        let valid = digits.len() == 4 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        valid
            .then(|| u16::from_str_radix(digits, 16).ok())
            .flatten()
            .map(Self)
            .ok_or_else(|| SelectorError::HexId { text: text.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use zerobridge_kernel::FunctionRole;

    use super::*;

    fn vf(index: u16) -> PciFunction {
        let position = VfPosition { pf: "0000:01:00.0".parse().unwrap(), index };
        PciFunction {
            address: format!("0000:01:10.{index}").parse().unwrap(),
            vendor: 0x8086,
            device: 0x10ca,
            class: 0x02_0000,
            driver: Some("igbvf".to_owned()),
            numa_node: None,
            iommu_group: None,
            netdevs: Vec::new(),
            role: FunctionRole::Virtual(position),
        }
    }

    fn admitted(selectors: &Selectors) -> Vec<u16> {
        let pf_names = ["enp1s0".to_owned()];
        let pf = "0000:01:00.0".parse().unwrap();
        (0..8)
            .filter(|&index| {
                let function = vf(index);
                let position = VfPosition { pf, index };
                selectors.admit(&Candidate {
                    function: &function,
                    position,
                    driver: "igbvf",
                    pf_names: &pf_names,
                })
            })
            .collect()
    }

    fn by_pf(texts: &[&str]) -> Selectors {
        Selectors {
            pf_names: texts.iter().map(|text| text.parse().unwrap()).collect(),
            ..Selectors::default()
        }
    }

    #[test]
    fn nothing_asked_admits_everything() {
        assert_eq!(admitted(&Selectors::default()).len(), 8);
        assert!(Selectors::default().is_empty());
    }

    #[test]
    fn a_pf_is_selected_whole_or_by_index() {
        assert_eq!(admitted(&by_pf(&["enp1s0"])).len(), 8);
        assert_eq!(admitted(&by_pf(&["enp1s0#0-3"])), [0, 1, 2, 3]);
        assert_eq!(admitted(&by_pf(&["enp1s0#5"])), [5]);
        assert_eq!(admitted(&by_pf(&["enp1s0#0-1,3,6-7"])), [0, 1, 3, 6, 7]);
        assert!(admitted(&by_pf(&["enp1s0#8-65535"])).is_empty());
    }

    #[test]
    fn every_entry_of_the_same_pf_counts() {
        assert_eq!(admitted(&by_pf(&["enp1s0#0-1", "enp2s0", "enp1s0#5"])), [0, 1, 5]);
    }

    #[test]
    fn another_pf_and_another_case_select_nothing() {
        assert!(admitted(&by_pf(&["enp2s0"])).is_empty());
        assert!(admitted(&by_pf(&["ENP1S0"])).is_empty());
    }

    #[test]
    fn selectors_must_all_match_and_entries_any() {
        let base = by_pf(&["enp1s0#0-3"]);
        let ids = |text: &str| vec!["15b3".parse().unwrap(), text.parse().unwrap()];
        let with = |change: fn(&mut Selectors, Vec<HexId>), text| {
            let mut selectors = base.clone();
            change(&mut selectors, ids(text));
            admitted(&selectors).len()
        };
        assert_eq!(with(|s, ids| s.vendors = ids, "8086"), 4);
        assert_eq!(with(|s, ids| s.vendors = ids, "8087"), 0);
        assert_eq!(with(|s, ids| s.devices = ids, "0x10CA"), 4);
        assert_eq!(with(|s, ids| s.devices = ids, "10c9"), 0);
        for (driver, count) in [("igbvf", 4), ("vfio-pci", 0)] {
            assert_eq!(
                admitted(&Selectors { drivers: vec![driver.to_owned()], ..base.clone() }).len(),
                count
            );
        }
        let pci_addresses = vec!["01:10.2".parse().unwrap(), "0000:01:10.7".parse().unwrap()];
        assert_eq!(admitted(&Selectors { pci_addresses, ..base.clone() }), [2]);
    }

    #[test]
    fn ids_are_read_in_any_case_with_and_without_0x() {
        for text in ["10ca", "10CA", "0x10ca", "0X10Ca"] {
            assert_eq!(text.parse::<HexId>().unwrap(), HexId(0x10ca));
        }
        for text in ["", "0x", "10c", "10caa", "+0ca", "10cg", "0x010ca", " 10ca"] {
            assert_eq!(text.parse::<HexId>(), Err(SelectorError::HexId { text: text.to_owned() }));
        }
    }

    #[test]
    fn a_faulty_range_is_quoted_with_its_faulty_part() {
        for (text, part) in [
            ("enp1s0#", ""),
            ("enp1s0#a", "a"),
            ("enp1s0#1-", "1-"),
            ("enp1s0#-1", "-1"),
            ("enp1s0#0-1,", ""),
            ("enp1s0#0-1-2", "0-1-2"),
            ("enp1s0#0,65536", "65536"),
            ("enp1s0#+1", "+1"),
            ("enp1s0#0#1", "0#1"),
            ("enp1s0#0, 1", " 1"),
        ] {
            let expected = SelectorError::Range { text: text.to_owned(), part: part.to_owned() };
            assert_eq!(text.parse::<PfSelector>(), Err(expected));
        }
        let backwards = SelectorError::Backwards { text: "enp1s0#3-1".to_owned(), part: "3-1".to_owned() };
        assert_eq!("enp1s0#3-1".parse::<PfSelector>(), Err(backwards));
    }

    #[test]
    fn a_name_that_no_interface_can_have_is_refused() {
        for text in ["", "#0-3", "en p1", "0000:01:00.0", "a/b", "sixteen-bytes-xx"] {
            assert_eq!(text.parse::<PfSelector>(), Err(SelectorError::PfName { text: text.to_owned() }));
        }
    }
}
