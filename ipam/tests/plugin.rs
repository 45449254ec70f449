//! The program `zerobridge-ipam` as a runtime sees it: variables and standard input in, JSON and an exit code out.
#![expect(clippy::unwrap_used, reason = "a test program, of which clippy takes the helpers for none")]

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use serde_json::{Value, json};
use zerobridge_ledger::{Lease, Ledger, Owner};

fn config(directory: &Path, subnet: &str) -> Value {
    json!({
        "cniVersion": "1.1.0", "name": "blue", "type": "macvlan",
        "ipam": {"type": "zerobridge-ipam", "subnet": subnet, "stateDir": directory, "routes": [{"dst": "0.0.0.0/0"}]},
    })
}

fn start(command: &str, container_id: &str, stdin: &Value) -> Child {
    let mut child = Command::new(env!("CARGO_BIN_EXE_zerobridge-ipam"))
        .env_clear()
        .env("CNI_COMMAND", command)
        .env("CNI_CONTAINERID", container_id)
        .env("CNI_NETNS", "/run/netns/gone")
        .env("CNI_IFNAME", "eth0")
        .env("CNI_PATH", "/opt/cni/bin")
        .env("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAME=web")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(stdin.to_string().as_bytes()).unwrap();
    child
}

/// The exit code and what is on standard output; nothing there is `Value::Null`.
fn answer(output: &Output) -> (i32, Value) {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let value = if text.is_empty() { Value::Null } else { serde_json::from_str(&text).unwrap() };
    (output.status.code().unwrap(), value)
}

fn call(command: &str, container_id: &str, stdin: &Value) -> (i32, Value) {
    answer(&start(command, container_id, stdin).wait_with_output().unwrap())
}

#[test]
fn an_address_is_added_checked_and_deleted_as_often_as_one_likes() {
    let directory = tempfile::tempdir().unwrap();
    let config = config(directory.path(), "10.0.0.0/24");
    let result = json!({
        "cniVersion": "1.1.0",
        "ips": [{"address": "10.0.0.2/24", "gateway": "10.0.0.1"}],
        "routes": [{"dst": "0.0.0.0/0"}],
    });
    for _ in 0..2 {
        assert_eq!(call("ADD", "c1", &config), (0, result.clone()));
    }
    assert_eq!(call("CHECK", "c1", &config), (0, Value::Null));
    for _ in 0..2 {
        assert_eq!(call("DEL", "c1", &config), (0, Value::Null));
    }
    let (code, error) = call("CHECK", "c1", &config);
    assert_eq!((code, &error["code"]), (1, &json!(100)));
}

#[test]
fn a_probe_is_refused_where_there_is_no_link_and_keeps_no_address_from_being_released() {
    let directory = tempfile::tempdir().unwrap();
    let plain = config(directory.path(), "10.0.0.0/24");
    assert_eq!(call("ADD", "c1", &plain).0, 0);
    for (key, value) in [("conflictProbe", json!(true)), ("gatewayProbe", json!("warn"))] {
        let mut probing = plain.clone();
        probing["ipam"][key] = value;
        for command in ["ADD", "CHECK", "STATUS"] {
            let (code, error) = call(command, "c1", &probing);
            assert_eq!((code, &error["code"]), (1, &json!(7)), "{command}: {error}");
            let message = error["msg"].as_str().unwrap();
            assert!(message.contains(key) && message.contains("zerobridge"), "{error}");
        }
        assert_eq!(call("DEL", "c1", &probing), (0, Value::Null));
    }
    assert_eq!(Ledger::open(directory.path()).unwrap().leases().unwrap(), []);
    let mut off = plain;
    off["ipam"]["conflictProbe"] = json!(false);
    off["ipam"]["gatewayProbe"] = json!("off");
    assert_eq!(call("ADD", "c1", &off).0, 0);
}

#[test]
fn many_at_once_get_an_address_each() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("state");
    let config = config(&directory, "10.0.0.0/24");
    let children: Vec<Child> = (0..64).map(|number| start("ADD", &format!("c{number}"), &config)).collect();
    let outputs = children.into_iter().map(|child| child.wait_with_output().unwrap());
    let addresses: BTreeSet<String> = outputs
        .map(|output| {
            let (code, result) = answer(&output);
            assert_eq!(code, 0, "{result}");
            result["ips"][0]["address"].as_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(addresses.len(), 64);
    let ledger = Ledger::open(&directory).unwrap();
    assert_eq!(ledger.leases().unwrap().len(), 64);
    assert_eq!(ledger.audit().unwrap(), []);
}

#[test]
fn a_full_pool_is_an_error_to_try_again_after_and_takes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let mut config = config(directory.path(), "10.0.0.0/30");
    config["ipam"]["ranges"] = json!([[{"subnet": "fd00::/64"}]]);
    assert_eq!(call("STATUS", "", &config), (0, Value::Null));
    assert_eq!(call("ADD", "c1", &config).0, 0);
    let (code, error) = call("ADD", "c2", &config);
    assert_eq!((code, &error["code"], &error["cniVersion"]), (1, &json!(11), &json!("1.1.0")));
    let (code, error) = call("STATUS", "", &config);
    assert_eq!((code, &error["code"]), (1, &json!(50)));
    assert_eq!(Ledger::open(directory.path()).unwrap().leases().unwrap().len(), 2);
}

#[test]
fn a_delete_needs_no_pool_no_ledger_and_no_namespace() {
    let directory = tempfile::tempdir().unwrap();
    let whole = config(directory.path(), "10.0.0.0/24");
    assert_eq!(call("ADD", "c1", &whole).0, 0);
    let mut broken = whole;
    broken["ipam"]["subnet"] = json!("no longer a subnet");
    broken["prevResult"] = json!(7);
    assert_eq!(call("DEL", "c1", &broken), (0, Value::Null));
    assert_eq!(Ledger::open(directory.path()).unwrap().leases().unwrap(), []);

    let nowhere = directory.path().join("never-made");
    assert_eq!(call("DEL", "c1", &config(&nowhere, "10.0.0.0/24")), (0, Value::Null));
    assert!(!nowhere.exists());
}

#[test]
fn garbage_collection_releases_what_is_not_listed_in_this_network_only() {
    let directory = tempfile::tempdir().unwrap();
    let mut config = config(directory.path(), "10.0.0.0/24");
    for container_id in ["c1", "c2"] {
        assert_eq!(call("ADD", container_id, &config).0, 0);
    }
    let mut green = config.clone();
    green["name"] = json!("green");
    assert_eq!(call("ADD", "c3", &green).0, 0);

    // And the node itself, which no runtime knows.
    let mut ledger = Ledger::open(directory.path()).unwrap();
    let of_c2 = ledger.leases().unwrap().into_iter().find(|lease| lease.owner.container_id == "c2").unwrap();
    let address = "10.0.0.99".parse().unwrap();
    let mut transaction = ledger.begin().unwrap();
    transaction.insert_lease(&Lease { address, owner: Owner::leg("pods"), ..of_c2 }).unwrap();
    transaction.commit().unwrap();

    let (code, error) = call("GC", "", &config);
    assert_eq!((code, &error["code"]), (1, &json!(7)));
    config["cni.dev/valid-attachments"] = json!([{"containerID": "c2", "ifname": "eth0"}]);
    assert_eq!(call("GC", "", &config), (0, Value::Null));
    let leases = Ledger::open(directory.path()).unwrap().leases().unwrap();
    let owners: Vec<&str> = leases.iter().map(|lease| lease.owner.container_id.as_str()).collect();
    assert_eq!(owners, ["c2", "node:leg", "c3"]);
}

#[test]
fn an_address_and_name_servers_come_from_where_host_local_takes_them() {
    let directory = tempfile::tempdir().unwrap();
    let resolv_conf = directory.path().join("resolv.conf");
    std::fs::write(&resolv_conf, "nameserver 10.0.0.53\n").unwrap();
    let mut config = config(directory.path(), "10.0.0.0/24");
    config["cniVersion"] = json!("0.4.0");
    config["ipam"]["resolvConf"] = json!(resolv_conf);
    config["runtimeConfig"] = json!({"ips": ["10.0.0.77/24"]});
    let (code, result) = call("ADD", "c1", &config);
    assert_eq!(code, 0, "{result}");
    assert_eq!(result["ips"], json!([{"version": "4", "address": "10.0.0.77/24", "gateway": "10.0.0.1"}]));
    assert_eq!(result["dns"], json!({"nameservers": ["10.0.0.53"]}));

    std::fs::remove_file(&resolv_conf).unwrap();
    let (code, error) = call("ADD", "c2", &config);
    assert_eq!((code, &error["code"]), (1, &json!(5)));
    assert_eq!(Ledger::open(directory.path()).unwrap().leases().unwrap().len(), 1);
}

#[test]
fn versions_and_commands_are_answered_as_the_specification_says() {
    let directory = tempfile::tempdir().unwrap();
    let mut config = config(directory.path(), "10.0.0.0/24");
    let (code, versions) = call("VERSION", "", &config);
    assert_eq!((code, versions["supportedVersions"].as_array().unwrap().len()), (0, 5));
    for (command, version, expected) in
        [("CHECK", "0.3.1", 1), ("GC", "1.0.0", 1), ("ADD", "0.2.0", 1), ("RUN", "1.0.0", 4)]
    {
        config["cniVersion"] = json!(version);
        let (code, error) = call(command, "c1", &config);
        assert_eq!((code, &error["code"]), (1, &json!(expected)), "{command} {version}: {error}");
        let answered = if version == "0.2.0" { "1.1.0" } else { version };
        assert_eq!(error["cniVersion"], answered, "{command} {version}: {error}");
    }
    config["cniVersion"] = json!("1.0.0");
    config["ipam"]["rangestart"] = json!("10.0.0.9");
    let (code, error) = call("ADD", "c1", &config);
    assert_eq!((code, &error["code"], &error["cniVersion"]), (1, &json!(2), &json!("1.0.0")));
    config["ipam"] = Value::Null;
    assert_eq!(call("ADD", "c1", &config).1["code"], json!(7));
}
