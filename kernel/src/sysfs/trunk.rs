//! The list of VLANs that a NIC lets through with the tags that a VF gave its frames ("VGT+").
//!
//! No kernel of kernel.org has it. Intel's own i40e and ice drivers and NVIDIA's (DOCA, formerly MLNX_OFED) show it as
//! `sriov/<index>/trunk` beside a PF's other attributes. Refuses to know which VLANs are good.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{Sysfs, SysfsError, VfPosition, attribute};

/// The largest VLAN ID: 4095 is reserved (IEEE 802.1Q, table 9-2).
const MAX_VLAN: u16 = 4094;

/// How NVIDIA's driver begins its answer (`trunk_show` in its sriov_sysfs.c).
const PREFIX: &str = "Allowed 802.1Q VLANs:";

/// The driver of kernel.org's name whose list takes one range at a time as two numbers (`trunk_store`, as above). The
/// others take what the kernel's `bitmap_parselist` does.
const TWO_NUMBERS: &str = "mlx5_core";

/// A set of VLAN IDs, 1 to 4094, displayed and parsed as `2,4-9`. Empty where no list restricts anything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VlanTrunk(BTreeSet<u16>);

/// A text that is no list of VLANs.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("\"{text}\" is no list of VLANs; write IDs and ranges from 1 to {MAX_VLAN}, such as 2,4-9")]
pub struct VlanTrunkError {
    text: String,
}

impl VlanTrunk {
    /// Those that `other` does not have.
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        Self(self.0.difference(&other.0).copied().collect())
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As few ranges, first and last ID, as hold them all, in order.
    fn ranges(&self) -> Vec<(u16, u16)> {
        let mut ranges: Vec<(u16, u16)> = Vec::new();
        for &id in &self.0 {
            match ranges.last_mut() {
                Some((_, last)) if *last + 1 == id => *last = id,
                _ => ranges.push((id, id)),
            }
        }
        ranges
    }
}

impl FromStr for VlanTrunk {
    type Err = VlanTrunkError;

    fn from_str(text: &str) -> Result<Self, VlanTrunkError> {
        let error = || VlanTrunkError { text: text.to_owned() };
        let id = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            let id = digits.then(|| text.parse().ok()).flatten();
            id.filter(|id| (1..=MAX_VLAN).contains(id)).ok_or_else(error)
        };
        let mut ids = BTreeSet::new();
        for piece in text.split(',') {
            let (first, last) = piece.split_once('-').unwrap_or((piece, piece));
            let (first, last) = (id(first.trim())?, id(last.trim())?);
            if first > last {
                return Err(error());
            }
            ids.extend(first..=last);
        }
        Ok(Self(ids))
    }
}

impl fmt::Display for VlanTrunk {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, (first, last)) in self.ranges().into_iter().enumerate() {
            let separator = if number > 0 { "," } else { "" };
            write!(out, "{separator}{first}")?;
            if first < last {
                write!(out, "-{last}")?;
            }
        }
        Ok(())
    }
}

impl TryFrom<String> for VlanTrunk {
    type Error = VlanTrunkError;

    fn try_from(text: String) -> Result<Self, VlanTrunkError> {
        if text.is_empty() { Ok(Self::default()) } else { text.parse() }
    }
}

impl From<VlanTrunk> for String {
    fn from(trunk: VlanTrunk) -> Self {
        trunk.to_string()
    }
}

impl Sysfs {
    /// The list of a VF; `None` where the PF's driver has none.
    ///
    /// # Errors
    /// [`SysfsError::Read`], [`SysfsError::Malformed`].
    pub fn vlan_trunk(&self, vf: VfPosition) -> Result<Option<VlanTrunk>, SysfsError> {
        let file = self.trunk_file(vf);
        let Some(text) = attribute::optional_text(&file)? else { return Ok(None) };
        let list =
            text.strip_prefix(PREFIX).unwrap_or(&text).split_whitespace().collect::<Vec<_>>().join(",");
        let trunk = VlanTrunk::try_from(list);
        trunk.map(Some).map_err(|_| SysfsError::malformed(&file, &text, "a list of VLANs such as 2,4-9"))
    }

    /// Lets more VLANs through for a VF.
    ///
    /// # Errors
    /// [`SysfsError::Write`]; some of the VLANs may have been allowed then.
    pub fn allow_vlans(&self, vf: VfPosition, trunk: &VlanTrunk) -> Result<(), SysfsError> {
        self.write_trunk(vf, "add", trunk)
    }

    /// Lets VLANs through no more for a VF.
    ///
    /// # Errors
    /// As [`allow_vlans`](Self::allow_vlans).
    pub fn forbid_vlans(&self, vf: VfPosition, trunk: &VlanTrunk) -> Result<(), SysfsError> {
        self.write_trunk(vf, "rem", trunk)
    }

    fn write_trunk(&self, vf: VfPosition, verb: &str, trunk: &VlanTrunk) -> Result<(), SysfsError> {
        let file = self.trunk_file(vf);
        let separator = if self.driver_of(vf.pf)?.as_deref() == Some(TWO_NUMBERS) { ' ' } else { '-' };
        for (first, last) in trunk.ranges() {
            let text = format!("{verb} {first}{separator}{last}");
            fs::write(&file, &text).map_err(|source| SysfsError::Write {
                path: file.clone(),
                text,
                source,
            })?;
        }
        Ok(())
    }

    fn trunk_file(&self, vf: VfPosition) -> PathBuf {
        self.function(vf.pf).file("sriov").join(vf.index.to_string()).join("trunk")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{FakeFunction, SysfsTree};

    #[test]
    fn lists_are_read_and_written_in_the_shortest_form() {
        for (text, shown) in [("2", "2"), ("4-9,2", "2,4-9"), ("1,2,3, 5 ", "1-3,5"), ("1-4094", "1-4094")] {
            assert_eq!(text.parse::<VlanTrunk>().unwrap().to_string(), shown);
        }
        for text in ["", "0", "4095", "9-4", "a", "1,,2", "+1", "1-2-3", "-5"] {
            let error = text.parse::<VlanTrunk>().unwrap_err().to_string();
            assert!(error.contains(&format!("\"{text}\"")) && error.contains("2,4-9"), "{error}");
        }
    }

    #[test]
    fn each_drivers_list_is_understood_and_asked_in_its_own_words() {
        let folder = tempfile::tempdir().unwrap();
        let (tree, sysfs) = (SysfsTree::new(folder.path()), Sysfs::new(folder.path()));
        tree.add_e810(0, 2);
        tree.add_mlx5(0, 2);
        let [intel, nvidia] = [FakeFunction::e810_pf(0), FakeFunction::mlx5_pf(0)].map(|pf| pf.address);
        for (pf, answer, trunk, written) in [
            (intel, "2-4,10\n", "2-4,10", "add 7-9"),
            (intel, "\n", "", "add 7-9"),
            (nvidia, "Allowed 802.1Q VLANs: 2 3 4 10\n", "2-4,10", "add 7 9"),
            (nvidia, "", "", "add 7 9"),
        ] {
            let vf = VfPosition { pf, index: 1 };
            tree.show_vlan_trunk(pf, 1, answer);
            assert_eq!(sysfs.vlan_trunk(vf).unwrap().unwrap().to_string(), trunk);
            sysfs.allow_vlans(vf, &"7-9".parse().unwrap()).unwrap();
            // A plain file keeps what a driver would have taken.
            assert_eq!(fs::read_to_string(sysfs.trunk_file(vf)).unwrap(), written);
            sysfs.forbid_vlans(vf, &"7".parse().unwrap()).unwrap();
            assert!(fs::read_to_string(sysfs.trunk_file(vf)).unwrap().starts_with("rem 7"));
        }
        let without = VfPosition { pf: intel, index: 0 };
        assert_eq!(sysfs.vlan_trunk(without).unwrap(), None);
    }
}
