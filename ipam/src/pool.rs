//! The `ipam` object of a network configuration: host-local's keys and five more.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use serde::Deserialize;
use serde_json::{Map, Value};
use tracing::debug;
use zerobridge_proto::cni::{Dns, Route, reject_unknown_keys};

use crate::PoolError;
use crate::cluster::pool_names;
use crate::probe::{ConflictProbe, GatewayProbe, conflict_probe, gateway_probe};
use crate::range::Range;
use crate::range_set::{RangeSet, read_sets, refuse_overlaps};
use crate::span::Span;

/// Where the ledger is unless `stateDir` says otherwise.
pub const DEFAULT_STATE_DIR: &str = "/var/lib/zerobridge";

/// How long a released address rests unless `restSeconds` says otherwise: as long as Linux keeps a neighbour it has not
/// heard of (`gc_stale_time`, arp(7)).
const DEFAULT_REST: u32 = 60;
const LONGEST_REST: u32 = 86_400;

/// What a network gives out, and what goes with it.
///
/// Never given out, wherever a range begins or ends: gateways, excluded addresses, the network and broadcast address of
/// an IPv4 subnet, the subnet-router anycast address of an IPv6 subnet.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolConfig {
    pub(crate) sets: Vec<RangeSet>,
    /// The cluster-wide pools whose blocks take the place of [`sets`](Self::sets); none unless `mode` is `cluster`.
    pub(crate) cluster: Vec<String>,
    /// Routes for the container, passed through to the result.
    pub routes: Vec<Route>,
    /// Name resolution, passed through to the result.
    pub dns: Dns,
    /// host-local's `resolvConf`: a file that [`Dns`] is to be read from, in place of [`dns`](Self::dns).
    pub resolv_conf: Option<PathBuf>,
    /// How long an address rests after its release, in seconds; at most a day.
    pub rest_seconds: u32,
    /// The ledger's directory.
    pub state_dir: PathBuf,
    /// Whether, and how, a foreign host is looked for that has an address.
    pub conflict_probe: Option<ConflictProbe>,
    /// Whether the gateways are looked for.
    pub gateway_probe: GatewayProbe,
}

const KEYS: [&str; 17] = [
    "type",
    "mode",
    "pool",
    "ranges",
    "subnet",
    "rangeStart",
    "rangeEnd",
    "gateway",
    "routes",
    "dns",
    "resolvConf",
    "dataDir",
    "exclude",
    "restSeconds",
    "stateDir",
    "conflictProbe",
    "gatewayProbe",
];

impl PoolConfig {
    /// Reads an `ipam` object.
    ///
    /// `ip_ranges` are the ranges that the runtime gives through the capability `ipRanges`
    /// (`runtimeConfig.ipRanges`); they come first, as in host-local.
    ///
    /// # Errors
    /// The first fault, with its field, its value and what is allowed.
    pub fn parse(ipam: &Value, ip_ranges: Option<&Value>) -> Result<Self, PoolError> {
        let object = object(ipam, "ipam")?;
        reject_unknown_keys(object, "ipam", &KEYS).map_err(PoolError::UnknownKey)?;
        if let Some(names) = pool_names(object, ip_ranges)? {
            let (dns, resolv_conf) = name_resolution(object)?;
            let state_dir = state_dir(ipam)?;
            let (sets, routes) = (Vec::new(), Vec::new());
            let rest_seconds = DEFAULT_REST;
            let (conflict_probe, gateway_probe) = (conflict_probe(object)?, gateway_probe(object)?);
            return Ok(Self {
                sets,
                cluster: names,
                routes,
                dns,
                resolv_conf,
                rest_seconds,
                state_dir,
                conflict_probe,
                gateway_probe,
            });
        }
        let mut sets = match ip_ranges {
            Some(ranges) => read_sets(ranges, "runtimeConfig.ipRanges")?,
            None => Vec::new(),
        };
        sets.extend(short_form(object)?.map(|range| vec![range]));
        if let Some(ranges) = object.get("ranges") {
            sets.extend(read_sets(ranges, "ipam.ranges")?);
        }
        if sets.is_empty() {
            let rule = r#"write at least one, such as [[{"subnet":"10.100.0.0/24"}]]"#;
            return Err(invalid("ipam.ranges", object.get("ranges"), rule));
        }
        refuse_overlaps(&sets)?;
        let reserved = reserved(&sets, exclusions(object, "ipam", &sets)?);
        if let Some(directory) = object.get("dataDir") {
            debug!(%directory, "ipam.dataDir is not used: leases are in the ledger, in ipam.stateDir");
        }
        let (dns, resolv_conf) = name_resolution(object)?;
        Ok(Self {
            sets: sets
                .into_iter()
                .map(|ranges| RangeSet::new(ranges, &reserved))
                .collect::<Result<_, _>>()?,
            cluster: Vec::new(),
            routes: routes(object, "ipam")?,
            dns,
            resolv_conf,
            rest_seconds: rest_seconds(object, "ipam")?,
            state_dir: state_dir(ipam)?,
            conflict_probe: conflict_probe(object)?,
            gateway_probe: gateway_probe(object)?,
        })
    }

    /// Refuses a pool that asks for a probe, for whoever has no link to probe on.
    ///
    /// # Errors
    /// [`PoolError::NoLink`].
    pub(crate) fn require_no_probe(&self) -> Result<(), PoolError> {
        let asked = [
            ("conflictProbe", self.conflict_probe.is_some()),
            ("gatewayProbe", self.gateway_probe != GatewayProbe::Off),
        ];
        match asked.into_iter().find(|(_, asked)| *asked) {
            None => Ok(()),
            Some((key, _)) => Err(PoolError::NoLink { key }),
        }
    }

    /// The sets of ranges: one address from each.
    #[must_use]
    pub fn sets(&self) -> &[RangeSet] {
        &self.sets
    }

    /// All ranges in words.
    pub(crate) fn ranges_in_words(&self) -> String {
        self.sets.iter().map(RangeSet::in_words).collect::<Vec<_>>().join(" and ")
    }
}

/// The ledger's directory of an `ipam` object whose other keys are not looked at: DEL must find it whatever else is
/// wrong.
///
/// # Errors
/// `stateDir` is no absolute path.
pub fn state_dir(ipam: &Value) -> Result<PathBuf, PoolError> {
    match ipam.get("stateDir") {
        None => Ok(DEFAULT_STATE_DIR.into()),
        Some(value) => match value.as_str().map(Path::new) {
            Some(path) if path.is_absolute() => Ok(path.to_owned()),
            _ => Err(invalid("ipam.stateDir", Some(value), "write an absolute path")),
        },
    }
}

/// host-local's older form: one range directly in the `ipam` object.
fn short_form(object: &Map<String, Value>) -> Result<Option<Range>, PoolError> {
    if object.contains_key("subnet") {
        return Range::read(object, "ipam").map(Some);
    }
    match ["rangeStart", "rangeEnd", "gateway"].into_iter().find(|key| object.contains_key(*key)) {
        Some(key) => {
            let rule = "it needs \"subnet\" beside it, or belongs into an object of \"ranges\"";
            Err(invalid(&format!("ipam.{key}"), object.get(key), rule))
        }
        None => Ok(None),
    }
}

pub(crate) fn exclusions(
    object: &Map<String, Value>,
    place: &str,
    sets: &[Vec<Range>],
) -> Result<Vec<Span>, PoolError> {
    let Some(value) = object.get("exclude") else {
        return Ok(Vec::new());
    };
    let rule = "write a list of addresses and prefixes, such as [\"10.100.0.7\", \"10.100.0.64/28\"]";
    let list = value.as_array().ok_or_else(|| invalid(&format!("{place}.exclude"), Some(value), rule))?;
    let read = |(number, value): (usize, &Value)| {
        let field = format!("{place}.exclude[{number}]");
        let text = value.as_str().unwrap_or_default();
        let net: IpNet = match (text.parse::<IpAddr>(), text.parse::<IpNet>()) {
            (Ok(address), _) => address.into(),
            (_, Ok(net)) if net == net.trunc() => net,
            (_, Ok(net)) => {
                let rule =
                    format!("it has bits set after the prefix; write {} or {}", net.addr(), net.trunc());
                return Err(invalid(&field, Some(value), &rule));
            }
            _ => {
                return Err(invalid(
                    &field,
                    Some(value),
                    "write an address or a prefix, such as 10.100.0.64/28",
                ));
            }
        };
        let span = Span::of_net(net);
        // What excludes nothing is a slip of the pen, and the address that was meant would be given out.
        match sets.iter().flatten().any(|range| span.overlaps(&Span::of_net(range.subnet()))) {
            true => Ok(span),
            false => Err(invalid(&field, Some(value), "it lies in none of the subnets")),
        }
    };
    list.iter().enumerate().map(read).collect()
}

fn reserved(sets: &[Vec<Range>], exclusions: Vec<Span>) -> Vec<Span> {
    sets.iter().flatten().flat_map(Range::reserved).chain(exclusions).collect()
}

pub(crate) fn routes(object: &Map<String, Value>, place: &str) -> Result<Vec<Route>, PoolError> {
    let Some(value) = object.get("routes").filter(|value| !value.is_null()) else {
        return Ok(Vec::new());
    };
    let routes = Vec::<Route>::deserialize(value).map_err(|error| {
        invalid(
            &format!("{place}.routes"),
            Some(value),
            &format!("write a list such as [{{\"dst\":\"0.0.0.0/0\"}}] ({error})"),
        )
    })?;
    for (number, route) in routes.iter().enumerate() {
        let (place, value) = (format!("{place}.routes[{number}]"), value.get(number));
        if route.dst != route.dst.trunc() {
            let rule = format!("dst has bits set after the prefix; write {}", route.dst.trunc());
            return Err(invalid(&place, value, &rule));
        }
        if route.gw.is_some_and(|gateway| gateway.is_ipv4() != route.dst.addr().is_ipv4()) {
            return Err(invalid(&place, value, "dst and gw must be of one family"));
        }
    }
    Ok(routes)
}

fn name_resolution(object: &Map<String, Value>) -> Result<(Dns, Option<PathBuf>), PoolError> {
    let file = match object.get("resolvConf") {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) if text.is_empty() => None,
        Some(value) => match value.as_str().map(Path::new) {
            Some(path) if path.is_absolute() => Some(path.to_owned()),
            _ => return Err(invalid("ipam.resolvConf", Some(value), "write an absolute path")),
        },
    };
    let Some(value) = object.get("dns").filter(|value| !value.is_null()) else {
        return Ok((Dns::default(), file));
    };
    if file.is_some() {
        return Err(invalid("ipam.dns", Some(value), "\"resolvConf\" stands beside it; keep one of the two"));
    }
    let dns = Dns::deserialize(value).map_err(|error| {
        invalid("ipam.dns", Some(value), &format!("write an object with lists ({error})"))
    })?;
    Ok((dns, None))
}

pub(crate) fn rest_seconds(object: &Map<String, Value>, place: &str) -> Result<u32, PoolError> {
    let Some(value) = object.get("restSeconds") else {
        return Ok(DEFAULT_REST);
    };
    let seconds = value.as_u64().and_then(|seconds| u32::try_from(seconds).ok());
    seconds.filter(|seconds| *seconds <= LONGEST_REST).ok_or_else(|| {
        let rule = format!("write a whole number from 0 to {LONGEST_REST}");
        invalid(&format!("{place}.restSeconds"), Some(value), &rule)
    })
}

pub(crate) fn object<'a>(value: &'a Value, place: &str) -> Result<&'a Map<String, Value>, PoolError> {
    value.as_object().ok_or_else(|| invalid(place, Some(value), "write an object"))
}

pub(crate) fn invalid(field: &str, value: Option<&Value>, rule: &str) -> PoolError {
    let value = value.map_or_else(|| "missing".to_owned(), Value::to_string);
    PoolError::Invalid { field: field.to_owned(), value, rule: rule.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<PoolConfig, PoolError> {
        PoolConfig::parse(&serde_json::from_str(text).unwrap(), None)
    }

    fn spans(text: &str) -> Vec<String> {
        let pool = parse(text).unwrap();
        let spans = pool.sets.iter().flat_map(|set| &set.spans);
        spans.map(|span| format!("{}-{}", span.first, span.last)).collect()
    }

    #[test]
    fn both_of_host_locals_forms_are_read() {
        let short = r#"{"type":"host-local","subnet":"10.0.0.0/24","rangeStart":"10.0.0.9","dataDir":"/x"}"#;
        let long = r#"{"ranges":[[{"subnet":"10.0.0.0/24","rangeStart":"10.0.0.9"}]]}"#;
        assert_eq!(spans(short), ["10.0.0.9-10.0.0.254"]);
        assert_eq!(spans(long), spans(short));
        let both = r#"{"subnet":"10.0.0.0/24","ranges":[[{"subnet":"fd00::/64"}]]}"#;
        assert_eq!(spans(both), ["10.0.0.2-10.0.0.254", "fd00::2-fd00::ffff:ffff:ffff:ffff"]);
    }

    #[test]
    fn the_runtimes_ranges_come_first() {
        let ipam = serde_json::json!({"ranges": [[{"subnet": "10.0.0.0/24"}]]});
        let runtime = serde_json::json!([[{"subnet": "10.1.0.0/24"}]]);
        let pool = PoolConfig::parse(&ipam, Some(&runtime)).unwrap();
        assert_eq!(pool.ranges_in_words(), "10.1.0.0/24 and 10.0.0.0/24");
    }

    #[test]
    fn what_has_a_meaning_of_its_own_or_is_excluded_is_not_given_out() {
        let text = r#"{"exclude":["10.0.0.4/30","10.0.0.200"],"ranges":[[
            {"subnet":"10.0.0.0/24","rangeStart":"10.0.0.0","rangeEnd":"10.0.0.20","gateway":"10.0.0.10"},
            {"subnet":"10.0.0.0/24","rangeStart":"10.0.0.199","rangeEnd":"10.0.0.255","gateway":"10.0.0.10"}]]}"#;
        assert_eq!(
            spans(text),
            [
                "10.0.0.1-10.0.0.3",
                "10.0.0.8-10.0.0.9",
                "10.0.0.11-10.0.0.20",
                "10.0.0.199-10.0.0.199",
                "10.0.0.201-10.0.0.254"
            ]
        );
        assert_eq!(parse(text).unwrap().sets()[0].size(), 3 + 2 + 10 + 1 + 54);
    }

    #[test]
    fn small_subnets_give_out_what_they_have() {
        assert_eq!(spans(r#"{"subnet":"10.0.0.2/31"}"#), ["10.0.0.2-10.0.0.2"]);
        assert_eq!(spans(r#"{"subnet":"10.0.0.2/32"}"#), ["10.0.0.2-10.0.0.2"]);
        assert_eq!(spans(r#"{"subnet":"fd00::2/127"}"#), ["fd00::2-fd00::2"]);
        assert_eq!(spans(r#"{"subnet":"fd00::2/128"}"#), ["fd00::2-fd00::2"]);
    }

    #[test]
    fn what_goes_with_an_address_is_passed_through() {
        let text = r#"{"subnet":"10.0.0.0/24","routes":[{"dst":"0.0.0.0/0"},{"dst":"10.9.0.0/16","gw":"10.0.0.2"}],
            "dns":{"nameservers":["10.0.0.3"]},"restSeconds":5,"stateDir":"/s"}"#;
        let pool = parse(text).unwrap();
        assert_eq!((pool.routes.len(), pool.rest_seconds, pool.state_dir), (2, 5, "/s".into()));
        assert_eq!(pool.dns.nameservers, ["10.0.0.3"]);
        let defaults = parse(r#"{"subnet":"10.0.0.0/24","resolvConf":"/etc/resolv.conf"}"#).unwrap();
        assert_eq!(defaults.resolv_conf, Some("/etc/resolv.conf".into()));
        assert_eq!((defaults.rest_seconds, defaults.state_dir), (60, DEFAULT_STATE_DIR.into()));
    }

    #[test]
    fn each_fault_names_its_field_and_what_to_do() {
        for (text, parts) in [
            ("7", &["ipam is 7", "object"][..]),
            ("{}", &["ipam.ranges is missing", "subnet"]),
            (r#"{"ranges":[]}"#, &["ipam.ranges is []", "at least one"]),
            (r#"{"ranges":[[]]}"#, &["ipam.ranges[0] is []", "at least one"]),
            (r#"{"ranges":[{"subnet":"10.0.0.0/24"}]}"#, &["ipam.ranges[0] is {", "list of lists"]),
            (r#"{"rangeStart":"10.0.0.1"}"#, &["ipam.rangeStart is \"10.0.0.1\"", "needs \"subnet\""]),
            (r#"{"subnets":"10.0.0.0/24"}"#, &["\"ipam.subnets\"", "did you mean \"subnet\"?"]),
            (
                r#"{"ranges":[[{"subnet":"10.0.0.0/24"},{"subnet":"fd00::/64"}]]}"#,
                &["ipam.ranges[0][1]", "one family"],
            ),
            (
                r#"{"ranges":[[{"subnet":"10.0.0.0/24"}],[{"subnet":"10.0.0.0/16","rangeStart":"10.0.0.254"}]]}"#,
                &[
                    "ipam.ranges[0][0] (10.0.0.0/24)",
                    "ipam.ranges[1][0] (10.0.0.254-10.0.255.254 of 10.0.0.0/16)",
                ],
            ),
            (
                r#"{"subnet":"10.0.0.0/24","exclude":["10.0.1.1"]}"#,
                &["ipam.exclude[0] is \"10.0.1.1\"", "none of"],
            ),
            (
                r#"{"subnet":"10.0.0.0/24","exclude":["10.0.0.9/24"]}"#,
                &["ipam.exclude[0]", "10.0.0.9 or 10.0.0.0/24"],
            ),
            (r#"{"subnet":"10.0.0.0/24","exclude":["x"]}"#, &["ipam.exclude[0] is \"x\""]),
            (r#"{"subnet":"10.0.0.0/24","exclude":"10.0.0.9"}"#, &["ipam.exclude is \"10.0.0.9\"", "list"]),
            (r#"{"subnet":"10.0.0.0/30","exclude":["10.0.0.2"]}"#, &["10.0.0.0/30 has no address"]),
            (
                r#"{"subnet":"10.0.0.0/24","routes":[{"dst":"10.9.0.1/16"}]}"#,
                &["ipam.routes[0]", "10.9.0.0/16"],
            ),
            (
                r#"{"subnet":"10.0.0.0/24","routes":[{"dst":"::/0","gw":"10.0.0.1"}]}"#,
                &["ipam.routes[0]", "family"],
            ),
            (r#"{"subnet":"10.0.0.0/24","routes":[{}]}"#, &["ipam.routes is", "dst"]),
            (r#"{"subnet":"10.0.0.0/24","restSeconds":-1}"#, &["ipam.restSeconds is -1", "0 to 86400"]),
            (r#"{"subnet":"10.0.0.0/24","restSeconds":86401}"#, &["ipam.restSeconds is 86401"]),
            (r#"{"subnet":"10.0.0.0/24","stateDir":"here"}"#, &["ipam.stateDir is \"here\"", "absolute"]),
            (r#"{"subnet":"10.0.0.0/24","resolvConf":"/x","dns":{}}"#, &["ipam.dns", "one of the two"]),
        ] {
            let error = parse(text).unwrap_err().to_string();
            for part in parts {
                assert!(error.contains(part), "{text}: {error}");
            }
        }
    }
}
