//! Bad input is refused with an error that names the field, the value and what to do, and changes nothing.

use serde_json::{Value, json};
use zerobridge_lab::{CniCall, Guest, Lab, PodRequest, cni_config};

use crate::expect;
use crate::group::{Group, Outcome};
use crate::hand::{Attached, config, ledger, make_sandbox, remove_sandbox};

pub(crate) const GROUP: Group = Group {
    name: "bad_input",
    vm: "pods",
    scenarios: &[
        ("an_unknown_key", |lab| refused(lab, "vlna", &json!(100), &["vlna"])),
        ("a_vlan_out_of_range", |lab| refused(lab, "vlan", &json!(4095), &["vlan", "4095", "4094"])),
        ("a_vlan_that_is_no_number", |lab| refused(lab, "vlan", &json!("x"), &["vlan", "x"])),
        ("a_group_address_as_mac", |lab| {
            refused(lab, "mac", &json!("01:00:5e:00:00:01"), &["mac", "01:00:5e:00:00:01"])
        }),
        ("a_mac_that_is_none", |lab| refused(lab, "mac", &json!("garbage"), &["mac", "garbage"])),
        ("a_device_that_does_not_exist", |lab| {
            refused(lab, "deviceID", &json!("0000:09:10.0"), &["0000:09:10.0"])
        }),
        ("a_device_that_is_a_pf", |lab| refused(lab, "deviceID", &json!("0000:01:00.0"), &["0000:01:00.0"])),
        ("a_sandbox_that_is_the_host", a_sandbox_that_is_the_host),
        ("a_vf_that_a_living_sandbox_owns", a_vf_that_a_living_sandbox_owns),
        ("an_exhausted_pool", an_exhausted_pool),
        ("a_pod_that_the_kubelet_does_not_know", a_pod_that_the_kubelet_does_not_know),
        ("a_pod_admitted_before_its_resource", a_pod_admitted_before_its_resource),
    ],
};

/// Ends unless `call` is refused with all of `words` in its error, and neither the VFs nor the ledger have changed.
pub(crate) fn refused_without_a_trace(guest: &mut Guest, call: &CniCall, words: &[&str]) -> Outcome {
    let (state, records) = (guest.snapshot()?, ledger(guest)?);
    let error = guest.cni_refusal(call)?;
    let text = format!("{} {}", error.msg, error.details);
    expect::that(error.code > 0, || format!("the error has code 0: {text}"))?;
    for word in words {
        expect::that(text.contains(word), || format!("the error does not say {word:?}: {text}"))?;
    }
    expect::as_before(guest, &state)?;
    // A first call may create an empty ledger; what it says must stay the same.
    let rows = |dump: &str| {
        dump.lines().filter(|line| line.starts_with("INSERT")).map(String::from).collect::<Vec<_>>()
    };
    expect::equal("the ledger", &rows(&ledger(guest)?), &rows(&records))
}

/// Ends unless ADD with `key` set to `value` is refused.
fn refused(lab: &mut Lab, key: &str, value: &Value, words: &[&str]) -> Outcome {
    let guest = lab.install_plugins()?;
    let mut config = config(guest.vf(1, 0)?);
    config[key] = value.clone();
    make_sandbox(guest, "bad")?;
    refused_without_a_trace(guest, &CniCall::new("ADD", "bad", &config), words)?;
    remove_sandbox(guest, "bad")
}

fn a_sandbox_that_is_the_host(lab: &mut Lab) -> Outcome {
    let guest = lab.install_plugins()?;
    let mut add = CniCall::new("ADD", "host", &config(guest.vf(1, 0)?));
    add.netns = "/proc/1/ns/net".into();
    refused_without_a_trace(guest, &add, &["CNI_NETNS", "/proc/1/ns/net"])
}

fn a_vf_that_a_living_sandbox_owns(lab: &mut Lab) -> Outcome {
    let before = lab.pristine();
    let guest = lab.install_plugins()?;
    let device = guest.vf(1, 0)?;
    let owner = Attached::new(guest, "owner", device)?;
    make_sandbox(guest, "thief")?;
    let add = CniCall::new("ADD", "thief", &owner.config);
    refused_without_a_trace(guest, &add, &[&device.to_string(), "owner"])?;
    // The runtime cleans up after a failed ADD; that must not take the owner's VF.
    let state = guest.snapshot()?;
    guest.cni_success(&CniCall::new("DEL", "thief", &owner.config))?;
    expect::as_before(guest, &state)?;
    guest.cni_success(&owner.del())?;
    remove_sandbox(guest, "thief")?;
    remove_sandbox(guest, owner.name)?;
    expect::as_before(guest, &before)
}

fn an_exhausted_pool(lab: &mut Lab) -> Outcome {
    let before = lab.pristine();
    let guest = lab.install_plugins()?;
    // A /30 has two addresses for hosts, less if a gateway is kept; the third sandbox gets none for sure.
    let mut calls = Vec::new();
    for (index, name) in (0..).zip(["full-1", "full-2", "full-3"]) {
        let mut config = config(guest.vf(1, index)?);
        config["name"] = "small".into();
        config["mac"] = format!("02:00:00:00:0b:0{index}").into();
        config["ipam"]["ranges"][0][0]["subnet"] = "10.8.0.0/30".into();
        make_sandbox(guest, name)?;
        calls.push(CniCall::new("ADD", name, &config));
    }
    let mut added = 0;
    while added < 2 && guest.cni(&calls[added])?.code == 0 {
        added += 1;
    }
    expect::that(added > 0, || "not even one address of a /30 was given".into())?;
    refused_without_a_trace(guest, &calls[added], &["10.8.0."])?;
    for call in calls {
        guest.cni_success(&CniCall { command: "DEL", ..call.clone() })?;
        remove_sandbox(guest, &call.container)?;
    }
    expect::as_before(guest, &before)
}

fn a_pod_that_the_kubelet_does_not_know(lab: &mut Lab) -> Outcome {
    lab.node()?;
    let guest = &mut lab.vm.guest;
    let conflist = cni_config();
    let mut config = conflist["plugins"][0].clone();
    config["cniVersion"] = conflist["cniVersion"].clone();
    config["name"] = conflist["name"].clone();
    make_sandbox(guest, "ghost")?;
    let mut add = CniCall::new("ADD", "ghost", &config);
    add.args = "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=ghost".into();
    refused_without_a_trace(guest, &add, &["default/ghost", "zerobridge.io/vf"])?;
    remove_sandbox(guest, "ghost")
}

/// A static pod whose resource nobody serves is admitted without a device (as measured with Kubernetes 1.36), so the
/// plugin has to stop it, and say what is missing where a person looks: in the kubelet's words about the pod.
fn a_pod_admitted_before_its_resource(lab: &mut Lab) -> Outcome {
    let (guest, node) = lab.node()?;
    let state = guest.snapshot()?;
    node.submit(guest, &PodRequest::with_one("early", "zerobridge.io/none"))?;
    let said = guest.wait_for("the plugin's refusal", std::time::Duration::from_secs(120), |guest| {
        let lines = guest.shell(
            "grep -h 'default/early-lab' /out/kubelet.log | grep -F 'plugin type' | tail -n 1 || true",
        )?;
        Ok(if lines.is_empty() { Err("no word of it in the kubelet's log".to_owned()) } else { Ok(lines) })
    })?;
    node.withdraw(guest, "early")?;
    expect::that(said.contains("zerobridge.io/"), || format!("the refusal names no resource: {said}"))?;
    expect::as_before(guest, &state)
}
