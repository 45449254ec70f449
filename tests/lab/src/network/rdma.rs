//! RDMA devices as `rdma -j link` prints them, and software devices (rdma_rxe) that are made, moved and removed by hand.
//!
//! A namespace is named as `ip netns` names it; [`HOST`] is the node's own. Refuses to know what is sent over a device.

use std::time::Duration;

use serde::Deserialize;

use crate::machine::{Guest, GuestError};

/// The node's own network namespace, which has no name.
pub const HOST: &str = "";
/// Everything that a pod's verbs need; ib_core is loaded before them, because it takes the mode.
const MODULES: [&str; 3] = ["ib_uverbs", "rdma_ucm", "rdma_rxe"];
const MODE: &str = "/sys/module/ib_core/parameters/netns_mode";
/// How long a device may take to vanish that the kernel removes in its own time, and a little more.
const GONE_WITHIN: Duration = Duration::from_secs(30);
/// How long the addresses of a link may take to become the identifiers of its device.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// What namespaces mean to RDMA devices. It holds for the whole machine, and is chosen before the first device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RdmaMode {
    /// Every namespace sees every device.
    Shared,
    /// A device is in one namespace.
    Exclusive,
}

/// A port of an RDMA device, and software devices have but one.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct RdmaPort {
    /// The device's name.
    #[serde(rename = "ifname")]
    pub device: String,
    /// The device's number, which stays when it is renamed or moved.
    #[serde(rename = "ifindex")]
    pub index: u32,
    /// Such as `ACTIVE` or `DOWN`.
    pub state: String,
    /// The netdev below it, if that is in the namespace that was asked.
    #[serde(default)]
    pub netdev: Option<String>,
}

impl RdmaMode {
    /// The kernel's word for it, which is ib_core's parameter `netns_mode`.
    fn parameter(self) -> &'static str {
        match self {
            Self::Shared => "Y",
            Self::Exclusive => "N",
        }
    }
}

impl Guest {
    /// Loads the RDMA stack in a mode. Does nothing when it is loaded in that mode.
    ///
    /// # Errors
    /// When it is loaded in the other mode, the guest cannot, or the VM is lost.
    pub fn load_rdma(&mut self, mode: RdmaMode) -> Result<(), GuestError> {
        // At load, because afterwards the kernel changes the mode only while there is no namespace but the first.
        self.run(&["modprobe", "ib_core", &format!("netns_mode={}", mode.parameter())])?;
        let loaded = self.read(MODE)?.unwrap_or_default();
        if loaded.trim() != mode.parameter() {
            let message = format!("ib_core has netns_mode={}, and {mode:?} is asked for", loaded.trim());
            return Err(GuestError::Refused { message });
        }
        self.run(&[&["modprobe", "--all"], &MODULES[..]].concat())?;
        Ok(())
    }

    /// The ports of the devices that a namespace sees.
    ///
    /// # Errors
    /// When the guest cannot say, or the VM is lost.
    pub fn rdma_ports(&mut self, namespace: &str) -> Result<Vec<RdmaPort>, GuestError> {
        self.json(&inside(namespace, &["rdma", "-j", "link"]))
    }

    /// The names of the devices that a namespace sees.
    ///
    /// # Errors
    /// When the guest cannot say, or the VM is lost.
    pub fn rdma_devices(&mut self, namespace: &str) -> Result<Vec<String>, GuestError> {
        Ok(self.rdma_ports(namespace)?.into_iter().map(|port| port.device).collect())
    }

    /// Which of `namespaces` see a device: one at most in exclusive mode.
    ///
    /// # Errors
    /// When the guest cannot say, or the VM is lost.
    pub fn rdma_seen_by<'a>(
        &mut self,
        device: &str,
        namespaces: &[&'a str],
    ) -> Result<Vec<&'a str>, GuestError> {
        let mut seen = Vec::new();
        for namespace in namespaces {
            if self.rdma_devices(namespace)?.iter().any(|name| name == device) {
                seen.push(*namespace);
            }
        }
        Ok(seen)
    }

    /// Makes a software device on a netdev of the namespace. In exclusive mode it is in the node's RDMA namespace
    /// nevertheless, until [`Guest::move_rdma`] takes it to where its netdev is.
    ///
    /// # Errors
    /// When the kernel refuses, or the VM is lost.
    pub fn add_rxe(&mut self, namespace: &str, device: &str, netdev: &str) -> Result<(), GuestError> {
        let argv = ["rdma", "link", "add", device, "type", "rxe", "netdev", netdev];
        self.run(&inside(namespace, &argv)).map(drop)
    }

    /// Removes a software device, asked in a namespace that sees it.
    ///
    /// # Errors
    /// When the kernel refuses, or the VM is lost.
    pub fn remove_rxe(&mut self, namespace: &str, device: &str) -> Result<(), GuestError> {
        self.run(&inside(namespace, &["rdma", "link", "delete", device])).map(drop)
    }

    /// Moves a device from the node's RDMA namespace to another.
    ///
    /// # Errors
    /// When the kernel refuses, as it does in shared mode, or the VM is lost.
    pub fn move_rdma(&mut self, device: &str, namespace: &str) -> Result<(), GuestError> {
        self.run(&["rdma", "dev", "set", device, "netns", namespace]).map(drop)
    }

    /// Waits until one of the device's identifiers (GIDs) is made of `address`, and returns its number, which programs
    /// want to be told. The kernel fills the table in its own time.
    ///
    /// # Errors
    /// When none is in time, or the VM is lost.
    pub fn gid_of(&mut self, namespace: &str, device: &str, address: &str) -> Result<String, GuestError> {
        let wanted = mapped(address).ok_or_else(|| GuestError::Refused {
            message: format!("{address} is no IPv4 address, and no other is looked for"),
        })?;
        // In one process: the table has a thousand places, nearly all of them empty.
        let script =
            format!("cd /sys/class/infiniband/{device}/ports/1/gids && grep -lx {wanted} * || cat 0 1 2 3");
        self.wait_for(&format!("{address} among the identifiers of {device}"), READY_WITHIN, |guest| {
            let found = guest.run(&inside(namespace, &["sh", "-c", &script]))?;
            let number = found.lines().next().unwrap_or_default();
            Ok(if number.parse::<u16>().is_ok() { Ok(number.to_owned()) } else { Err(found) })
        })
    }

    /// The node below `/dev/infiniband` through which programs use a device: `uverbs` and a number that has nothing to do
    /// with the device's.
    ///
    /// # Errors
    /// When the device has none, or the VM is lost.
    pub fn uverbs(&mut self, device: &str) -> Result<String, GuestError> {
        let script = format!("grep -lx {device} /sys/class/infiniband_verbs/uverbs*/ibdev | cut -d/ -f5");
        let name = self.shell(&script)?.trim().to_owned();
        if name.is_empty() {
            return Err(GuestError::Refused { message: format!("no uverbs node is {device}'s") });
        }
        Ok(name)
    }

    /// Waits until no namespace of `namespaces` sees the device.
    ///
    /// # Errors
    /// When one still does in the end, or the VM is lost.
    pub fn wait_rdma_gone(&mut self, device: &str, namespaces: &[&str]) -> Result<(), GuestError> {
        self.wait_for(&format!("the end of {device}"), GONE_WITHIN, |guest| {
            let seen = guest.rdma_seen_by(device, namespaces)?;
            Ok(if seen.is_empty() { Ok(()) } else { Err(format!("{seen:?} see it")) })
        })
    }
}

/// The command line that runs `argv` in a namespace, with the sysfs of that namespace.
pub(super) fn inside<'a>(namespace: &'a str, argv: &[&'a str]) -> Vec<&'a str> {
    match namespace {
        HOST => argv.to_vec(),
        name => [&["ip", "netns", "exec", name], argv].concat(),
    }
}

/// An IPv4 address as the kernel prints it in a table of GIDs: mapped into IPv6, every digit written.
fn mapped(address: &str) -> Option<String> {
    let [a, b, c, d] = address.parse::<std::net::Ipv4Addr>().ok()?.octets();
    Some(format!("0000:0000:0000:0000:0000:ffff:{a:02x}{b:02x}:{c:02x}{d:02x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    // Recorded from iproute2 6.1 and kernel 7.3.4: rxea's netdev is in the namespace that was asked, rxeb's is not.
    const PORTS: &str = r#"[{"ifindex":0,"port":1,"ifname":"rxea","state":"ACTIVE","physical_state":"LINK_UP",
        "netdev":"net1","netdev_index":4},
        {"ifindex":1,"port":1,"ifname":"rxeb","state":"ACTIVE","physical_state":"LINK_UP"}]"#;

    #[test]
    fn a_netdev_is_shown_only_where_it_is() {
        let ports: Vec<RdmaPort> = serde_json::from_str(PORTS).unwrap();
        let shown: Vec<(&str, Option<&str>)> =
            ports.iter().map(|port| (port.device.as_str(), port.netdev.as_deref())).collect();
        assert_eq!(shown, [("rxea", Some("net1")), ("rxeb", None)]);
    }

    #[test]
    fn an_address_is_found_in_the_table_of_identifiers() {
        assert_eq!(mapped("10.9.0.1").as_deref(), Some("0000:0000:0000:0000:0000:ffff:0a09:0001"));
        assert_eq!(mapped("fe80::1"), None);
    }

    #[test]
    fn the_node_has_no_namespace_to_enter() {
        assert_eq!(inside(HOST, &["rdma", "dev"]), ["rdma", "dev"]);
        assert_eq!(inside("a", &["rdma"]), ["ip", "netns", "exec", "a", "rdma"]);
    }
}
