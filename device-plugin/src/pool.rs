//! Which VF belongs to which pool: one pure function from the machine and the configuration to device sets.
//!
//! Only VFs of network controllers that are bound to a driver are offered, never a PF. Refuses to know how the machine
//! was read and who is told.

use std::collections::BTreeMap;

use zerobridge_kernel::{FunctionRole, PciFunction, VfPosition};
use zerobridge_proto::PciAddress;

use crate::config::PoolConfig;
use crate::selector::Candidate;

/// The devices of one pool, in address order.
pub(crate) type PoolDevices = BTreeMap<PciAddress, Device>;

/// A VF that is offered to the kubelet.
///
/// Nothing here depends on whether the VF's netdev is visible: a VF that is in a pod is the same device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Device {
    /// Its address, which is its ID at the kubelet.
    pub(crate) address: PciAddress,
    /// The PF it belongs to.
    pub(crate) pf: PciAddress,
    /// The driver it is bound to.
    pub(crate) driver: String,
    /// The NUMA node it is next to, if the machine says.
    pub(crate) numa_node: Option<u32>,
    /// Its IOMMU group, if there is an IOMMU.
    pub(crate) iommu_group: Option<u32>,
}

/// What became of the machine's VFs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Assignment {
    /// The devices of each pool, in the order of the configuration.
    pub(crate) pools: Vec<PoolDevices>,
    /// VFs that several pools select.
    pub(crate) conflicts: Vec<Conflict>,
}

/// A VF that two pools select. The earlier one has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Conflict {
    /// The VF.
    pub(crate) device: PciAddress,
    /// Position of the pool that has it.
    pub(crate) winner: usize,
    /// Position of the pool that does not.
    pub(crate) loser: usize,
}

/// Sorts the functions of a machine into pools. A VF goes to the first pool that selects it and to no other.
#[must_use]
pub(crate) fn assign(pools: &[PoolConfig], functions: &[PciFunction]) -> Assignment {
    let mut uplinks = BTreeMap::new();
    for function in functions {
        if let FunctionRole::Physical { uplinks: names, .. } = &function.role {
            uplinks.insert(function.address, names.as_slice());
        }
    }
    let mut assignment = Assignment { pools: vec![PoolDevices::new(); pools.len()], conflicts: Vec::new() };
    for function in functions {
        let Some((driver, position)) = offered(function) else { continue };
        let pf_names = uplinks.get(&position.pf).copied().unwrap_or_default();
        let candidate = Candidate { function, position, driver, pf_names };
        let mut winner = None;
        for (index, pool) in pools.iter().enumerate() {
            if !pool.selectors.admit(&candidate) {
                continue;
            }
            if let Some(winner) = winner {
                let device = function.address;
                assignment.conflicts.push(Conflict { device, winner, loser: index });
            } else {
                winner = Some(index);
                assignment.pools[index].insert(function.address, device(function, position, driver));
            }
        }
    }
    assignment
}

fn offered(function: &PciFunction) -> Option<(&str, VfPosition)> {
    match (&function.driver, &function.role) {
        (Some(driver), FunctionRole::Virtual(position)) if function.is_network_controller() => {
            Some((driver, *position))
        }
        _ => None,
    }
}

fn device(function: &PciFunction, position: VfPosition, driver: &str) -> Device {
    Device {
        address: function.address,
        pf: position.pf,
        driver: driver.to_owned(),
        numa_node: function.numa_node,
        iommu_group: function.iommu_group,
    }
}

#[cfg(test)]
mod tests {
    use zerobridge_kernel::Sysfs;
    use zerobridge_kernel::testing::{FakeFunction, SysfsTree};

    use super::*;
    use crate::config::Config;

    fn tree() -> (tempfile::TempDir, SysfsTree) {
        let folder = tempfile::tempdir().unwrap();
        let tree = SysfsTree::new(folder.path());
        tree.add_igb(0, 4);
        tree.add_igb(1, 2);
        (folder, tree)
    }

    fn assigned(tree: &SysfsTree, pools: &str) -> Assignment {
        let config = Config::parse(&format!(r#"{{"pools": [{pools}]}}"#)).unwrap();
        assign(&config.pools, &Sysfs::new(tree.root()).pci_functions().unwrap())
    }

    fn pool(name: &str, selectors: &str) -> String {
        format!(r#"{{"resourceName": "{name}", "selectors": {{{selectors}}}}}"#)
    }

    fn addresses(devices: &PoolDevices) -> Vec<String> {
        devices.keys().map(ToString::to_string).collect()
    }

    #[test]
    fn pools_take_the_vfs_they_select_in_address_order() {
        let (_folder, tree) = tree();
        let (blue, green) =
            (pool("blue", r#""pfNames": ["enp1s0f0#1-3"]"#), pool("green", r#""pfNames": ["enp1s0f1"]"#));
        let assignment = assigned(&tree, &format!("{blue},{green}"));
        assert_eq!(addresses(&assignment.pools[0]), ["0000:01:10.2", "0000:01:10.4", "0000:01:10.6"]);
        assert_eq!(addresses(&assignment.pools[1]), ["0000:01:10.1", "0000:01:10.3"]);
        assert_eq!(assignment.conflicts, []);
    }

    #[test]
    fn a_device_carries_what_the_kubelet_and_the_pod_will_need() {
        let (_folder, tree) = tree();
        let assignment = assigned(&tree, &pool("vf", r#""pciAddresses": ["01:10.2"]"#));
        let expected = Device {
            address: "0000:01:10.2".parse().unwrap(),
            pf: "0000:01:00.0".parse().unwrap(),
            driver: "igbvf".to_owned(),
            numa_node: Some(0),
            iommu_group: Some(101),
        };
        assert_eq!(assignment.pools[0].values().collect::<Vec<_>>(), [&expected]);
    }

    #[test]
    fn the_first_pool_keeps_what_two_select_and_the_conflict_is_told() {
        let (_folder, tree) = tree();
        let (first, rest) = (pool("first", r#""pfNames": ["enp1s0f0#0"]"#), pool("rest", r#""any": true"#));
        let assignment = assigned(&tree, &format!("{first},{rest}"));
        assert_eq!(addresses(&assignment.pools[0]), ["0000:01:10.0"]);
        assert_eq!(assignment.pools[1].len(), 5);
        let device = "0000:01:10.0".parse().unwrap();
        assert_eq!(assignment.conflicts, [Conflict { device, winner: 0, loser: 1 }]);
    }

    #[test]
    fn a_pf_is_never_offered() {
        let (_folder, tree) = tree();
        let assignment = assigned(&tree, &pool("vf", r#""vendors": ["8086"], "devices": ["10c9"]"#));
        assert!(assignment.pools[0].is_empty());
        let assignment = assigned(&tree, &pool("vf", r#""pciAddresses": ["01:00.0"]"#));
        assert!(assignment.pools[0].is_empty());
    }

    #[test]
    fn a_vf_of_something_else_than_a_network_card_is_not_offered() {
        let (_folder, tree) = tree();
        let crypto = FakeFunction { class: 0x0b_4000, ..FakeFunction::igb_vf(0, 6) };
        tree.add(&crypto);
        tree.link_vf("0000:01:00.0".parse().unwrap(), 6, crypto.address);
        assert_eq!(assigned(&tree, &pool("vf", r#""any": true"#)).pools[0].len(), 6);
    }

    #[test]
    fn a_vf_without_a_driver_is_not_offered_until_it_has_one() {
        let (_folder, tree) = tree();
        let vf = "0000:01:10.0".parse().unwrap();
        let any = pool("vf", r#""any": true"#);
        tree.bind(vf, None);
        assert!(!assigned(&tree, &any).pools[0].contains_key(&vf));
        tree.bind(vf, Some("vfio-pci"));
        assert_eq!(assigned(&tree, &any).pools[0][&vf].driver, "vfio-pci");
    }

    #[test]
    fn a_vf_in_a_pod_is_the_same_device() {
        let (_folder, tree) = tree();
        let pools = pool("vf", r#""pfNames": ["enp1s0f0"], "drivers": ["igbvf"]"#);
        let before = assigned(&tree, &pools);
        tree.hide_netdev("0000:01:10.0".parse().unwrap(), "enp1s0f0v0");
        assert_eq!(assigned(&tree, &pools), before);
    }
}
