//! Pods whose first and only interface is a VF, with Zerobridge as the node's only CNI plugin.

use std::error::Error;
use std::time::Duration;

use zerobridge_lab::{BLUE, GREEN, Lab, Pod, PodRequest};

use crate::expect;
use crate::group::{Group, Outcome, say};

pub(crate) const GROUP: Group = Group {
    name: "first_pod",
    vm: "pods",
    scenarios: &[
        ("two_pods_in_one_vlan_reach_each_other", two_pods_in_one_vlan_reach_each_other),
        ("a_pod_in_another_vlan_is_not_reached", a_pod_in_another_vlan_is_not_reached),
        ("a_pod_sees_only_its_vf_under_the_address_that_others_see", a_pod_sees_only_its_vf),
        ("the_environment_names_the_vf_that_is_in_the_pod", the_environment_names_the_vf),
        ("the_host_has_no_bridge_and_no_veth", the_host_has_no_bridge_and_no_veth),
        ("kubelet_restart_keeps_pods_and_brings_the_resource_back", kubelet_restart),
        ("deleted_pods_leave_every_vf_as_it_was", deleted_pods_leave_every_vf_as_it_was),
    ],
};

/// The kubelet must be able to place pods again this soon after it accepts registrations.
const BACK_WITHIN: Duration = Duration::from_secs(5);

/// Two pods in VLAN 100 and one in VLAN 200: those that run already, or new ones.
fn three_pods(lab: &mut Lab) -> Result<[Pod; 3], Box<dyn Error>> {
    let (guest, node) = lab.node()?;
    let requests = [("ada", BLUE), ("bob", BLUE), ("eve", GREEN)]
        .map(|(name, resource)| PodRequest::with_one(name, resource));
    let pods = node.run_pods(guest, &requests)?;
    pods.try_into().map_err(|_| "three pods were asked for".into())
}

fn two_pods_in_one_vlan_reach_each_other(lab: &mut Lab) -> Outcome {
    let [ada, bob, _] = three_pods(lab)?;
    let guest = &mut lab.vm.guest;
    expect::that(ada.ip != bob.ip, || format!("both have {}", ada.ip))?;
    expect::that(ada.reaches(guest, &bob.ip)?, || format!("{} does not reach {}", ada.ip, bob.ip))?;
    expect::that(bob.reaches(guest, &ada.ip)?, || format!("{} does not reach {}", bob.ip, ada.ip))
}

fn a_pod_in_another_vlan_is_not_reached(lab: &mut Lab) -> Outcome {
    let [ada, bob, eve] = three_pods(lab)?;
    let guest = &mut lab.vm.guest;
    // Without this, silence could as well mean that nothing works at all.
    expect::that(ada.reaches(guest, &bob.ip)?, || "the pods in one VLAN do not reach each other".into())?;
    expect::that(!ada.reaches(guest, &eve.ip)?, || format!("VLAN 200's {} answers in VLAN 100", eve.ip))?;
    expect::that(!eve.reaches(guest, &bob.ip)?, || format!("VLAN 100's {} answers in VLAN 200", bob.ip))
}

fn a_pod_sees_only_its_vf(lab: &mut Lab) -> Outcome {
    for pod in three_pods(lab)? {
        let links = pod.addresses(&mut lab.vm.guest)?;
        let names: Vec<&str> = links.iter().map(|link| link.ifname.as_str()).collect();
        expect::equal(&format!("{}'s links", pod.name), &names, &vec!["lo", "eth0"])?;
        let eth0 = &links[1];
        let kind = eth0.linkinfo.as_ref().and_then(|info| info.info_kind.as_deref());
        expect::that(eth0.parentdev.is_some() && kind.is_none(), || {
            format!("eth0 is no PCI function: {eth0:?}")
        })?;
        let addresses: Vec<&str> =
            eth0.addr_info.iter().filter(|one| one.family == "inet").map(|one| one.local.as_str()).collect();
        expect::equal(&format!("{}'s addresses", pod.name), &addresses, &vec![pod.ip.as_str()])?;
    }
    Ok(())
}

fn the_environment_names_the_vf(lab: &mut Lab) -> Outcome {
    let [ada, bob, eve] = three_pods(lab)?;
    let guest = &mut lab.vm.guest;
    for (pod, variable) in [
        (&ada, "PCIDEVICE_ZEROBRIDGE_IO_VF"),
        (&bob, "PCIDEVICE_ZEROBRIDGE_IO_VF"),
        (&eve, "PCIDEVICE_ZEROBRIDGE_IO_VF_GREEN"),
    ] {
        let environment = pod.environment(guest)?;
        let inside = pod.addresses(guest)?.into_iter().find_map(|link| link.parentdev);
        expect::that(inside.is_some(), || format!("{} has no VF", pod.name))?;
        expect::equal(&format!("{}'s {variable}", pod.name), &environment.get(variable).cloned(), &inside)?;
    }
    Ok(())
}

fn the_host_has_no_bridge_and_no_veth(lab: &mut Lab) -> Outcome {
    three_pods(lab)?;
    let virtual_links: Vec<String> = lab
        .vm
        .guest
        .links()?
        .into_iter()
        .filter_map(|link| link.kind().map(|kind| format!("{} ({kind})", link.ifname)))
        .collect();
    expect::equal("the host's virtual links", &virtual_links, &Vec::new())
}

fn kubelet_restart(lab: &mut Lab) -> Outcome {
    let before = three_pods(lab)?;
    let (guest, node) = lab.node()?;
    let old = node.restart_kubelet(guest)?;
    for resource in [BLUE, GREEN] {
        let waited = node.wait_allocatable(guest, resource, 4, BACK_WITHIN, old)?;
        say(&format!("  {resource} allocatable {} ms after kubelet.sock", waited.milliseconds));
    }
    let after = three_pods(lab)?;
    expect::equal("the pods after the restart", &after, &before)?;
    let [ada, bob, _] = after;
    expect::that(ada.reaches(&mut lab.vm.guest, &bob.ip)?, || "the pods lost each other".into())
}

fn deleted_pods_leave_every_vf_as_it_was(lab: &mut Lab) -> Outcome {
    let before = lab.pristine();
    let pods = three_pods(lab)?;
    let guest = &mut lab.vm.guest;
    let away = guest.snapshot()?.differences(&before);
    expect::that(away.iter().filter(|line| line.contains("(not on the host)")).count() == 3, || {
        format!("three VFs should be away: {away:?}")
    })?;
    let (guest, node) = lab.node()?;
    node.delete_pods(guest, &pods)?;
    expect::as_before(guest, &before)
}
