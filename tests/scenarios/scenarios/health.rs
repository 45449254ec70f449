//! Health: a device that cannot work is not offered, and one that works is never called broken.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use zerobridge_lab::{BLUE, GREEN, Guest, Lab, METRICS, Node, PodRequest};

use crate::expect;
use crate::group::{Group, Outcome, say};

pub(crate) const GROUP: Group = Group {
    name: "health",
    vm: "device_plugin",
    scenarios: &[
        ("vfs_of_a_pf_without_carrier_are_unhealthy_until_it_is_back", a_pf_without_carrier),
        ("twenty_pods_come_and_go_without_a_change_of_health", twenty_pods_come_and_go),
    ],
};

/// The emulated card takes six seconds to find its carrier again.
const KNOWN_WITHIN: Duration = Duration::from_secs(60);
/// Pods that come at once, and then go: as many as there are VFs, as long as any are left of twenty.
const ROUNDS: [usize; 3] = [8, 8, 4];
/// Between two looks while the pods come and go. They take minutes; what is too short to be seen is in the daemon's log.
const SOMETIMES: Duration = Duration::from_millis(500);
const TRANSITIONS: &str = "zerobridge_health_transitions_total";

/// The second card's VFs are [`BLUE`] and follow its carrier, the first card's are [`GREEN`].
fn by_card() -> Value {
    json!({"pools": [
        {"resourceName": "vf", "selectors": {"pfNames": ["enp2s0"]},
         "health": {"pfCarrier": "unhealthy", "holdDown": "2s"}},
        {"resourceName": "vf-green", "selectors": {"pfNames": ["enp1s0"]}},
    ]})
}

/// The VFs of both cards are [`BLUE`], and each follows its card's carrier.
fn all_alike() -> Value {
    json!({"pools": [
        {"resourceName": "vf", "selectors": {"drivers": ["igbvf"]},
         "health": {"pfCarrier": "unhealthy", "holdDown": "2s"}},
    ]})
}

fn configured(guest: &mut Guest, node: &mut Node, config: &Value, resources: &[(&str, usize)]) -> Outcome {
    node.reconfigure(guest, config, &["--http", METRICS])?;
    for (resource, count) in resources {
        node.wait_allocatable(guest, resource, *count, KNOWN_WITHIN, None)?;
    }
    Ok(())
}

fn a_pf_without_carrier(lab: &mut Lab) -> Outcome {
    let (guest, node) = lab.node()?;
    configured(guest, node, &by_card(), &[(BLUE, 4), (GREEN, 4)])?;
    let pods = node.run_pods(guest, &[PodRequest::with_one("holder", BLUE)])?;
    let given = pods[0].environment(guest)?.remove("PCIDEVICE_ZEROBRIDGE_IO_VF");
    let given = expect::some(given, "the environment names no VF")?;

    for (state, count, health) in [("down", 0, "Unhealthy"), ("up", 4, "Healthy")] {
        let before = node.metrics(guest)?.sum(TRANSITIONS, &[]).unwrap_or_default();
        // The kubelet's allocatable devices are all healthy ones, free or not: at none, the pod's VF is unhealthy, too.
        let script = format!("ip link set enp2s0 {state}");
        let followed = node.follow(guest, &script, &[(BLUE, count), (GREEN, 4)], KNOWN_WITHIN)?;
        say(&format!("  PF {state}: {count} allocatable {} ms later", followed.delay().as_millis()));
        let told = BTreeMap::from([(given.clone(), health.to_owned())]);
        guest.wait_for("the pod's status to say so", KNOWN_WITHIN, |guest| {
            let seen = node.device_health(guest, "holder")?;
            Ok(if seen == told { Ok(()) } else { Err(format!("{seen:?}")) })
        })?;
        let after = node.metrics(guest)?.sum(TRANSITIONS, &[]).unwrap_or_default();
        expect::that(after > before, || format!("{TRANSITIONS} stayed at {after}"))?;
        expect::equal("the pod", &node.pod(guest, "holder")?, &pods[0])?;
    }
    node.delete_pods(guest, &pods)?;
    Ok(())
}

fn twenty_pods_come_and_go(lab: &mut Lab) -> Outcome {
    let before = lab.vm.guest.snapshot()?;
    let (guest, node) = lab.node()?;
    configured(guest, node, &all_alike(), &[(BLUE, 8)])?;
    let counted = node.metrics(guest)?.sum(TRANSITIONS, &[]);
    let log = node.device_plugin_log(guest)?;
    let watch = node.watch(guest, BLUE, SOMETIMES)?;
    for (round, count) in (1..).zip(ROUNDS) {
        // A static pod under a name that is still going away would be the same pod to the kubelet.
        let request = |number| PodRequest::with_one(&format!("guest-{round}-{number}"), BLUE);
        let pods = node.run_pods(guest, &(1..=count).map(request).collect::<Vec<_>>())?;
        node.delete_pods(guest, &pods)?;
    }
    let watched = watch.end(guest)?;
    say(&format!("  {} pods, {} samples", ROUNDS.iter().sum::<usize>(), watched.samples));
    expect::that(watched.changes.len() == 1 && watched.minimum == 8, || {
        format!("{BLUE} did not stay as it was: {:?}", watched.changes)
    })?;
    expect::equal(TRANSITIONS, &node.metrics(guest)?.sum(TRANSITIONS, &[]), &counted)?;
    // A change that was taken back before anybody looked.
    let since = node.device_plugin_log(guest)?.split_off(log.len());
    let changes: Vec<&str> = since.lines().filter(|line| line.contains("devices changed")).collect();
    expect::equal("what the daemon logged", &changes, &Vec::new())?;
    expect::as_before(guest, &before)
}
