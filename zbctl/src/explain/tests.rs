use std::collections::BTreeMap;

use zerobridge_device_plugin::Hardware;
use zerobridge_kernel::testing::{FakeFunction, SysfsTree, idle_link};
use zerobridge_kernel::{HostLink, HostNetwork};

use super::*;
use crate::node::testing::{arguments, machine_of, node};
use crate::owners::Owner;

/// A machine with one of each: a network card with VFs, one whose PF has none, RDMA with VFs and an SF, one without RDMA
/// on its VFs, InfiniBand, an accelerator.
fn machine(tree: &SysfsTree) {
    tree.add_igb(0, 4);
    tree.add_igb(1, 0);
    tree.add_mlx5(0, 4);
    tree.add_mlx5_sf(0, 4, 88);
    tree.add_mlx5_infiniband(1, 1);
    tree.add_acc100(2);
    let (pf, vf) = (FakeFunction::e810_pf(0), FakeFunction::e810_vf(0, 0));
    tree.add(&pf);
    tree.add(&vf);
    tree.enable_sriov(pf.address, 128);
    tree.link_vf(pf.address, 0, vf.address);
}

fn told(node: &Node, device: &str, pool: Option<&str>, json: bool) -> Result<String, Failure> {
    let device: zerobridge_device_plugin::DeviceId = device.parse().unwrap();
    let arguments = ExplainArguments {
        device: device.hardware,
        pool: pool.map(str::to_owned),
        json,
        node: arguments("/nowhere".as_ref()),
    };
    let mut out = Vec::new();
    tell(node, &arguments, &mut out)?;
    Ok(String::from_utf8(out).unwrap())
}

fn host(name: &str, change: impl FnOnce(&mut HostLink)) -> HostNetwork {
    let mut link = idle_link(name);
    change(&mut link);
    HostNetwork { links: BTreeMap::from([(name.to_owned(), link)]) }
}

/// Each device would be in the pool but for one thing, and that is named.
#[test]
fn the_failing_selector_of_each_prepared_device_is_named() {
    let pool = |selectors: &str| format!(r#"{{"resourceName": "p", "selectors": {selectors}}}"#);
    let around = machine_of(machine);
    for (device, pools, change, expected) in CASES {
        let pools =
            if pools.starts_with("[{\"res") { (*pools).to_owned() } else { format!("[{}]", pool(pools)) };
        let mut node = node(around.clone(), &format!(r#"{{"pools": {pools}}}"#));
        change(&mut node);
        let text = told(&node, device, Some("p"), false).unwrap();
        let (_, section) = text.split_once("\n\n").unwrap();
        let section: Vec<&str> = section.lines().collect();
        assert_eq!(section, *expected, "{device}\n{text}");
    }
}

type Case = (&'static str, &'static str, fn(&mut Node), &'static [&'static str]);

const CASES: &[Case] = &[
    (
        "0000:01:10.0",
        r#"{"vendors": ["15b3"], "pfNames": ["enp1s0f0"]}"#,
        |_| {},
        &[
            "zerobridge.io/p: not selected, because of vendors",
            "  vendors  dropped  asks for 15b3; the device has 8086",
            "  pfNames  kept     asks for enp1s0f0; the device has enp1s0f0, VF 0",
        ],
    ),
    (
        "0000:01:10.0",
        r#"{"vendors": ["8086"], "devices": ["1889", "154c"]}"#,
        |_| {},
        &[
            "zerobridge.io/p: not selected, because of devices",
            "  vendors  kept     asks for 8086; the device has 8086",
            "  devices  dropped  asks for 1889, 154c; the device has 10ca",
        ],
    ),
    (
        "0000:01:10.2",
        r#"{"drivers": ["vfio-pci"], "pfNames": ["enp1s0f0"]}"#,
        |_| {},
        &[
            "zerobridge.io/p: not selected, because of drivers",
            "  drivers  dropped  asks for vfio-pci; the device has igbvf",
            "  pfNames  kept     asks for enp1s0f0; the device has enp1s0f0, VF 1",
        ],
    ),
    (
        "0000:01:10.2",
        r#"{"pciAddresses": ["01:10.0", "01:10.4"]}"#,
        |_| {},
        &[
            "zerobridge.io/p: not selected, because of pciAddresses",
            "  pciAddresses  dropped  asks for 0000:01:10.0, 0000:01:10.4; the device has 0000:01:10.2",
        ],
    ),
    (
        "0000:17:01.0",
        r#"{"acpiIndexes": [1]}"#,
        |_| {},
        &[
            "zerobridge.io/p: not selected, because of acpiIndexes",
            "  acpiIndexes  dropped  asks for 1; the device has no ACPI index",
        ],
    ),
    (
        "0000:01:10.2",
        r#"{"pfNames": ["enp2s0f0", "ens1f0np0#0-3"]}"#,
        |_| {},
        &[
            "zerobridge.io/p: not selected, because of pfNames",
            "  pfNames  dropped  asks for enp2s0f0, ens1f0np0#0-3; the device has enp1s0f0, VF 1",
        ],
    ),
    (
        "0000:01:10.4",
        r#"{"pfNames": ["enp1s0f0#0-1"]}"#,
        |_| {},
        &[
            "zerobridge.io/p: not selected, because of pfNames",
            "  pfNames  dropped  asks for enp1s0f0#0-1; the device has enp1s0f0, VF 2",
        ],
    ),
    (
        "0000:3d:00.2",
        r#"{"rootDevices": ["3d:00.1", "3d:00.0#2-3"]}"#,
        |_| {},
        &[
            "zerobridge.io/p: not selected, because of rootDevices",
            "  rootDevices  dropped  asks for 0000:3d:00.1, 0000:3d:00.0#2-3; the device has 0000:3d:00.0, VF 0",
        ],
    ),
    (
        "0000:3d:00.2",
        r#"{"ifNames": ["ens1f0v1"]}"#,
        |_| {},
        &[
            "zerobridge.io/p: not selected, because of ifNames",
            "  ifNames  dropped  asks for ens1f0v1; the device has ens1f0v0",
        ],
    ),
    (
        "0000:3d:00.2",
        r#"{"linkTypes": ["infiniband"]}"#,
        |_| {},
        &[
            "zerobridge.io/p: not selected, because of linkTypes",
            "  linkTypes  dropped  asks for infiniband; the device has ether",
        ],
    ),
    (
        "0000:17:01.0",
        r#"{"isRdma": true}"#,
        |_| {},
        &[
            "zerobridge.io/p: not selected, because of isRdma",
            "  isRdma  dropped  asks for one; the device has no RDMA device",
        ],
    ),
    (
        "0000:3d:01.2",
        r#"{"pKeys": ["0x8001"]}"#,
        |_| {},
        &[
            "zerobridge.io/p: not selected, because of pKeys",
            "  pKeys  dropped  asks for 0x8001; the device has 0xffff",
        ],
    ),
    (
        "0000:17:01.0",
        r#"{"ddpProfiles": ["GTPv1-C/U IPv4/IPv6 payload"]}"#,
        |node| {
            let profile = "ICE OS Default Package".to_owned();
            node.around.ddp_profiles.insert("0000:17:00.0".parse().unwrap(), profile);
        },
        &[
            "zerobridge.io/p: not selected, because of ddpProfiles",
            "  ddpProfiles  dropped  asks for GTPv1-C/U IPv4/IPv6 payload; the device has ICE OS Default Package",
        ],
    ),
    (
        "0000:3d:00.2",
        r#"{"vdpaType": "vhost"}"#,
        |_| {},
        &[
            "zerobridge.io/p: not selected, because of vdpaType",
            "  vdpaType  dropped  asks for vhost; the device has no vDPA device",
        ],
    ),
    (
        "mlx5_core.sf.4",
        r#"[{"resourceName": "p", "deviceType": "auxNetDevice", "selectors": {"auxTypes": ["sf"], "pfNames": ["ens1f0np0#4"]}}]"#,
        |_| {},
        &[
            "zerobridge.io/p: not selected, because of pfNames",
            "  pfNames   dropped  asks for ens1f0np0#4; the device has ens1f0np0, SF 88",
            "  auxTypes  kept     asks for sf; the device has sf",
        ],
    ),
    (
        "0000:01:10.0",
        r#"{"any": true}"#,
        |node| {
            node.around.host =
                host("enp1s0f0v0", |link| link.addresses = vec!["10.0.0.7/24".parse().unwrap()]);
        },
        &[
            "zerobridge.io/p: selected, but withheld: enp1s0f0v0 has the host's address 10.0.0.7/24",
            "  asks nothing in particular",
        ],
    ),
    (
        "0000:01:10.0",
        r#"{"any": true}"#,
        |node| {
            node.around.host = host("enp1s0f0v0", |link| link.routes = vec!["0.0.0.0/0".parse().unwrap()]);
        },
        &[
            "zerobridge.io/p: selected, but withheld: the host's route to 0.0.0.0/0 leads over enp1s0f0v0",
            "  asks nothing in particular",
        ],
    ),
    (
        "0000:01:00.0",
        r#"{"any": true}"#,
        |_| {},
        &[
            "zerobridge.io/p: selected, but withheld: it is a PF that has VFs, and giving it away would take them too",
            "  asks nothing in particular",
        ],
    ),
    (
        "0000:01:00.1",
        r#"{"pfNames": ["enp1s0f1"]}"#,
        |_| {},
        &[
            "zerobridge.io/p: not selected, because of pfNames",
            "  pfNames  dropped  asks for enp1s0f1; the device has enp1s0f1, the PF itself",
        ],
    ),
    (
        "0000:01:00.1",
        r#"{"vendors": ["8086"]}"#,
        |_| {},
        &[
            "zerobridge.io/p: selected, but withheld: it is a PF, whose VFs may be about to come; name its own address in pciAddresses or its ID in devices",
            "  vendors  kept     asks for 8086; the device has 8086",
        ],
    ),
    (
        "0000:8b:00.0",
        r#"{"any": true}"#,
        |_| {},
        &["zerobridge.io/p: not selected, because the pool consists of network controllers (PCI class 02)"],
    ),
    (
        "0000:17:01.0",
        r#"[{"resourceName": "p", "shares": 10, "selectors": {"vendors": ["8086"]}}]"#,
        |_| {},
        &[
            "zerobridge.io/p: selected, but withheld: it has no RDMA device that could be shared",
            "  vendors  kept     asks for 8086; the device has 8086",
        ],
    ),
    (
        "0000:01:10.0",
        r#"[{"resourceName": "first", "selectors": {"drivers": ["igbvf"]}}, {"resourceName": "p", "selectors": {"any": true}}]"#,
        |_| {},
        &[
            "zerobridge.io/p: selected, but zerobridge.io/first comes first in the configuration and has it",
            "  asks nothing in particular",
        ],
    ),
    (
        "0000:01:10.0",
        r#"{"any": true}"#,
        |node| {
            let device = Hardware::Function("0000:01:10.0".parse().unwrap());
            node.owners.resources = Some(BTreeMap::from([(device, "old.io/vf".to_owned())]));
        },
        &[
            "zerobridge.io/p: not offered, because a pod holds it as old.io/vf",
            "  asks nothing in particular",
        ],
    ),
    (
        "0000:01:10.0",
        r#"[{"resourceName": "p", "selectors": [{"vendors": ["15b3"]}, {"vendors": ["8086"], "devices": ["1889"]}]}]"#,
        |_| {},
        &[
            "zerobridge.io/p: not selected, because none of its alternatives keeps it",
            "  selectors[0]",
            "    vendors  dropped  asks for 15b3; the device has 8086",
            "  selectors[1]",
            "    vendors  kept     asks for 8086; the device has 8086",
            "    devices  dropped  asks for 1889; the device has 10ca",
        ],
    ),
];

#[test]
fn the_whole_answer_says_what_the_device_is_and_what_each_pool_makes_of_it() {
    let pools = r#"{"pools": [
        {"resourceName": "blue", "selectors": {"pfNames": ["enp1s0f0#0-1"]}},
        {"resourceName": "green", "resourcePrefix": "example.com", "selectors": {"any": true}}
    ]}"#;
    let mut node = node(machine_of(machine), pools);
    let device = Hardware::Function("0000:01:10.0".parse().unwrap());
    let owner = Owner {
        namespace: Some("team".into()),
        pod: Some("train-0".into()),
        container: "main".into(),
        leg: None,
    };
    node.owners.devices.insert(device, vec![owner]);
    assert_eq!(
        told(&node, "0000:01:10.0", None, false).unwrap(),
        "0000:01:10.0: VF 0 of 0000:01:00.0, 8086:10ca, driver igbvf, in use by team/train-0\n\
         \n\
         zerobridge.io/blue: offered\n  \
           pfNames  kept     asks for enp1s0f0#0-1; the device has enp1s0f0, VF 0\n\
         \n\
         example.com/green: selected, but zerobridge.io/blue comes first in the configuration and has it\n  \
           asks nothing in particular\n"
    );
    for (device, about) in [
        ("0000:01:00.0", "PF with 4 of 7 VFs, 8086:10c9, driver igb"),
        ("mlx5_core.sf.4", "SF 88 of 0000:3d:00.0, 15b3:101b, driver mlx5_core"),
        ("0000:00:01.0", "function without SR-IOV, 8086:3420, driver pcieport"),
    ] {
        let text = told(&node, device, None, false).unwrap();
        assert_eq!(text.lines().next(), Some(format!("{device}: {about}").as_str()));
    }
}

#[test]
fn json_keeps_its_shape() {
    let pools =
        r#"{"pools": [{"resourceName": "blue", "selectors": {"vendors": ["15b3"], "drivers": ["igbvf"]}}]}"#;
    let mut node = node(machine_of(machine), pools);
    node.notes.push("no kubelet".to_owned());
    let answer: serde_json::Value =
        serde_json::from_str(&told(&node, "0000:01:10.0", None, true).unwrap()).unwrap();
    let expected = serde_json::json!({
        "device": "0000:01:10.0",
        "offeredBy": null,
        "pools": [{
            "pool": "zerobridge.io/blue",
            "outcome": "dropped",
            "told": "not selected",
            "alternatives": [[
                {"selector": "vendors", "kept": false, "wanted": "15b3", "found": "8086"},
                {"selector": "drivers", "kept": true, "wanted": "igbvf", "found": "igbvf"}
            ]]
        }],
        "ownersFrom": null,
        "notes": ["no kubelet"]
    });
    assert_eq!(answer, expected);
}

#[test]
fn a_pool_is_named_with_or_without_its_prefix() {
    let pools = r#"{"pools": [
        {"resourceName": "blue", "selectors": {"any": true}}, {"resourceName": "green", "selectors": {"any": true}}
    ]}"#;
    let node = node(machine_of(machine), pools);
    for pool in ["green", "zerobridge.io/green"] {
        let text = told(&node, "0000:01:10.0", Some(pool), false).unwrap();
        assert!(
            text.contains("zerobridge.io/green: ") && !text.contains("zerobridge.io/blue: offered"),
            "{text}"
        );
    }
    let error = told(&node, "0000:01:10.0", Some("red"), false).unwrap_err().to_string();
    assert!(error.contains("red") && error.contains("zerobridge.io/blue, zerobridge.io/green"), "{error}");
    let error = told(&node, "0000:ff:10.0", None, false).unwrap_err().to_string();
    assert!(error.contains("0000:ff:10.0") && error.contains("zbctl devices"), "{error}");
}

#[test]
fn what_is_in_the_way_of_a_pool_is_told_at_the_pool_that_offers_the_device() {
    let pools = r#"{"pools": [
        {"resourceName": "hca", "shares": 2, "selectors": {"ifNames": ["ens1f0np0"]}},
        {"resourceName": "vf", "selectors": {"rootDevices": ["3d:00.0"], "isRdma": true}}
    ]}"#;
    let mut node = node(machine_of(machine), pools);
    node.around.rdma.exclusive = true;
    for (device, is_told) in [("0000:3d:00.0", true), ("0000:3d:00.2", false)] {
        let answer = told(&node, device, None, false).unwrap();
        assert_eq!(answer.contains("\n  not ready: no pod can use a share"), is_told, "{answer}");
    }
}
