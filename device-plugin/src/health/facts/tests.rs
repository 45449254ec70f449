use std::path::Path;

use zerobridge_kernel::testing::{FakeFunction, FakeRdma, SysfsTree, idle_link};
use zerobridge_kernel::{Scanner, Sysfs};

use super::*;
use crate::device::DeviceId;

const PF_NETDEV: &str = "ens1f0np0";
const SF: &str = "mlx5_core.sf.4";

/// A ConnectX-6 port with two VFs and an SF, a tree of files, and what the rest of the host says.
struct World {
    folder: tempfile::TempDir,
    tree: SysfsTree,
    pf_netdev: &'static str,
    vf_netdev: &'static str,
    around: Surroundings,
    errors: FatalErrors,
    dirty: DirtyVfs,
}

impl World {
    fn ethernet() -> Self {
        Self::new([PF_NETDEV, "ens1f0v0"], |tree| tree.add_mlx5(0, 2))
    }

    fn infiniband() -> Self {
        Self::new(["ibs1f0", "ibs1f0v0"], |tree| tree.add_mlx5_infiniband(0, 2))
    }

    fn new([pf_netdev, vf_netdev]: [&'static str; 2], add: impl Fn(&SysfsTree)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let tree = SysfsTree::new(folder.path());
        add(&tree);
        tree.add_mlx5_sf(0, 4, 88);
        let (around, errors, dirty) = Default::default();
        let mut world = Self { folder, tree, pf_netdev, vf_netdev, around, errors, dirty };
        let names = ["mlx5_0", "mlx5_2", "mlx5_3", "mlx5_104"];
        world.around.rdma.node_guids = names.map(|name| (name.to_owned(), 0x1234)).into();
        world.link(pf_netdev, true, true);
        world.look();
        world
    }

    /// Reads the tree again, as the daemon does after every event.
    fn look(&mut self) {
        let root: &Path = self.folder.path();
        self.around.machine = Scanner::new(Sysfs::new(root)).scan().unwrap();
        self.errors.update(&self.around.aer_fatal);
    }

    fn link(&mut self, name: &str, up: bool, carrier: bool) {
        let mut link = idle_link(name);
        (link.link.up, link.link.carrier) = (up, carrier);
        self.around.host.links.insert(name.to_owned(), link);
    }

    /// What happens on the host when the VF, or the SF, goes into a pod together with its RDMA device.
    fn move_into_pod(&mut self) {
        self.tree.hide_netdev(vf().function, self.vf_netdev);
        self.tree.hide_rdma(&FakeRdma::mlx5_vf(0, 0).name);
        self.tree.hide_netdev(SF, "ens1f0s88");
        self.tree.hide_rdma("mlx5_104");
        self.around.host.links.remove(self.vf_netdev);
        self.around.rdma.node_guids.retain(|name, _| !["mlx5_2", "mlx5_104"].contains(&name.as_str()));
        self.look();
    }

    fn outcome(&self, check: Check, device: &Device) -> Outcome {
        Facts { around: &self.around, errors: &self.errors, dirty: &self.dirty, gives_rdma: true }
            .outcome(check, device)
    }

    fn failures(&self, device: &Device) -> Vec<Check> {
        let fails = |check: &Check| matches!(self.outcome(*check, device), Outcome::Failed { .. });
        Check::ALL.into_iter().filter(fails).collect()
    }
}

fn device(hardware: Hardware, function: PciAddress, pf: Option<PciAddress>) -> Device {
    Device {
        id: DeviceId { hardware, share: None },
        function,
        pf,
        vf_index: None,
        driver: Some("mlx5_core".to_owned()),
        numa_node: None,
        topology: None,
        upstream: Vec::new(),
        representor: None,
        healthy: true,
    }
}

fn pf_address() -> PciAddress {
    FakeFunction::mlx5_pf(0).address
}

fn vf() -> Device {
    let address = FakeFunction::mlx5_vf(0, 0).address;
    device(Hardware::Function(address), address, Some(pf_address()))
}

fn sf() -> Device {
    device(Hardware::Auxiliary(SF.to_owned()), pf_address(), Some(pf_address()))
}

fn share_of_pf() -> Device {
    device(Hardware::Function(pf_address()), pf_address(), None)
}

/// Each case breaks one thing and names the one check that sees it, at which devices, and in which words.
#[test]
fn each_check_sees_what_it_is_for_and_nothing_else() {
    type Break = fn(&mut World);
    let all = ["vf", "sf", "share"];
    let cases: &[(&str, Break, Check, &[&str], &str)] = &[
        (
            "the VF is gone",
            |world| world.tree.remove(vf().function),
            Check::DevicePresent,
            &["vf"],
            "it is no longer in the machine",
        ),
        (
            "the VF lost its driver",
            |world| world.tree.bind(vf().function, None),
            Check::DriverBound,
            &["vf"],
            "it is bound to no driver; it was bound to mlx5_core",
        ),
        (
            "the SF lost its driver",
            |world| world.tree.bind(SF, None),
            Check::DriverBound,
            &["sf"],
            "it is bound to no driver; it was bound to mlx5_core",
        ),
        (
            "the cable is out",
            |world| world.link(PF_NETDEV, true, false),
            Check::PfCarrier,
            &all,
            "ens1f0np0 of PF 0000:3d:00.0 has no carrier",
        ),
        (
            "the PF is administratively down, whatever its driver says of the carrier",
            |world| world.link(PF_NETDEV, false, true),
            Check::PfCarrier,
            &all,
            "ens1f0np0 of PF 0000:3d:00.0 has no carrier",
        ),
        (
            "the PF's RDMA port is down",
            |world| world.tree.port_state("mlx5_0", "1: DOWN"),
            Check::RdmaPort,
            &all,
            "no port of RDMA device mlx5_0 is active",
        ),
        (
            "the VF was bound before it had a MAC address",
            |world| {
                world.around.rdma.node_guids.insert("mlx5_2".to_owned(), 0);
                // Of these nobody gave the MAC address to the PF.
                world.around.rdma.node_guids.insert("mlx5_104".to_owned(), 0);
                world.around.rdma.node_guids.insert("mlx5_0".to_owned(), 0);
            },
            Check::NodeGuid,
            &["vf"],
            "its RDMA device mlx5_2 has no node GUID, which RDMA-CM needs; give the VF a MAC address at its PF, or \
                 with InfiniBand a node GUID (ip link set PF vf N mac ADDRESS, or node_guid GUID), and then bind it to \
                 mlx5_core again",
        ),
        (
            "a reporter of the PF is in error",
            |world| {
                let failed = vec!["fw_fatal".to_owned(), "tx".to_owned()];
                world.around.failed_reporters.insert(pf_address(), failed);
            },
            Check::DevlinkHealth,
            &all,
            "devlink health reporter fw_fatal, tx of 0000:3d:00.0 is in the state of error",
        ),
        (
            "a fatal error at the PF's link",
            |world| {
                world.around.aer_fatal.insert(pf_address(), 3);
                world.look();
                world.around.aer_fatal.insert(pf_address(), 5);
            },
            Check::AerFatal,
            &all,
            "2 fatal PCIe errors at 0000:3d:00.0 since the daemon began",
        ),
        (
            "a dead pod left the VF behind",
            |world| {
                world.dirty.insert(vf().function, "eth0 of container c1 is gone".to_owned());
            },
            Check::DirtyVf,
            &["vf"],
            "eth0 of container c1 is gone",
        ),
    ];
    for (what, break_it, check, affected, words) in cases {
        let mut world = World::ethernet();
        world.around.failed_reporters.insert(pf_address(), Vec::new());
        for (name, device) in [("vf", vf()), ("sf", sf()), ("share", share_of_pf())] {
            assert_eq!(world.failures(&device), [], "{name} before {what}");
        }
        break_it(&mut world);
        world.look();
        for (name, device) in [("vf", vf()), ("sf", sf()), ("share", share_of_pf())] {
            let expected = if affected.contains(&name) { vec![*check] } else { Vec::new() };
            assert_eq!(world.failures(&device), expected, "{name} when {what}");
            if affected.contains(&name) {
                assert_eq!(world.outcome(*check, &device), failed(*words), "{name} when {what}");
            }
        }
    }
}

#[test]
fn a_node_guid_is_missed_where_containers_get_the_rdma_device_of_a_connectx() {
    let mut world = World::ethernet();
    world.around.rdma.node_guids.insert("mlx5_2".to_owned(), 0);
    let outcome = |world: &World, gives_rdma| {
        let World { around, errors, dirty, .. } = world;
        Facts { around, errors, dirty, gives_rdma }.outcome(Check::NodeGuid, &vf())
    };
    assert!(matches!(outcome(&world, true), Outcome::Failed { .. }));
    assert_eq!(outcome(&world, false), Outcome::Unknown);
    world.tree.bind(vf().function, Some("irdma"));
    world.look();
    assert_eq!(outcome(&world, true), Outcome::Unknown);
}

#[test]
fn what_nobody_can_say_is_unknown() {
    let mut world = World::ethernet();
    for check in [Check::DevlinkHealth, Check::AerFatal] {
        assert_eq!(world.outcome(check, &vf()), Outcome::Unknown, "{check}: no driver was asked");
    }
    world.around.host.links.remove(PF_NETDEV);
    for check in [Check::PfCarrier, Check::RdmaPort] {
        assert_eq!(world.outcome(check, &vf()), Outcome::Unknown, "{check}: the PF has no interface here");
    }
    let without_pf = Device { pf: None, ..vf() };
    assert_eq!(world.outcome(Check::PfCarrier, &without_pf), Outcome::Unknown);
    world.tree.remove(vf().function);
    world.look();
    assert_eq!(world.outcome(Check::DriverBound, &vf()), Outcome::Unknown, "another check has said so");
}

#[test]
fn one_of_two_ports_behind_a_function_is_enough() {
    let mut world = World::ethernet();
    world.tree.show_netdev(pf_address(), "ens1f0np1");
    world.link("ens1f0np1", true, true);
    world.link(PF_NETDEV, true, false);
    world.look();
    assert_eq!(world.outcome(Check::PfCarrier, &vf()), Outcome::Passed);
    world.link("ens1f0np1", true, false);
    let words = "ens1f0np0 and ens1f0np1 of PF 0000:3d:00.0 has no carrier";
    assert_eq!(world.outcome(Check::PfCarrier, &vf()), failed(words));
}

/// In a virtual machine the PF is not there. A RoCE port is then worth what its netdev is, an InfiniBand port speaks for
/// itself.
#[test]
fn without_a_pf_the_own_port_tells_while_it_can() {
    let rdma = FakeRdma::mlx5_vf(0, 0).name;
    let without_pf = Device { pf: None, ..vf() };
    let mut world = World::ethernet();
    world.tree.port_state(&rdma, "1: DOWN");
    world.look();
    for (up, outcome) in
        [(false, Outcome::Unknown), (true, failed(format!("no port of RDMA device {rdma} is active")))]
    {
        world.link(world.vf_netdev, up, false);
        assert_eq!(world.outcome(Check::RdmaPort, &without_pf), outcome, "netdev up: {up}");
    }
    world.tree.port_state(&rdma, "4: ACTIVE");
    world.look();
    assert_eq!(world.outcome(Check::RdmaPort, &without_pf), Outcome::Passed);

    let mut world = World::infiniband();
    assert_eq!(world.outcome(Check::RdmaPort, &without_pf), Outcome::Passed);
    world.tree.port_state(&rdma, "2: INIT");
    world.look();
    assert!(matches!(world.outcome(Check::RdmaPort, &without_pf), Outcome::Failed { .. }));
}

/// The complaint that there is about every other device plugin: a VF is called dead because it is where it belongs.
#[test]
fn a_vf_in_a_pod_fails_no_check() {
    for mut world in [World::ethernet(), World::infiniband()] {
        world.link(world.vf_netdev, true, true);
        world.move_into_pod();
        for device in [vf(), sf()] {
            assert!(world.around.machine.functions[&vf().function].netdevs.is_empty());
            assert!(world.around.machine.functions[&vf().function].rdma.is_empty());
            assert_eq!(world.failures(&device), []);
        }
    }
}

/// Whatever state the machine is in, moving a device into a pod makes no check fail that did not fail before.
#[test]
fn no_check_depends_on_where_the_interfaces_are() {
    for state in 0_u32..1 << 8 {
        let [infiniband, vf_up, pf_up, pf_carrier, pf_port, vf_port, has_pf, has_guid] =
            std::array::from_fn(|bit| state >> bit & 1 == 1);
        let mut world = if infiniband { World::infiniband() } else { World::ethernet() };
        let port = |active| if active { "4: ACTIVE" } else { "1: DOWN" };
        world.tree.port_state("mlx5_0", port(pf_port));
        world.tree.port_state(&FakeRdma::mlx5_vf(0, 0).name, port(vf_port));
        world.around.rdma.node_guids.insert("mlx5_2".to_owned(), u64::from(has_guid));
        world.link(world.pf_netdev, pf_up, pf_carrier);
        world.link(world.vf_netdev, vf_up, vf_up);
        world.look();
        let devices = [vf(), sf()].map(|device| Device { pf: device.pf.filter(|_| has_pf), ..device });
        let before = devices.each_ref().map(|device| world.failures(device));
        world.move_into_pod();
        for (device, before) in devices.iter().zip(before) {
            let after = world.failures(device);
            assert!(
                after.iter().all(|check| before.contains(check)),
                "{state:b}: {before:?}, then {after:?}"
            );
        }
    }
}
