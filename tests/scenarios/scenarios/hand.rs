//! The CNI plugin called by hand: sandboxes without pods, and what the ledger says.

use std::error::Error;

use serde_json::{Value, json};
use zerobridge_lab::{CniCall, Guest, LEDGER};
use zerobridge_proto::PciAddress;

use crate::expect;
use crate::group::Outcome;

/// A configuration that changes everything an attachment can change on the emulated card.
pub(crate) fn config(device: PciAddress) -> Value {
    json!({
        "cniVersion": "1.1.0",
        "name": "hand",
        "type": "zerobridge",
        "deviceID": device,
        "vlan": 100,
        "mac": "02:00:00:00:0a:01",
        "mtu": 1400,
        "spoofchk": "off",
        "ipam": {"type": "zerobridge-ipam", "ranges": [[{"subnet": "10.7.0.0/24"}]]},
    })
}

/// A sandbox with an attachment, as a runtime leaves it after ADD.
pub(crate) struct Attached {
    pub(crate) name: &'static str,
    pub(crate) config: Value,
    /// What ADD returned.
    pub(crate) result: Value,
}

impl Attached {
    /// Makes a sandbox and attaches a VF to it; ends unless the VF is away, configured, and recorded.
    pub(crate) fn new(
        guest: &mut Guest,
        name: &'static str,
        device: PciAddress,
    ) -> Result<Self, Box<dyn Error>> {
        let config = config(device);
        make_sandbox(guest, name)?;
        let result = guest.cni_success(&CniCall::new("ADD", name, &config))?;
        let address = result["ips"][0]["address"].as_str().unwrap_or_default().to_owned();
        expect::that(address.starts_with("10.7.0.") && address.ends_with("/24"), || {
            format!("ADD returned no address from its pool: {result}")
        })?;
        let inside: Value = guest.json(&["ip", "-n", name, "-j", "-d", "addr", "show", "dev", "net1"])?;
        expect::equal("the device in the sandbox", &inside[0]["parentdev"], &json!(device))?;
        expect::equal("its MTU", &inside[0]["mtu"], &json!(1400))?;
        expect::equal("its MAC", &inside[0]["address"], &json!("02:00:00:00:0a:01"))?;
        let local =
            inside[0]["addr_info"].as_array().into_iter().flatten().find(|one| one["family"] == "inet");
        let local = expect::some(local, "no IPv4 address in the sandbox")?;
        let shown = format!("{}/{}", local["local"].as_str().unwrap_or_default(), local["prefixlen"]);
        expect::equal("its address", &shown, &address)?;
        let snapshot = guest.snapshot()?;
        expect::equal("its VLAN", &snapshot.field(device, "vlan"), &Some("100"))?;
        expect::equal("its spoof check", &snapshot.field(device, "spoof check"), &Some("off"))?;
        let attached = Self { name, config, result };
        expect::equal("what the ledger has", &attached.promises(guest)?, &(1, 1))?;
        Ok(attached)
    }

    /// The call with which a runtime takes the attachment away.
    pub(crate) fn del(&self) -> CniCall {
        CniCall::new("DEL", self.name, &self.config)
    }

    /// The call with which a runtime asks whether the attachment is as ADD left it.
    pub(crate) fn check(&self) -> CniCall {
        let mut config = self.config.clone();
        config["prevResult"] = self.result.clone();
        CniCall::new("CHECK", self.name, &config)
    }

    /// How many attachments and unreleased leases the ledger has for this sandbox.
    pub(crate) fn promises(&self, guest: &mut Guest) -> Result<(u32, u32), Box<dyn Error>> {
        promises_of(guest, self.name)
    }
}

/// How many attachments and unreleased leases the ledger has for a container. Only read: sqlite3 would otherwise tidy up
/// after the plugin, and the next call would find a ledger that no plugin left.
pub(crate) fn promises_of(guest: &mut Guest, container: &str) -> Result<(u32, u32), Box<dyn Error>> {
    if guest.exists(LEDGER)? {
        let query = format!(
            "SELECT (SELECT count(*) FROM attachments WHERE container_id = '{container}'),
                    (SELECT count(*) FROM leases WHERE container_id = '{container}' AND released_at IS NULL)"
        );
        let text = guest.run(&["sqlite3", "-readonly", LEDGER, &query])?;
        let (attachments, leases) = expect::some(text.trim().split_once('|'), "the ledger's counts")?;
        return Ok((attachments.parse()?, leases.parse()?));
    }
    Ok((0, 0))
}

/// Everything the ledger says, as SQL; empty when there is none.
pub(crate) fn ledger(guest: &mut Guest) -> Result<String, Box<dyn Error>> {
    if guest.exists(LEDGER)? {
        Ok(guest.run(&["sqlite3", "-readonly", LEDGER, ".dump"])?)
    } else {
        Ok(String::new())
    }
}

pub(crate) fn make_sandbox(guest: &mut Guest, name: &str) -> Outcome {
    guest.run(&["ip", "netns", "add", name])?;
    Ok(())
}

pub(crate) fn remove_sandbox(guest: &mut Guest, name: &str) -> Outcome {
    guest.run(&["ip", "netns", "del", name])?;
    Ok(())
}
