//! The inventory is live: what happens to VFs while the daemon runs is at the kubelet soon after.

use std::time::Duration;

use serde_json::{Value, json};
use zerobridge_lab::{Guest, Lab, Node, Pod, PodRequest, VFS_PER_CARD, rebinding};
use zerobridge_proto::PciAddress;

use crate::expect;
use crate::group::{Group, Outcome, say};

pub(crate) const GROUP: Group = Group {
    name: "inventory",
    vm: "device_plugin",
    scenarios: &[
        ("the_kubelet_learns_of_vfs_that_come_go_and_change_drivers", vfs_come_go_and_change_drivers),
        ("a_vfio_pod_sees_the_group_of_its_vf_and_no_other", a_vfio_pod_sees_the_group_of_its_vf),
    ],
};

/// VFs with a network interface.
const NETDEV: &str = "zerobridge.io/vf";
/// VFs for a driver in user space.
const VFIO: &str = "zerobridge.io/vfio";
/// How soon the kubelet must know. The figures, which are printed, are a fraction of it; this is what even a crowded
/// emulated machine keeps.
const KNOWN_WITHIN: Duration = Duration::from_secs(5);

/// Every VF of the node, by driver.
fn by_driver() -> Value {
    json!({"pools": [
        {"resourceName": "vf", "selectors": {"drivers": ["igbvf"]}},
        {"resourceName": "vfio", "selectors": {"drivers": ["vfio-pci"]}},
    ]})
}

fn vfs_come_go_and_change_drivers(lab: &mut Lab) -> Outcome {
    let (guest, node) = lab.node()?;
    guest.load_vfio()?;
    node.reconfigure(guest, &by_driver(), &[])?;
    let vf = guest.vf(2, 0)?;
    let numvfs = |count: u8| format!("echo {count} > /sys/class/net/enp2s0/device/sriov_numvfs");
    let (card, all) = (usize::from(VFS_PER_CARD), usize::from(2 * VFS_PER_CARD));
    let events = [
        ("four VFs removed", numvfs(0), (card, 0)),
        ("four VFs created", numvfs(VFS_PER_CARD), (all, 0)),
        ("a VF rebound to vfio-pci", rebinding(vf, "vfio-pci"), (all - 1, 1)),
        ("the VF rebound to igbvf", rebinding(vf, "igbvf"), (all, 0)),
    ];
    for (event, script, (netdev, vfio)) in events {
        let followed = node.follow(guest, &script, &[(NETDEV, netdev), (VFIO, vfio)], KNOWN_WITHIN)?;
        let (took, delay) = (followed.event().as_millis(), followed.delay().as_millis());
        say(&format!("  {event} in {took} ms: allocatable {delay} ms later"));
    }
    // As they were at first, with the addresses that the PF gave them.
    guest.shell(&numvfs(0))?;
    guest.create_vfs(2, VFS_PER_CARD)?;
    Ok(())
}

/// What is in the pod below `/dev/vfio`, sorted.
pub(crate) fn vfio_nodes(guest: &mut Guest, pod: &Pod) -> Result<Vec<String>, Box<dyn std::error::Error>> {
    let listing = pod.run(guest, &["ls", "/dev/vfio"])?;
    let mut names: Vec<String> = listing.split_whitespace().map(String::from).collect();
    names.sort();
    Ok(names)
}

/// Gives VFs to another driver and waits until `resource` has `count` devices.
pub(crate) fn rebind(
    guest: &mut Guest,
    node: &Node,
    vfs: &[PciAddress],
    driver: &str,
    wanted: &[(&str, usize)],
) -> Outcome {
    // Each ends in a folder of its own.
    let scripts: Vec<String> = vfs.iter().map(|vf| format!("({})", rebinding(*vf, driver))).collect();
    node.follow(guest, &scripts.join("\n"), wanted, KNOWN_WITHIN)?;
    Ok(())
}

fn a_vfio_pod_sees_the_group_of_its_vf(lab: &mut Lab) -> Outcome {
    let (guest, node) = lab.node()?;
    guest.load_vfio()?;
    node.reconfigure(guest, &by_driver(), &[])?;
    let vfs = [guest.vf(1, 0)?, guest.vf(2, 0)?];
    rebind(guest, node, &vfs, "vfio-pci", &[(VFIO, vfs.len())])?;

    // No network of its own: a VF of vfio-pci has no interface that could be moved into it.
    let [pod] = &node.run_pods(guest, &[PodRequest::on_host_network("user-space", &[VFIO])])?[..] else {
        return Err("one pod was asked for".into());
    };
    let given = pod.environment(guest)?.remove("PCIDEVICE_ZEROBRIDGE_IO_VFIO");
    let given: PciAddress = expect::some(given, "the environment names no VF")?.parse()?;
    let other = expect::some(vfs.into_iter().find(|vf| *vf != given), "no VF is left over")?;
    let (own_group, other_group) = (guest.iommu_group(given)?, guest.iommu_group(other)?);
    expect::that(own_group != other_group, || format!("both VFs are in IOMMU group {own_group}"))?;
    expect::equal(
        "what is below /dev/vfio",
        &vfio_nodes(guest, pod)?,
        &vec![own_group.clone(), "vfio".into()],
    )?;

    // A node made by hand under another name tells the control group's rules from the file's absence.
    let mut opens = |group: &str| -> Result<String, Box<dyn std::error::Error>> {
        let numbers = guest.run(&["stat", "-c", "0x%t 0x%T", &format!("/dev/vfio/{group}")])?;
        let numbers = numbers.trim();
        let script = format!(
            "exec 2>&1; set -- {numbers}; rm -f /tmp/node; mknod /tmp/node c $(($1)) $(($2)); (: < /tmp/node) && echo opened"
        );
        let output = pod.output(guest, &["sh", "-c", &script])?;
        Ok((output.stdout + &output.stderr).trim().to_owned())
    };
    expect::equal("the pod's own group", &opens(&own_group)?, &"opened".to_owned())?;
    let refusal = opens(&other_group)?;
    expect::that(refusal.ends_with("Operation not permitted"), || {
        format!("the other VF's group should be out of reach: {refusal}")
    })?;
    guest.shell(&format!(": < /dev/vfio/{other_group}"))?;

    node.delete_pods(guest, std::slice::from_ref(pod))?;
    rebind(guest, node, &vfs, "igbvf", &[(VFIO, 0)])
}
