//! What the PCIe bus reported about a function (Advanced Error Reporting).

use zerobridge_proto::PciAddress;

use super::{Sysfs, attribute};

impl Sysfs {
    /// How many fatal errors were counted on a function since it was found; `None` where nobody counts, which is so on a
    /// machine without AER, on most VFs, and on a function that is gone.
    ///
    /// The last line of `aer_dev_fatal` (Documentation/ABI/testing/sysfs-bus-pci-devices-aer).
    #[must_use]
    pub fn aer_fatal_errors(&self, address: PciAddress) -> Option<u64> {
        let text = attribute::text(&self.function(address).file("aer_dev_fatal")).ok()?;
        text.lines().find_map(|line| line.strip_prefix("TOTAL_ERR_FATAL"))?.trim().parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::super::SysfsTree;
    use super::*;

    #[test]
    fn the_total_is_taken_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let (tree, sysfs) = (SysfsTree::new(folder.path()), Sysfs::new(folder.path()));
        tree.add_igb(0, 1);
        let [pf, vf, absent] =
            ["0000:01:00.0", "0000:01:10.0", "0000:01:00.1"].map(|text| text.parse().unwrap());
        tree.aer(pf, 3);
        assert_eq!(sysfs.aer_fatal_errors(pf), Some(3));
        assert_eq!((sysfs.aer_fatal_errors(vf), sysfs.aer_fatal_errors(absent)), (None, None));
        tree.write(vf, "aer_dev_fatal", "Undefined 1\nTOTAL_ERR_COR 2\n");
        assert_eq!(sysfs.aer_fatal_errors(vf), None);
    }
}
