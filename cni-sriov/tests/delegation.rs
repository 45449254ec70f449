//! Other programs as IPAM plugins, beyond ADD: the built program, real processes, and a ledger.

mod node;

use std::fs;
use std::process::Command;

use node::{Answer, Node, VFS};
use serde_json::{Value, json};

/// The part of a record that names the plugin `recording`.
fn delegation(node: &Node) -> Value {
    json!({"ipam": {
        "network": "blue", "plugin": "recording", "path": node.path("bin"), "args": "K8S_POD_NAME=old",
        "config": {"cniVersion": "1.1.0", "name": "blue", "ipam": {"type": "recording", "of": "the record"}},
        "result": {"ips": [{"address": "10.9.0.5/24"}]},
    }})
}

fn recording(node: &Node) -> Value {
    node.config(json!({"ipam": {"type": "recording"}, "prevResult": {"ips": []}}))
}

#[test]
fn del_is_passed_on_with_its_own_environment_and_configuration_whatever_is_known() {
    for (what, with_record, netns) in [
        ("a record", true, "/run/netns/gone"),
        ("no record", false, "/run/netns/gone"),
        ("no namespace", false, ""),
    ] {
        let node = Node::new();
        let ipam = node.ipam("recording", "echo a word to its caller >&2");
        if with_record {
            node.tree.remove(VFS[0].parse().unwrap());
            node.attach(VFS[0], "c1", "10.0.0.5", delegation(&node));
        }
        let config = recording(&node);
        let answer = node.call_with("DEL", &config, &[("CNI_NETNS", netns)]);
        answer.assert_silent_success();
        assert!(answer.log.contains("a word to its caller"), "{what}: {answer:?}");
        let calls = ipam.calls();
        assert_eq!(calls.len(), 1, "{what}");
        assert_eq!(calls[0].config(), config, "{what}");
        assert_eq!(calls[0].variables["CNI_COMMAND"], "DEL");
        assert_eq!(calls[0].variables.get("CNI_NETNS").map_or("", String::as_str), netns, "{what}");
        if with_record {
            assert_eq!(node.promises(), (vec![], vec![]));
        }
    }
}

/// D10 of the reference: the address is free only when nobody carries it any more.
#[test]
fn d10_addresses_are_given_up_only_when_the_vf_is_home() {
    let node = Node::new();
    let ipam = node.ipam("recording", "");
    node.attach(VFS[0], "c1", "10.0.0.5", delegation(&node));
    // Its PF has no link here, so the VF cannot be restored.
    node.call("DEL", &recording(&node)).assert_error(11, &["has no network interface on the host"]);
    assert_eq!(ipam.commands(), [""; 0]);
    assert_eq!(node.promises().0, ["c1"]);

    node.tree.remove(VFS[0].parse().unwrap());
    node.call("DEL", &recording(&node)).assert_silent_success();
    assert_eq!(ipam.commands(), ["DEL"]);
}

#[test]
fn a_del_that_the_plugin_refuses_keeps_the_record_for_the_next() {
    let node = Node::new();
    let refuses = r#"echo '{"cniVersion": "1.1.0", "code": 11, "msg": "its daemon sleeps"}'; exit 1"#;
    node.ipam("recording", refuses);
    node.tree.remove(VFS[0].parse().unwrap());
    node.attach(VFS[0], "c1", "10.0.0.5", delegation(&node));
    let answer = node.call("DEL", &recording(&node));
    answer.assert_error(11, &["DEL of IPAM plugin recording for network blue: its daemon sleeps"]);
    assert_eq!(node.promises().0, ["c1"]);
    node.ipam("recording", "");
    node.call("DEL", &recording(&node)).assert_silent_success();
    assert_eq!(node.promises().0, [""; 0]);
}

#[test]
fn a_del_reaches_the_plugin_in_a_configuration_that_is_wrong_otherwise() {
    let node = Node::new();
    let ipam = node.ipam("recording", "");
    for own in [
        json!({"vlan": 9999, "unknown": 1}),
        json!({"logLevel": "loud"}),
        json!({"deviceID": "eth0", "prevResult": 7}),
    ] {
        let mut config = recording(&node);
        config.as_object_mut().unwrap().extend(own.as_object().unwrap().clone());
        node.call("DEL", &config).assert_silent_success();
    }
    assert_eq!(ipam.commands(), ["DEL", "DEL", "DEL"]);
}

#[test]
fn without_a_record_a_plugin_that_is_not_installed_keeps_no_pod() {
    let node = Node::new();
    let answer = node.call("DEL", &recording(&node));
    answer.assert_silent_success();
    assert!(answer.log.contains("is not in CNI_PATH"), "{answer:?}");

    // With one it may have given addresses.
    node.tree.remove(VFS[0].parse().unwrap());
    node.attach(VFS[0], "c1", "10.0.0.5", delegation(&node));
    node.call("DEL", &recording(&node)).assert_error(7, &["\"recording\"", "no directory of CNI_PATH"]);
}

#[test]
fn check_status_and_gc_are_passed_on_and_their_failures_come_back() {
    let refuses = |command: &str| {
        format!(
            r#"test $CNI_COMMAND != {command} || {{ echo '{{"code": 51, "msg": "lost its daemon"}}'; exit 1; }}"#
        )
    };
    for (command, code) in [("STATUS", 51), ("GC", 51), ("CHECK", 106)] {
        let node = Node::new();
        let ipam = node.ipam("recording", "");
        let mut config = recording(&node);
        config["cni.dev/valid-attachments"] = json!([{"containerID": "c1", "ifname": "eth0"}]);
        if command == "CHECK" {
            let netns = zerobridge_kernel::testing::TestNetns::new();
            let path = netns.netns().path().to_str().unwrap().to_owned();
            config["prevResult"] = json!({"interfaces": [{"name": "eth0", "sandbox": path}]});
            node.attach(VFS[0], "c1", "10.0.0.5", delegation(&node));
            let check = |node: &Node| node.call_with("CHECK", &config, &[("CNI_NETNS", &path)]);
            // The record's namespace is another one, so our own part fails, and the plugin is asked all the same.
            check(&node).assert_error(code, &["CNI_NETNS is", "another namespace"]);
            node.ipam("recording", &refuses(command));
            check(&node)
                .assert_error(code, &["CHECK of IPAM plugin recording for network blue: lost its daemon"]);
        } else {
            node.call(command, &config).assert_silent_success();
            node.ipam("recording", &refuses(command));
            node.call(command, &config).assert_error(code, &["IPAM plugin recording", "lost its daemon"]);
        }
        assert_eq!(ipam.commands(), [command, command]);
        assert_eq!(ipam.calls()[0].config(), config);
    }
}

#[test]
fn gc_gives_up_each_stale_attachments_addresses_by_what_its_add_was_told_and_goes_on_after_failures() {
    let node = Node::new();
    let ipam = node.ipam("recording", "");
    // The one cannot be restored, the other is gone.
    node.attach(VFS[0], "stuck", "10.0.0.5", delegation(&node));
    node.attach(VFS[1], "stale", "10.0.0.6", delegation(&node));
    node.tree.remove(VFS[1].parse().unwrap());
    let mut config = recording(&node);
    config["cni.dev/valid-attachments"] = json!([]);
    node.call("GC", &config).assert_error(11, &[VFS[0], "has no network interface on the host"]);
    assert_eq!(ipam.commands(), ["DEL", "GC"]);
    let del = &ipam.calls()[0];
    assert_eq!(del.config()["ipam"]["of"], "the record");
    assert_eq!(del.variables["CNI_CONTAINERID"], "stale");
    assert_eq!(del.variables["CNI_ARGS"], "K8S_POD_NAME=old");
    assert!(!del.variables.contains_key("CNI_NETNS"), "its path may be another's by now");
    assert_eq!(node.promises(), (vec!["stuck".to_owned()], vec!["10.0.0.5".to_owned()]));
}

#[test]
fn of_several_networks_each_plugin_hears_of_its_own() {
    let node = Node::new();
    let plugins = [node.ipam("first", ""), node.ipam("second", "")];
    let entry = |name: &str, plugin: &str| json!({"name": name, "resourceName": format!("x/{name}"), "ipam": {"type": plugin}});
    let mut config =
        node.config(json!({"name": "pods", "networks": [entry("a", "first"), entry("b", "second")]}));
    config["cni.dev/valid-attachments"] = json!([]);
    node.call("DEL", &config).assert_silent_success();
    node.call("GC", &config).assert_silent_success();
    for (plugin, network) in plugins.iter().zip(["a", "b"]) {
        assert_eq!(plugin.commands(), ["DEL", "GC"]);
        let told = plugin.calls()[1].config();
        assert_eq!((&told["name"], &told["cni.dev/valid-attachments"]), (&json!(network), &json!([])));
        assert_eq!(told["networks"], Value::Null);
    }
}

/// A plugin that hangs is for the runtime to end; other pods must not notice.
#[test]
fn a_plugin_that_hangs_holds_up_nobody_else() {
    let node = Node::new();
    let fifo = node.path("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let started = node.path("started");
    let ipam = node.ipam(
        "recording",
        &format!(
            "test $CNI_CONTAINERID != c1 || {{ echo > '{}'; cat '{}'; }}",
            started.display(),
            fifo.display()
        ),
    );
    for vf in VFS {
        node.tree.remove(vf.parse().unwrap());
    }
    node.attach(VFS[0], "c1", "10.0.0.5", delegation(&node));
    node.attach(VFS[1], "c2", "10.0.0.6", delegation(&node));
    let config = recording(&node);
    let hanging = node.start("DEL", config.to_string().as_bytes(), &[]);
    while !started.exists() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    // Writes the ledger, which the hanging one would hold.
    node.call_with("DEL", &config, &[("CNI_CONTAINERID", "c2")]).assert_silent_success();
    assert_eq!(node.promises().0, ["c1"]);
    fs::write(&fifo, "").unwrap();
    Answer::of(hanging).assert_silent_success();
    assert_eq!((node.promises().0.len(), ipam.commands().len()), (0, 2));
}

#[test]
fn a_plugin_that_reads_nothing_or_prints_without_end_is_answered_all_the_same() {
    let node = Node::new();
    let big = json!({"ipam": {"type": "deaf", "text": "x".repeat(1 << 20)}});
    fs::write(node.path("bin/deaf"), "#!/bin/sh\nexit 0\n").unwrap();
    fs::set_permissions(node.path("bin/deaf"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    node.call("DEL", &node.config(big)).assert_silent_success();

    node.ipam("endless", "exec yes");
    let answer = node.call("DEL", &node.config(json!({"ipam": {"type": "endless"}})));
    answer.assert_error(107, &["signal: 13", "it printed"]);
}
