//! The CNI specification 1.1.0 line by line, as far as it shows without a VF: the built program, one process each call.
//!
//! What needs a VF in a pod (the result of ADD, an interface of the requested name, a full CHECK) is in the lab's
//! scenarios; what is passed on to IPAM plugins is in `delegation.rs`, STATUS in `status.rs`.

mod node;

use node::{Answer, Node, VFS};
use serde_json::{Value, json};
use zerobridge_kernel::testing::TestNetns;

// SPEC, section 2, "Parameters".

#[test]
fn each_operation_requires_its_variables_and_no_other() {
    let node = Node::new();
    let names = ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"];
    let config = node.config(json!({"cni.dev/valid-attachments": []}));
    for (command, required) in [
        ("ADD", &names[..3]),
        ("CHECK", &names[..3]),
        ("DEL", &["CNI_CONTAINERID", "CNI_IFNAME"]),
        ("GC", &["CNI_PATH"]),
        ("STATUS", &[]),
        ("VERSION", &[]),
    ] {
        for name in names {
            let answer = node.call_with(command, &config, &[(name, "")]);
            let complains = answer.out["code"] == json!(4);
            assert_eq!(complains, required.contains(&name), "{command} without {name}: {answer:?}");
            if complains {
                answer.assert_error(4, &[name, command]);
            }
        }
    }
}

#[test]
fn names_that_the_specification_forbids_are_refused_by_name() {
    let node = Node::new();
    let config = node.config(json!({}));
    for (variable, values) in [
        ("CNI_CONTAINERID", &["../x", "-x", "a/b", "a b"][..]),
        ("CNI_IFNAME", &["a/b", "a:b", "a b", ".", "..", "sixteen-bytes-xx"]),
        ("CNI_COMMAND", &["add", "REMOVE"]),
    ] {
        for value in values {
            node.call_with("ADD", &config, &[(variable, value)]).assert_error(4, &[variable, value]);
        }
    }
    for name in ["", "a/b", "-a", "a b"] {
        node.call("ADD", &node.config(json!({"name": name}))).assert_error(7, &["name", name]);
    }
}

// SPEC, section 2, "Errors", and section 5, "Error".

#[test]
fn errors_are_on_stdout_in_the_requests_version_and_logs_on_stderr_alone() {
    let node = Node::new();
    for version in ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        let answer = node.call("ADD", &node.config(json!({"cniVersion": version, "vlan": 4095})));
        answer.assert_error(7, &["vlan is 4095"]);
        assert_eq!(answer.out["cniVersion"], version);
        assert!(answer.log.contains("vlan is 4095"), "{answer:?}");
    }
}

#[test]
fn each_kind_of_bad_input_has_the_specifications_code() {
    let node = Node::new();
    for version in ["0.1.0", "0.2.0", "2.0.0"] {
        let answer = node.call("ADD", &node.config(json!({"cniVersion": version})));
        answer.assert_error(1, &[version, "1.1.0"]);
    }
    let unknown = node.call("ADD", &node.config(json!({"colour": "red"})));
    unknown.assert_error(2, &["colour", "\"red\""]);
    let netns = TestNetns::new();
    let in_sandbox = [("CNI_NETNS", netns.netns().path().to_str().unwrap())];
    let absent = node.call_with("ADD", &node.config(json!({"deviceID": "0000:99:00.0"})), &in_sandbox);
    absent.assert_error(101, &["0000:99:00.0", "made anew", "delete the pod"]);
    let gone = node.config(json!({"deviceID": VFS[0]}));
    node.call("ADD", &gone).assert_error(3, &["/run/netns/gone"]);
    let host = [("CNI_NETNS", "/proc/self/ns/net")];
    node.call_with("ADD", &gone, &host).assert_error(4, &["CNI_NETNS", "of the host"]);
    for stdin in ["", "[", "[]", r#"{"cniVersion": 1}"#] {
        Answer::of(node.start("ADD", stdin.as_bytes(), &[])).assert_error(6, &[]);
    }
    std::fs::write(node.path("file"), "").unwrap();
    let no_ledger = node.config(json!({"stateDir": node.path("file/state"), "deviceID": VFS[0]}));
    node.call_with("ADD", &no_ledger, &in_sandbox).assert_error(5, &["file/state"]);
    // The PF has no link: it may be coming back.
    node.call_with("ADD", &gone, &in_sandbox).assert_error(11, &["PF 0000:01:00.0"]);
}

#[test]
fn a_pod_without_a_device_is_told_so() {
    let node = Node::new();
    let netns = TestNetns::new();
    let in_sandbox = [("CNI_NETNS", netns.netns().path().to_str().unwrap())];
    let config = node.config(json!({"resourceName": "x/vf"}));
    let unreachable = node.call_with("ADD", &config, &in_sandbox);
    unreachable.assert_error(11, &["pod-resources/kubelet.sock", "kubeletRoot"]);
    let _kubelet = node.kubelet(&VFS);
    let answer = node.call_with("ADD", &config, &in_sandbox);
    answer.assert_error(102, &["default/web", "x/vf", "resources.limits"]);
    let nothing = node.call_with("ADD", &node.config(json!({})), &in_sandbox);
    nothing.assert_error(7, &["neither deviceID nor resourceName", "k8s.v1.cni.cncf.io/resourceName"]);
}

// SPEC, section 3, "Deriving request configuration", and CONVENTIONS.

#[test]
fn what_runtimes_and_multus_put_into_a_configuration_is_tolerated() {
    let node = Node::new();
    node.call("STATUS", &node.config(json!({
        "args": {"cni": {"ips": ["10.0.0.5"]}, "labels": {"a": "b"}}, "capabilities": {"mac": true, "portMappings": true},
        "runtimeConfig": {"mac": "02:00:00:00:00:01", "portMappings": [], "io.kubernetes.cri.pod-annotations": {}},
        "cni.dev/anything": 7, "pciBusID": VFS[0], "deviceID": VFS[0], "ipMasq": false, "disableCheck": true,
        "prevResult": {"cniVersion": "1.1.0", "interfaces": []}, "dns": {"nameservers": ["10.0.0.53"]},
    })))
    .assert_silent_success();
}

// SPEC, section 2, "DEL".

#[test]
fn del_succeeds_as_often_as_it_comes_and_whatever_is_missing() {
    let node = Node::new();
    let config = node.config(json!({"ipam": {"type": "zerobridge-ipam", "subnet": "10.0.0.0/24"}}));
    node.call("DEL", &config).assert_silent_success();
    assert!(!node.path("state").exists(), "nothing is made to find nothing in it");

    node.tree.remove(VFS[0].parse().unwrap());
    let cases = [("a dangling namespace", "/run/netns/gone", "10.0.0.5"), ("no namespace", "", "10.0.0.6")];
    for (what, netns, address) in cases {
        node.attach(VFS[0], "c1", address, json!({}));
        for _ in 0..2 {
            node.call_with("DEL", &config, &[("CNI_NETNS", netns)]).assert_silent_success();
            assert_eq!(node.promises(), (vec![], vec![]), "{what}");
        }
    }
}

#[test]
fn del_needs_neither_prev_result_nor_a_valid_configuration() {
    let node = Node::new();
    node.tree.remove(VFS[0].parse().unwrap());
    let cases = [
        json!({"prevResult": null}),
        json!({"prevResult": 7}),
        json!({"vlan": 9999, "unknown": 1, "deviceID": 7}),
        json!({"ipam": {"type": "zerobridge-ipam", "subnet": "nonsense"}}),
        json!({"logLevel": "loud"}),
    ];
    for (number, own) in cases.into_iter().enumerate() {
        node.attach(VFS[0], "c1", &format!("10.0.0.{}", number + 5), json!({}));
        let odd = [("CNI_ARGS", "nonsense")];
        node.call_with("DEL", &node.config(own.clone()), &odd).assert_silent_success();
        assert_eq!(node.promises(), (vec![], vec![]), "{own}");
    }
}

#[test]
fn del_releases_addresses_that_have_lost_their_vf() {
    let node = Node::new();
    node.lease_alone("c1", "10.0.0.5");
    node.call("DEL", &node.config(json!({}))).assert_silent_success();
    assert_eq!(node.promises().1, [""; 0]);
}

/// D3 of the reference: a late DEL resets the VF of the pod that has it now.
#[test]
fn d3_a_del_of_an_old_sandbox_touches_nothing_of_the_new_ones() {
    let node = Node::new();
    let record = node.attach(VFS[0], "new", "10.0.0.5", json!({}));
    node.call_with("DEL", &node.config(json!({})), &[("CNI_CONTAINERID", "old")]).assert_silent_success();
    node.call_with("DEL", &node.config(json!({})), &[("CNI_CONTAINERID", "new"), ("CNI_IFNAME", "net1")])
        .assert_silent_success();
    assert_eq!(node.ledger().attachments().unwrap(), [record]);
}

/// D2 of the reference: a DEL that fails forgets what it has not restored.
#[test]
fn d2_a_del_that_fails_keeps_what_the_next_one_needs() {
    let node = Node::new();
    node.attach(VFS[0], "c1", "10.0.0.5", json!({}));
    for _ in 0..2 {
        node.call("DEL", &node.config(json!({}))).assert_error(11, &["PF 0000:01:00.0", VFS[0]]);
        assert_eq!(node.promises(), (vec!["c1".to_owned()], vec!["10.0.0.5".to_owned()]));
    }
}

/// D7 of the reference: its internal state can be given in the configuration.
#[test]
fn d7_internal_state_is_no_key() {
    let node = Node::new();
    for key in ["OrigVfState", "Master", "VFID", "original", "wanted"] {
        node.call("ADD", &node.config(json!({key: {}}))).assert_error(2, &[key]);
    }
}

/// D8 of the reference: any other text means "off".
#[test]
fn d8_a_slip_of_the_pen_is_an_error() {
    let node = Node::new();
    for key in ["spoofchk", "trust"] {
        let answer = node.call("ADD", &node.config(json!({key: "yes"})));
        answer.assert_error(7, &[key, "\"yes\"", "\"on\" or \"off\""]);
    }
}

// SPEC, section 2, "CHECK".

#[test]
fn check_exists_since_0_4_0_and_consults_prev_result() {
    let node = Node::new();
    node.call("CHECK", &node.config(json!({"cniVersion": "0.3.1"}))).assert_error(1, &["CHECK", "0.4.0"]);
    for version in ["0.4.0", "1.0.0", "1.1.0"] {
        let config = node.config(json!({"cniVersion": version}));
        node.call("CHECK", &config).assert_error(7, &["prevResult is missing"]);
    }
    let foreign = node.config(json!({"prevResult": {"interfaces": [{"name": "eth0"}]}}));
    node.call("CHECK", &foreign).assert_error(3, &["no VF is attached as eth0 of container c1"]);
    node.attach(VFS[0], "c1", "10.0.0.5", json!({}));
    // One without a sandbox is an interface of the host.
    node.call("CHECK", &foreign).assert_error(7, &["prevResult lists no interface eth0"]);
    let older = node.config(json!({"cniVersion": "1.0.0", "prevResult": {"cniVersion": "7.0.0"}}));
    node.call("CHECK", &older).assert_error(1, &["7.0.0"]);
}

#[test]
fn check_finds_a_lost_namespace_a_lost_vf_and_a_lost_address() {
    let node = Node::new();
    let result = |sandbox: &str| json!({"interfaces": [{"name": "eth0", "sandbox": sandbox}], "ips": [{"address": "10.0.0.5/24"}]});
    let gone = node.config(json!({"prevResult": result("/run/netns/gone")}));
    let beside = json!({"addresses": ["10.0.0.9/24"]});
    let record = node.attach(VFS[0], "c1", "10.0.0.5", beside);
    node.call("CHECK", &gone).assert_error(3, &["/run/netns/gone"]);

    let netns = TestNetns::new();
    let path = netns.netns().path();
    let config = node.config(json!({"prevResult": result(path.to_str().unwrap())}));
    let in_sandbox = [("CNI_NETNS", path.to_str().unwrap())];
    let answer = node.call_with("CHECK", &config, &in_sandbox);
    answer.assert_error(106, &["address 10.0.0.9 is not leased any more", "another namespace"]);

    node.in_namespace(record, &netns);
    node.tree.remove(VFS[0].parse().unwrap());
    node.call_with("CHECK", &config, &in_sandbox).assert_error(101, &[VFS[0]]);
}

// SPEC, section 2, "GC".

#[test]
fn gc_ends_what_is_not_listed_in_its_network_and_says_nothing() {
    for key in ["cni.dev/valid-attachments", "cni.dev/attachments"] {
        let node = Node::new();
        for vf in VFS {
            node.tree.remove(vf.parse().unwrap());
        }
        node.lease_alone("alone", "10.0.0.7");
        node.attach(VFS[0], "stale", "10.0.0.5", json!({}));
        node.attach(VFS[1], "valid", "10.0.0.6", json!({}));
        let list =
            json!([{"containerID": "valid", "ifname": "eth0"}, {"containerID": "stale", "ifname": "net1"}]);
        let other = node.config(json!({"name": "green", key: list}));
        node.call("GC", &other).assert_silent_success();
        assert_eq!(node.promises().0.len(), 2, "another network's are left alone");
        let config = node.config(json!({key: list}));
        for _ in 0..2 {
            node.call("GC", &config).assert_silent_success();
            assert_eq!(node.promises(), (vec!["valid".to_owned()], vec!["10.0.0.6".to_owned()]), "{key}");
        }
    }
}

#[test]
fn gc_without_a_list_takes_nothing_and_an_empty_list_takes_all() {
    let node = Node::new();
    node.tree.remove(VFS[0].parse().unwrap());
    node.attach(VFS[0], "c1", "10.0.0.5", json!({}));
    node.call("GC", &node.config(json!({}))).assert_error(7, &["cni.dev/valid-attachments is missing"]);
    assert_eq!(node.promises().0, ["c1"]);
    // So a runtime written in Go says that it has no container.
    node.call("GC", &node.config(json!({"cni.dev/valid-attachments": null}))).assert_silent_success();
    assert_eq!(node.promises(), (vec![], vec![]));
}

#[test]
fn what_the_node_keeps_for_itself_is_given_to_nobody_and_outlives_gc() {
    let node = Node::new();
    node.attach(VFS[0], "node:leg", "10.0.0.5", json!({}));
    let before = node.promises();
    let sandbox = TestNetns::new();
    let changes = [("CNI_NETNS", sandbox.netns().path().to_str().unwrap())];
    let add = node.call_with("ADD", &node.config(json!({"deviceID": VFS[0]})), &changes);
    add.assert_error(11, &[VFS[0], "the node's leg eth0"]);
    node.call("GC", &node.config(json!({"cni.dev/valid-attachments": []}))).assert_silent_success();
    assert_eq!(node.promises(), before);
}

#[test]
fn gc_goes_on_after_a_failure_and_reports_it() {
    let node = Node::new();
    node.attach(VFS[0], "stuck", "10.0.0.5", json!({}));
    node.attach(VFS[1], "stale", "10.0.0.6", json!({}));
    node.tree.remove(VFS[1].parse().unwrap());
    let config = node.config(json!({"cni.dev/valid-attachments": []}));
    node.call("GC", &config).assert_error(11, &[VFS[0]]);
    assert_eq!(node.promises(), (vec!["stuck".to_owned()], vec!["10.0.0.5".to_owned()]));
}

#[test]
fn gc_and_status_exist_since_1_1_0() {
    let node = Node::new();
    for command in ["GC", "STATUS"] {
        let config = node.config(json!({"cniVersion": "1.0.0", "cni.dev/valid-attachments": []}));
        node.call(command, &config).assert_error(1, &[command, "1.1.0"]);
    }
}

// SPEC, section 2, "VERSION", and section 5, "VERSION Success".

#[test]
fn version_names_all_versions_whatever_comes_on_stdin() {
    let node = Node::new();
    for (stdin, version) in [("", "1.1.0"), (r#"{"cniVersion": "0.4.0"}"#, "0.4.0"), ("junk", "1.1.0")] {
        let answer = Answer::of(node.start("VERSION", stdin.as_bytes(), &[("CNI_PATH", "")]));
        let expected: Value = json!({
            "cniVersion": version, "supportedVersions": ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"],
        });
        assert_eq!((answer.exit, answer.out), (0, expected));
    }
}

// SPEC, section 3, "Lifecycle & Ordering": calls for several containers at once.

#[test]
fn calls_for_many_containers_at_once_get_in_nobodys_way() {
    let node = Node::new();
    for vf in VFS {
        node.tree.remove(vf.parse().unwrap());
    }
    node.attach(VFS[0], "c0", "10.0.0.5", json!({}));
    node.attach(VFS[1], "c1", "10.0.0.6", json!({}));
    let stdin = node.config(json!({})).to_string();
    let calls: Vec<_> = (0..32)
        .map(|number| node.start("DEL", stdin.as_bytes(), &[("CNI_CONTAINERID", &format!("c{number}"))]))
        .collect();
    for call in calls {
        Answer::of(call).assert_silent_success();
    }
    assert_eq!(node.promises(), (vec![], vec![]));
    assert_eq!(node.ledger().audit().unwrap(), []);
}
