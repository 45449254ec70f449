//! The CNI specification as its own runtime library sees it: `cnitool`, which is libcni, calls the plugin, alone, before
//! another plugin of a chain, and with another IPAM plugin behind it.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::time::Duration;

use serde_json::{Value, json};
use zerobridge_lab::{CARDS, CniCall, Guest, Lab, Output, PLUGIN_FOLDER, Program, VFS_PER_CARD, program};
use zerobridge_proto::PciAddress;

use crate::expect;
use crate::group::{Group, Outcome};
use crate::hand::{ledger, make_sandbox, remove_sandbox};

pub(crate) const GROUP: Group = Group {
    name: "conformance",
    vm: "conformance",
    scenarios: &[
        ("cnitool_drives_every_verb", cnitool_drives_every_verb),
        ("cnitool_gc_ends_what_the_runtime_forgot", cnitool_gc_ends_what_the_runtime_forgot),
        ("every_version_has_its_own_result", every_version_has_its_own_result),
        ("another_ipam_plugin_is_asked_checked_and_told", another_ipam_plugin_is_asked_checked_and_told),
        ("an_ipam_plugin_that_refuses_leaves_nothing", an_ipam_plugin_that_refuses_leaves_nothing),
        ("check_tolerates_what_a_later_plugin_changed", check_tolerates_what_a_later_plugin_changed),
        ("a_name_that_is_taken_is_refused_before_the_vf_is_touched", a_name_that_is_taken_is_refused),
        ("all_vfs_at_once", all_vfs_at_once),
    ],
};

const NETWORKS: &str = "/run/networks";
const LEASES: &str = "/run/host-local";
const LIMIT: Duration = Duration::from_secs(120);

/// A list of plugins under the name by which `cnitool` is told to use it.
struct Network<'a> {
    name: &'a str,
    version: &'a str,
    plugins: Value,
}

impl<'a> Network<'a> {
    /// A network whose first plugin is the one under test.
    fn new(name: &'a str, vf: PciAddress, ipam: Value, later: Value) -> Self {
        let mut plugins = vec![json!({
            "type": "zerobridge", "deviceID": vf, "vlan": 100, "mtu": 1400, "spoofchk": "off", "ipam": ipam,
        })];
        plugins.extend(later.as_array().cloned().unwrap_or_default());
        Self { name, version: "1.1.0", plugins: plugins.into() }
    }

    fn install(&self, guest: &mut Guest) -> Outcome {
        let list = json!({"cniVersion": self.version, "name": self.name, "plugins": self.plugins});
        guest.write(&format!("{NETWORKS}/{}.conflist", self.name), &list.to_string())?;
        Ok(())
    }

    /// Has libcni carry out `verb` for the sandbox, which goes by the network's name.
    fn call(&self, guest: &mut Guest, verb: &str) -> Result<Output, Box<dyn Error>> {
        let sandbox = format!("/run/netns/{}", self.name);
        let cnitool = format!("{PLUGIN_FOLDER}/cnitool");
        let call = program(&[&cnitool, verb, self.name, &sandbox]);
        Ok(guest.output(Program { env: environment(), ..call }, LIMIT)?)
    }

    /// What `verb` prints; ends unless it succeeds.
    fn succeeds(&self, guest: &mut Guest, verb: &str) -> Result<String, Box<dyn Error>> {
        let output = self.call(guest, verb)?;
        expect::that(output.code == 0, || format!("{verb} of {}: {}", self.name, output.stderr))?;
        Ok(output.stdout)
    }

    fn add(&self, guest: &mut Guest) -> Result<Value, Box<dyn Error>> {
        Ok(serde_json::from_str(&self.succeeds(guest, "add")?)?)
    }

    /// Ends unless `verb` fails and says `word`.
    fn is_refused(&self, guest: &mut Guest, verb: &str, word: &str) -> Outcome {
        let output = self.call(guest, verb)?;
        expect::that(output.code != 0, || format!("{verb} of {} was not refused", self.name))?;
        expect::that(output.stderr.contains(word), || {
            format!("{verb} of {} does not say {word:?}: {}", self.name, output.stderr)
        })
    }
}

/// What `cnitool` wants to know beside its arguments.
fn environment() -> BTreeMap<String, String> {
    let variables = [("CNI_PATH", PLUGIN_FOLDER), ("NETCONFPATH", NETWORKS), ("CNI_IFNAME", "net1")];
    variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

fn own_ipam(subnet: &str) -> Value {
    json!({"type": "zerobridge-ipam", "ranges": [[{"subnet": subnet}]]})
}

/// The guest with all plugins, its first VF, and a sandbox.
fn prepared<'a>(lab: &'a mut Lab, sandbox: &str) -> Result<(&'a mut Guest, PciAddress), Box<dyn Error>> {
    let guest = lab.install_reference()?;
    let vf = guest.vf(1, 0)?;
    make_sandbox(guest, sandbox)?;
    Ok((guest, vf))
}

/// How many attachments and unreleased leases the ledger has.
fn promises(guest: &mut Guest) -> Result<usize, Box<dyn Error>> {
    let rows = ledger(guest)?;
    let is_attachment = |line: &&str| line.starts_with("INSERT INTO attachments");
    Ok(rows.lines().filter(is_attachment).count())
}

fn cnitool_drives_every_verb(lab: &mut Lab) -> Outcome {
    let before = lab.pristine();
    let (guest, vf) = prepared(lab, "verbs")?;
    let network = Network::new("verbs", vf, own_ipam("10.20.0.0/24"), json!([]));
    network.install(guest)?;
    network.is_refused(guest, "check", "")?;
    let result = network.add(guest)?;
    expect::equal("the interface", &result["interfaces"][0]["pciID"], &json!(vf))?;
    expect::equal("its sandbox", &result["interfaces"][0]["sandbox"], &json!("/run/netns/verbs"))?;
    expect::equal("the address's interface", &result["ips"][0]["interface"], &json!(0))?;
    network.succeeds(guest, "check")?;
    // The kernel's own tools change what the record promises; CHECK must see it, and the repaired state must pass.
    guest.run(&["ip", "link", "set", "enp1s0", "vf", "0", "vlan", "7"])?;
    network.is_refused(guest, "check", "vlan")?;
    guest.run(&["ip", "link", "set", "enp1s0", "vf", "0", "vlan", "100"])?;
    network.succeeds(guest, "check")?;
    for _ in 0..2 {
        network.succeeds(guest, "del")?;
        expect::as_before(guest, &before)?;
        expect::equal("attachments in the ledger", &promises(guest)?, &0)?;
    }
    remove_sandbox(guest, "verbs")
}

fn cnitool_gc_ends_what_the_runtime_forgot(lab: &mut Lab) -> Outcome {
    let before = lab.pristine();
    let (guest, vf) = prepared(lab, "forgotten")?;
    let network = Network::new("forgotten", vf, own_ipam("10.20.0.0/24"), json!([]));
    network.install(guest)?;
    network.add(guest)?;
    // libcni deletes what it has cached, and then names no attachments at all to the plugin, which does not take that
    // for "none is valid".
    network.is_refused(guest, "gc", "cni.dev/valid-attachments")?;
    expect::as_before(guest, &before)?;
    expect::equal("attachments in the ledger", &promises(guest)?, &0)?;
    // The runtime has lost its cache: the plugin alone knows.
    network.add(guest)?;
    guest.run(&["sh", "-c", "rm -f /var/lib/cni/results/forgotten-*"])?;
    let mut config = network.plugins[0].clone();
    for (key, value) in [("cniVersion", json!("1.1.0")), ("name", json!("forgotten"))] {
        config[key] = value;
    }
    config["cni.dev/valid-attachments"] = json!([{"containerID": "another", "ifname": "net1"}]);
    guest.cni_success(&CniCall::new("GC", "", &config))?;
    expect::as_before(guest, &before)?;
    expect::equal("attachments in the ledger", &promises(guest)?, &0)?;
    remove_sandbox(guest, "forgotten")
}

fn every_version_has_its_own_result(lab: &mut Lab) -> Outcome {
    let before = lab.pristine();
    let (guest, vf) = prepared(lab, "versions")?;
    for version in ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        let network =
            Network { version, ..Network::new("versions", vf, own_ipam("10.20.0.0/24"), json!([])) };
        network.install(guest)?;
        let result = network.add(guest)?;
        expect::equal("the result's version", &result["cniVersion"], &json!(version))?;
        expect::equal(
            &format!("whether {version} says that the address is an IPv4 one"),
            &result["ips"][0].get("version").is_some(),
            &version.starts_with("0."),
        )?;
        let new = ["pciID", "mtu"].map(|key| result["interfaces"][0].get(key).is_some());
        expect::equal(&format!("pciID and mtu in {version}"), &new, &[version == "1.1.0"; 2])?;
        if version >= "0.4.0" {
            network.succeeds(guest, "check")?;
        }
        network.succeeds(guest, "del")?;
    }
    remove_sandbox(guest, "versions")?;
    expect::as_before(guest, &before)
}

fn another_ipam_plugin_is_asked_checked_and_told(lab: &mut Lab) -> Outcome {
    let before = lab.pristine();
    let (guest, vf) = prepared(lab, "delegated")?;
    let ipam = json!({
        "type": "host-local", "dataDir": LEASES, "ranges": [[{"subnet": "10.21.0.0/24"}]],
        "routes": [{"dst": "10.99.0.0/16"}],
    });
    let network = Network::new("delegated", vf, ipam, json!([]));
    network.install(guest)?;
    let result = network.add(guest)?;
    expect::equal("the address", &result["ips"][0]["address"], &json!("10.21.0.2/24"))?;
    let lease = format!("{LEASES}/delegated/10.21.0.2");
    expect::that(guest.exists(&lease)?, || format!("host-local has no {lease}"))?;
    let routes = guest.run(&["ip", "-n", "delegated", "route"])?;
    expect::that(routes.contains("10.99.0.0/16 via 10.21.0.1"), || format!("no route: {routes}"))?;
    network.succeeds(guest, "check")?;
    guest.run(&["mv", &lease, "/run/lease"])?;
    network.is_refused(guest, "check", "host-local")?;
    guest.run(&["mv", "/run/lease", &lease])?;
    network.succeeds(guest, "check")?;
    // The sandbox is gone, and the address must be given back all the same.
    remove_sandbox(guest, "delegated")?;
    network.succeeds(guest, "del")?;
    expect::that(!guest.exists(&lease)?, || format!("host-local still has {lease}"))?;
    expect::as_before(guest, &before)
}

fn an_ipam_plugin_that_refuses_leaves_nothing(lab: &mut Lab) -> Outcome {
    let before = lab.pristine();
    let (guest, vf) = prepared(lab, "refused")?;
    // The one address of its subnet belongs to somebody else.
    let ipam = json!({"type": "host-local", "dataDir": LEASES, "ranges": [[{"subnet": "10.22.0.0/30"}]]});
    guest.write(&format!("{LEASES}/refused/10.22.0.2"), "another\r\nnet1")?;
    let network = Network::new("refused", vf, ipam, json!([]));
    network.install(guest)?;
    network.is_refused(guest, "add", "no IP addresses available")?;
    expect::as_before(guest, &before)?;
    expect::equal("attachments in the ledger", &promises(guest)?, &0)?;
    remove_sandbox(guest, "refused")
}

fn check_tolerates_what_a_later_plugin_changed(lab: &mut Lab) -> Outcome {
    let before = lab.pristine();
    let (guest, vf) = prepared(lab, "chained")?;
    let tuning = json!([{"type": "tuning", "mtu": 1300, "sysctl": {"net.ipv4.conf.IFNAME.arp_filter": "1"}}]);
    let network = Network::new("chained", vf, own_ipam("10.20.0.0/24"), tuning);
    network.install(guest)?;
    let result = network.add(guest)?;
    expect::equal("the interface", &result["interfaces"][0]["name"], &json!("net1"))?;
    let inside: Value = guest.json(&["ip", "-n", "chained", "-j", "link", "show", "dev", "net1"])?;
    expect::equal("the MTU that the later plugin set", &inside[0]["mtu"], &json!(1300))?;
    network.succeeds(guest, "check")?;
    guest.run(&["ip", "-n", "chained", "addr", "flush", "dev", "net1"])?;
    network.is_refused(guest, "check", "10.20.0.")?;
    network.succeeds(guest, "del")?;
    remove_sandbox(guest, "chained")?;
    expect::as_before(guest, &before)
}

fn a_name_that_is_taken_is_refused(lab: &mut Lab) -> Outcome {
    let (guest, vf) = prepared(lab, "taken")?;
    let network = Network::new("taken", vf, own_ipam("10.20.0.0/24"), json!([]));
    network.install(guest)?;
    guest.run(&["ip", "-n", "taken", "link", "add", "net1", "type", "bridge"])?;
    let state = guest.snapshot()?;
    network.is_refused(guest, "add", "net1")?;
    expect::as_before(guest, &state)?;
    // The runtime cleans up after the failed ADD, and that must not take the other interface.
    network.succeeds(guest, "del")?;
    guest.run(&["ip", "-n", "taken", "link", "show", "net1"])?;
    expect::as_before(guest, &state)?;
    expect::equal("attachments in the ledger", &promises(guest)?, &0)?;
    remove_sandbox(guest, "taken")
}

/// Calls libcni for a sandbox of each device in `$3…`, all at once.
const AT_ONCE: &str = r#"
verb=$1 network=$2; shift 2
for device; do
    sandbox=at-once-$device
    CAP_ARGS="{\"deviceID\": \"$device\"}" "$CNI_PATH/cnitool" "$verb" "$network" "/run/netns/$sandbox" > "/run/$sandbox" &
    calls="$calls $!"
done
for call in $calls; do wait "$call"; done
"#;

fn all_vfs_at_once(lab: &mut Lab) -> Outcome {
    let before = lab.pristine();
    let guest = lab.install_reference()?;
    let mut devices = Vec::new();
    for card in 1..=CARDS {
        for index in 0..VFS_PER_CARD {
            devices.push(guest.vf(card, index.into())?.to_string());
        }
    }
    let plugins = json!([{
        "type": "zerobridge", "capabilities": {"deviceID": true}, "vlan": 100, "ipam": own_ipam("10.20.0.0/24"),
    }]);
    let network = Network { name: "at-once", version: "1.1.0", plugins };
    network.install(guest)?;
    let sandboxes: Vec<String> = devices.iter().map(|device| format!("at-once-{device}")).collect();
    for sandbox in &sandboxes {
        make_sandbox(guest, sandbox)?;
    }
    let at_once = |guest: &mut Guest, verb: &str| -> Outcome {
        let words = ["sh", "-ec", AT_ONCE, "at-once", verb, network.name];
        let words: Vec<&str> = words.into_iter().chain(devices.iter().map(String::as_str)).collect();
        let output = guest.output(Program { env: environment(), ..program(&words) }, LIMIT)?;
        expect::that(output.code == 0, || format!("{verb}: {}", output.stderr))
    };
    at_once(guest, "add")?;
    let mut addresses = BTreeSet::new();
    for sandbox in &sandboxes {
        let result: Value =
            serde_json::from_str(&guest.read(&format!("/run/{sandbox}"))?.unwrap_or_default())?;
        addresses.insert(result["ips"][0]["address"].to_string());
    }
    expect::equal("how many addresses are different", &addresses.len(), &devices.len())?;
    expect::equal("attachments in the ledger", &promises(guest)?, &devices.len())?;
    at_once(guest, "del")?;
    for sandbox in &sandboxes {
        remove_sandbox(guest, sandbox)?;
    }
    expect::as_before(guest, &before)
}
