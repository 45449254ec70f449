//! STATUS: exit code 0 exactly when an ADD can be served.

mod node;

use node::{Node, VFS};
use serde_json::{Value, json};
use zerobridge_kernel::testing::{FakeFunction, TestNetns};

fn own_ipam(subnet: &str) -> Value {
    json!({"type": "zerobridge-ipam", "subnet": subnet})
}

/// Attaches both VFs to pods that live.
fn attach_all(node: &Node) -> TestNetns {
    let netns = TestNetns::new();
    for (vf, container_id, address) in [(VFS[0], "c1", "10.0.0.5"), (VFS[1], "c2", "10.0.0.6")] {
        node.in_namespace(node.attach(vf, container_id, address, json!({})), &netns);
    }
    netns
}

/// Takes the PF's link away, without which no VF can be set.
fn lose_pf(node: &Node) {
    node.tree.hide_netdev(FakeFunction::igb_pf(0).address, "enp1s0f0");
}

#[test]
fn a_node_with_free_vfs_and_free_addresses_is_ready() {
    let node = Node::new();
    let _kubelet = node.kubelet(&VFS);
    let config = node.config(json!({"resourceName": "x/vf", "ipam": own_ipam("10.0.0.0/24")}));
    node.call_with("STATUS", &config, &[("CNI_PATH", "")]).assert_silent_success();
    // Records of pods that are gone take no VF: the next ADD gives it back.
    node.attach(VFS[0], "c1", "10.0.0.5", json!({}));
    node.attach(VFS[1], "c2", "10.0.0.6", json!({}));
    node.call("STATUS", &config).assert_silent_success();
    // Under Multus nobody says which VFs are meant.
    node.call("STATUS", &node.config(json!({}))).assert_silent_success();
}

#[test]
fn without_a_kubelet_nobody_knows_which_vf_a_pod_was_given() {
    let node = Node::new();
    let config = node.config(json!({"resourceName": "x/vf"}));
    node.call("STATUS", &config).assert_error(50, &["pod-resources/kubelet.sock", "kubeletRoot"]);
    let _kubelet = node.kubelet(&[]);
    node.call("STATUS", &config).assert_error(50, &["no healthy device of x/vf", "device plugin"]);
    let passed_over = node.config(json!({"resourceName": "x/vf", "readyWhenFull": true}));
    node.call("STATUS", &passed_over).assert_silent_success();
}

#[test]
fn vfs_that_are_all_attached_are_an_obstacle_unless_the_configuration_says_otherwise() {
    let node = Node::new();
    let _kubelet = node.kubelet(&VFS);
    let _netns = attach_all(&node);
    let green = node.config(json!({"name": "green", "resourceName": "x/vf"}));
    let devices = [json!({"resourceName": "x/vf"}), json!({"deviceID": VFS[0]})];
    for (own, words) in devices.into_iter().zip(["all 2 devices of x/vf are attached", "is attached"]) {
        let mut config = node.config(own);
        node.call("STATUS", &config).assert_error(50, &[words]);
        config["readyWhenFull"] = json!(true);
        node.call("STATUS", &config).assert_silent_success();
    }
    // Now the pods of network blue have no connectivity either, and those of another network are not its concern.
    lose_pf(&node);
    let blue = node.config(json!({"resourceName": "x/vf"}));
    node.call("STATUS", &blue).assert_error(51, &["all 2 devices", VFS[0], "has lost its PF"]);
    node.call("STATUS", &green).assert_error(50, &["all 2 devices"]);
    node.tree.remove(VFS[0].parse().unwrap());
    node.call("STATUS", &blue).assert_error(51, &["all 2 devices", VFS[0], "no longer exists"]);
}

#[test]
fn a_pool_without_a_free_address_is_an_obstacle() {
    let node = Node::new();
    node.attach(VFS[0], "c1", "10.0.0.2", json!({}));
    let mut config = node.config(json!({"ipam": own_ipam("10.0.0.0/30")}));
    node.call("STATUS", &config).assert_error(50, &["all 1 addresses", "10.0.0.0/30"]);
    config["readyWhenFull"] = json!(true);
    node.call("STATUS", &config).assert_silent_success();
}

#[test]
fn one_network_of_several_that_can_take_a_pod_is_enough() {
    let node = Node::new();
    let _kubelet = node.kubelet(&VFS);
    let entry = |name: &str, resource: &str| json!({"name": name, "resourceName": resource});
    let with = |networks: Value| node.config(json!({"name": "pods", "networks": networks}));
    node.call("STATUS", &with(json!([entry("a", "x/none"), entry("b", "x/vf")]))).assert_silent_success();
    node.call("STATUS", &with(json!([entry("a", "x/none"), entry("b", "x/nothing")])))
        .assert_error(50, &["x/none", "x/nothing"]);
}

#[test]
fn a_ledger_or_a_device_that_cannot_be_used_is_an_obstacle() {
    let node = Node::new();
    std::fs::write(node.path("file"), "").unwrap();
    let no_ledger = node.config(json!({"stateDir": node.path("file/state")}));
    node.call("STATUS", &no_ledger).assert_error(50, &["file/state"]);
    let no_device = node.config(json!({"deviceID": "0000:99:00.0"}));
    node.call("STATUS", &no_device).assert_error(50, &["0000:99:00.0"]);
    node.call("STATUS", &node.config(json!({"vlan": 4095}))).assert_error(7, &["vlan is 4095"]);
}

#[test]
fn rdma_that_the_machine_does_not_have_is_an_obstacle() {
    let node = Node::new();
    let _kubelet = node.kubelet(&VFS);
    let with = |rdma: &str| node.config(json!({"resourceName": "x/vf", "rdma": rdma}));
    for mode in ["auto", "off"] {
        node.call("STATUS", &with(mode)).assert_silent_success();
    }
    for demanded in ["exclusive", "shared", "soft"] {
        let words = ["rdma of network", demanded, "no RDMA subsystem"];
        node.call("STATUS", &with(demanded)).assert_error(50, &words);
    }
}
