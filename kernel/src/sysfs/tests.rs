//! Questions about one function, to a tree of files in a folder.

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
fn a_function_without_sriov_has_no_position() {
    let (_folder, tree, sysfs) = tree();
    tree.add_igb(0, 2);
    let [bridge, pf, vf] = ["0000:00:01.0", "0000:01:00.0", "0000:01:10.2"].map(address);
    for (function, position) in [(bridge, None), (pf, None), (vf, Some(VfPosition { pf, index: 1 }))] {
        assert_eq!(sysfs.vf_position(function).unwrap(), position, "{function}");
    }
    let vfs = BTreeMap::from([(0, address("0000:01:10.0")), (1, vf)]);
    assert_eq!((sysfs.vfs(pf).unwrap(), sysfs.vfs(bridge).unwrap()), (vfs, BTreeMap::new()));
}

#[test]
fn a_vf_in_another_namespace_has_no_netdev() {
    let (_folder, tree, sysfs) = tree();
    tree.add_igb(0, 1);
    let vf = address("0000:01:10.0");
    assert_eq!(sysfs.netdevs_of(vf).unwrap(), ["enp1s0f0v0"]);
    assert_eq!(sysfs.function_of("enp1s0f0v0").unwrap(), Some(vf));

    tree.hide_netdev(vf, "enp1s0f0v0");
    assert_eq!(sysfs.netdevs_of(vf).unwrap(), Vec::<String>::new());
    assert_eq!(sysfs.function_of("enp1s0f0v0").unwrap(), None);
    assert_eq!(sysfs.function_of("lo").unwrap(), None);
}

#[test]
fn an_absent_function_is_named() {
    let (_folder, _tree, sysfs) = tree();
    let absent = address("0000:01:10.0");
    for error in [
        sysfs.netdevs_of(absent).unwrap_err(),
        sysfs.driver_of(absent).unwrap_err(),
        sysfs.vf_position(absent).unwrap_err(),
        sysfs.pf_netdev(absent).unwrap_err(),
        sysfs.character_devices(absent).unwrap_err(),
    ] {
        assert!(
            matches!(&error, SysfsError::NoSuchFunction { address, .. } if *address == absent),
            "{error}"
        );
        assert!(error.to_string().contains("0000:01:10.0"), "{error}");
    }
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
fn a_vf_of_a_function_with_two_ports_is_administered_through_its_own() {
    let (_folder, tree, sysfs) = tree();
    tree.add_igb(0, 1);
    let (pf, vf) = (address("0000:01:00.0"), address("0000:01:10.0"));
    let administered_through = || sysfs.pf_netdev_of(vf, pf).unwrap();
    tree.show_netdev(pf, "enp1s0f0d1");
    for (netdev, port) in [("enp1s0f0", "0\n"), ("enp1s0f0d1", "1\n")] {
        tree.write(pf, &format!("net/{netdev}/dev_port"), port);
    }
    for (port, netdev) in [("0\n", "enp1s0f0"), ("1\n", "enp1s0f0d1"), ("7\n", "enp1s0f0")] {
        tree.write(vf, "net/enp1s0f0v0/dev_port", port);
        assert_eq!(administered_through(), netdev, "{port}");
    }
    tree.hide_netdev(vf, "enp1s0f0v0");
    assert_eq!(administered_through(), "enp1s0f0");
}

#[test]
fn only_a_network_controller_is_one() {
    let (_folder, tree, sysfs) = tree();
    tree.add_igb(0, 0);
    for (function, is) in [("0000:01:00.0", true), ("0000:00:01.0", false)] {
        assert_eq!(sysfs.is_network_controller(address(function)).unwrap(), is, "{function}");
    }
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
fn a_vf_that_its_pf_does_not_list_yet_is_named() {
    let (_folder, tree, sysfs) = tree();
    tree.add_igb(0, 2);
    let (pf, vf) = (address("0000:01:00.0"), address("0000:01:10.2"));
    std::fs::remove_file(tree.root().join(format!("bus/pci/devices/{pf}/virtfn1"))).unwrap();
    let error = sysfs.vf_position(vf).unwrap_err();
    assert!(matches!(error, SysfsError::Unlinked { vf: v, pf: p } if (v, p) == (vf, pf)));
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
