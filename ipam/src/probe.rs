//! Whether, and how thoroughly, an address is looked for on the link before it is used. Only read here: whoever has a link
//! does it.

use std::time::Duration;

use serde_json::{Map, Value};
use zerobridge_proto::cni::reject_unknown_keys;

use crate::PoolError;
use crate::pool::invalid;

/// How often is asked for an address before it counts as nobody's. RFC 5227 asks as often (`PROBE_NUM`), RFC 4862 once.
const PROBES: u32 = 3;
/// Between two questions. The RFCs' 1 to 2 s (`PROBE_MIN`, `PROBE_MAX`; `RetransTimer`) are for links on which hosts sleep
/// and frames get lost; in a data centre whoever is there answers within a millisecond, and a pod waits for this.
const INTERVAL: u32 = 100;
/// For an answer to the last question; 2 s in RFC 5227 (`ANNOUNCE_WAIT`), 1 s in RFC 4862.
const WAIT: u32 = 100;
/// How many addresses are tried; each that is another's costs at most the time of one probing.
const TRIES: u32 = 4;
/// How long an address is kept back that a foreign host has: long enough that a host which reboots is back.
const SET_ASIDE: u32 = 600;

/// Looking for a foreign host that has an address, before that is given to a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConflictProbe {
    /// How often is asked for each address; 1 to 10.
    pub probes: u32,
    /// Between two questions; 10 ms to 2 s.
    pub interval: Duration,
    /// For an answer to the last question; 10 ms to 2 s.
    pub wait: Duration,
    /// How many times addresses are leased and probed before that is given up; 1 to 10.
    pub tries: u32,
    /// How long an address that a foreign host has is kept back, in seconds; 1 to a day.
    pub set_aside_seconds: u32,
}

impl Default for ConflictProbe {
    fn default() -> Self {
        Self {
            probes: PROBES,
            interval: Duration::from_millis(INTERVAL.into()),
            wait: Duration::from_millis(WAIT.into()),
            tries: TRIES,
            set_aside_seconds: SET_ASIDE,
        }
    }
}

/// Looking for a container's gateways once it has its addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GatewayProbe {
    /// Not at all.
    #[default]
    Off,
    /// A gateway that does not answer is told in the log.
    Warn,
    /// A container whose gateways do not all answer is not started.
    Require,
}

const CONFLICT_KEYS: [&str; 5] =
    ["probes", "intervalMilliseconds", "waitMilliseconds", "tries", "setAsideSeconds"];

/// `ipam.conflictProbe`; `None` when nobody is to be looked for.
pub(crate) fn conflict_probe(ipam: &Map<String, Value>) -> Result<Option<ConflictProbe>, PoolError> {
    let object = match ipam.get("conflictProbe") {
        None | Some(Value::Null | Value::Bool(false)) => return Ok(None),
        Some(Value::Bool(true)) => return Ok(Some(ConflictProbe::default())),
        Some(Value::Object(object)) => object,
        other => {
            let rule = r#"write true, false, or an object such as {"probes":3,"intervalMilliseconds":100}"#;
            return Err(invalid("ipam.conflictProbe", other, rule));
        }
    };
    reject_unknown_keys(object, "ipam.conflictProbe", &CONFLICT_KEYS).map_err(PoolError::UnknownKey)?;
    let number = |key, absent, least, most| number(object, key, absent, least, most);
    let pace =
        |key, absent| number(key, absent, 10, 2_000).map(|number| Duration::from_millis(number.into()));
    Ok(Some(ConflictProbe {
        probes: number("probes", PROBES, 1, 10)?,
        interval: pace("intervalMilliseconds", INTERVAL)?,
        wait: pace("waitMilliseconds", WAIT)?,
        tries: number("tries", TRIES, 1, 10)?,
        set_aside_seconds: number("setAsideSeconds", SET_ASIDE, 1, 86_400)?,
    }))
}

/// `ipam.gatewayProbe`.
pub(crate) fn gateway_probe(ipam: &Map<String, Value>) -> Result<GatewayProbe, PoolError> {
    match ipam.get("gatewayProbe") {
        None | Some(Value::Null) => Ok(GatewayProbe::Off),
        Some(value) => match value.as_str() {
            Some("off") => Ok(GatewayProbe::Off),
            Some("warn") => Ok(GatewayProbe::Warn),
            Some("require") => Ok(GatewayProbe::Require),
            _ => Err(invalid("ipam.gatewayProbe", Some(value), r#"write "off", "warn" or "require""#)),
        },
    }
}

fn number(
    object: &Map<String, Value>,
    key: &str,
    absent: u32,
    least: u32,
    most: u32,
) -> Result<u32, PoolError> {
    let Some(value) = object.get(key) else {
        return Ok(absent);
    };
    let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
    number.filter(|number| (least..=most).contains(number)).ok_or_else(|| {
        let rule = format!("write a whole number from {least} to {most}");
        invalid(&format!("ipam.conflictProbe.{key}"), Some(value), &rule)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> Map<String, Value> {
        value.as_object().cloned().unwrap()
    }

    #[test]
    fn nobody_is_looked_for_unless_that_is_asked() {
        for ipam in [json!({}), json!({"conflictProbe": false, "gatewayProbe": "off"})] {
            let ipam = object(ipam);
            assert_eq!(conflict_probe(&ipam).unwrap(), None);
            assert_eq!(gateway_probe(&ipam).unwrap(), GatewayProbe::Off);
        }
    }

    #[test]
    fn what_is_not_said_of_a_probe_is_as_by_default() {
        let probe = |value| conflict_probe(&object(json!({"conflictProbe": value}))).unwrap().unwrap();
        assert_eq!(probe(json!(true)), ConflictProbe::default());
        assert_eq!(probe(json!({})), ConflictProbe::default());
        let slow = json!({"probes": 1, "intervalMilliseconds": 2000, "waitMilliseconds": 10, "tries": 10,
            "setAsideSeconds": 1});
        assert_eq!(
            probe(slow),
            ConflictProbe {
                probes: 1,
                interval: Duration::from_secs(2),
                wait: Duration::from_millis(10),
                tries: 10,
                set_aside_seconds: 1
            }
        );
        let gateway = |word| gateway_probe(&object(json!({"gatewayProbe": word}))).unwrap();
        assert_eq!((gateway("warn"), gateway("require")), (GatewayProbe::Warn, GatewayProbe::Require));
    }

    #[test]
    fn each_fault_names_its_field_and_what_to_do() {
        for (ipam, parts) in [
            (json!({"conflictProbe": "yes"}), ["ipam.conflictProbe is \"yes\"", "true, false"]),
            (json!({"conflictProbe": 3}), ["ipam.conflictProbe is 3", "true, false"]),
            (json!({"conflictProbe": {"probe": 3}}), ["\"ipam.conflictProbe.probe\"", "\"probes\""]),
            (json!({"conflictProbe": {"probes": 0}}), ["ipam.conflictProbe.probes is 0", "1 to 10"]),
            (json!({"conflictProbe": {"probes": 1.5}}), ["ipam.conflictProbe.probes is 1.5", "1 to 10"]),
            (json!({"conflictProbe": {"tries": 11}}), ["ipam.conflictProbe.tries is 11", "1 to 10"]),
            (
                json!({"conflictProbe": {"intervalMilliseconds": 9}}),
                ["ipam.conflictProbe.intervalMilliseconds is 9", "10 to 2000"],
            ),
            (
                json!({"conflictProbe": {"waitMilliseconds": "1"}}),
                ["ipam.conflictProbe.waitMilliseconds is \"1\"", "10 to 2000"],
            ),
            (
                json!({"conflictProbe": {"setAsideSeconds": 86401}}),
                ["ipam.conflictProbe.setAsideSeconds is 86401", "1 to 86400"],
            ),
            (json!({"gatewayProbe": true}), ["ipam.gatewayProbe is true", "\"require\""]),
            (json!({"gatewayProbe": "on"}), ["ipam.gatewayProbe is \"on\"", "\"require\""]),
        ] {
            let ipam_object = object(ipam.clone());
            let error = match (conflict_probe(&ipam_object), gateway_probe(&ipam_object)) {
                (Err(error), _) | (_, Err(error)) => error.to_string(),
                outcome => panic!("{ipam}: {outcome:?}"),
            };
            for part in parts {
                assert!(error.contains(part), "{ipam}: {error}");
            }
        }
    }
}
