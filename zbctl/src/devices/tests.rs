use zerobridge_device_plugin::Hardware;
use zerobridge_kernel::testing::SysfsTree;

use super::*;
use crate::node::testing::{machine_of, node};
use crate::owners::Owner;

const POOLS: &str = r#"{"pools": [
    {"resourceName": "blue", "selectors": {"pfNames": ["enp1s0f0"]}},
    {"resourceName": "sf", "deviceType": "auxNetDevice", "selectors": {"auxTypes": ["sf"]}},
    {"resourceName": "hca", "shares": 4, "selectors": {"rootDevices": ["3d:00.0"], "isRdma": true}},
    {"resourceName": "rest", "selectors": {"vendors": ["8086"]}}
]}"#;

fn machine(tree: &SysfsTree) {
    tree.add_igb(0, 2);
    tree.add_mlx5(0, 1);
    tree.add_mlx5_sf(0, 4, 88);
    tree.bind("0000:01:10.2", None);
    // In a pod: its netdev is not on the host.
    tree.hide_netdev("0000:01:10.0", "enp1s0f0v0");
}

fn owner(pod: &str) -> Owner {
    let (namespace, pod) = (Some("team".to_owned()), Some(pod.to_owned()));
    Owner { namespace, pod, container: "main".to_owned(), leg: None }
}

fn prepared() -> Node {
    let mut node = node(machine_of(machine), POOLS);
    let function = |text: &str| Hardware::Function(text.parse().unwrap());
    node.owners.devices.insert(function("0000:01:10.0"), vec![owner("train-0")]);
    node.owners.devices.insert(function("0000:3d:00.0"), vec![owner("a"), owner("b"), owner("c")]);
    node.owners_from = Some(Source::Kubelet);
    node
}

fn told(node: &Node, json: bool) -> String {
    let mut out = Vec::new();
    tell(node, json, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn a_row_says_what_a_device_is_and_whose() {
    let expected = "\
DEVICE          KIND   PF            DRIVER        NUMA  LINK   NETDEV      RDMA      POOL                OWNER              STATE
0000:01:00.0    PF     -             igb           0     ether  enp1s0f0    -         -                   -                  withheld: it is a PF that has VFs, and giving it away would take them too
0000:01:10.0    VF 0   0000:01:00.0  igbvf         0     ether  -           -         zerobridge.io/blue  team/train-0       in use
0000:01:10.2    VF 1   0000:01:00.0  -             0     ether  enp1s0f0v1  -         zerobridge.io/blue  -                  free; unhealthy: it is bound to no driver (driverBound)
0000:3d:00.0    PF     -             mlx5_core     1     ether  ens1f0np0   mlx5_0    zerobridge.io/hca   team/a and 2 more  in use
0000:3d:00.2    VF 0   0000:3d:00.0  mlx5_core     1     ether  ens1f0v0    mlx5_2    zerobridge.io/hca   -                  free
mlx5_core.sf.4  SF 88  0000:3d:00.0  mlx5_core.sf  1     ether  ens1f0s88   mlx5_104  zerobridge.io/sf    -                  free
";
    assert_eq!(told(&prepared(), false), expected);
}

#[test]
fn json_keeps_its_shape() {
    let answer: serde_json::Value = serde_json::from_str(&told(&prepared(), true)).unwrap();
    let keys: Vec<&String> = answer.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["devices", "notes", "obstacles", "ownersFrom"]);
    assert_eq!(answer["obstacles"], serde_json::json!([]));
    assert_eq!(answer["ownersFrom"], "kubelet");
    let device = |address: &str| {
        let devices = answer["devices"].as_array().unwrap();
        devices.iter().find(|device| device["device"] == address).unwrap().clone()
    };
    let in_a_pod = serde_json::json!({
        "device": "0000:01:10.0", "kind": "vf", "pf": "0000:01:00.0", "index": 0,
        "vendor": "8086", "deviceId": "10ca", "driver": "igbvf", "numaNode": 0, "linkType": "ether",
        "netdevs": [], "rdma": [], "pool": "zerobridge.io/blue", "state": "offered", "reason": null,
        "problems": [],
        "owners": [{"namespace": "team", "pod": "train-0", "container": "main"}]
    });
    assert_eq!(device("0000:01:10.0"), in_a_pod);
    let problem = serde_json::json!([
        {"check": "driverBound", "policy": "unhealthy", "reason": "it is bound to no driver"}
    ]);
    assert_eq!(device("0000:01:10.2")["problems"], problem);
    assert_eq!(device("0000:01:00.0")["state"], "withheld");
    assert!(device("0000:01:00.0")["reason"].as_str().unwrap().contains("VFs"));
    assert_eq!(device("mlx5_core.sf.4")["kind"], "sf");
}

#[test]
fn a_machine_without_such_devices_says_so() {
    let bare = node(machine_of(|_| {}), POOLS);
    assert_eq!(told(&bare, false), "there is no PF, VF or SF on this machine\n");
}

#[test]
fn what_is_in_the_way_of_a_pool_is_told_behind_the_devices() {
    let mut node = prepared();
    node.around.rdma.exclusive = true;
    let answer = told(&node, false);
    let last = answer.lines().last().unwrap();
    assert!(last.starts_with("not ready: zerobridge.io/hca: no pod can use a share"), "{answer}");
    let answer: serde_json::Value = serde_json::from_str(&told(&node, true)).unwrap();
    let [obstacle] = answer["obstacles"].as_array().unwrap().as_slice() else { panic!("{answer}") };
    assert_eq!(obstacle["reason"], "shares_in_exclusive_mode");
    assert_eq!(obstacle["pools"], serde_json::json!(["zerobridge.io/hca"]));
    assert!(obstacle["told"].as_str().unwrap().starts_with("no pod can use a share"), "{obstacle}");
}

/// Whether nodes are told by CDI is for the API server to say, unless the configuration does.
#[test]
fn what_only_the_api_server_knows_is_no_obstacle_here() {
    for (cdi, reasons) in [("auto", 0), ("on", 0), ("off", 1)] {
        let config = format!(
            r#"{{"cdi": "{cdi}", "pools": [{{"resourceName": "s", "rdma": "soft", "selectors": {{"any": true}}}}]}}"#
        );
        let obstacles = node(machine_of(machine), &config).obstacles();
        assert_eq!(obstacles.len(), reasons, "{cdi}: {obstacles:?}");
    }
}
