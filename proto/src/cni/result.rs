//! What ADD gives back and what later operations receive as `prevResult`.
//!
//! One shape, that of 1.1.0, is used inside; older versions are written by leaving out what they do not have.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};

use super::{CniError, ErrorCode, Version, legacy};
use crate::{Mac, PciAddress};

/// The success of ADD (SPEC, section 5, "ADD Success").
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddResult {
    /// The interfaces made or moved; an IPAM plugin leaves them out.
    #[serde(default, deserialize_with = "null_as_empty", skip_serializing_if = "Vec::is_empty")]
    pub interfaces: Vec<Interface>,
    /// The addresses assigned.
    #[serde(default, deserialize_with = "null_as_empty", skip_serializing_if = "Vec::is_empty")]
    pub ips: Vec<Ip>,
    /// The routes made.
    #[serde(default, deserialize_with = "null_as_empty", skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<Route>,
    /// Name resolution for the container.
    #[serde(default, deserialize_with = "null_as_empty", skip_serializing_if = "Dns::is_empty")]
    pub dns: Dns,
}

/// One interface of an attachment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// Its name in its namespace.
    pub name: String,
    /// Its hardware address as text: an InfiniBand port has 20 bytes of it, so this is not a [`Mac`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// Its MTU in bytes. Since 1.1.0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// The value of `CNI_NETNS` for an interface in the container, `None` for one of the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<String>,
    /// The socket of a user-space interface. Since 1.1.0.
    #[serde(default, rename = "socketPath", skip_serializing_if = "Option::is_none")]
    pub socket_path: Option<String>,
    /// The PCI function behind it. Since 1.1.0.
    #[serde(default, rename = "pciID", skip_serializing_if = "Option::is_none")]
    pub pci_id: Option<String>,
    /// The RDMA device behind it. Not a key of the specification, which has none for it; readers pass over it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rdma: Option<InterfaceRdma>,
}

/// The RDMA device behind an interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceRdma {
    /// Its name in the container.
    pub device: String,
    /// Under which index of its first port's table it answers for each address.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gids: Vec<Gid>,
}

/// A GID of a port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gid {
    /// The address that it stands for.
    pub address: IpAddr,
    /// Its index in the port's table.
    pub index: u16,
}

/// One address of an attachment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ip {
    /// The address with the prefix length of its subnet.
    pub address: IpNet,
    /// The subnet's gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    /// The index into [`AddResult::interfaces`] of the interface that carries it; an IPAM plugin leaves it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<usize>,
}

/// One route, in a result or in the configuration that asks for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// The destination.
    pub dst: IpNet,
    /// The next hop; without one, the gateway of the address of the same family is meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gw: Option<IpAddr>,
    /// The MTU along the path, in bytes. Since 1.1.0, as are all that follow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// The maximal segment size to advertise, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advmss: Option<u32>,
    /// The metric: lower is preferred.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u32>,
    /// The routing table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<u32>,
    /// The scope as `rtnetlink(7)` numbers it: 0 global, 253 link, 254 host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<u8>,
}

/// Name resolution, as in `resolv.conf(5)`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dns {
    /// Name servers' addresses, in order of preference.
    #[serde(default, deserialize_with = "null_as_empty", skip_serializing_if = "Vec::is_empty")]
    pub nameservers: Vec<String>,
    /// The local domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// The list of domains searched for short names.
    #[serde(default, deserialize_with = "null_as_empty", skip_serializing_if = "Vec::is_empty")]
    pub search: Vec<String>,
    /// Options of the resolver.
    #[serde(default, deserialize_with = "null_as_empty", skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

impl AddResult {
    /// The object to print for a request of `version`, without the fields that came later.
    #[must_use]
    pub fn encode(&self, version: Version) -> Value {
        let mut result = self.clone();
        if version < Version::V1_1_0 {
            for interface in &mut result.interfaces {
                *interface =
                    Interface { mtu: None, socket_path: None, pci_id: None, rdma: None, ..interface.clone() };
            }
            for route in &mut result.routes {
                *route = Route::new(route.dst, route.gw);
            }
        }
        let mut object = json!(result);
        object["cniVersion"] = json!(version);
        if version < Version::V1_0_0 {
            let written = object.get_mut("ips").and_then(Value::as_array_mut);
            for (wire, ip) in written.into_iter().flatten().zip(&self.ips) {
                wire["version"] = json!(if ip.address.addr().is_ipv4() { "4" } else { "6" });
            }
        }
        object
    }

    /// Reads a result of any supported version, and of 0.1.0 and 0.2.0: a `prevResult`, or what a delegated plugin
    /// printed. Fields that are not known are passed over, since another plugin of the chain may have put them there.
    ///
    /// # Errors
    /// Code 1 when it carries a `cniVersion` that is not supported, code 6 when it has another shape.
    pub fn decode(result: &Value) -> Result<Self, CniError> {
        if legacy::is_legacy(result) {
            return legacy::decode(result);
        }
        if let Some(version) = result.get("cniVersion") {
            let text = version.as_str().map_or_else(|| version.to_string(), str::to_owned);
            text.parse::<Version>().map_err(|error| {
                CniError::new(ErrorCode::INCOMPATIBLE_VERSION, format!("result: {error}"))
            })?;
        }
        Self::deserialize(result)
            .map_err(|error| CniError::new(ErrorCode::DECODE, format!("result: {error}")))
    }
}

impl Interface {
    /// A PCI function inside a container. One that a userspace driver has is no interface of the kernel's: its MTU is
    /// unknown, and its address too unless something imposes one.
    #[must_use]
    pub fn of_device(
        name: &str,
        mac: Option<Mac>,
        mtu: Option<u32>,
        sandbox: &str,
        device: PciAddress,
    ) -> Self {
        Self {
            name: name.to_owned(),
            mac: mac.map(|mac| mac.to_string()),
            mtu,
            sandbox: Some(sandbox.to_owned()),
            socket_path: None,
            pci_id: Some(device.to_string()),
            rdma: None,
        }
    }
}

impl Route {
    /// A route with a destination and a next hop and nothing else.
    #[must_use]
    pub const fn new(dst: IpNet, gw: Option<IpAddr>) -> Self {
        Self { dst, gw, mtu: None, advmss: None, priority: None, table: None, scope: None }
    }
}

impl Dns {
    /// Whether nothing is set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Go writes an empty list as `null` unless told otherwise.
fn null_as_empty<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cni::supported_versions;

    fn full() -> AddResult {
        AddResult {
            interfaces: vec![Interface::of_device(
                "eth0",
                "02:00:00:00:00:01".parse().ok(),
                Some(9000),
                "/run/netns/x",
                "0000:01:10.0".parse().unwrap(),
            )],
            ips: vec![
                Ip {
                    address: "10.0.0.5/24".parse().unwrap(),
                    gateway: Some("10.0.0.1".parse().unwrap()),
                    interface: Some(0),
                },
                Ip { address: "fd00::5/64".parse().unwrap(), gateway: None, interface: Some(0) },
            ],
            routes: vec![Route {
                mtu: Some(1400),
                advmss: Some(1360),
                priority: Some(10),
                table: Some(100),
                scope: Some(0),
                ..Route::new("0.0.0.0/0".parse().unwrap(), Some("10.0.0.1".parse().unwrap()))
            }],
            dns: Dns {
                nameservers: vec!["10.0.0.1".to_owned()],
                search: vec!["a.b".to_owned()],
                ..Dns::default()
            },
        }
    }

    fn golden(version: &str) -> Value {
        let text = match version {
            "1.1.0" => include_str!("testdata/result-1.1.0.json"),
            "1.0.0" => include_str!("testdata/result-1.0.0.json"),
            _ => include_str!("testdata/result-0.4.0.json"),
        };
        let mut value: Value = serde_json::from_str(text).unwrap();
        value["cniVersion"] = json!(version);
        value
    }

    #[test]
    fn each_version_is_written_as_its_specification_says() {
        for version in supported_versions() {
            assert_eq!(full().encode(version), golden(version.as_str()), "{version}");
        }
    }

    #[test]
    fn each_version_is_read_as_far_as_it_goes() {
        for version in supported_versions() {
            let read = AddResult::decode(&golden(version.as_str())).unwrap();
            assert_eq!(read.encode(version), full().encode(version), "{version}");
        }
        assert_eq!(AddResult::decode(&full().encode(Version::LATEST)).unwrap(), full());
    }

    #[test]
    fn empty_and_null_lists_and_foreign_fields_are_read() {
        for text in ["{}", r#"{"ips":null,"routes":null,"dns":{"search":null},"x":1,"interfaces":null}"#] {
            let value: Value = serde_json::from_str(text).unwrap();
            assert_eq!(AddResult::decode(&value).unwrap(), AddResult::default());
        }
        assert_eq!(AddResult::default().encode(Version::V0_3_1), json!({"cniVersion": "0.3.1"}));
    }

    #[test]
    fn a_wrong_shape_and_a_wrong_version_have_their_codes() {
        let shape = AddResult::decode(&json!({"ips": [{"address": "10.0.0.5"}]})).unwrap_err();
        assert_eq!(shape.code, ErrorCode::DECODE);
        let version = AddResult::decode(&json!({"cniVersion": "2.0.0"})).unwrap_err();
        assert_eq!(version.code, ErrorCode::INCOMPATIBLE_VERSION);
    }
}
