//! Chains that were written for several programs: the built program under another one's name.

mod node;

use node::{Node, VFS};
use serde_json::{Value, json};

fn previous() -> Value {
    json!({"cniVersion": "1.1.0", "interfaces": [{"name": "eth0", "sandbox": "/run/netns/gone"}],
           "ips": [{"address": "10.0.0.5/24", "interface": 0}]})
}

#[test]
fn in_the_place_of_rdma_cni_the_result_is_passed_on_when_the_pod_has_its_device() {
    let node = Node::new();
    let chained = |own: Value| {
        let mut config = node.config(own);
        config["type"] = json!("rdma");
        config
    };
    let config =
        chained(json!({"prevResult": previous(), "deviceID": VFS[0], "args": {"cni": {"debug": true}}}));
    node.call("ADD", &config).assert_error(3, &["c1", "no VF is attached"]);

    let rdma = |place: &str| json!({"rdma": {"kind": "ethernet", "place": place, "name": "mlx5_3"}});
    node.attach(VFS[0], "c1", "10.0.0.5", rdma("sandbox"));
    let added = node.call("ADD", &config);
    assert_eq!((added.exit, &added.out), (0, &previous()), "{added:?}");
    node.call("CHECK", &config).assert_silent_success();
    for command in ["DEL", "STATUS"] {
        node.call(command, &chained(json!({}))).assert_silent_success();
    }
    assert_eq!(node.promises(), (vec!["c1".to_owned()], vec!["10.0.0.5".to_owned()]), "the first plugin's");

    node.call("ADD", &chained(json!({}))).assert_error(7, &["prevResult"]);
    node.call("ADD", &chained(json!({"prevResult": previous(), "vlan": 7}))).assert_error(2, &["vlan"]);
    node.attach(VFS[1], "c2", "10.0.0.6", rdma("everywhere"));
    let other = [("CNI_CONTAINERID", "c2")];
    node.call_with("ADD", &config, &other).assert_error(101, &["mlx5_3", "shared mode"]);
}
