//! The node's own legs: it reaches its pods' VFs and they reach it, without a bridge and without a veth pair.

use std::error::Error;
use std::time::Duration;

use serde_json::{Value, json};
use zerobridge_lab::{
    BLUE, CNI_CONFIG, GREEN, Guest, Lab, METRICS, Node, Pod, PodRequest, cni_config, program,
};

use crate::expect;
use crate::group::{Group, Outcome, say};
use crate::lab::Station;

pub(crate) const GROUP: Group = Group {
    name: "legs",
    vm: "device_plugin",
    scenarios: &[
        ("the_node_and_its_pods_reach_each_other_by_legs_of_every_kind", reach_each_other),
        ("legs_outlive_a_killed_daemon_and_keep_their_addresses", outlive_a_killed_daemon),
        ("a_leg_that_is_no_longer_configured_leaves_nothing", leave_nothing),
    ],
};

/// How long anything may take on a crowded machine.
const LIMIT: Duration = Duration::from_secs(180);
const ARGUMENTS: [&str; 2] = ["--http", METRICS];
/// Where the pods' HTTP server listens.
const PORT: u16 = 8080;
/// The node's address in the network of the VF that it keeps.
const GREEN_LEG: &str = "10.101.0.200";

/// As the lab's, with a subnet of its own for each network: a node has one route to a subnet.
fn networks() -> Value {
    let mut config = cni_config();
    config["plugins"][0]["networks"][1]["ipam"] =
        json!({"type": "zerobridge-ipam", "ranges": [[{"subnet": "10.101.0.0/24"}]]});
    config
}

/// A pool of each network, and the second card's last VF for the node, which the pool would take.
fn config(legs: bool) -> Value {
    let mut config = json!({"pools": [
        {"resourceName": "vf", "selectors": {"pfNames": ["enp1s0#0"]}},
        {"resourceName": "vf-green", "selectors": {"pfNames": ["enp2s0#2-3"]}},
    ]});
    if legs {
        let pool = &networks()["plugins"][0]["networks"][0]["ipam"];
        config["legs"] = json!([
            {"name": "blue", "kind": "vlan", "pf": "enp1s0", "vlan": 100, "network": "blue", "ipam": pool},
            {"name": "green", "kind": "vf", "pf": "enp2s0", "vf": 3, "vlan": 200, "network": "green",
             "address": format!("{GREEN_LEG}/24")},
            {"name": "wire", "kind": "pf", "pf": "enp2s0", "network": "wire",
             "address": ["10.9.0.1/24", "fd00:9::1/64"]},
        ]);
    }
    config
}

/// The node with legs that are up, and a pod in each network: those that run already, or new ones.
fn with_legs(lab: &mut Lab) -> Result<(&mut Guest, &mut Node, [Pod; 2]), Box<dyn Error>> {
    let (guest, node) = lab.node()?;
    if legs(guest)?.is_empty() {
        guest.write(CNI_CONFIG, &networks().to_string())?;
        node.reconfigure(guest, &config(true), &ARGUMENTS)?;
    }
    wait_for_legs(guest)?;
    let requests = [PodRequest::serving("leg-ada", BLUE, PORT), PodRequest::with_one("leg-eve", GREEN)];
    let pods = node.run_pods(guest, &requests)?;
    let pods = pods.try_into().map_err(|_| "two pods were asked for")?;
    Ok((guest, node, pods))
}

/// The legs as `zbctl` shows them, whatever it thinks of them.
fn legs(guest: &mut Guest) -> Result<Vec<Value>, Box<dyn Error>> {
    let output = guest.output(program(&["zbctl", "legs", "--json"]), LIMIT)?;
    let answer: Value =
        serde_json::from_str(&output.stdout).map_err(|error| format!("{error}: {output:?}"))?;
    Ok(answer["legs"].as_array().cloned().unwrap_or_default())
}

fn wait_for_legs(guest: &mut Guest) -> Outcome {
    guest.wait_for("three legs that are up", LIMIT, |guest| {
        let legs = legs(guest).unwrap_or_default();
        let is_up = |leg: &Value| leg["state"] == "up" && leg["problem"].is_null();
        Ok(if legs.len() == 3 && legs.iter().all(is_up) { Ok(()) } else { Err(format!("{legs:?}")) })
    })?;
    Ok(())
}

/// The first address of a leg, without its prefix.
fn address(guest: &mut Guest, name: &str) -> Result<String, Box<dyn Error>> {
    let leg = legs(guest)?.into_iter().find(|leg| leg["name"] == name);
    let leg = expect::some(leg, &format!("there is no leg {name}"))?;
    let address = leg["addresses"][0].as_str().and_then(|net| net.split_once('/'));
    Ok(expect::some(address, &format!("leg {name} has no address"))?.0.to_owned())
}

/// Whether the node gets an answer from `address`, and from which of its own addresses it asks.
fn node_reaches(guest: &mut Guest, address: &str, from: &str, by: &str) -> Outcome {
    let route = guest.run(&["ip", "route", "get", address])?;
    expect::that(route.contains(&format!("dev {by} src {from}")), || {
        format!("the node asks {address} by another way: {route}")
    })?;
    let pinged = guest.output(program(&["ping", "-c", "3", "-W", "2", "-A", address]), LIMIT)?;
    expect::that(pinged.code == 0, || format!("the node does not reach {address} by {by}: {pinged:?}"))
}

fn reach_each_other(lab: &mut Lab) -> Outcome {
    let before = lab.vm.guest.snapshot()?;
    let (guest, node, [ada, eve]) = with_legs(lab)?;
    say(&guest.run(&["zbctl", "legs"])?);
    let blue = address(guest, "blue")?;
    expect::that(ada.ip != blue, || format!("pod and node both have {blue}"))?;
    let green_interface = guest.shell("basename /sys/class/net/enp2s0/device/virtfn3/net/*")?;
    for (pod, leg, interface) in
        [(&ada, blue.as_str(), "enp1s0.100"), (&eve, GREEN_LEG, green_interface.trim())]
    {
        node_reaches(guest, &pod.ip, leg, interface)?;
        expect::that(pod.reaches(guest, leg)?, || format!("{} does not reach the node at {leg}", pod.name))?;
        let neighbours = pod.run(guest, &["ip", "neigh"])?;
        let mac = guest.run(&["cat", &format!("/sys/class/net/{interface}/address")])?;
        expect::that(neighbours.contains(leg) && neighbours.contains(mac.trim()), || {
            format!("{} knows the node otherwise: {neighbours}", pod.name)
        })?;
    }
    // An untagged host, to which the PF's own address leads.
    let station = Station::add(guest, "walker", 1, 1, 0, 7)?;
    guest.wait_for("the untagged host to answer", LIMIT, |guest| {
        Ok(node_reaches(guest, "10.9.0.7", "10.9.0.1", "enp2s0").map_err(|error| error.to_string()))
    })?;
    station.remove(guest)?;

    guest.wait_for("the kubelet's probe", LIMIT, |guest| {
        Ok(if node.is_ready(guest, "leg-ada")? { Ok(()) } else { Err("not ready".to_owned()) })
    })?;
    expect::equal("the host's virtual links", &virtual_links(guest)?, &vec!["enp1s0.100 vlan".to_owned()])?;
    let metrics = node.metrics(guest)?;
    expect::equal("legs that are up", &metrics.sum("zerobridge_leg_up", &[]), &Some(3.0))?;

    let devices: Value = guest.json(&["zbctl", "devices", "--json"])?;
    let kept = guest.vf(2, 3)?.to_string();
    let kept = devices["devices"].as_array().into_iter().flatten().find(|one| one["device"] == kept);
    let kept = expect::some(kept, "zbctl does not know the VF")?;
    expect::equal("the kept VF's owner", &kept["owners"][0]["leg"], &json!("green"))?;
    let reason = kept["reason"].as_str().unwrap_or_default();
    expect::that(reason.contains("its own leg green"), || format!("the kept VF is in a pool: {kept}"))?;
    let changes = guest.snapshot()?.differences(&before);
    say(&changes.join("\n"));
    Ok(())
}

fn outlive_a_killed_daemon(lab: &mut Lab) -> Outcome {
    let (guest, node, [ada, _]) = with_legs(lab)?;
    let before = legs(guest)?;
    node.kill_device_plugin(guest)?;
    let blue = address(guest, "blue")?;
    node_reaches(guest, &ada.ip, &blue, "enp1s0.100")?;
    // While nobody looks, somebody takes one away.
    guest.run(&["ip", "link", "delete", "enp1s0.100"])?;
    node.start_device_plugin(guest, &config(true), &ARGUMENTS)?;
    wait_for_legs(guest)?;
    expect::equal("the legs after the restart", &legs(guest)?, &before)?;
    node_reaches(guest, &ada.ip, &blue, "enp1s0.100")?;
    let leases = "SELECT count(*) FROM leases WHERE container_id = 'node:leg' AND released_at IS NULL";
    expect::equal("the ledger's leases of legs", &query(guest, leases)?, &"4".to_owned())
}

fn leave_nothing(lab: &mut Lab) -> Outcome {
    let before = lab.pristine();
    let (guest, node, pods) = with_legs(lab)?;
    node.rewrite_config(guest, &config(false))?;
    guest.wait_for("the legs' end", LIMIT, |guest| {
        let left = legs(guest).map_err(|error| error.to_string());
        Ok(left.and_then(|left| if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }))
    })?;
    expect::equal("the host's virtual links", &virtual_links(guest)?, &Vec::new())?;
    let addresses = guest.run(&["ip", "-o", "address"])?;
    for gone in [GREEN_LEG, "10.9.0.1/", "fd00:9::1/", "10.100.0."] {
        expect::that(!addresses.contains(gone), || format!("{gone} is still there: {addresses}"))?;
    }
    let records = "SELECT count(*) FROM attachments WHERE container_id = 'node:leg'";
    expect::equal("the ledger's records of legs", &query(guest, records)?, &"0".to_owned())?;
    node.wait_allocatable(guest, GREEN, 2, LIMIT, None)?;
    let pinged = guest.output(program(&["ping", "-c", "1", "-W", "1", &pods[0].ip]), LIMIT)?;
    expect::that(pinged.code != 0, || "the node reaches the pod without its leg".into())?;
    node.delete_pods(guest, &pods)?;
    guest.write(CNI_CONFIG, &cni_config().to_string())?;
    expect::as_before(guest, &before)
}

/// Links of the host that are made of software, each with its kind.
fn virtual_links(guest: &mut Guest) -> Result<Vec<String>, Box<dyn Error>> {
    let links = guest.links()?;
    Ok(links.iter().filter_map(|link| Some(format!("{} {}", link.ifname, link.kind()?))).collect())
}

fn query(guest: &mut Guest, sql: &str) -> Result<String, Box<dyn Error>> {
    Ok(guest.run(&["sqlite3", zerobridge_lab::LEDGER, sql])?.trim().to_owned())
}
