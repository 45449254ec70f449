//! Which functions have an RDMA device that is in a pod. In exclusive mode the host's sysfs does not show it, not every
//! driver says that there is one, and the kubelet says a moment late who has the function: without this, the VF would be
//! out of its pool for that moment.
//!
//! Refuses to know which pod.

use std::collections::BTreeMap;

use zerobridge_kernel::{Machine, PciFunction};
use zerobridge_proto::PciAddress;

/// The functions that have an RDMA device, here or in a pod, as far as that was ever seen, and the driver of each.
pub(super) type Seen = BTreeMap<PciAddress, String>;

/// What is so now, after `former`. A function keeps an RDMA device that is not here as long as its driver is the same and
/// its netdev is not here either: a CNI plugin takes both, and a netdev alone is that of a function that lost its RDMA.
pub(super) fn seen(former: &Seen, machine: &Machine, exclusive: bool) -> Seen {
    let has = |function: &PciFunction, driver: &String| {
        let gone_together = exclusive && function.netdevs.is_empty();
        !function.rdma.is_empty() || (gone_together && former.get(&function.address) == Some(driver))
    };
    let functions = machine.functions.values();
    let with_driver = functions.filter_map(|function| Some((function, function.driver.clone()?)));
    with_driver
        .filter(|(function, driver)| has(function, driver))
        .map(|(function, driver)| (function.address, driver))
        .collect()
}

#[cfg(test)]
mod tests {
    use zerobridge_kernel::testing::SysfsTree;
    use zerobridge_kernel::{Scanner, Sysfs};

    use super::*;

    #[test]
    fn an_rdma_device_that_left_with_its_netdev_is_still_its_functions() {
        let folder = tempfile::tempdir().unwrap();
        let tree = SysfsTree::new(folder.path());
        tree.add_bnxt(0, 1);
        let vf: PciAddress = "0000:5e:02.0".parse().unwrap();
        let look = |former: &Seen, exclusive| {
            seen(former, &Scanner::new(Sysfs::new(tree.root())).scan().unwrap(), exclusive)
        };
        let before = look(&Seen::new(), true);
        assert_eq!(before[&vf], "bnxt_en");
        assert_eq!(before.len(), 2, "the PF and its VF");

        // The driver of its RDMA was unloaded.
        tree.hide_rdma("bnxt_re2");
        assert!(!look(&before, true).contains_key(&vf));
        // It is in a pod, for longer than one look.
        tree.hide_netdev(vf, "ens3f0v0");
        let away = look(&before, true);
        assert_eq!(away, before);
        assert_eq!(look(&away, true), before);
        // Nobody has seen it before, or it would be here.
        assert!(!look(&Seen::new(), true).contains_key(&vf));
        assert!(!look(&before, false).contains_key(&vf));
        // Another driver has it, or none.
        for driver in [Some("vfio-pci"), None] {
            tree.bind(vf, driver);
            assert!(!look(&before, true).contains_key(&vf), "{driver:?}");
        }
    }
}
