//! The network configuration on standard input: the keys that the specification gives every plugin.
//!
//! What is left after them is the plugin's own and stays JSON, in [`NetworkConfig::own`], for the plugin to judge.

use std::net::IpAddr;

use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use super::args::parse_ip;
use super::{AddResult, Args, CniError, Dns, ErrorCode, Version, is_network_name};
use crate::Mac;

/// A plugin's configuration for one call (SPEC, section 1, "Plugin configuration objects", and section 3).
#[derive(Clone, Debug, PartialEq)]
pub struct NetworkConfig {
    /// `cniVersion`: the version in which the answer is written.
    pub version: Version,
    /// `name` of the network.
    pub name: String,
    /// `type`: the name under which the plugin was called.
    pub plugin_type: String,
    /// `ipam`, untouched; its keys belong to the IPAM plugin that it names.
    pub ipam: Option<Value>,
    /// `dns` of the network.
    pub dns: Dns,
    /// `runtimeConfig`: what the runtime filled in for the declared capabilities.
    pub runtime: RuntimeConfig,
    /// GC keeps these: what stands under `cni.dev/valid-attachments` and under `cni.dev/attachments`, as the specification
    /// called it for a while and libcni still writes beside it. `None` when both keys are absent; `null`, which is how a
    /// runtime written in Go says it, is an empty list.
    pub valid_attachments: Option<Vec<ValidAttachment>>,
    /// Every key that is not of the specification and does not begin with `cni.dev/`.
    pub own: Map<String, Value>,
    prev_result: Option<Value>,
    args: Map<String, Value>,
}

/// The well-known capabilities (CONVENTIONS, "Dynamic Plugin specific fields"), each as it came.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RuntimeConfig {
    /// The hardware address asked for.
    pub mac: Option<String>,
    /// The addresses asked for, with or without a prefix length.
    pub ips: Vec<String>,
    /// Address ranges in host-local's form, to be used before those of the configuration.
    pub ip_ranges: Option<Value>,
    /// The device that the device plugin allocated; a PCI address for a VF.
    #[serde(rename = "deviceID")]
    pub device_id: Option<String>,
    /// The GUID of an InfiniBand VF.
    #[serde(rename = "infinibandGUID")]
    pub infiniband_guid: Option<String>,
    /// The rates asked for, in bit/s: an object with `egressRate` and so on.
    pub bandwidth: Option<Value>,
    /// Name resolution asked for.
    pub dns: Option<Dns>,
    /// The file in which Multus expects the device's description.
    #[serde(rename = "CNIDeviceInfoFile")]
    pub device_info_file: Option<String>,
}

/// An attachment that GC must leave alone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize)]
pub struct ValidAttachment {
    /// `CNI_CONTAINERID` of its ADD.
    #[serde(rename = "containerID")]
    pub container_id: String,
    /// `CNI_IFNAME` of its ADD.
    pub ifname: String,
}

/// Keys that runtimes and the specification put into every configuration.
const SPECIFIED: [&str; 11] = [
    "cniVersion",
    "name",
    "type",
    "ipam",
    "dns",
    "runtimeConfig",
    "capabilities",
    "args",
    "prevResult",
    "ipMasq",
    "disableCheck",
];

#[derive(Deserialize)]
struct Wire {
    #[serde(rename = "type", default)]
    plugin_type: String,
    #[serde(default)]
    ipam: Option<Value>,
    #[serde(default)]
    dns: Option<Dns>,
    #[serde(rename = "runtimeConfig", default)]
    runtime: Option<RuntimeConfig>,
    #[serde(rename = "cni.dev/valid-attachments", default, deserialize_with = "null_as_none_valid")]
    valid_attachments: Option<Vec<ValidAttachment>>,
    #[serde(rename = "cni.dev/attachments", default, deserialize_with = "null_as_none_valid")]
    attachments: Option<Vec<ValidAttachment>>,
    #[serde(rename = "prevResult", default)]
    prev_result: Option<Value>,
    #[serde(default)]
    args: Option<Map<String, Value>>,
}

impl NetworkConfig {
    /// Reads the configuration from standard input.
    ///
    /// # Errors
    /// Code 6 when it is no JSON object or a key of the specification has another type, 1 when `cniVersion` is not
    /// supported, 7 when `name` is missing or breaks the specification's pattern.
    pub fn decode(stdin: &[u8]) -> Result<Self, CniError> {
        let object: Map<String, Value> = serde_json::from_slice(stdin)
            .map_err(|error| decode_error(format!("the network configuration on stdin: {error}")))?;
        let version = version(&object)?;
        let name = name(&object)?;
        let wire = Wire::deserialize(Value::Object(object.clone()))
            .map_err(|error| decode_error(format!("the configuration of network {name}: {error}")))?;
        let own = object
            .into_iter()
            .filter(|(key, _)| !SPECIFIED.contains(&key.as_str()) && !key.starts_with("cni.dev/"))
            .collect();
        Ok(Self {
            version,
            name,
            plugin_type: wire.plugin_type,
            ipam: wire.ipam,
            dns: wire.dns.unwrap_or_default(),
            runtime: wire.runtime.unwrap_or_default(),
            valid_attachments: match (wire.valid_attachments, wire.attachments) {
                (Some(valid), Some(more)) => Some([valid, more].concat()),
                (valid, more) => valid.or(more),
            },
            own,
            prev_result: wire.prev_result,
            args: wire.args.unwrap_or_default(),
        })
    }

    /// The version in which an error about this input is best written: its `cniVersion` when that can be read and is
    /// supported, else the newest.
    #[must_use]
    pub fn answer_version(stdin: &[u8]) -> Version {
        let object: Result<Map<String, Value>, _> = serde_json::from_slice(stdin);
        object.ok().and_then(|object| version(&object).ok()).unwrap_or(Version::LATEST)
    }

    /// `prevResult`: what the plugins before this one, or the whole chain at ADD, gave back.
    ///
    /// # Errors
    /// As [`AddResult::decode`].
    pub fn prev_result(&self) -> Result<Option<AddResult>, CniError> {
        self.prev_result.as_ref().map(AddResult::decode).transpose()
    }

    /// The addresses asked for: `runtimeConfig.ips`, else `args.cni.ips`, else `IP` of `CNI_ARGS`, the order that
    /// the reference plugin `static` keeps.
    ///
    /// # Errors
    /// Code 7 or 4 when the first of these that is there holds what is no address.
    pub fn requested_ips(&self, arguments: &Args) -> Result<Vec<IpAddr>, CniError> {
        let from_args = self.cni_args("ips");
        let (place, texts) = if !self.runtime.ips.is_empty() {
            ("runtimeConfig.ips", self.runtime.ips.clone())
        } else if let Some(list) = from_args {
            let texts = Vec::<String>::deserialize(list).map_err(|error| {
                CniError::new(ErrorCode::INVALID_CONFIG, format!("args.cni.ips is {list}: {error}"))
            })?;
            ("args.cni.ips", texts)
        } else {
            return arguments.ips();
        };
        texts
            .iter()
            .map(|text| {
                parse_ip(text).ok_or_else(|| {
                    let rule = "write an address such as 10.0.0.5 or fd00::5/64";
                    CniError::new(ErrorCode::INVALID_CONFIG, format!("{place} holds \"{text}\"; {rule}"))
                })
            })
            .collect()
    }

    /// The Ethernet address asked for: `runtimeConfig.mac`, else `args.cni.mac`, else `MAC` of `CNI_ARGS`.
    ///
    /// # Errors
    /// Code 7 or 4 when the first of these that is there is no Ethernet address.
    pub fn requested_mac(&self, arguments: &Args) -> Result<Option<Mac>, CniError> {
        let from_args = self.cni_args("mac").and_then(Value::as_str);
        let (place, text) = match (&self.runtime.mac, from_args) {
            (Some(text), _) if !text.is_empty() => ("runtimeConfig.mac", text.as_str()),
            (_, Some(text)) => ("args.cni.mac", text),
            _ => return arguments.mac(),
        };
        let mac = text
            .parse()
            .map_err(|error| CniError::new(ErrorCode::INVALID_CONFIG, format!("{place}: {error}")))?;
        Ok(Some(mac))
    }

    /// What stands under a key of `args.cni` (CONVENTIONS, "args in network config").
    #[must_use]
    pub fn cni_args(&self, key: &str) -> Option<&Value> {
        self.args.get("cni")?.get(key)
    }
}

fn null_as_none_valid<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Vec<ValidAttachment>>, D::Error> {
    Option::deserialize(deserializer).map(|list| Some(list.unwrap_or_default()))
}

fn version(object: &Map<String, Value>) -> Result<Version, CniError> {
    // Without the key a configuration is one of 0.1.0 by the rules of the reference implementation.
    let text = object.get("cniVersion").map_or(Some("0.1.0"), Value::as_str);
    let text = text.ok_or_else(|| decode_error("cniVersion is not a text".to_owned()))?;
    text.parse().map_err(|error: super::VersionError| {
        CniError::new(ErrorCode::INCOMPATIBLE_VERSION, error.to_string())
    })
}

fn name(object: &Map<String, Value>) -> Result<String, CniError> {
    let name = object.get("name").and_then(Value::as_str).unwrap_or_default();
    if is_network_name(name) {
        return Ok(name.to_owned());
    }
    Err(CniError::new(
        ErrorCode::INVALID_CONFIG,
        format!(
            "the network's name is \"{name}\"; it must begin with a letter or digit and go on with letters, digits, \
             '_', '.' and '-'"
        ),
    ))
}

fn decode_error(msg: String) -> CniError {
    CniError::new(ErrorCode::DECODE, msg)
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNDER_MULTUS: &str = r#"{
        "cniVersion":"1.0.0","name":"blue","type":"zerobridge","vlan":100,"deviceID":"0000:01:10.0",
        "capabilities":{"ips":true,"mac":true},"ipam":{"type":"zerobridge-ipam"},
        "runtimeConfig":{"mac":"02:00:00:00:00:01","ips":["10.0.0.5/24"],"deviceID":"0000:01:10.0","portMappings":[]},
        "args":{"cni":{"ips":["10.0.0.6"],"mac":"02:00:00:00:00:02"}},
        "prevResult":{"cniVersion":"1.0.0","ips":[{"address":"10.0.0.5/24"}]},
        "cni.dev/attachments":[],"cni.dev/valid-attachments":[{"containerID":"c1","ifname":"eth0"}]}"#;

    fn decode(text: &str) -> Result<NetworkConfig, CniError> {
        NetworkConfig::decode(text.as_bytes())
    }

    #[test]
    fn a_configuration_falls_into_the_specifications_part_and_the_plugins_own() {
        let config = decode(UNDER_MULTUS).unwrap();
        assert_eq!(config.version, Version::V1_0_0);
        assert_eq!((config.name.as_str(), config.plugin_type.as_str()), ("blue", "zerobridge"));
        assert_eq!(config.own.keys().collect::<Vec<_>>(), ["deviceID", "vlan"]);
        assert_eq!(config.runtime.device_id.as_deref(), Some("0000:01:10.0"));
        assert_eq!(config.prev_result().unwrap().unwrap().ips.len(), 1);
        let valid = ValidAttachment { container_id: "c1".to_owned(), ifname: "eth0".to_owned() };
        assert_eq!(config.valid_attachments, Some(vec![valid]));
    }

    #[test]
    fn requests_are_taken_from_the_first_place_that_has_them() {
        let arguments = Args::parse("IP=10.0.0.7;MAC=02:00:00:00:00:03").unwrap();
        let mut config = decode(UNDER_MULTUS).unwrap();
        let asked = |config: &NetworkConfig| {
            let ips = config.requested_ips(&arguments).unwrap();
            (ips[0].to_string(), config.requested_mac(&arguments).unwrap().unwrap().to_string())
        };
        assert_eq!(asked(&config), ("10.0.0.5".to_owned(), "02:00:00:00:00:01".to_owned()));
        config.runtime = RuntimeConfig::default();
        assert_eq!(asked(&config), ("10.0.0.6".to_owned(), "02:00:00:00:00:02".to_owned()));
        config.args.clear();
        assert_eq!(asked(&config), ("10.0.0.7".to_owned(), "02:00:00:00:00:03".to_owned()));
    }

    #[test]
    fn each_fault_has_its_code_and_names_its_object() {
        for (text, code, part) in [
            ("", ErrorCode::DECODE, "stdin"),
            ("[]", ErrorCode::DECODE, "stdin"),
            (r#"{"name":"a"}"#, ErrorCode::INCOMPATIBLE_VERSION, "0.1.0"),
            (r#"{"cniVersion":"9.9.9","name":"a"}"#, ErrorCode::INCOMPATIBLE_VERSION, "9.9.9"),
            (r#"{"cniVersion":1,"name":"a"}"#, ErrorCode::DECODE, "cniVersion"),
            (r#"{"cniVersion":"1.1.0"}"#, ErrorCode::INVALID_CONFIG, "name"),
            (r#"{"cniVersion":"1.1.0","name":"a/b"}"#, ErrorCode::INVALID_CONFIG, "a/b"),
            (r#"{"cniVersion":"1.1.0","name":"a","args":7}"#, ErrorCode::DECODE, "network a"),
        ] {
            let error = decode(text).unwrap_err();
            assert_eq!(error.code, code, "{text}");
            assert!(error.msg.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn a_bad_request_names_where_it_stands() {
        let text = r#"{"cniVersion":"1.1.0","name":"a","runtimeConfig":{"ips":["x"],"mac":"y"}}"#;
        let config = decode(text).unwrap();
        assert!(
            config.requested_ips(&Args::default()).unwrap_err().msg.contains("runtimeConfig.ips holds \"x\"")
        );
        assert!(config.requested_mac(&Args::default()).unwrap_err().msg.contains("runtimeConfig.mac"));
    }

    #[test]
    fn what_gc_keeps_is_read_under_both_names_and_absence_is_not_emptiness() {
        let valid = |keys: &str| {
            let text = format!(r#"{{"cniVersion":"1.1.0","name":"a"{keys}}}"#);
            let list = decode(&text).unwrap().valid_attachments?;
            Some(list.into_iter().map(|one| one.container_id).collect::<Vec<_>>().join(","))
        };
        let c1 = r#"[{"containerID":"c1","ifname":"eth0"}]"#;
        let c2 = r#"[{"containerID":"c2","ifname":"eth0"}]"#;
        for (keys, expected) in [
            (String::new(), None),
            (format!(r#","cni.dev/valid-attachments":{c1}"#), Some("c1")),
            (format!(r#","cni.dev/attachments":{c1}"#), Some("c1")),
            (format!(r#","cni.dev/attachments":{c1},"cni.dev/valid-attachments":{c2}"#), Some("c2,c1")),
            (r#","cni.dev/valid-attachments":null"#.to_owned(), Some("")),
            (r#","cni.dev/valid-attachments":[]"#.to_owned(), Some("")),
        ] {
            assert_eq!(valid(&keys).as_deref(), expected, "{keys}");
        }
    }

    #[test]
    fn an_error_is_answered_in_the_version_that_was_asked_with() {
        assert_eq!(NetworkConfig::answer_version(br#"{"cniVersion":"0.4.0"}"#), Version::V0_4_0);
        assert_eq!(NetworkConfig::answer_version(b"junk"), Version::LATEST);
    }
}
