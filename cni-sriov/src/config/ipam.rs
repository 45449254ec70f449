//! Who gives a network its addresses: the pool in this process, or another program.

use serde_json::{Map, Value};
use zerobridge_ipam::PoolConfig;
use zerobridge_proto::cni::{CniError, NetworkConfig};

use super::invalid;

/// The IPAM plugin that runs inside this one.
const OWN: &str = "zerobridge-ipam";

/// Where a network's addresses come from.
#[derive(Clone, Debug, PartialEq)]
pub enum Ipam {
    /// The pool in this process.
    Own(Box<PoolConfig>),
    /// The IPAM plugin of this name in `CNI_PATH`; what else its `ipam` object says is for it to judge.
    Delegated(String),
}

impl Ipam {
    /// Reads an `ipam` object; `None` when it is absent or empty. `ip_ranges` are those of the capability `ipRanges`, which
    /// go before the configured ones. `place` goes before the key in an error, and `caller` is this plugin's own type.
    ///
    /// # Errors
    /// No type, a type that no file in a directory can have or that is this plugin itself, or a bad pool.
    pub(super) fn parse(
        ipam: Option<&Value>,
        ip_ranges: Option<&Value>,
        place: &str,
        caller: &str,
    ) -> Result<Option<Self>, CniError> {
        let Some(ipam) = ipam.filter(|ipam| **ipam != Value::Object(Map::new())) else { return Ok(None) };
        match plugin_type(ipam) {
            Some(OWN) => Ok(Some(Self::Own(PoolConfig::parse(ipam, ip_ranges)?.into()))),
            Some(plugin) if is_program_name(plugin) && plugin != caller => {
                Ok(Some(Self::Delegated(plugin.to_owned())))
            }
            other => Err(invalid(format!(
                "{place}ipam.type is {}; allowed is \"{OWN}\", which also reads the configuration of host-local, or the \
                 name of another IPAM plugin in CNI_PATH, without a path",
                other.map_or_else(|| "missing".to_owned(), |other| format!("\"{other}\""))
            ))),
        }
    }
}

/// The networks with a delegated IPAM plugin and that plugin's name, however wrong all else is: DEL must reach it.
pub(crate) fn delegated_networks(config: &NetworkConfig) -> Vec<(String, String)> {
    let delegated = |name: &str, ipam: Option<&Value>| {
        let plugin = plugin_type(ipam?).filter(|plugin| *plugin != OWN && *plugin != config.plugin_type)?;
        is_program_name(plugin).then(|| (name.to_owned(), plugin.to_owned()))
    };
    match config.own.get("networks").and_then(Value::as_array) {
        None => delegated(&config.name, config.ipam.as_ref()).into_iter().collect(),
        Some(entries) => entries
            .iter()
            .filter_map(|entry| delegated(entry.get("name")?.as_str()?, entry.get("ipam")))
            .collect(),
    }
}

/// The names of all networks, however wrong all else is.
pub(crate) fn network_names(config: &NetworkConfig) -> Vec<&str> {
    match config.own.get("networks").and_then(Value::as_array) {
        None => vec![&config.name],
        Some(entries) => entries.iter().filter_map(|entry| entry.get("name")?.as_str()).collect(),
    }
}

fn plugin_type(ipam: &Value) -> Option<&str> {
    ipam.get("type")?.as_str().filter(|plugin| !plugin.is_empty())
}

/// Whether `text` can be the name of a file in a directory, and leads nowhere else.
fn is_program_name(text: &str) -> bool {
    text != "." && text != ".." && !text.contains(['/', '\0'])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(ipam: Value) -> Result<Option<Ipam>, CniError> {
        Ipam::parse(Some(&ipam), None, "networks[1].", "sriov")
    }

    #[test]
    fn our_own_type_is_a_pool_and_any_other_name_a_program() {
        assert_eq!(parse(json!({})).unwrap(), None);
        let own = parse(json!({"type": "zerobridge-ipam", "subnet": "10.0.0.0/24"})).unwrap();
        assert!(matches!(own, Some(Ipam::Own(_))));
        let other = parse(json!({"type": "host-local", "anything": 7})).unwrap();
        assert_eq!(other, Some(Ipam::Delegated("host-local".to_owned())));
    }

    #[test]
    fn a_type_that_is_no_program_is_named_with_what_is_allowed() {
        for (ipam, part) in [
            (json!({"subnet": "10.0.0.0/24"}), "missing"),
            (json!({"type": ""}), "missing"),
            (json!({"type": 7}), "missing"),
            (json!({"type": "../host-local"}), "\"../host-local\""),
            (json!({"type": "/opt/cni/bin/host-local"}), "\"/opt/cni/bin/host-local\""),
            (json!({"type": ".."}), "\"..\""),
            (json!({"type": "sriov"}), "\"sriov\""),
            (json!(7), "missing"),
        ] {
            let error = parse(ipam.clone()).unwrap_err().msg;
            assert!(
                error.starts_with("networks[1].ipam.type is ") && error.contains(part),
                "{ipam}: {error}"
            );
            assert!(error.contains("zerobridge-ipam") && error.contains("CNI_PATH"), "{error}");
        }
    }

    #[test]
    fn delegated_networks_are_found_in_a_broken_configuration() {
        let names = |own: Value| {
            let mut object = json!({"cniVersion": "1.1.0", "name": "pods", "type": "zerobridge"});
            object.as_object_mut().unwrap().extend(own.as_object().unwrap().clone());
            let config = NetworkConfig::decode(object.to_string().as_bytes()).unwrap();
            let delegated = delegated_networks(&config).into_iter();
            let delegated = delegated.map(|(name, plugin)| format!("{name}={plugin}")).collect::<Vec<_>>();
            (network_names(&config).join(","), delegated.join(","))
        };
        let pair = |names: &str, delegated: &str| (names.to_owned(), delegated.to_owned());
        let single = json!({"vlan": 9999, "ipam": {"type": "host-local"}});
        assert_eq!(names(single), pair("pods", "pods=host-local"));
        assert_eq!(names(json!({"ipam": {"type": "zerobridge-ipam"}})), pair("pods", ""));
        let several = json!({"networks": [
            {"name": "a", "vlan": "x", "ipam": {"type": "host-local"}}, 7, {"ipam": {"type": "static"}},
            {"name": "b", "ipam": {"type": "zerobridge-ipam"}}, {"name": "c", "ipam": {"type": "a/b"}},
        ]});
        assert_eq!(names(several), pair("a,b,c", "a=host-local"));
    }
}
