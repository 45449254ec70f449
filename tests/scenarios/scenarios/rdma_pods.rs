//! Unprivileged pods with an RDMA device each, by a real kubelet and a real containerd, in both modes of the kernel.

use std::error::Error;
use std::time::Duration;

use serde_json::{Value, json};
use zerobridge_lab::{
    BLUE, CNI_CONFIG, Guest, HOST, Lab, Node, Pod, PodRequest, RdmaMode, VerbsEnd, program,
};

use crate::expect;
use crate::group::{Group, Outcome, say};
use crate::hand::{promises_of, remove_sandbox};
use crate::rdma_attachment::Attached;

pub(crate) const SHARED: Group = Group {
    name: "rdma_shared_pods",
    vm: "rdma_shared",
    scenarios: &[("verbs_and_rdma_cm_work_within_a_vlan_by_the_nodes_given", in_shared_mode)],
};

pub(crate) const EXCLUSIVE: Group = Group {
    name: "rdma_exclusive_pods",
    vm: "rdma_exclusive",
    scenarios: &[
        ("each_pod_sees_and_opens_its_own_device_only", in_exclusive_mode),
        ("what_a_lost_sandbox_left_is_given_back_by_the_daemon", a_lost_sandbox),
        ("seven_pods_at_once_and_more_in_a_row_each_open_their_own_device", many_pods),
    ],
};

/// What the kubelet calls the pods of the other VLAN.
const OTHER: &str = "zerobridge.io/vf-other";
const LIMIT: Duration = Duration::from_secs(60);
/// The daemon leaves a record alone for half a minute, in which a DEL may still come.
const RECONCILED_WITHIN: Duration = Duration::from_secs(150);
/// Pods that come one after the other; `ZEROBRIDGE_RDMA_PODS` is another number.
const IN_A_ROW: usize = 2;
const VARIABLE: &str = "ZEROBRIDGE_RDMA_PODS";

/// All VFs of the cards but one, which is in the other VLAN; each with a software RDMA device.
fn device_config() -> Value {
    json!({"cdi": "on", "pools": [
        {"resourceName": "vf", "rdma": "soft", "selectors": {"pfNames": ["enp1s0", "enp2s0#0-2"]}},
        {"resourceName": "vf-other", "rdma": "soft", "selectors": {"pfNames": ["enp2s0#3"]}},
    ]})
}

fn cni_config() -> Value {
    let network = |name: &str, resource: &str, vlan: u16, subnet: &str| {
        json!({"name": name, "resourceName": resource, "vlan": vlan, "rdma": "soft",
               "ipam": {"type": "zerobridge-ipam", "ranges": [[{"subnet": subnet}]]}})
    };
    json!({"cniVersion": "1.1.0", "name": "pods", "plugins": [{"type": "zerobridge", "networks": [
        network("near", BLUE, 100, "10.101.0.0/24"),
        network("far", OTHER, 200, "10.102.0.0/24"),
    ]}]})
}

fn ready(lab: &mut Lab, mode: RdmaMode) -> Result<(&mut Guest, &mut Node), Box<dyn Error>> {
    lab.vm.guest.load_rdma(mode)?;
    let (guest, node) = lab.node()?;
    node.import_rdma_image(guest)?;
    guest.write(CNI_CONFIG, &cni_config().to_string())?;
    node.reconfigure(guest, &device_config(), &[])?;
    for (resource, count) in [(BLUE, 7), (OTHER, 1)] {
        node.wait_allocatable(guest, resource, count, LIMIT, None)?;
    }
    Ok((guest, node))
}

/// The name of a pod's RDMA device, which it was not given another one.
fn device_of(guest: &mut Guest, pod: &Pod) -> Result<String, Box<dyn Error>> {
    let environment = pod.environment(guest)?;
    let given =
        environment.iter().find(|(name, _)| name.starts_with("PCIDEVICE_") && !name.ends_with("_INFO"));
    let (_, vf) = expect::some(given, "the environment names no VF")?;
    Ok(format!("rxe_{}", vf.replace([':', '.'], "_")))
}

fn end_of(guest: &mut Guest, node: &mut Node, pod: &Pod) -> Result<VerbsEnd, Box<dyn Error>> {
    let (enter, device) = (node.exec(pod), device_of(guest, pod)?);
    Ok(VerbsEnd { enter, namespace: pod.netns.clone(), device, address: pod.ip.clone() })
}

/// Runs a program in a pod's container with its user and its capabilities. Returns whether it succeeded, and what it said.
fn run(
    guest: &mut Guest,
    node: &mut Node,
    pod: &Pod,
    argv: &[&str],
) -> Result<(bool, String), Box<dyn Error>> {
    let enter = node.exec(pod);
    let words: Vec<&str> = enter.iter().map(String::as_str).chain(argv.iter().copied()).collect();
    let output = guest.output(program(&words), LIMIT)?;
    Ok((output.code == 0, output.stdout + &output.stderr))
}

/// The container has one uverbs node and the connection manager's, and can open its device by them.
fn has_its_own_device(guest: &mut Guest, node: &mut Node, pod: &Pod) -> Outcome {
    let device = device_of(guest, pod)?;
    let (_, listed) = run(guest, node, pod, &["ls", "/dev/infiniband"])?;
    let nodes: Vec<&str> = listed.split_whitespace().collect();
    let own =
        nodes.len() == 2 && nodes.contains(&"rdma_cm") && nodes.iter().any(|name| name.starts_with("uverbs"));
    expect::that(own, || format!("{} has the nodes {nodes:?}", pod.name))?;
    let (opened, said) = run(guest, node, pod, &["ibv_devinfo", "-d", &device])?;
    expect::that(opened && said.contains("PORT_ACTIVE"), || {
        format!("{} cannot use {device} by {nodes:?}: {said}", pod.name)
    })
}

fn three_pods(guest: &mut Guest, node: &mut Node) -> Result<[Pod; 3], Box<dyn Error>> {
    let requests = [("ada", BLUE), ("bob", BLUE), ("eve", OTHER)]
        .map(|(name, resource)| PodRequest::with_verbs(name, resource));
    let pods: [Pod; 3] =
        node.run_pods(guest, &requests)?.try_into().map_err(|_| "three pods were asked for")?;
    for pod in &pods {
        has_its_own_device(guest, node, pod)?;
    }
    Ok(pods)
}

fn nothing_left(guest: &mut Guest) -> Outcome {
    expect::equal("the RDMA devices of the host", &guest.rdma_devices(HOST)?, &Vec::new())?;
    let specs = guest.shell("ls /var/run/cdi | grep rdma || true")?;
    expect::equal("specifications of RDMA nodes", &specs.as_str(), &"")
}

fn in_shared_mode(lab: &mut Lab) -> Outcome {
    let before = lab.pristine();
    let (guest, node) = ready(lab, RdmaMode::Shared)?;
    let [ada, bob, eve] = three_pods(guest, node)?;
    let ends = [end_of(guest, node, &ada)?, end_of(guest, node, &bob)?];
    let verbs = guest.ping_pong(&ends[0], &ends[1], &ada.ip)?;
    expect::that(verbs.code == 0, || format!("no verbs: {verbs:?}"))?;
    let ends = [end_of(guest, node, &ada)?, end_of(guest, node, &bob)?];
    let rdma_cm = guest.rping(&ends[0], &ends[1])?;
    expect::that(rdma_cm.code == 0, || format!("no RDMA-CM: {rdma_cm:?}"))?;
    let ends = [end_of(guest, node, &ada)?, end_of(guest, node, &eve)?];
    let far = guest.ping_pong(&ends[0], &ends[1], &ada.ip)?;
    expect::that(far.code != 0, || format!("a pod of another VLAN is reached: {far:?}"))?;
    // Every namespace sees every device, so the nodes are all that keeps bob's from ada.
    let other = device_of(guest, &bob)?;
    let (opened, said) = run(guest, node, &ada, &["ibv_devinfo", "-d", &other])?;
    expect::that(!opened, || format!("ada opened bob's {other}: {said}"))?;
    node.delete_pods(guest, &[ada, bob, eve])?;
    nothing_left(guest)?;
    expect::as_before(guest, &before)
}

fn in_exclusive_mode(lab: &mut Lab) -> Outcome {
    let before = lab.pristine();
    let (guest, node) = ready(lab, RdmaMode::Exclusive)?;
    let [ada, bob, eve] = three_pods(guest, node)?;
    expect::equal("the RDMA devices of the host", &guest.rdma_devices(HOST)?, &Vec::new())?;
    for pod in [&ada, &bob, &eve] {
        let own = device_of(guest, pod)?;
        let (_, listed) = run(guest, node, pod, &["ibv_devices"])?;
        let seen: Vec<&str> = listed.split_whitespace().filter(|word| word.starts_with("rxe_")).collect();
        expect::equal(&format!("what {} sees", pod.name), &seen, &vec![own.as_str()])?;
    }
    let ends = [end_of(guest, node, &ada)?, end_of(guest, node, &bob)?];
    let verbs = guest.ping_pong(&ends[0], &ends[1], &ada.ip)?;
    expect::that(verbs.code == 0, || format!("no verbs: {verbs:?}"))?;
    node.delete_pods(guest, &[ada, bob, eve])?;
    nothing_left(guest)?;
    expect::as_before(guest, &before)
}

/// A runtime that forgets a sandbox calls no DEL.
fn a_lost_sandbox(lab: &mut Lab) -> Outcome {
    let before = lab.pristine();
    let (guest, _) = ready(lab, RdmaMode::Exclusive)?;
    let attached = Attached::new(guest, "lost", 0, None)?;
    remove_sandbox(guest, "lost")?;
    guest.wait_for("the reconciler", RECONCILED_WITHIN, |guest| {
        let promises = promises_of(guest, "lost").map_err(|error| error.to_string());
        Ok(if promises == Ok((0, 0)) { Ok(()) } else { Err(format!("{promises:?}")) })
    })?;
    expect::equal("its device nodes", &attached.nodes(guest)?, &Vec::new())?;
    nothing_left(guest)?;
    expect::as_before(guest, &before)
}

fn many_pods(lab: &mut Lab) -> Outcome {
    let in_a_row = match std::env::var(VARIABLE) {
        Ok(text) => text.parse().map_err(|_| format!("{VARIABLE} is {text}; write a number of pods"))?,
        Err(_) => IN_A_ROW,
    };
    let before = lab.pristine();
    let (guest, node) = ready(lab, RdmaMode::Exclusive)?;
    let rounds = std::iter::once(7).chain(std::iter::repeat_n(1, in_a_row));
    for (round, count) in (1..).zip(rounds) {
        let request = |number| PodRequest::with_verbs(&format!("guest-{round}-{number}"), BLUE);
        let pods = node.run_pods(guest, &(1..=count).map(request).collect::<Vec<_>>())?;
        for pod in &pods {
            has_its_own_device(guest, node, pod)?;
        }
        node.delete_pods(guest, &pods)?;
        nothing_left(guest)?;
    }
    say(&format!("  seven pods at once, {in_a_row} in a row"));
    expect::as_before(guest, &before)
}
