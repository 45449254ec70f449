//! Selection by the PF that a device belongs to: its name or address, and perhaps which of its VFs or SFs.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use zerobridge_kernel::FunctionRole;
use zerobridge_proto::PciAddress;

use super::kinds::names_an_interface;
use super::{Candidate, SelectorError, Subject};

/// A PF's netdev with, or without, the indexes of some of its VFs or the numbers of some of its SFs: `enp1s0`,
/// `enp1s0#0-3,7`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PfSelector {
    name: String,
    indexes: Option<Indexes>,
}

/// A PF's address with, or without, the indexes of some of its VFs or the numbers of some of its SFs: `0000:01:00.0`,
/// `01:00.0#0-3,7`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootSelector {
    address: PciAddress,
    indexes: Option<Indexes>,
}

/// Numbers and ranges of numbers, `0-3,7`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Indexes(Vec<RangeInclusive<u32>>);

/// How `pfNames` and `rootDevices` are compared. Nobody writes it: it follows from the rest of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortMatch {
    /// Upper and lower case of a name are the same, as in files for sriov-network-device-plugin.
    pub any_case: bool,
    /// What has no number, such as `enp1s0`, also selects the PF itself, or a function without SR-IOV: in pools with
    /// shares, where that is what is usually shared.
    pub itself: bool,
}

/// What a device is to a PF.
enum Part {
    /// A VF with its index, or an auxiliary device with the number of its SF if it is one.
    Of(Option<u32>),
    /// A PF, or a function without SR-IOV, which is its own port.
    Itself,
}

impl Candidate<'_> {
    fn part(&self) -> Part {
        match (self.subject, &self.function.role) {
            (Subject::Auxiliary(device), _) => Part::Of(device.sf_number),
            (Subject::Function, FunctionRole::Virtual(position)) => Part::Of(Some(position.index.into())),
            (Subject::Function, _) => Part::Itself,
        }
    }

    /// The address of its PF, or its own if it is no part of another function.
    pub(super) fn root(&self) -> PciAddress {
        match (self.subject, &self.function.role) {
            (Subject::Function, FunctionRole::Virtual(position)) => position.pf,
            _ => self.function.address,
        }
    }

    /// Its number below its PF as `VF 3` or `SF 4`, as far as it has one.
    pub(super) fn number(&self) -> Option<String> {
        match (self.subject, self.part()) {
            (Subject::Auxiliary(_), Part::Of(Some(number))) => Some(format!("SF {number}")),
            (_, Part::Of(Some(number))) => Some(format!("VF {number}")),
            (_, Part::Itself) => Some("the PF itself".to_owned()),
            (_, Part::Of(None)) => None,
        }
    }

    fn is_within(&self, indexes: Option<&Indexes>, how: PortMatch) -> bool {
        match (self.part(), indexes) {
            (Part::Of(_), None) => true,
            (Part::Of(Some(number)), Some(indexes)) => indexes.contains(number),
            (Part::Of(None), Some(_)) => false,
            (Part::Itself, indexes) => how.itself && indexes.is_none(),
        }
    }
}

impl PfSelector {
    pub(super) fn selects(&self, candidate: &Candidate<'_>, how: PortMatch) -> bool {
        let same =
            |name: &String| *name == self.name || (how.any_case && name.eq_ignore_ascii_case(&self.name));
        candidate.is_within(self.indexes.as_ref(), how) && candidate.pf_names.iter().any(same)
    }
}

impl RootSelector {
    pub(super) fn selects(&self, candidate: &Candidate<'_>, how: PortMatch) -> bool {
        self.address == candidate.root() && candidate.is_within(self.indexes.as_ref(), how)
    }
}

impl Indexes {
    fn contains(&self, number: u32) -> bool {
        self.0.iter().any(|range| range.contains(&number))
    }

    /// Reads what stands behind the `#` of `text`.
    fn parse(text: &str, list: &str) -> Result<Self, SelectorError> {
        list.split(',').map(|part| range(text, part)).collect::<Result<_, _>>().map(Self)
    }
}

fn range(text: &str, part: &str) -> Result<RangeInclusive<u32>, SelectorError> {
    let number = |digits: &str| -> Option<u32> {
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
    };
    let (first, last) = part.split_once('-').unwrap_or((part, part));
    match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last => Ok(first..=last),
        (Some(_), Some(_)) => Err(SelectorError::Backwards { text: text.to_owned(), part: part.to_owned() }),
        _ => Err(SelectorError::Range { text: text.to_owned(), part: part.to_owned() }),
    }
}

fn split(text: &str) -> Result<(&str, Option<Indexes>), SelectorError> {
    match text.split_once('#') {
        None => Ok((text, None)),
        Some((name, list)) => Ok((name, Some(Indexes::parse(text, list)?))),
    }
}

impl FromStr for PfSelector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, indexes) = split(text)?;
        if !names_an_interface(name) {
            return Err(SelectorError::PfName { text: text.to_owned() });
        }
        Ok(Self { name: name.to_owned(), indexes })
    }
}

impl FromStr for RootSelector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (address, indexes) = split(text)?;
        let address = address.parse().map_err(|_| SelectorError::RootDevice { text: text.to_owned() })?;
        Ok(Self { address, indexes })
    }
}

impl fmt::Display for Indexes {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, range) in self.0.iter().enumerate() {
            let separator = if position == 0 { "" } else { "," };
            match (range.start(), range.end()) {
                (first, last) if first == last => write!(out, "{separator}{first}")?,
                (first, last) => write!(out, "{separator}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

fn shown(out: &mut fmt::Formatter<'_>, name: &dyn fmt::Display, indexes: Option<&Indexes>) -> fmt::Result {
    match indexes {
        None => name.fmt(out),
        Some(indexes) => write!(out, "{name}#{indexes}"),
    }
}

impl fmt::Display for PfSelector {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        shown(out, &self.name, self.indexes.as_ref())
    }
}

impl fmt::Display for RootSelector {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        shown(out, &self.address, self.indexes.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_is_shown_as_it_is_written() {
        for text in ["enp1s0", "enp1s0#0-3", "enp1s0#0-1,3,6-7", "an-alternative-name-of-a-port#4294967295"] {
            assert_eq!(text.parse::<PfSelector>().unwrap().to_string(), text);
        }
        for (text, shown) in [("0000:01:00.0", "0000:01:00.0"), ("3B:00.1#2-2,5", "0000:3b:00.1#2,5")] {
            assert_eq!(text.parse::<RootSelector>().unwrap().to_string(), shown);
        }
    }

    #[test]
    fn a_faulty_range_is_quoted_with_its_faulty_part() {
        for (name, part) in [
            ("#", ""),
            ("#a", "a"),
            ("#1-", "1-"),
            ("#-1", "-1"),
            ("#0-1,", ""),
            ("#0-1-2", "0-1-2"),
            ("#0,4294967296", "4294967296"),
            ("#+1", "+1"),
            ("#0#1", "0#1"),
            ("#0, 1", " 1"),
        ] {
            for device in ["enp1s0", "0000:01:00.0"] {
                let text = format!("{device}{name}");
                let expected = SelectorError::Range { text: text.clone(), part: part.to_owned() };
                assert_eq!(text.parse::<PfSelector>().unwrap_err(), expected);
                assert_eq!(text.parse::<RootSelector>().unwrap_err(), expected);
            }
        }
        let backwards = SelectorError::Backwards { text: "enp1s0#3-1".to_owned(), part: "3-1".to_owned() };
        assert_eq!("enp1s0#3-1".parse::<PfSelector>(), Err(backwards));
    }

    #[test]
    fn what_names_no_pf_is_refused() {
        let long = "n".repeat(128);
        for text in ["", "#0-3", "en p1", "0000:01:00.0", "a/b", &long] {
            assert_eq!(text.parse::<PfSelector>(), Err(SelectorError::PfName { text: text.to_owned() }));
        }
        for text in ["", "#0-3", "enp1s0", "0000:01:00#0"] {
            assert_eq!(
                text.parse::<RootSelector>(),
                Err(SelectorError::RootDevice { text: text.to_owned() })
            );
        }
    }
}
