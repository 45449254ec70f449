//! A tree of files in a folder, and, where this machine has PCI functions, its own `/sys`.

use std::collections::BTreeMap;

use super::*;

fn tree() -> (tempfile::TempDir, SysfsTree, Sysfs) {
    let folder = tempfile::tempdir().unwrap();
    let tree = SysfsTree::new(folder.path());
    let sysfs = Sysfs::new(folder.path());
    (folder, tree, sysfs)
}

fn address(text: &str) -> PciAddress {
    text.parse().unwrap()
}

#[test]
fn a_vf_is_described_completely() {
    let (_folder, tree, sysfs) = tree();
    tree.add_igb(0, 3);

    let expected = PciFunction {
        address: address("0000:01:10.4"),
        vendor: 0x8086,
        device: 0x10ca,
        class: 0x02_0000,
        driver: Some("igbvf".to_owned()),
        numa_node: Some(0),
        iommu_group: Some(102),
        netdevs: vec!["enp1s0f0v2".to_owned()],
        role: FunctionRole::Virtual(VfPosition { pf: address("0000:01:00.0"), index: 2 }),
    };
    assert_eq!(sysfs.pci_function(address("0000:01:10.4")).unwrap(), expected);
    assert!(sysfs.pci_functions().unwrap().contains(&expected));
    assert!(expected.is_network_controller());
}

#[test]
fn a_pf_lists_its_vfs_by_index_and_leaves_gaps_where_they_are() {
    let (_folder, tree, sysfs) = tree();
    tree.add_igb(0, 3);
    tree.remove(address("0000:01:10.2"));

    let function = sysfs.pci_function(address("0000:01:00.0")).unwrap();
    let vfs = BTreeMap::from([(0, address("0000:01:10.0")), (2, address("0000:01:10.4"))]);
    let uplinks = vec!["enp1s0f0".to_owned()];
    assert_eq!(function.role, FunctionRole::Physical { total_vfs: 7, vfs, uplinks });
}

#[test]
fn a_function_without_sriov_is_plain_and_may_have_next_to_nothing() {
    let (_folder, tree, sysfs) = tree();
    let bridge = FakeFunction {
        address: address("0000:00:1f.0"),
        class: 0x06_0100,
        driver: None,
        numa_node: -1,
        iommu_group: None,
        netdevs: Vec::new(),
        ..FakeFunction::igb_pf(0)
    };
    tree.add(&bridge);

    let function = sysfs.pci_function(bridge.address).unwrap();
    assert_eq!(function.role, FunctionRole::Plain);
    assert_eq!((function.driver, function.numa_node, function.iommu_group), (None, None, None));
    assert_eq!(sysfs.vf_position(bridge.address).unwrap(), None);
}

#[test]
fn functions_come_in_address_order() {
    let (_folder, tree, sysfs) = tree();
    tree.add_igb(1, 2);
    tree.add_igb(0, 2);
    let shown: Vec<String> = sysfs.pci_functions().unwrap().iter().map(|f| f.address.to_string()).collect();
    assert_eq!(
        shown,
        ["0000:01:00.0", "0000:01:00.1", "0000:01:10.0", "0000:01:10.1", "0000:01:10.2", "0000:01:10.3"]
    );
}

#[test]
fn a_vf_in_another_namespace_has_no_netdev_and_all_the_rest() {
    let (_folder, tree, sysfs) = tree();
    tree.add_igb(0, 1);
    let vf = address("0000:01:10.0");
    let before = sysfs.pci_function(vf).unwrap();
    tree.hide_netdev(vf, "enp1s0f0v0");

    assert_eq!(sysfs.netdevs_of(vf).unwrap(), Vec::<String>::new());
    assert_eq!(sysfs.pci_function(vf).unwrap(), PciFunction { netdevs: Vec::new(), ..before });
    assert_eq!(sysfs.function_of("enp1s0f0v0").unwrap(), None);
}

#[test]
fn an_absent_function_is_named() {
    let (_folder, _tree, sysfs) = tree();
    let absent = address("0000:01:10.0");
    for error in [
        sysfs.pci_function(absent).unwrap_err(),
        sysfs.netdevs_of(absent).unwrap_err(),
        sysfs.driver_of(absent).unwrap_err(),
        sysfs.vf_position(absent).unwrap_err(),
        sysfs.pf_netdev(absent).unwrap_err(),
    ] {
        assert!(
            matches!(&error, SysfsError::NoSuchFunction { address, .. } if *address == absent),
            "{error}"
        );
        assert!(error.to_string().contains("0000:01:10.0"), "{error}");
    }
}

#[test]
fn a_sysfs_without_pci_is_an_error_and_not_an_empty_machine() {
    let folder = tempfile::tempdir().unwrap();
    let error = Sysfs::new(folder.path()).pci_functions().unwrap_err();
    assert!(error.to_string().ends_with("bus/pci/devices"), "{error}");
}

#[test]
fn representors_are_not_taken_for_the_port() {
    let (_folder, tree, sysfs) = tree();
    tree.add_igb(0, 0);
    let pf = address("0000:01:00.0");
    for (netdev, port) in
        [("enp1s0f0", "p0"), ("eth0", "pf0vf0"), ("a0", "c1pf0vf5"), ("b0", "pf0sf88"), ("c0", "pf0")]
    {
        if netdev != "enp1s0f0" {
            tree.show_netdev(pf, netdev);
        }
        tree.write(pf, &format!("net/{netdev}/phys_port_name"), &format!("{port}\n"));
    }
    assert_eq!(sysfs.uplinks(pf).unwrap(), ["enp1s0f0"]);
    assert_eq!(sysfs.pf_netdev(pf).unwrap(), "enp1s0f0");
    assert_eq!(sysfs.netdevs_of(pf).unwrap().len(), 5);
}

#[test]
fn both_ports_of_one_function_are_uplinks() {
    let (_folder, tree, sysfs) = tree();
    tree.add_igb(0, 0);
    let pf = address("0000:01:00.0");
    tree.show_netdev(pf, "enp1s0f0d1");
    tree.write(pf, "net/enp1s0f0d1/phys_port_name", "p1s0\n");
    assert_eq!(sysfs.uplinks(pf).unwrap(), ["enp1s0f0", "enp1s0f0d1"]);
}

#[test]
fn a_pf_without_a_netdev_says_so() {
    let (_folder, tree, sysfs) = tree();
    tree.add_igb(0, 1);
    let pf = address("0000:01:00.0");
    tree.hide_netdev(pf, "enp1s0f0");
    assert!(matches!(sysfs.pf_netdev(pf).unwrap_err(), SysfsError::NoPfNetdev { pf: named } if named == pf));
}

#[test]
fn a_vf_that_its_pf_does_not_list_yet_is_left_out_of_a_walk_and_named_alone() {
    let (_folder, tree, sysfs) = tree();
    tree.add_igb(0, 2);
    let (pf, vf) = (address("0000:01:00.0"), address("0000:01:10.2"));
    std::fs::remove_file(tree.root().join("bus/pci/devices").join(pf.to_string()).join("virtfn1")).unwrap();

    let seen: Vec<PciAddress> = sysfs.pci_functions().unwrap().iter().map(|f| f.address).collect();
    assert_eq!(seen, [pf, address("0000:01:10.0")]);
    let error = sysfs.pci_function(vf).unwrap_err();
    assert!(matches!(error, SysfsError::Unlinked { vf: v, pf: p } if (v, p) == (vf, pf)));
}

#[test]
fn a_function_that_goes_during_a_walk_is_left_out() {
    let (_folder, tree, sysfs) = tree();
    tree.add_igb(0, 1);
    std::os::unix::fs::symlink("../../../devices/gone", tree.root().join("bus/pci/devices/0000:05:00.0"))
        .unwrap();
    assert_eq!(sysfs.pci_functions().unwrap().len(), 2);
}

#[test]
fn nonsense_is_reported_with_its_file_and_never_panics() {
    let (_folder, tree, sysfs) = tree();
    tree.add_igb(0, 1);
    let vf = address("0000:01:10.0");
    for (attribute, good, bad) in [
        ("vendor", "0x8086\n", ["", "0", "8086", "0x12345", "0xzz"]),
        ("class", "0x020000\n", ["", "0", "é", "0x123456789", "0x-1"]),
        ("numa_node", "0\n", ["", "x", "-", "99999999999", "0x1"]),
    ] {
        for text in bad {
            tree.write(vf, attribute, text);
            let error = sysfs.pci_function(vf).unwrap_err();
            assert!(matches!(error, SysfsError::Malformed { .. }), "{attribute} = {text:?}: {error}");
            assert!(error.to_string().contains(&format!("10.0/{attribute} holds \"{text}\"")), "{error}");
            assert!(sysfs.pci_functions().is_err());
        }
        tree.write(vf, attribute, good);
        sysfs.pci_function(vf).unwrap();
    }
}

#[test]
fn a_netdev_leads_to_its_function() {
    let (_folder, tree, sysfs) = tree();
    tree.add_igb(0, 1);
    assert_eq!(sysfs.function_of("enp1s0f0v0").unwrap(), Some(address("0000:01:10.0")));
    assert_eq!(sysfs.function_of("lo").unwrap(), None);
}

#[test]
fn rebinding_is_seen() {
    let (_folder, tree, sysfs) = tree();
    tree.add_igb(0, 1);
    let vf = address("0000:01:10.0");
    assert_eq!(sysfs.driver_of(vf).unwrap().as_deref(), Some("igbvf"));
    tree.bind(vf, Some("vfio-pci"));
    assert_eq!(sysfs.driver_of(vf).unwrap().as_deref(), Some("vfio-pci"));
    tree.bind(vf, None);
    assert_eq!(sysfs.driver_of(vf).unwrap(), None);
}

/// The tree above is a picture of sysfs; this asks the original whether the reader understands it.
#[test]
fn the_functions_of_this_machine_are_read() {
    let sysfs = Sysfs::new("/sys");
    let Ok(names) = std::fs::read_dir("/sys/bus/pci/devices") else { return };
    let functions = sysfs.pci_functions().unwrap();
    assert_eq!(functions.len(), names.count());
    for function in functions {
        assert_eq!(sysfs.pci_function(function.address).unwrap(), function);
    }
}
