//! The plugin's configuration: sriov-cni's keys and our own, every value checked before anything is touched.
//!
//! Refuses to know whether a device exists or an address is free.

mod bandwidth;
mod infiniband;
mod ipam;
mod paths;
mod settings;

use serde_json::{Map, Value};
use zerobridge_proto::PciAddress;
use zerobridge_proto::cni::{
    Args, CniError, Dns, ErrorCode, NetworkConfig, is_network_name, reject_unknown_keys,
};

pub(crate) use ipam::{Ipam, delegated_networks, network_names};
pub(crate) use paths::Paths;
pub(crate) use settings::{RdmaSetting, VfSettings};

/// Keys of the plugin object beside those of a network.
const PLUGIN_KEYS: [&str; 6] = ["deviceID", "pciBusID", "networks", "readyWhenFull", "logLevel", "logFile"];

/// Keys that make a network, in the plugin object or in an entry of `networks`.
const NETWORK_KEYS: [&str; 1] = ["resourceName"];

/// A configuration, valid as far as it can be told without looking at the machine.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// The device that Multus, the runtime or a person named.
    pub device: Option<PciAddress>,
    /// The networks that the plugin object describes; never empty.
    pub networks: Vec<Network>,
    /// Name resolution that the configuration itself asks for.
    pub dns: Dns,
    /// Whether STATUS passes over it that no VF or no address is free.
    pub ready_when_full: bool,
}

/// One network: what a VF must be to belong to it.
#[derive(Clone, Debug)]
pub struct Network {
    /// Under this name its addresses are kept apart from those of other networks.
    pub name: String,
    /// The resource whose devices belong to it, such as `zerobridge.io/vf`.
    pub resource_name: Option<String>,
    /// What to set of the VF.
    pub settings: VfSettings,
    /// Where its addresses come from; `None` for a network without addresses.
    pub ipam: Option<Ipam>,
}

impl Config {
    /// Reads the plugin's own part of a configuration, and what the call asks of it.
    ///
    /// # Errors
    /// Code 2 for an unknown key, code 7 for a bad value, each naming the key, its value and what was allowed.
    pub(crate) fn parse(config: &NetworkConfig, arguments: &Args) -> Result<Self, CniError> {
        let mut known = known_network_keys();
        known.extend(PLUGIN_KEYS);
        known.extend(Paths::KEYS);
        reject_unknown_keys(&config.own, "", &known)?;
        let ready_when_full = match config.own.get("readyWhenFull") {
            None => false,
            Some(Value::Bool(ready)) => *ready,
            Some(other) => return Err(bad_value("readyWhenFull", other, "true or false")),
        };
        let (device, networks) = (device(config)?, networks(config, arguments)?);
        Ok(Self { device, networks, dns: config.dns.clone(), ready_when_full })
    }
}

fn known_network_keys() -> Vec<&'static str> {
    NETWORK_KEYS.into_iter().chain(VfSettings::KEYS).chain(infiniband::KEYS).collect()
}

/// `deviceID` of the plugin object, else of `runtimeConfig`.
fn device(config: &NetworkConfig) -> Result<Option<PciAddress>, CniError> {
    let own = match config.own.get("deviceID") {
        None => None,
        Some(Value::String(text)) => Some(text.as_str()),
        Some(other) => {
            return Err(bad_value("deviceID", other, "a PCI address as text, such as \"0000:01:10.0\""));
        }
    };
    let text = own.or(config.runtime.device_id.as_deref()).filter(|text| !text.is_empty());
    text.map(|text| match text.split('.').collect::<Vec<_>>()[..] {
        [_, "sf", _] => Err(invalid(format!(
            "deviceID is \"{text}\", a scalable function; those are not attached by this version, so name a PCI address"
        ))),
        _ => text.parse().map_err(|error| invalid(format!("deviceID: {error}"))),
    })
    .transpose()
}

fn networks(config: &NetworkConfig, arguments: &Args) -> Result<Vec<Network>, CniError> {
    let requested_mac = config.requested_mac(arguments)?;
    let rate = bandwidth::limit(config.runtime.bandwidth.as_ref())?;
    let requested_guid = infiniband::requested_guid(config)?;
    let caller = config.plugin_type.as_str();
    let mut networks = match config.own.get("networks") {
        None => {
            let ip_ranges = config.runtime.ip_ranges.as_ref();
            let ipam = Ipam::parse(config.ipam.as_ref(), ip_ranges, "", caller)?;
            vec![network(config.name.clone(), &config.own, ipam, "")?]
        }
        Some(Value::Array(entries)) if !entries.is_empty() => {
            let mut outside = known_network_keys().into_iter().filter(|key| config.own.contains_key(*key));
            if let Some(key) = config.ipam.is_some().then_some("ipam").or_else(|| outside.next()) {
                return Err(invalid(format!(
                    "\"{key}\" stands beside \"networks\"; with \"networks\" it belongs into each of its entries"
                )));
            }
            let entries = entries.iter().enumerate();
            entries.map(|(number, entry)| listed_network(entry, number, caller)).collect::<Result<_, _>>()?
        }
        Some(other) => return Err(bad_value("networks", other, "a list of at least one network")),
    };
    reject_ambiguity(&networks)?;
    for network in &mut networks {
        network.settings.mac = requested_mac.or(network.settings.mac);
        network.settings.guid = requested_guid.or(network.settings.guid);
        rate.iter().for_each(|rate| network.settings.limit(*rate));
        network.settings.check(&network.name)?;
        infiniband::check_managed(config, &network.name, &network.settings)?;
    }
    Ok(networks)
}

fn listed_network(entry: &Value, number: usize, caller: &str) -> Result<Network, CniError> {
    let place = format!("networks[{number}]");
    let Value::Object(keys) = entry else {
        return Err(bad_value(&place, entry, "an object with name, resourceName, vlan, ipam and so on"));
    };
    let mut known = known_network_keys();
    known.extend(["name", "ipam"]);
    reject_unknown_keys(keys, &place, &known)?;
    let name = keys.get("name").and_then(Value::as_str).unwrap_or_default();
    if !is_network_name(name) {
        return Err(invalid(format!(
            "{place}.name is \"{name}\"; it must begin with a letter or digit and go on with letters, digits, '_', \
             '.' and '-'"
        )));
    }
    let place = format!("{place}.");
    let ipam = Ipam::parse(keys.get("ipam"), None, &place, caller)?;
    let network = network(name.to_owned(), keys, ipam, &place)?;
    if network.resource_name.is_none() {
        return Err(invalid(format!(
            "{place}resourceName is missing; with several networks, the resource a pod was given chooses its network"
        )));
    }
    Ok(network)
}

fn network(
    name: String,
    keys: &Map<String, Value>,
    ipam: Option<Ipam>,
    place: &str,
) -> Result<Network, CniError> {
    let resource_name = match keys.get("resourceName") {
        None => None,
        Some(Value::String(text)) if text.split('/').filter(|part| !part.is_empty()).count() == 2 => {
            Some(text.clone())
        }
        Some(other) => {
            let allowed = "a resource with its prefix, such as \"zerobridge.io/vf\"";
            return Err(bad_value(&format!("{place}resourceName"), other, allowed));
        }
    };
    let settings = VfSettings::parse(keys, place)?;
    Ok(Network { name, resource_name, settings, ipam })
}

/// Two networks that the same resource would choose, or that share one address space by accident.
fn reject_ambiguity(networks: &[Network]) -> Result<(), CniError> {
    for (number, network) in networks.iter().enumerate() {
        for other in &networks[..number] {
            let clash = if other.name == network.name {
                Some(("name", network.name.as_str()))
            } else if other.resource_name == network.resource_name {
                network.resource_name.as_deref().map(|resource| ("resourceName", resource))
            } else {
                None
            };
            if let Some((key, value)) = clash {
                return Err(invalid(format!(
                    "two entries of networks have {key} \"{value}\"; each must have its own"
                )));
            }
        }
    }
    Ok(())
}

fn invalid(msg: String) -> CniError {
    CniError::new(ErrorCode::INVALID_CONFIG, msg)
}

fn bad_value(key: &str, value: &Value, allowed: &str) -> CniError {
    invalid(format!("{key} is {value}; allowed is {allowed}"))
}

#[cfg(test)]
mod tests;
