//! Looks at a tree of files in a folder, and, where this machine has PCI functions, at its own `/sys`.

use std::os::unix::fs::symlink;

use super::super::{FakeFunction, FakeRdma, RdmaPort, SysfsTree};
use super::*;

fn tree() -> (tempfile::TempDir, SysfsTree, Scanner) {
    let folder = tempfile::tempdir().unwrap();
    let tree = SysfsTree::new(folder.path());
    let scanner = Scanner::new(Sysfs::new(folder.path()));
    (folder, tree, scanner)
}

fn at(text: &str) -> PciAddress {
    text.parse().unwrap()
}

fn ethernet(name: &str) -> Netdev {
    Netdev { name: name.to_owned(), link_type: LinkType::Ethernet, port_name: None }
}

fn shown(machine: &Machine) -> Vec<String> {
    machine.functions.keys().map(ToString::to_string).collect()
}

/// A look of a scanner that has looked before is that of one that has not.
fn scan(scanner: &mut Scanner) -> Machine {
    let machine = scanner.scan().unwrap();
    assert_eq!(machine, Scanner::new(scanner.sysfs.clone()).scan().unwrap());
    machine
}

#[test]
fn a_vf_is_described_completely() {
    let (_folder, tree, mut scanner) = tree();
    tree.add_igb(0, 3);
    let vf = at("0000:01:10.4");
    let expected = PciFunction {
        address: vf,
        vendor: 0x8086,
        device: 0x10ca,
        class: 0x02_0000,
        driver: Some("igbvf".to_owned()),
        numa_node: Some(0),
        iommu_group: Some(102),
        acpi_index: None,
        upstream: vec![at("0000:00:01.0")],
        netdevs: vec![ethernet("enp1s0f0v2")],
        rdma: Vec::new(),
        vdpa: None,
        role: FunctionRole::Virtual(VfPosition { pf: at("0000:01:00.0"), index: 2 }),
    };
    assert_eq!(scan(&mut scanner).functions[&vf], expected);
    assert!(expected.is_network_controller());
}

#[test]
fn a_pf_lists_its_vfs_by_index_and_leaves_gaps_where_they_are() {
    let (_folder, tree, mut scanner) = tree();
    tree.add_igb(0, 3);
    tree.remove(at("0000:01:10.2"));
    let vfs = BTreeMap::from([(0, at("0000:01:10.0")), (2, at("0000:01:10.4"))]);
    let role = FunctionRole::Physical { total_vfs: 7, vfs, uplinks: vec!["enp1s0f0".to_owned()] };
    assert_eq!(scan(&mut scanner).functions[&at("0000:01:00.0")].role, role);
}

#[test]
fn a_function_without_sriov_is_plain_and_may_have_next_to_nothing() {
    let (_folder, tree, mut scanner) = tree();
    let bridge = FakeFunction { driver: None, ..FakeFunction::bridge(at("0000:00:1f.0"), -1) };
    tree.add(&bridge);
    let machine = scan(&mut scanner);
    let function = &machine.functions[&bridge.address];
    assert_eq!(function.role, FunctionRole::Plain);
    assert_eq!((function.numa_node, function.iommu_group, function.acpi_index), (None, None, None));
    assert_eq!((&function.driver, function.upstream.len()), (&None, 0));
}

#[test]
fn functions_come_in_address_order_and_bridges_are_among_them() {
    let (_folder, tree, mut scanner) = tree();
    tree.add_igb(1, 1);
    tree.add_igb(0, 1);
    let expected = ["0000:00:01.0", "0000:01:00.0", "0000:01:00.1", "0000:01:10.0", "0000:01:10.1"];
    assert_eq!(shown(&scan(&mut scanner)), expected);
}

#[test]
fn a_vf_in_a_pod_keeps_all_but_its_netdev_and_its_rdma_device() {
    let (_folder, tree, mut scanner) = tree();
    tree.add_mlx5(0, 1);
    let vf = at("0000:3d:00.2");
    let before = scan(&mut scanner).functions[&vf].clone();
    assert_eq!((before.netdevs.len(), before.rdma.len()), (1, 1));

    tree.hide_netdev(vf, "ens1f0v0");
    tree.hide_rdma("mlx5_2");
    let without = PciFunction { netdevs: Vec::new(), rdma: Vec::new(), ..before.clone() };
    assert_eq!(scan(&mut scanner).functions[&vf], without);

    tree.show_netdev(vf, "ens1f0v0");
    tree.show_rdma(vf, &FakeRdma::mlx5_vf(0, 0));
    assert_eq!(scan(&mut scanner).functions[&vf], before);
}

#[test]
fn what_changes_between_two_looks_is_seen() {
    let (_folder, tree, mut scanner) = tree();
    tree.add_igb(0, 1);
    let (pf, vf) = (at("0000:01:00.0"), at("0000:01:10.0"));
    scan(&mut scanner);

    tree.bind(vf, Some("vfio-pci"));
    assert_eq!(scan(&mut scanner).functions[&vf].driver.as_deref(), Some("vfio-pci"));
    tree.bind(vf, None);
    assert_eq!(scan(&mut scanner).functions[&vf].driver, None);

    let new = tree.add_igb_vf(0, 1);
    assert_eq!(scan(&mut scanner).functions[&new].role, FunctionRole::Virtual(VfPosition { pf, index: 1 }));
    tree.remove(new);
    assert_eq!(shown(&scan(&mut scanner)), ["0000:00:01.0", "0000:01:00.0", "0000:01:10.0"]);

    tree.hide_netdev(pf, "enp1s0f0");
    tree.show_netdev(pf, "lan");
    let FunctionRole::Physical { uplinks, .. } = &scan(&mut scanner).functions[&pf].role else { panic!() };
    assert_eq!(uplinks, &["lan"]);

    tree.write(pf, "sriov_totalvfs", "5\n");
    let FunctionRole::Physical { total_vfs, .. } = scan(&mut scanner).functions[&pf].role else { panic!() };
    assert_eq!(total_vfs, 5);
}

#[test]
fn another_function_at_the_same_address_is_read_anew() {
    let (_folder, tree, mut scanner) = tree();
    tree.add_igb(0, 1);
    scan(&mut scanner);
    let vf = at("0000:01:10.0");
    tree.remove(vf);
    tree.add(&FakeFunction { device: 0x1520, numa_node: 1, ..FakeFunction::igb_vf(0, 0) });
    tree.link_vf(at("0000:01:00.0"), 4, vf);
    let function = &scan(&mut scanner).functions[&vf];
    assert_eq!((function.device, function.numa_node), (0x1520, Some(1)));
    assert!(matches!(function.role, FunctionRole::Virtual(VfPosition { index: 4, .. })));
}

#[test]
fn an_iommu_group_comes_and_goes_with_vfio_and_may_have_an_old_number() {
    let (_folder, tree, mut scanner) = tree();
    let [one, other] =
        [0, 1].map(|index| FakeFunction { iommu_group: None, ..FakeFunction::igb_vf(0, index) });
    tree.add(&one);
    tree.add(&other);
    let groups = |scanner: &mut Scanner| {
        let machine = scan(scanner);
        [&one, &other].map(|function| machine.functions[&function.address].iommu_group)
    };
    assert_eq!(groups(&mut scanner), [None, None]);
    tree.show_vfio_noiommu(one.address, 0, 0);
    assert_eq!(groups(&mut scanner), [Some(0), None]);
    tree.leave_iommu_group(one.address);
    tree.show_vfio_noiommu(other.address, 1, 0);
    assert_eq!(groups(&mut scanner), [None, Some(0)]);
    tree.leave_iommu_group(other.address);
    assert_eq!(groups(&mut scanner), [None, None]);
}

#[test]
fn a_vf_that_comes_or_goes_is_neither_a_vf_nor_a_plain_function() {
    let (_folder, tree, mut scanner) = tree();
    tree.add_igb(0, 1);
    let (pf, vf) = (at("0000:01:00.0"), at("0000:01:10.0"));
    scan(&mut scanner);
    // A scanner that knew the VF needs no more to know it.
    tree.unlink_vf(vf);
    assert_eq!(shown(&scanner.scan().unwrap()), ["0000:00:01.0", "0000:01:00.0"]);
    // One that did not goes by the attribute that only VFs have, or by the link if that is left.
    tree.write(vf, "sriov_vf_msix_count", "0\n");
    assert_eq!(shown(&scan(&mut scanner)), ["0000:00:01.0", "0000:01:00.0"]);
    tree.link_vf(pf, 0, vf);
    assert_eq!(scan(&mut scanner).functions.len(), 3);
    std::fs::remove_file(tree.root().join(format!("bus/pci/devices/{pf}/virtfn0"))).unwrap();
    std::fs::remove_file(tree.root().join(format!("bus/pci/devices/{vf}/sriov_vf_msix_count"))).unwrap();
    assert_eq!(scan(&mut scanner).functions.len(), 2);
}

#[test]
fn a_new_vf_is_not_taken_for_a_plain_function_for_good() {
    let (_folder, tree, mut scanner) = tree();
    tree.add_igb(0, 0);
    let vf = FakeFunction::igb_vf(0, 0);
    tree.add(&vf);
    assert_eq!(scan(&mut scanner).functions[&vf.address].role, FunctionRole::Plain);
    tree.link_vf(at("0000:01:00.0"), 0, vf.address);
    assert!(matches!(scan(&mut scanner).functions[&vf.address].role, FunctionRole::Virtual(_)));
    tree.unlink_vf(vf.address);
    assert_eq!(scanner.scan().unwrap().functions[&vf.address].role, FunctionRole::Plain);
}

#[test]
fn a_function_that_goes_during_a_look_is_left_out() {
    let (_folder, tree, mut scanner) = tree();
    tree.add_igb(0, 1);
    for (link, target) in [
        ("bus/pci/devices/0000:05:00.0", "../../../devices/pci0000:05/0000:05:00.0"),
        ("class/net/gone", "../../devices/pci0000:00/0000:00:01.0/0000:01:00.0/net/gone"),
    ] {
        symlink(target, tree.root().join(link)).unwrap();
    }
    // Plain files among the links, and names that are no addresses.
    std::fs::write(tree.root().join("class/net/bonding_masters"), "\n").unwrap();
    std::fs::write(tree.root().join("bus/pci/drivers/igb/bind"), "").unwrap();
    let machine = scan(&mut scanner);
    assert_eq!(machine.functions.len(), 3);
    assert_eq!(machine.functions[&at("0000:01:00.0")].netdevs, [ethernet("enp1s0f0")]);
}

#[test]
fn a_sysfs_without_pci_is_an_error_and_not_an_empty_machine() {
    let folder = tempfile::tempdir().unwrap();
    let error = Scanner::new(Sysfs::new(folder.path())).scan().unwrap_err();
    assert!(error.to_string().ends_with("bus/pci/devices"), "{error}");
}

#[test]
fn nonsense_is_reported_with_its_file_and_harms_no_later_look() {
    let (_folder, tree, mut scanner) = tree();
    tree.add_mlx5_infiniband(0, 1);
    tree.add_mlx5_sf(0, 4, 88);
    let good = scan(&mut scanner);
    let vf = "0000:3d:00.2";
    for (owner, attribute, right, wrong) in [
        (
            vf,
            "modalias",
            "pci:v000015B3d0000101Esv000015B3sd00000000bc02sc07i00\n",
            ["", "pci:", "0x15b3", "é", "usb:v1"],
        ),
        (vf, "numa_node", "1\n", ["", "x", "-", "99999999999", "0x1"]),
        (vf, "net/ibs1f0v0/type", "32\n", ["", "x", "-1", "65536", "0x20"]),
        (
            vf,
            "infiniband/mlx5_2/ports/1/state",
            "4: ACTIVE\n",
            ["", "4", "ACTIVE", "x: ACTIVE", "-4: ACTIVE"],
        ),
        (vf, "infiniband/mlx5_2/ports/1/pkeys/0", "0xffff\n", ["", "ffff", "0x", "0x10000", "0xzz"]),
        ("mlx5_core.sf.4", "sfnum", "88\n", ["", "x", "-1", "4294967296", "0x58"]),
    ] {
        for text in wrong {
            tree.write(owner, attribute, text);
            let error = Scanner::new(scanner.sysfs.clone()).scan().unwrap_err();
            assert!(matches!(error, SysfsError::Malformed { .. }), "{attribute} = {text:?}: {error}");
            let file = attribute.split_once('/').map_or(attribute, |(_, file)| file);
            assert!(error.to_string().contains(&format!("{file} holds \"{text}\"")), "{error}");
            // Only what can change is read again.
            drop(scanner.scan());
        }
        tree.write(owner, attribute, right);
        assert_eq!(scan(&mut scanner), good);
    }
}

#[test]
fn rdma_ports_are_read_each_time() {
    let (_folder, tree, mut scanner) = tree();
    tree.add_mlx5(0, 0);
    tree.add_mlx5_infiniband(1, 0);
    let ports = |scanner: &mut Scanner| {
        let machine = scan(scanner);
        ["0000:3d:00.0", "0000:3d:00.1"].map(|pf| machine.functions[&at(pf)].rdma[0].ports[0].clone())
    };
    let [mut roce, mut infiniband] = ports(&mut scanner);
    assert_eq!(roce, RdmaPort { number: 1, active: true, pkey: None });
    assert_eq!(infiniband, RdmaPort { number: 1, active: true, pkey: Some(0xffff) });

    tree.port_state("mlx5_0", "1: DOWN");
    tree.port_state("mlx5_1", "2: INIT");
    tree.default_pkey("mlx5_1", 0x8001);
    (roce.active, infiniband.active, infiniband.pkey) = (false, false, Some(0x8001));
    assert_eq!(ports(&mut scanner), [roce, infiniband]);
}

#[test]
fn the_link_type_of_infiniband_is_told() {
    let (_folder, tree, mut scanner) = tree();
    tree.add_mlx5_infiniband(0, 1);
    let function = &scan(&mut scanner).functions[&at("0000:3d:00.2")];
    let netdev = Netdev { name: "ibs1f0v0".to_owned(), link_type: LinkType::Infiniband, port_name: None };
    assert_eq!((&function.netdevs, function.class), (&vec![netdev], 0x02_0700));
}

#[test]
fn an_rdma_device_made_by_software_belongs_to_the_function_of_its_netdev() {
    let (_folder, tree, mut scanner) = tree();
    tree.add_igb(0, 1);
    let rxe = FakeRdma { name: "rxe0".to_owned(), number: 0, infiniband: false };
    tree.show_soft_rdma("enp1s0f0v0", &rxe);
    tree.show_soft_rdma("lo", &FakeRdma { name: "rxe1".to_owned(), number: 1, ..rxe });
    let machine = scan(&mut scanner);
    let names = |text| machine.functions[&at(text)].rdma.iter().map(|rdma| &*rdma.name).collect::<Vec<_>>();
    assert_eq!((names("0000:01:10.0"), names("0000:01:00.0")), (vec!["rxe0"], vec![]));
}

#[test]
fn a_scalable_function_is_a_device_of_its_own_and_other_parts_are_not() {
    let (_folder, tree, mut scanner) = tree();
    tree.add_mlx5(0, 0);
    let name = tree.add_mlx5_sf(0, 4, 88);
    tree.add_vdpa(&name, "vdpa7", Some("vhost_vdpa"), 3);
    let machine = scan(&mut scanner);
    let rdma = RdmaDevice {
        name: "mlx5_104".to_owned(),
        ports: vec![RdmaPort { number: 1, active: true, pkey: None }],
    };
    let expected = AuxDevice {
        name: name.clone(),
        kind: "sf".to_owned(),
        parent: at("0000:3d:00.0"),
        sf_number: Some(88),
        driver: Some("mlx5_core.sf".to_owned()),
        netdevs: vec![ethernet("ens1f0s88")],
        rdma: vec![rdma],
        vdpa: Some(VdpaDevice {
            name: "vdpa7".to_owned(),
            driver: Some("vhost_vdpa".to_owned()),
            vhost: Some("vhost-vdpa-3".to_owned()),
        }),
    };
    assert_eq!(machine.auxiliaries, BTreeMap::from([(name, expected)]));
    assert_eq!(machine.functions[&at("0000:3d:00.0")].netdevs, [ethernet("ens1f0np0")]);
}

#[test]
fn a_vdpa_device_follows_its_driver() {
    let (_folder, tree, mut scanner) = tree();
    tree.add_mlx5(0, 1);
    let vf = at("0000:3d:00.2");
    let vdpa = |scanner: &mut Scanner| scan(scanner).functions[&vf].vdpa.clone();
    assert_eq!(vdpa(&mut scanner), None);
    tree.add_vdpa(vf, "blue", None, 0);
    let mut expected = VdpaDevice { name: "blue".to_owned(), driver: None, vhost: None };
    assert_eq!(vdpa(&mut scanner), Some(expected.clone()));
    tree.bind("blue", Some("virtio_vdpa"));
    expected.driver = Some("virtio_vdpa".to_owned());
    assert_eq!(vdpa(&mut scanner), Some(expected));
}

#[test]
fn a_switch_shows_uplinks_and_representors() {
    let (_folder, tree, mut scanner) = tree();
    tree.add_mlx5(1, 3);
    let pf = at("0000:3d:00.1");
    let vf = |index| VfPosition { pf, index };
    assert_eq!(scan(&mut scanner).representor_of(vf(1)), None);

    tree.hide_netdev(pf, "ens1f1np1");
    tree.show_netdev(pf, "ens1f1np1");
    tree.switchdev_mlx5(1, 2);
    tree.show_netdev(pf, "other");
    tree.write(pf, "net/other/phys_port_name", "c1pf1vf2\n");
    let machine = scan(&mut scanner);
    let FunctionRole::Physical { uplinks, .. } = &machine.functions[&pf].role else { panic!() };
    assert_eq!(uplinks, &["ens1f1np1"]);
    for (index, representor) in
        [(0, Some("ens1f1npf1vf0")), (1, Some("ens1f1npf1vf1")), (2, None), (10, None)]
    {
        assert_eq!(machine.representor_of(vf(index)), representor, "VF {index}");
    }
    assert_eq!(machine.representor_of(VfPosition { pf: at("0000:3d:00.0"), index: 0 }), None);
}

#[test]
fn nearness_shows_in_what_is_above() {
    let (_folder, tree, mut scanner) = tree();
    tree.add_mlx5(0, 1);
    tree.add_acc100(1);
    tree.add_e810(0, 0);
    let machine = scan(&mut scanner);
    let above = |text| &machine.functions[&at(text)].upstream;
    assert_eq!(above("0000:3d:00.0"), above("0000:3d:00.2"));
    assert_eq!(above("0000:3d:00.2"), &["0000:3a:00.0", "0000:3b:00.0", "0000:3c:08.0"].map(at));
    assert_eq!(above("0000:3c:08.0"), &["0000:3a:00.0", "0000:3b:00.0"].map(at));
    assert_eq!(above("0000:8b:00.0"), &[at("0000:89:02.0")]);
    assert_eq!(machine.functions[&at("0000:17:00.0")].acpi_index, Some(1));
}

/// The trees above are pictures of sysfs; this asks the original whether the scanner understands it.
#[test]
fn the_functions_of_this_machine_are_read() {
    let sysfs = Sysfs::new("/sys");
    let Ok(names) = std::fs::read_dir("/sys/bus/pci/devices") else { return };
    let mut scanner = Scanner::new(sysfs.clone());
    let machine = scanner.scan().unwrap();
    assert_eq!(machine.functions.len(), names.count());
    for (&address, function) in &machine.functions {
        assert_eq!(function.driver, sysfs.driver_of(address).unwrap(), "{address}");
        let below = sysfs.netdevs_of(address).unwrap();
        assert!(
            below.iter().all(|name| function.netdevs.iter().any(|netdev| netdev.name == *name)),
            "{address}"
        );
        let link = std::fs::canonicalize(format!("/sys/bus/pci/devices/{address}")).unwrap();
        let above = link.components().filter_map(|part| part.as_os_str().to_str()?.parse().ok());
        assert_eq!(above.collect::<Vec<PciAddress>>(), [&*function.upstream, &[address]].concat());
    }
    assert_eq!(scanner.scan().unwrap(), machine);
}
