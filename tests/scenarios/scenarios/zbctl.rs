//! What `zbctl` says of a node that works.

use serde_json::{Value, json};
use zerobridge_lab::{BLUE, Guest, Lab, PodRequest, VFS_PER_CARD};

use crate::expect;
use crate::group::{Group, Outcome, say};

pub(crate) const GROUP: Group = Group {
    name: "zbctl",
    vm: "device_plugin",
    scenarios: &[("it_knows_the_owner_of_a_vf_and_why_a_pf_is_not_offered", owner_and_explanation)],
};

/// VFs, and a pool whose selectors keep both PFs.
fn vfs_and_pfs() -> Value {
    json!({"pools": [
        {"resourceName": "vf", "selectors": {"drivers": ["igbvf"]}},
        {"resourceName": "card", "selectors": {"drivers": ["igb"]}},
    ]})
}

/// Every VF of the node with its pool, its state and its owners.
fn vfs(guest: &mut Guest) -> Result<Vec<Value>, Box<dyn std::error::Error>> {
    let answer: Value = guest.json(&["zbctl", "devices", "--json"])?;
    expect::equal("who was asked for the owners", &answer["ownersFrom"], &json!("kubelet"))?;
    let devices = answer["devices"].as_array().cloned().unwrap_or_default();
    let vfs: Vec<Value> = devices.into_iter().filter(|device| device["kind"] == "vf").collect();
    expect::equal("the number of VFs", &vfs.len(), &usize::from(2 * VFS_PER_CARD))?;
    Ok(vfs)
}

fn owner_and_explanation(lab: &mut Lab) -> Outcome {
    let (guest, node) = lab.node()?;
    node.reconfigure(guest, &vfs_and_pfs(), &[])?;
    let pods = node.run_pods(guest, &[PodRequest::with_one("owner", BLUE)])?;
    let given = pods[0].environment(guest)?.remove("PCIDEVICE_ZEROBRIDGE_IO_VF");
    let given = expect::some(given, "the environment names no VF")?;

    let owner = json!([{"namespace": "default", "pod": "owner-lab", "container": "main"}]);
    for vf in vfs(guest)? {
        let device = vf["device"].as_str().unwrap_or_default();
        let (owners, netdevs) = if device == given { (&owner, 0) } else { (&json!([]), 1) };
        expect::equal(&format!("{device}'s owners"), &vf["owners"], owners)?;
        expect::equal(&format!("{device}'s pool"), &vf["pool"], &json!(BLUE))?;
        let on_the_host = vf["netdevs"].as_array().map_or(0, Vec::len);
        expect::equal(&format!("{device}'s netdevs on the host"), &on_the_host, &netdevs)?;
    }
    say(&guest.run(&["zbctl", "devices"])?);

    let pf = guest.shell("basename $(readlink -f /sys/class/net/enp1s0/device)")?;
    let explanation = guest.run(&["zbctl", "explain", pf.trim(), "--pool", "card"])?;
    say(&explanation);
    for part in [
        format!("{}: PF with {VFS_PER_CARD} of ", pf.trim()),
        "zerobridge.io/card: selected, but withheld: it is a PF that has VFs".to_owned(),
    ] {
        expect::that(explanation.contains(&part), || format!("{part:?} is not in {explanation}"))?;
    }

    node.delete_pods(guest, &pods)?;
    for vf in vfs(guest)? {
        expect::equal(&format!("the owners of {}", vf["device"]), &vf["owners"], &json!([]))?;
    }
    Ok(())
}
