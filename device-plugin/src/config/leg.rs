//! The node's own legs as a configuration describes them: interfaces by which the node itself is in the network of its pods.
//!
//! Refuses to know whether the interface exists and which address it will have.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;
use thiserror::Error;
use zerobridge_ipam::PoolConfig as AddressPool;
use zerobridge_proto::PciAddress;
use zerobridge_proto::cni::is_network_name;

use super::ConfigError;
use super::document::{Fields, Placed};

/// The keys of a leg.
pub(super) const LEG_KEYS: &[&str] =
    &["name", "kind", "pf", "rootDevice", "vlan", "vf", "mtu", "network", "ipam", "address"];

/// The kinds, as they are written.
pub(super) const KINDS: [(&str, &str); 3] = [("pf", "pf"), ("vlan", "vlan"), ("vf", "vf")];

/// The longest name of a leg: it is a part of a link's note and of a metric.
const LONGEST_NAME: usize = 32;

/// The smallest and the largest MTU of Linux (`ETH_MIN_MTU`, `ETH_MAX_MTU` in `linux/if_ether.h`).
const MTU: std::ops::RangeInclusive<u64> = 68..=65535;

/// VLANs that a tag can name: 0 is none, and 4095 is reserved (IEEE 802.1Q, 9.6).
const VLANS: std::ops::RangeInclusive<u64> = 1..=4094;

/// The only IPAM plugin whose addresses a leg can have: the others are programs that a runtime calls for a container.
const IPAM_TYPE: &str = "zerobridge-ipam";

/// One interface by which the node itself is in a network of pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LegConfig {
    /// Its name, by which its leases are known: at most 32 letters, digits, `.`, `_` and `-`.
    pub name: String,
    /// What carries it.
    pub kind: LegKind,
    /// The PF that it belongs to.
    pub port: PortName,
    /// MTU in bytes, 68 to 65535; `None` leaves what is there. Never with [`LegKind::Pf`].
    pub mtu: Option<u32>,
    /// The CNI network in which its addresses are leased.
    pub network: String,
    /// Where its addresses come from.
    pub addresses: LegAddresses,
}

/// What carries a leg.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LegKind {
    /// The PF's own interface, which is untagged.
    Pf,
    /// An interface of the PF for one VLAN.
    Vlan {
        /// 1 to 4094.
        vlan: u16,
    },
    /// A VF that the node keeps for itself.
    Vf {
        /// Its number within the PF, from 0.
        index: u16,
        /// The VLAN that the PF puts its frames into, 1 to 4094; `None` for none.
        vlan: Option<u16>,
    },
}

/// What a configuration calls a PF by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortName {
    /// The name, or an alternative name, of its interface.
    Netdev(String),
    /// Its PCI address.
    Address(PciAddress),
}

/// Where a leg's addresses come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LegAddresses {
    /// From a pool: an `ipam` object in the keys of `zerobridge-ipam`, which can be read.
    Pool(Value),
    /// They are written down, each with the length of its prefix.
    Fixed(Vec<IpNet>),
}

/// What is wrong with a value of a leg.
#[derive(Debug, Error)]
enum LegError {
    #[error(
        "\"{text}\" is no name; write 1 to {LONGEST_NAME} letters, digits, dots, underscores and hyphens, a letter or digit first"
    )]
    Name { text: String },
    #[error("\"{text}\" is no name of a network; write the \"name\" of the CNI network, such as \"pods\"")]
    Network { text: String },
    #[error(
        "\"{text}\" is no name of an interface; write one such as \"ens1f0\", or use rootDevice for a PCI address"
    )]
    Netdev { text: String },
    #[error(
        "{address} cannot be a host's; write an address with the length of its prefix, such as \"10.100.0.1/24\""
    )]
    Address { address: IpNet },
    #[error("{address} is written twice; keep one")]
    Twice { address: IpAddr },
    #[error("\"{text}\" gives no addresses to the node; write \"{IPAM_TYPE}\", or leave type out")]
    Ipam { text: String },
    #[error("the ledger is where --state-dir of this program says; leave stateDir out")]
    StateDir,
}

impl LegKind {
    /// How a configuration writes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pf => "pf",
            Self::Vlan { .. } => "vlan",
            Self::Vf { .. } => "vf",
        }
    }

    /// The VLAN of its frames.
    #[must_use]
    pub const fn vlan(self) -> Option<u16> {
        match self {
            Self::Pf => None,
            Self::Vlan { vlan } => Some(vlan),
            Self::Vf { vlan, .. } => vlan,
        }
    }

    /// Whether both are one interface, if they belong to one PF.
    pub(crate) fn is_same_interface(self, other: Self) -> bool {
        match (self, other) {
            (Self::Pf, Self::Pf) => true,
            (Self::Vlan { vlan }, Self::Vlan { vlan: other }) => vlan == other,
            (Self::Vf { index, .. }, Self::Vf { index: other, .. }) => index == other,
            _ => false,
        }
    }
}

/// Reads a list of legs. No two have one name, or are one interface as far as the text tells.
pub(super) fn legs(list: Placed) -> Result<Vec<LegConfig>, ConfigError> {
    let list = list.list("leg")?;
    let places: Vec<String> = list.iter().map(|leg| leg.place().to_owned()).collect();
    let legs: Vec<LegConfig> = list.into_iter().map(leg).collect::<Result<_, _>>()?;
    for (later, (leg, place)) in legs.iter().zip(&places).enumerate() {
        for (other, first) in legs.iter().zip(&places).take(later) {
            let (first, second) = (first.clone(), place.clone());
            if other.name == leg.name {
                let what = format!("named \"{}\"", leg.name);
                return Err(ConfigError::RepeatedLeg { first, second, what, remedy: "rename one" });
            }
            if other.port == leg.port && other.kind.is_same_interface(leg.kind) {
                let remedy = "keep one; a leg can have an address of each of several ranges or pools";
                return Err(ConfigError::RepeatedLeg {
                    first,
                    second,
                    what: "the same interface".to_owned(),
                    remedy,
                });
            }
        }
    }
    Ok(legs)
}

fn leg(leg: Placed) -> Result<LegConfig, ConfigError> {
    let mut fields = leg.object(LEG_KEYS)?;
    let name = fields.require("name", "what the leg is called in logs, metrics and the ledger")?;
    let name = checked(name, is_name, |text| LegError::Name { text })?;
    let kind = kind(&mut fields)?;
    let port = port(&mut fields)?;
    let mtu = fields.take("mtu");
    if let (Some(mtu), LegKind::Pf) = (&mtu, kind) {
        return Err(ConfigError::Conflict {
            place: mtu.place().to_owned(),
            other: "kind \"pf\"".to_owned(),
            reason: "the PF's MTU is the host's own, and changing it takes the carrier of every VF away for a while",
            remedy: "set it where the host's network is configured",
        });
    }
    let mtu = mtu.map(|mtu| mtu.number(MTU)).transpose()?;
    let network =
        fields.require("network", "the name of the CNI network whose addresses it shares with pods")?;
    let network = checked(network, is_network_name, |text| LegError::Network { text })?;
    let addresses = addresses(&mut fields)?;
    // Within the range that was just checked.
    let mtu = mtu.and_then(|mtu| u32::try_from(mtu).ok());
    Ok(LegConfig { name, kind, port, mtu, network, addresses })
}

fn kind(fields: &mut Fields) -> Result<LegKind, ConfigError> {
    let word = fields.require("kind", "what carries it, \"pf\", \"vlan\" or \"vf\"")?.word(&KINDS)?;
    let number = |placed: Placed, allowed: std::ops::RangeInclusive<u64>| {
        // Both ranges are within 16 bits.
        placed.number(allowed).map(|number| u16::try_from(number).unwrap_or_default())
    };
    let (vlan, vf) = (fields.take("vlan"), fields.take("vf"));
    if let (Some(vf), "pf" | "vlan") = (&vf, word) {
        return Err(ConfigError::Conflict {
            place: vf.place().to_owned(),
            other: format!("kind \"{word}\""),
            reason: "only a leg of kind \"vf\" is on a VF",
            remedy: "leave vf out, or write \"kind\": \"vf\"",
        });
    }
    match (word, vlan, vf) {
        ("pf", Some(vlan), _) => Err(ConfigError::Conflict {
            place: vlan.place().to_owned(),
            other: "kind \"pf\"".to_owned(),
            reason: "the PF's own interface is untagged",
            remedy: "write \"kind\": \"vlan\" for an interface of that VLAN, or leave vlan out",
        }),
        ("pf", None, _) => Ok(LegKind::Pf),
        ("vlan", None, _) => {
            let key = fields.place_of("vlan");
            Err(ConfigError::MissingKey { key, purpose: "the VLAN of the interface, 1 to 4094" })
        }
        ("vlan", Some(vlan), _) => Ok(LegKind::Vlan { vlan: number(vlan, VLANS)? }),
        (_, _, None) => {
            let key = fields.place_of("vf");
            Err(ConfigError::MissingKey { key, purpose: "which VF of the PF the node keeps, from 0" })
        }
        (_, vlan, Some(vf)) => Ok(LegKind::Vf {
            index: number(vf, 0..=u64::from(u16::MAX) - 1)?,
            vlan: vlan.map(|vlan| number(vlan, VLANS)).transpose()?,
        }),
    }
}

fn port(fields: &mut Fields) -> Result<PortName, ConfigError> {
    match (fields.take("pf"), fields.take("rootDevice")) {
        (Some(pf), Some(root)) => Err(ConfigError::Conflict {
            place: pf.place().to_owned(),
            other: root.place().to_owned(),
            reason: "both name the PF",
            remedy: "keep one",
        }),
        (Some(pf), None) => {
            let is_netdev = |text: &str| {
                (1..128).contains(&text.len())
                    && !text.contains(['/', ':', '#'])
                    && !text.contains(char::is_whitespace)
            };
            checked(pf, is_netdev, |text| LegError::Netdev { text }).map(PortName::Netdev)
        }
        (None, Some(root)) => root.parsed(str::parse).map(PortName::Address),
        (None, None) => {
            let key = fields.place_of("pf");
            Err(ConfigError::MissingKey {
                key,
                purpose: "the interface of the PF; or write rootDevice, its PCI address",
            })
        }
    }
}

fn addresses(fields: &mut Fields) -> Result<LegAddresses, ConfigError> {
    match (fields.take("ipam"), fields.take("address")) {
        (Some(ipam), Some(address)) => Err(ConfigError::Conflict {
            place: ipam.place().to_owned(),
            other: address.place().to_owned(),
            reason: "an address that is written down comes from no pool",
            remedy: "keep one; a written address is kept from the network's pods all the same",
        }),
        (Some(ipam), None) => pool(ipam).map(LegAddresses::Pool),
        (None, Some(address)) => fixed(address).map(LegAddresses::Fixed),
        (None, None) => {
            let key = fields.place_of("ipam");
            Err(ConfigError::MissingKey {
                key,
                purpose: "the pool of the network, as in the CNI configuration; or write address, such as \"10.100.0.1/24\"",
            })
        }
    }
}

fn pool(ipam: Placed) -> Result<Value, ConfigError> {
    let place = ipam.place().to_owned();
    let refused = |key: &str, error| Err(ConfigError::invalid(format!("{place}.{key}"), error));
    let value = ipam.value()?;
    match value.get("type") {
        None => {}
        Some(kind) if kind == IPAM_TYPE => {}
        Some(kind) => {
            let text = kind.as_str().map_or_else(|| kind.to_string(), str::to_owned);
            return refused("type", LegError::Ipam { text });
        }
    }
    if value.get("stateDir").is_some() {
        return refused("stateDir", LegError::StateDir);
    }
    AddressPool::parse(&value, None).map_err(|source| ConfigError::invalid(place.clone(), source))?;
    Ok(value)
}

fn fixed(address: Placed) -> Result<Vec<IpNet>, ConfigError> {
    let list = if address.is_list() { address.list("address")? } else { vec![address] };
    let mut addresses: Vec<IpNet> = Vec::new();
    for entry in list {
        let place = entry.place().to_owned();
        let address: IpNet = entry.parsed(str::parse)?;
        if !is_of_a_host(address) {
            return Err(ConfigError::invalid(place, LegError::Address { address }));
        }
        if addresses.iter().any(|other| other.addr() == address.addr()) {
            return Err(ConfigError::invalid(place, LegError::Twice { address: address.addr() }));
        }
        addresses.push(address);
    }
    Ok(addresses)
}

/// Whether an interface can have this address: neither the network itself nor everybody in it, nor a group.
fn is_of_a_host(address: IpNet) -> bool {
    let ip = address.addr();
    let in_subnet = match address {
        IpNet::V4(net) => net.prefix_len() >= 31 || (ip != net.network() && ip != net.broadcast()),
        IpNet::V6(net) => net.prefix_len() >= 127 || ip != net.network(),
    };
    in_subnet && address.prefix_len() > 0 && !ip.is_multicast() && !ip.is_loopback() && !ip.is_unspecified()
}

fn is_name(text: &str) -> bool {
    let first_is_fine = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    first_is_fine
        && text.len() <= LONGEST_NAME
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

fn checked(
    value: Placed,
    is_fine: impl FnOnce(&str) -> bool,
    error: impl FnOnce(String) -> LegError,
) -> Result<String, ConfigError> {
    let place = value.place().to_owned();
    let text = value.text()?;
    if is_fine(&text) { Ok(text) } else { Err(ConfigError::invalid(place, error(text))) }
}
