//! Results of 0.1.0 and 0.2.0, which only IPAM plugins of old still print: one address of each family, and no interfaces.
//! They are read, never written: a moved device could not be reported in them.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::Deserialize;
use serde_json::Value;

use super::{AddResult, CniError, Dns, ErrorCode, Ip, Route};

/// The versions that have this shape.
const VERSIONS: [&str; 2] = ["0.1.0", "0.2.0"];

#[derive(Deserialize)]
struct Wire {
    ip4: Option<Family>,
    ip6: Option<Family>,
    dns: Option<Dns>,
}

/// What stands under `ip4` and `ip6`.
#[derive(Deserialize)]
struct Family {
    ip: IpNet,
    gateway: Option<IpAddr>,
    routes: Option<Vec<Route>>,
}

/// Whether `result` has this shape. Without `cniVersion` (its absence means 0.1.0) the keys decide.
pub(super) fn is_legacy(result: &Value) -> bool {
    match result.get("cniVersion") {
        Some(version) => version.as_str().is_some_and(|version| VERSIONS.contains(&version)),
        None => ["ip4", "ip6"].iter().any(|key| result.get(key).is_some()),
    }
}

/// The result in today's shape.
pub(super) fn decode(result: &Value) -> Result<AddResult, CniError> {
    let wire = Wire::deserialize(result)
        .map_err(|error| CniError::new(ErrorCode::DECODE, format!("result: {error}")))?;
    let mut read = AddResult { dns: wire.dns.unwrap_or_default(), ..AddResult::default() };
    for family in [wire.ip4, wire.ip6].into_iter().flatten() {
        read.ips.push(Ip { address: family.ip, gateway: family.gateway, interface: None });
        read.routes.extend(family.routes.unwrap_or_default());
    }
    Ok(read)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn both_families_and_their_routes_are_read_with_and_without_a_version() {
        let mut wire = json!({
            "ip4": {"ip": "10.0.0.5/24", "gateway": "10.0.0.1", "routes": [{"dst": "0.0.0.0/0"}]},
            "ip6": {"ip": "fd00::5/64", "routes": null},
            "dns": {"nameservers": ["10.0.0.53"]},
        });
        for version in [None, Some("0.1.0"), Some("0.2.0")] {
            if let Some(version) = version {
                wire["cniVersion"] = json!(version);
            }
            let read = AddResult::decode(&wire).unwrap();
            let ips: Vec<_> = read.ips.iter().map(|ip| (ip.address.to_string(), ip.gateway)).collect();
            let expected = [("10.0.0.5/24", Some("10.0.0.1")), ("fd00::5/64", None)]
                .map(|(ip, gateway)| (ip.to_owned(), gateway.map(|gateway| gateway.parse().unwrap())));
            assert_eq!(ips, expected);
            assert_eq!(read.routes, [Route::new("0.0.0.0/0".parse().unwrap(), None)]);
            assert_eq!(read.dns.nameservers, ["10.0.0.53"]);
        }
    }

    #[test]
    fn another_shape_is_an_error_and_an_empty_one_is_none() {
        assert_eq!(AddResult::decode(&json!({"cniVersion": "0.2.0"})).unwrap(), AddResult::default());
        let error = AddResult::decode(&json!({"ip4": {"ip": "10.0.0.5"}})).unwrap_err();
        assert_eq!(error.code, ErrorCode::DECODE);
    }
}
