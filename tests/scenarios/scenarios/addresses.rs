//! Addresses of the pool that somebody else on the wire has, and gateways that are there or not.

use std::error::Error;
use std::time::Duration;

use serde_json::{Value, json};
use zerobridge_lab::{CniCall, Guest, LEDGER, Lab};
use zerobridge_proto::PciAddress;

use crate::expect;
use crate::group::{Group, Outcome};
use crate::hand::{make_sandbox, promises_of, remove_sandbox};
use crate::lab::Station;

pub(crate) const GROUP: Group = Group {
    name: "addresses",
    vm: "pods",
    scenarios: &[
        ("a_foreign_hosts_addresses_are_passed_over", a_foreign_hosts_addresses_are_passed_over),
        ("a_foreign_host_in_another_vlan_is_none", a_foreign_host_in_another_vlan_is_none),
        ("an_address_that_was_asked_for_is_not_replaced", an_address_that_was_asked_for_is_not_replaced),
        ("one_range_on_two_nodes_gives_no_address_twice", one_range_on_two_nodes_gives_no_address_twice),
        ("a_silent_gateway_is_told_or_fails_the_pod", a_silent_gateway_is_told_or_fails_the_pod),
    ],
};

/// The number of the host in 10.9.0.0/24 and fd00:9::/64 that another host has, and the first that the pool gives.
const TAKEN: u8 = 2;
const FOREIGN: &str = "foreign";
/// How long a carrier may take on a crowded machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A network in VLAN 100 with a pool of both families, whose addresses are probed for.
fn config(network: &str, device: PciAddress) -> Value {
    json!({
        "cniVersion": "1.1.0", "name": network, "type": "zerobridge", "deviceID": device, "vlan": 100,
        "ipam": {
            "type": "zerobridge-ipam", "conflictProbe": true,
            "ranges": [
                [{"subnet": "10.9.0.0/24", "rangeStart": "10.9.0.2", "rangeEnd": "10.9.0.9"}],
                [{"subnet": "fd00:9::/64", "rangeStart": "fd00:9::2", "rangeEnd": "fd00:9::9"}],
            ],
        },
    })
}

/// Another host on the wire, by a VF of the second card, with addresses of both families. Returns its Ethernet address.
fn foreign_host(guest: &mut Guest, vlan: u16, hosts: &[u8]) -> Result<(Station, String), Box<dyn Error>> {
    let station = Station::add(guest, FOREIGN, 2, 0, vlan, TAKEN)?;
    let name = "enp2s0v0";
    for host in hosts {
        guest.shell(&format!(
            "ip -n {FOREIGN} address replace 10.9.0.{host}/24 dev {name}
             ip -n {FOREIGN} address add fd00:9::{host}/64 dev {name} nodad"
        ))?;
    }
    guest.wait_for("the foreign host's carrier", PATIENCE, |guest| {
        let link: Value = guest.json(&["ip", "-n", FOREIGN, "-j", "link", "show", name])?;
        let is_up = link[0]["flags"].as_array().is_some_and(|flags| flags.contains(&json!("LOWER_UP")));
        Ok(if is_up { Ok(()) } else { Err("no carrier".to_owned()) })
    })?;
    let link: Value = guest.json(&["ip", "-n", FOREIGN, "-j", "link", "show", name])?;
    let mac = expect::some(link[0]["address"].as_str(), "the foreign host has no Ethernet address")?;
    Ok((station, mac.to_owned()))
}

/// The addresses that a result gives, without their prefixes.
fn given(result: &Value) -> Vec<String> {
    let addresses = result["ips"].as_array().into_iter().flatten().filter_map(|ip| ip["address"].as_str());
    addresses.filter_map(|address| Some(address.split_once('/')?.0.to_owned())).collect()
}

/// What the ledger in `directory` has set aside of a network, as `ADDRESS MAC`.
fn set_aside(guest: &mut Guest, network: &str) -> Result<Vec<String>, Box<dyn Error>> {
    let query = format!(
        "SELECT address || ' ' || mac FROM set_aside WHERE network = '{network}' ORDER BY family, key"
    );
    let text = guest.run(&["sqlite3", "-readonly", LEDGER, &query])?;
    Ok(text.lines().map(str::to_owned).collect())
}

/// Calls ADD, which must succeed. Returns the result and what was logged.
fn add(guest: &mut Guest, call: &CniCall) -> Result<(Value, String), Box<dyn Error>> {
    let output = guest.cni(call)?;
    expect::that(output.code == 0, || format!("ADD failed: {}{}", output.stdout, output.stderr))?;
    Ok((serde_json::from_str(&output.stdout)?, output.stderr))
}

fn a_foreign_hosts_addresses_are_passed_over(lab: &mut Lab) -> Outcome {
    let before = lab.pristine();
    let guest = lab.install_plugins()?;
    let (station, mac) = foreign_host(guest, 100, &[1, TAKEN])?;
    make_sandbox(guest, "second")?;
    let mut config = config("passed-over", guest.vf(1, 0)?);
    config["ipam"]["gatewayProbe"] = "require".into();
    let call = CniCall::new("ADD", "second", &config);
    let (result, log) = add(guest, &call)?;
    expect::equal("the pod's addresses", &given(&result).join(" "), &"10.9.0.3 fd00:9::3".to_owned())?;
    let found = ["10.9.0.2", "fd00:9::2"].map(|address| format!("{address} {mac}"));
    expect::equal("what is set aside", &set_aside(guest, "passed-over")?, &found.to_vec())?;
    for word in ["10.9.0.2", "fd00:9::2", &mac, "foreign host"] {
        expect::that(log.contains(word), || format!("the log does not say {word:?}: {log}"))?;
    }
    let scope = ["ip", "-n", "second", "address", "show", "dev", "net1", "scope", "global"];
    let inside = guest.run(&scope)?;
    // The last two: the kernel does not probe once more for what has been probed for.
    for wrong in ["10.9.0.2/", "fd00:9::2/", "tentative", "dadfailed"] {
        expect::that(!inside.contains(wrong), || format!("the pod's link has {wrong}: {inside}"))?;
    }
    for peer in ["10.9.0.1", "fd00:9::1"] {
        guest.run(&["ip", "netns", "exec", "second", "ping", "-c", "1", "-W", "5", peer])?;
    }
    config["prevResult"] = result.clone();
    guest.cni_success(&CniCall::new("CHECK", "second", &config))?;
    // A repetition neither probes for the pod's own addresses nor gives it others.
    let (again, _) = add(guest, &call)?;
    expect::equal("the result of a second ADD", &again, &result)?;
    guest.cni_success(&CniCall { command: "DEL", ..call })?;
    remove_sandbox(guest, "second")?;
    expect::equal("what the ledger has", &promises_of(guest, "second")?, &(0, 0))?;
    station.remove(guest)?;
    expect::as_before(guest, &before)
}

fn a_foreign_host_in_another_vlan_is_none(lab: &mut Lab) -> Outcome {
    let before = lab.pristine();
    let guest = lab.install_plugins()?;
    let (station, _) = foreign_host(guest, 200, &[TAKEN])?;
    make_sandbox(guest, "apart")?;
    let call = CniCall::new("ADD", "apart", &config("apart", guest.vf(1, 0)?));
    let (result, _) = add(guest, &call)?;
    expect::equal("the pod's addresses", &given(&result).join(" "), &"10.9.0.2 fd00:9::2".to_owned())?;
    expect::equal("what is set aside", &set_aside(guest, "apart")?, &vec![])?;
    guest.cni_success(&CniCall { command: "DEL", ..call })?;
    remove_sandbox(guest, "apart")?;
    station.remove(guest)?;
    expect::as_before(guest, &before)
}

fn an_address_that_was_asked_for_is_not_replaced(lab: &mut Lab) -> Outcome {
    let before = lab.pristine();
    let guest = lab.install_plugins()?;
    let (station, mac) = foreign_host(guest, 100, &[TAKEN])?;
    make_sandbox(guest, "fixed")?;
    let mut config = config("fixed", guest.vf(1, 0)?);
    config["args"] = json!({"cni": {"ips": ["10.9.0.2"]}});
    let call = CniCall::new("ADD", "fixed", &config);
    let with_foreign_host = guest.snapshot()?;
    let error = guest.cni_refusal(&call)?;
    expect::equal("the code", &error.code, &108)?;
    for word in ["10.9.0.2", &mac, "asked for"] {
        let text = format!("{} {}", error.msg, error.details);
        expect::that(text.contains(word), || format!("the error does not say {word:?}: {text}"))?;
    }
    expect::as_before(guest, &with_foreign_host)?;
    expect::equal("what the ledger has", &promises_of(guest, "fixed")?, &(0, 0))?;
    let found = [format!("10.9.0.2 {mac}"), format!("fd00:9::2 {mac}")];
    expect::equal("what is set aside", &set_aside(guest, "fixed")?, &found.to_vec())?;
    // The foreign host goes, and the address is given though it is set aside, because it was asked for.
    station.remove(guest)?;
    let (result, _) = add(guest, &call)?;
    expect::equal("the pod's addresses", &given(&result).join(" "), &"10.9.0.2 fd00:9::3".to_owned())?;
    guest.cni_success(&CniCall { command: "DEL", ..call })?;
    remove_sandbox(guest, "fixed")?;
    expect::as_before(guest, &before)
}

/// Two ledgers that know nothing of each other, as on two nodes that were given the same range by mistake.
fn one_range_on_two_nodes_gives_no_address_twice(lab: &mut Lab) -> Outcome {
    let before = lab.pristine();
    let guest = lab.install_plugins()?;
    let mut calls = Vec::new();
    let mut addresses = Vec::new();
    for (name, card) in [("here", 1), ("there", 2)] {
        make_sandbox(guest, name)?;
        let mut config = config("two-nodes", guest.vf(card, 0)?);
        for key in ["stateDir", "runDir"] {
            config[key] = format!("/run/two-nodes/{name}/{key}").into();
        }
        let call = CniCall::new("ADD", name, &config);
        addresses.push(given(&add(guest, &call)?.0).join(" "));
        calls.push(call);
    }
    let expected = ["10.9.0.2 fd00:9::2", "10.9.0.3 fd00:9::3"].map(str::to_owned);
    expect::equal("the pods' addresses", &addresses, &expected.to_vec())?;
    for call in calls {
        let name = call.container.clone();
        guest.cni_success(&CniCall { command: "DEL", ..call })?;
        remove_sandbox(guest, &name)?;
    }
    guest.run(&["rm", "-r", "/run/two-nodes"])?;
    expect::as_before(guest, &before)
}

fn a_silent_gateway_is_told_or_fails_the_pod(lab: &mut Lab) -> Outcome {
    let before = lab.pristine();
    let guest = lab.install_plugins()?;
    make_sandbox(guest, "gateless")?;
    let mut config = config("gateless", guest.vf(1, 0)?);
    config["ipam"]["gatewayProbe"] = "require".into();
    let error = guest.cni_refusal(&CniCall::new("ADD", "gateless", &config))?;
    expect::equal("the code", &error.code, &109)?;
    for word in ["10.9.0.1", "fd00:9::1", "gateless"] {
        expect::that(error.msg.contains(word), || format!("the error does not say {word:?}: {}", error.msg))?;
    }
    expect::as_before(guest, &before)?;
    expect::equal("what the ledger has", &promises_of(guest, "gateless")?, &(0, 0))?;
    config["ipam"]["gatewayProbe"] = "warn".into();
    let call = CniCall::new("ADD", "gateless", &config);
    let (_, log) = add(guest, &call)?;
    expect::that(log.contains("gateway 10.9.0.1 does not answer"), || {
        format!("the log has no warning: {log}")
    })?;
    guest.cni_success(&CniCall { command: "DEL", ..call })?;
    remove_sandbox(guest, "gateless")?;
    expect::as_before(guest, &before)
}
