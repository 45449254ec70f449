//! VFs that the plugin attaches with a software RDMA device on them, in both modes of the kernel.

use std::error::Error;

use serde_json::{Value, json};
use zerobridge_lab::{CniCall, Guest, HOST, Lab, RdmaMode, VerbsEnd};
use zerobridge_proto::PciAddress;

use crate::crash::{Kind, killed_before_every_change};
use crate::expect;
use crate::group::{Group, Outcome};
use crate::hand::{make_sandbox, promises_of, remove_sandbox};

pub(crate) const SHARED: Group = Group {
    name: "rdma_shared_attachment",
    vm: "rdma_shared",
    scenarios: &[
        ("the_device_is_ready_when_add_returns_and_gone_after_del", in_shared_mode),
        ("what_needs_the_other_mode_is_refused_with_the_reason", what_needs_the_other_mode),
    ],
};

pub(crate) const EXCLUSIVE: Group = Group {
    name: "rdma_exclusive_attachment",
    vm: "rdma_exclusive",
    scenarios: &[
        ("each_pod_has_its_device_alone_and_ready_and_it_is_gone_after_del", in_exclusive_mode),
        ("a_sandbox_that_is_gone_leaves_nothing", a_sandbox_that_is_gone),
        ("a_device_that_somebody_removed_is_missed_and_made_again", a_device_that_somebody_removed),
        ("add_killed_before_every_change_is_undone", |lab| killed(lab, "ADD")),
        ("del_killed_before_every_change_is_finished", |lab| killed(lab, "DEL")),
    ],
};

/// Where the plugin tells the container runtime about device nodes.
const SPECS: &str = "/var/run/cdi";

/// An attachment as a runtime leaves it after ADD.
pub(crate) struct Attached {
    name: &'static str,
    vf: PciAddress,
    config: Value,
    result: Value,
    end: VerbsEnd,
}

impl Attached {
    /// VF `index` of the first card, with a software device that is called `rdma_name` in the pod.
    pub(crate) fn new(
        guest: &mut Guest,
        name: &'static str,
        index: u32,
        rdma_name: Option<&str>,
    ) -> Result<Self, Box<dyn Error>> {
        let vf = guest.vf(1, index)?;
        let mut config = json!({
            "cniVersion": "1.1.0", "name": "rdma", "type": "zerobridge", "deviceID": vf, "vlan": 100, "rdma": "soft",
            "ipam": {"type": "zerobridge-ipam", "ranges": [[{"subnet": "10.7.0.0/24"}]]},
        });
        if let Some(rdma_name) = rdma_name {
            config["rdmaDeviceName"] = rdma_name.into();
        }
        make_sandbox(guest, name)?;
        let result = guest.cni_success(&CniCall::new("ADD", name, &config))?;
        let rdma = &result["interfaces"][0]["rdma"];
        let device = expect::some(rdma["device"].as_str(), "the result names no RDMA device")?.to_owned();
        let address = result["ips"][0]["address"].as_str().unwrap_or_default();
        let address = address.split('/').next().unwrap_or_default().to_owned();
        // Not waited for: ADD has.
        let ports = guest.rdma_ports(name)?;
        let own = ports.iter().find(|port| port.device == device);
        let own = own.map(|port| (port.state.as_str(), port.netdev.as_deref()));
        expect::equal("the device's port", &own, &Some(("ACTIVE", Some("net1"))))?;
        let end = VerbsEnd::in_namespace(name, &device, &address);
        let index = guest.gid_of(name, &device, &address)?;
        let expected = json!([{"address": address, "index": index.parse::<u16>()?}]);
        expect::equal("the GIDs in the result", &rdma["gids"], &expected)?;
        Ok(Self { name, vf, config, result, end })
    }

    fn call(&self, command: &'static str) -> CniCall {
        let mut call = CniCall::new(command, self.name, &self.config);
        if command == "CHECK" {
            call.config["prevResult"] = self.result.clone();
        }
        call
    }

    /// The device nodes that a container would be given.
    pub(crate) fn nodes(&self, guest: &mut Guest) -> Result<Vec<String>, Box<dyn Error>> {
        let file = format!("{SPECS}/zerobridge.rdma-{}.json", self.vf);
        let Some(text) = guest.read(&file)? else { return Ok(Vec::new()) };
        let spec: Value = serde_json::from_str(&text)?;
        expect::equal("the name in CDI", &spec["devices"][0]["name"], &json!(self.vf))?;
        let nodes = spec["devices"][0]["containerEdits"]["deviceNodes"].as_array().cloned();
        let paths =
            nodes.unwrap_or_default().into_iter().map(|node| node["path"].as_str().map(str::to_owned));
        Ok(paths.flatten().collect())
    }

    fn give_back(self, guest: &mut Guest) -> Outcome {
        guest.cni_success(&self.call("DEL"))?;
        expect::equal("what the ledger has", &promises_of(guest, self.name)?, &(0, 0))?;
        expect::equal("its device nodes", &self.nodes(guest)?, &Vec::new())?;
        remove_sandbox(guest, self.name)
    }
}

fn in_mode(lab: &mut Lab, mode: RdmaMode) -> Result<&mut Guest, Box<dyn Error>> {
    lab.vm.guest.load_rdma(mode)?;
    Ok(lab.install_plugins()?)
}

fn nothing_left(guest: &mut Guest) -> Outcome {
    expect::equal("the RDMA devices of the host", &guest.rdma_devices(HOST)?, &Vec::new())
}

fn in_shared_mode(lab: &mut Lab) -> Outcome {
    let before = lab.pristine();
    let guest = in_mode(lab, RdmaMode::Shared)?;
    let first = Attached::new(guest, "first", 0, None)?;
    let second = Attached::new(guest, "second", 1, None)?;
    let address = first.end.address.clone();
    let verbs = guest.ping_pong(&first.end, &second.end, &address)?;
    expect::that(verbs.code == 0, || format!("no verbs: {verbs:?}"))?;
    let rdma_cm = guest.rping(&first.end, &second.end)?;
    expect::that(rdma_cm.code == 0, || format!("no RDMA-CM: {rdma_cm:?}"))?;
    for attached in [&first, &second] {
        // One for its device, and the connection manager's.
        let uverbs = guest.uverbs(&attached.end.device)?;
        let expected = vec![format!("/dev/infiniband/{uverbs}"), "/dev/infiniband/rdma_cm".to_owned()];
        expect::equal(&format!("the nodes of {}", attached.name), &attached.nodes(guest)?, &expected)?;
    }
    for attached in [first, second] {
        guest.cni_success(&attached.call("CHECK"))?;
        attached.give_back(guest)?;
    }
    nothing_left(guest)?;
    expect::as_before(guest, &before)
}

fn what_needs_the_other_mode(lab: &mut Lab) -> Outcome {
    let before = lab.pristine();
    let guest = in_mode(lab, RdmaMode::Shared)?;
    make_sandbox(guest, "refused")?;
    let vf = guest.vf(1, 0)?;
    for (own, words) in [
        (json!({"rdma": "exclusive"}), "shared mode"),
        (json!({"rdma": "shared"}), "no RDMA device"),
        (json!({"rdma": "soft", "rdmaDeviceName": "rdma0"}), "rdmaDeviceName"),
    ] {
        let mut config = json!({"cniVersion": "1.1.0", "name": "rdma", "type": "zerobridge", "deviceID": vf});
        if let (Some(config), Some(own)) = (config.as_object_mut(), own.as_object()) {
            config.extend(own.clone());
        }
        let error = guest.cni_refusal(&CniCall::new("ADD", "refused", &config))?;
        expect::that(error.code == 7 && error.msg.contains(words), || format!("{own}: {error:?}"))?;
        expect::as_before(guest, &before)?;
    }
    remove_sandbox(guest, "refused")
}

fn in_exclusive_mode(lab: &mut Lab) -> Outcome {
    let before = lab.pristine();
    let guest = in_mode(lab, RdmaMode::Exclusive)?;
    let first = Attached::new(guest, "first", 0, Some("rdma0"))?;
    let second = Attached::new(guest, "second", 1, Some("rdma0"))?;
    nothing_left(guest)?;
    for attached in [&first, &second] {
        let seen = guest.rdma_devices(attached.name)?;
        expect::equal("what a pod sees", &seen, &vec!["rdma0".to_owned()])?;
        guest.cni_success(&attached.call("CHECK"))?;
        let again = guest.cni_success(&attached.call("ADD"))?;
        expect::equal("the result of a second ADD", &again, &attached.result)?;
    }
    let address = first.end.address.clone();
    let verbs = guest.ping_pong(&first.end, &second.end, &address)?;
    expect::that(verbs.code == 0, || format!("no verbs: {verbs:?}"))?;
    let [own, other] = [first.nodes(guest)?.remove(0), second.nodes(guest)?.remove(0)];
    let mut opens = |node: &str| {
        let script = format!("exec 3<>{node}");
        guest.run(&["ip", "netns", "exec", "first", "sh", "-c", &script]).map(drop)
    };
    opens(&own)?;
    let refused = opens(&other).err().map(|error| error.to_string()).unwrap_or_default();
    expect::that(refused.contains("Operation not permitted"), || {
        format!("opening another pod's {other} gave: {refused}")
    })?;
    for attached in [first, second] {
        attached.give_back(guest)?;
    }
    nothing_left(guest)?;
    expect::as_before(guest, &before)
}

fn a_sandbox_that_is_gone(lab: &mut Lab) -> Outcome {
    let before = lab.pristine();
    let guest = in_mode(lab, RdmaMode::Exclusive)?;
    let attached = Attached::new(guest, "gone", 1, None)?;
    remove_sandbox(guest, "gone")?;
    guest.cni_success(&attached.call("DEL"))?;
    guest.wait_rdma_gone(&attached.end.device, &[HOST])?;
    nothing_left(guest)?;
    expect::equal("its device nodes", &attached.nodes(guest)?, &Vec::new())?;
    expect::as_before(guest, &before)
}

fn a_device_that_somebody_removed(lab: &mut Lab) -> Outcome {
    let before = lab.pristine();
    let guest = in_mode(lab, RdmaMode::Exclusive)?;
    let attached = Attached::new(guest, "missed", 0, Some("rdma0"))?;
    guest.remove_rxe("missed", "rdma0")?;
    let error = guest.cni_refusal(&attached.call("CHECK"))?;
    expect::that(error.code == 106 && error.details.contains("RDMA device rdma0 is gone"), || {
        format!("{error:?}")
    })?;
    guest.cni_success(&attached.call("ADD"))?;
    guest.cni_success(&attached.call("CHECK"))?;
    attached.give_back(guest)?;
    nothing_left(guest)?;
    expect::as_before(guest, &before)
}

fn killed(lab: &mut Lab, command: &'static str) -> Outcome {
    lab.vm.guest.load_rdma(RdmaMode::Exclusive)?;
    killed_before_every_change(lab, command, Kind::SoftRdma)
}
