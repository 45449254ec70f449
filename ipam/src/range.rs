//! One range of addresses in a subnet, as host-local writes it.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Map, Value};
use zerobridge_proto::cni::reject_unknown_keys;

use crate::PoolError;
use crate::span::{Span, after, before};

/// A part of a subnet that addresses are given out from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    /// Where it stands in the configuration, for messages.
    pub(crate) place: String,
    subnet: IpNet,
    pub(crate) span: Span,
    gateway: Option<IpAddr>,
}

pub(crate) const RANGE_KEYS: [&str; 4] = ["subnet", "rangeStart", "rangeEnd", "gateway"];

impl Range {
    /// Reads a range; `place` is where it stands, such as `ipam.ranges[0][0]`.
    pub(crate) fn parse(object: &Map<String, Value>, place: &str) -> Result<Self, PoolError> {
        reject_unknown_keys(object, place, &RANGE_KEYS).map_err(PoolError::UnknownKey)?;
        Self::read(object, place)
    }

    /// The same, for an object that holds other keys too.
    pub(crate) fn read(object: &Map<String, Value>, place: &str) -> Result<Self, PoolError> {
        let fields = Fields { object, place };
        let subnet = fields.subnet()?;
        let default = assignable(subnet);
        let span = Span {
            first: fields.address_within("rangeStart", subnet)?.unwrap_or(default.first),
            last: fields.address_within("rangeEnd", subnet)?.unwrap_or(default.last),
        };
        if span.first > span.last {
            let rule = format!("it must not lie after the end of the range, {}", span.last);
            return Err(fields.invalid("rangeStart", rule));
        }
        let gateway = fields.gateway(subnet)?;
        Ok(Self { place: place.to_owned(), subnet, span, gateway })
    }

    /// The addresses `first` to `last` of the same subnet.
    pub(crate) fn narrowed(&self, first: IpAddr, last: IpAddr) -> Self {
        Self { span: Span { first, last }, ..self.clone() }
    }

    /// The subnet; its prefix length becomes that of the address.
    #[must_use]
    pub fn subnet(&self) -> IpNet {
        self.subnet
    }

    /// The lowest address of the range. Not necessarily given out: see [`PoolConfig`](crate::PoolConfig).
    #[must_use]
    pub fn first(&self) -> IpAddr {
        self.span.first
    }

    /// The highest address of the range.
    #[must_use]
    pub fn last(&self) -> IpAddr {
        self.span.last
    }

    /// The gateway: the configured one, or the subnet's second address; none in a subnet of one address.
    #[must_use]
    pub fn gateway(&self) -> Option<IpAddr> {
        self.gateway
    }

    /// What is never given out: the gateway, and the subnet's addresses with a meaning of their own.
    pub(crate) fn reserved(&self) -> impl Iterator<Item = Span> {
        let all = Span::of_net(self.subnet);
        all.without(&assignable(self.subnet)).chain(self.gateway.map(Span::of))
    }
}

/// A subnet without its network and broadcast address (IPv4), or without its subnet-router anycast address (IPv6,
/// RFC 4291, 2.6.1). A link between two (/31 of RFC 3021, /127 of RFC 6164) and a single address have none of these.
fn assignable(subnet: IpNet) -> Span {
    let all = Span::of_net(subnet);
    let host_bits = subnet.max_prefix_len() - subnet.prefix_len();
    if host_bits < 2 {
        return all;
    }
    Span {
        first: after(all.first).unwrap_or(all.first),
        last: if subnet.addr().is_ipv4() { before(all.last).unwrap_or(all.last) } else { all.last },
    }
}

/// A range's object, with its place for messages.
struct Fields<'a> {
    object: &'a Map<String, Value>,
    place: &'a str,
}

impl Fields<'_> {
    fn subnet(&self) -> Result<IpNet, PoolError> {
        let rule = "write an address and a prefix length, such as 10.100.0.0/24";
        let subnet: IpNet = self
            .object
            .get("subnet")
            .and_then(Value::as_str)
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| self.invalid("subnet", rule.to_owned()))?;
        if subnet != subnet.trunc() {
            let rule = format!("it has bits set after the prefix; write {}", subnet.trunc());
            return Err(self.invalid("subnet", rule));
        }
        Ok(subnet)
    }

    /// An optional address; host-local takes an empty text for none.
    fn address(&self, key: &str) -> Result<Option<IpAddr>, PoolError> {
        match self.object.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) if text.is_empty() => Ok(None),
            Some(value) => {
                let address = value.as_str().and_then(|text| text.parse().ok());
                address
                    .map(Some)
                    .ok_or_else(|| self.invalid(key, "write an address such as 10.100.0.1".to_owned()))
            }
        }
    }

    fn address_within(&self, key: &str, subnet: IpNet) -> Result<Option<IpAddr>, PoolError> {
        match self.address(key)? {
            Some(address) if !subnet.contains(&address) => {
                Err(self.invalid(key, format!("it must lie in the subnet {subnet}")))
            }
            address => Ok(address),
        }
    }

    /// A subnet of one address has no room for a gateway, so there it may lie outside, and none is assumed.
    fn gateway(&self, subnet: IpNet) -> Result<Option<IpAddr>, PoolError> {
        if subnet.prefix_len() == subnet.max_prefix_len() {
            return match self.address("gateway")? {
                Some(gateway) if gateway.is_ipv4() != subnet.addr().is_ipv4() => {
                    Err(self.invalid("gateway", format!("it must be of the family of {subnet}")))
                }
                gateway => Ok(gateway),
            };
        }
        match self.address_within("gateway", subnet)? {
            Some(gateway) if !assignable(subnet).contains(gateway) => {
                Err(self.invalid("gateway", format!("it is no host address of {subnet}")))
            }
            Some(gateway) => Ok(Some(gateway)),
            None => Ok(after(subnet.network())),
        }
    }

    fn invalid(&self, key: &str, rule: String) -> PoolError {
        let value = self.object.get(key).map_or_else(|| "missing".to_owned(), Value::to_string);
        PoolError::Invalid { field: format!("{}.{key}", self.place), value, rule }
    }
}

impl fmt::Display for Range {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.span == assignable(self.subnet) {
            return write!(out, "{}", self.subnet);
        }
        write!(out, "{}-{} of {}", self.span.first, self.span.last, self.subnet)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Range, PoolError> {
        Range::parse(&serde_json::from_str(text).unwrap(), "ipam.ranges[0][0]")
    }

    fn shown(text: &str) -> (String, String, Option<String>) {
        let range = parse(text).unwrap();
        (
            range.first().to_string(),
            range.last().to_string(),
            range.gateway().map(|gateway| gateway.to_string()),
        )
    }

    #[test]
    fn defaults_are_those_of_host_local_and_small_subnets_work() {
        for (subnet, first, last, gateway) in [
            ("10.0.0.0/24", "10.0.0.1", "10.0.0.254", Some("10.0.0.1")),
            ("10.0.0.0/30", "10.0.0.1", "10.0.0.2", Some("10.0.0.1")),
            ("10.0.0.2/31", "10.0.0.2", "10.0.0.3", Some("10.0.0.3")),
            ("10.0.0.2/32", "10.0.0.2", "10.0.0.2", None),
            ("fd00::/64", "fd00::1", "fd00::ffff:ffff:ffff:ffff", Some("fd00::1")),
            ("fd00::2/127", "fd00::2", "fd00::3", Some("fd00::3")),
            ("fd00::2/128", "fd00::2", "fd00::2", None),
        ] {
            let expected = (first.to_owned(), last.to_owned(), gateway.map(str::to_owned));
            assert_eq!(shown(&format!(r#"{{"subnet":"{subnet}"}}"#)), expected, "{subnet}");
        }
    }

    #[test]
    fn what_is_given_replaces_the_defaults() {
        let text = r#"{"subnet":"10.0.0.0/24","rangeStart":"10.0.0.9","rangeEnd":"10.0.0.99","gateway":"10.0.0.254"}"#;
        let range = parse(text).unwrap();
        assert_eq!(range.to_string(), "10.0.0.9-10.0.0.99 of 10.0.0.0/24");
        assert_eq!(range.gateway(), Some("10.0.0.254".parse().unwrap()));
        let text = r#"{"subnet":"10.0.0.5/32","gateway":"169.254.1.1","rangeStart":"","rangeEnd":null}"#;
        assert_eq!(parse(text).unwrap().gateway(), Some("169.254.1.1".parse().unwrap()));
    }

    #[test]
    fn each_fault_names_the_field_the_value_and_the_rule() {
        for (text, message) in [
            (
                "{}",
                "ipam.ranges[0][0].subnet is missing; write an address and a prefix length, such as 10.100.0.0/24",
            ),
            (
                r#"{"subnet":7}"#,
                "ipam.ranges[0][0].subnet is 7; write an address and a prefix length, such as 10.100.0.0/24",
            ),
            (
                r#"{"subnet":"10.0.0.5/24"}"#,
                r#"ipam.ranges[0][0].subnet is "10.0.0.5/24"; it has bits set after the prefix; write 10.0.0.0/24"#,
            ),
            (
                r#"{"subnet":"10.0.0.0/24","rangeStart":"10.0.1.0"}"#,
                r#"ipam.ranges[0][0].rangeStart is "10.0.1.0"; it must lie in the subnet 10.0.0.0/24"#,
            ),
            (
                r#"{"subnet":"10.0.0.0/24","rangeEnd":"fd00::1"}"#,
                r#"ipam.ranges[0][0].rangeEnd is "fd00::1"; it must lie in the subnet 10.0.0.0/24"#,
            ),
            (
                r#"{"subnet":"10.0.0.0/24","rangeStart":"10.0.0.9","rangeEnd":"10.0.0.8"}"#,
                r#"ipam.ranges[0][0].rangeStart is "10.0.0.9"; it must not lie after the end of the range, 10.0.0.8"#,
            ),
            (
                r#"{"subnet":"10.0.0.0/24","gateway":"10.0.1.1"}"#,
                r#"ipam.ranges[0][0].gateway is "10.0.1.1"; it must lie in the subnet 10.0.0.0/24"#,
            ),
            (
                r#"{"subnet":"10.0.0.0/24","gateway":"10.0.0.255"}"#,
                r#"ipam.ranges[0][0].gateway is "10.0.0.255"; it is no host address of 10.0.0.0/24"#,
            ),
            (
                r#"{"subnet":"10.0.0.0/32","gateway":"fd00::1"}"#,
                r#"ipam.ranges[0][0].gateway is "fd00::1"; it must be of the family of 10.0.0.0/32"#,
            ),
            (
                r#"{"subnet":"10.0.0.0/24","rangeEnds":"x"}"#,
                r#"unknown key "ipam.ranges[0][0].rangeEnds" with value "x"; did you mean "rangeEnd"? (CNI code 2)"#,
            ),
        ] {
            assert_eq!(parse(text).unwrap_err().to_string(), message);
        }
    }
}
