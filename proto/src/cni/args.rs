//! `CNI_ARGS`: `KEY=VALUE` pairs separated by `;`, through which runtimes name the pod.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::{CniError, ErrorCode};
use crate::Mac;

/// The pairs of `CNI_ARGS`. Of a key that stands twice, the last counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Args {
    pairs: BTreeMap<String, String>,
}

impl Args {
    /// Reads `K=V;K=V`; empty pieces are passed over.
    ///
    /// # Errors
    /// Code 4 for a piece without `=`.
    pub fn parse(text: &str) -> Result<Self, CniError> {
        let pieces = text.split(';').filter(|piece| !piece.is_empty());
        let pairs = pieces.map(|piece| match piece.split_once('=') {
            Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
            None => Err(CniError::new(
                ErrorCode::INVALID_ENVIRONMENT,
                format!("CNI_ARGS holds \"{piece}\", which is no KEY=VALUE pair"),
            )),
        });
        Ok(Self { pairs: pairs.collect::<Result<_, _>>()? })
    }

    /// The value of any key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.pairs.get(key).map(String::as_str)
    }

    /// `K8S_POD_NAMESPACE`.
    #[must_use]
    pub fn pod_namespace(&self) -> Option<&str> {
        self.get("K8S_POD_NAMESPACE")
    }

    /// `K8S_POD_NAME`.
    #[must_use]
    pub fn pod_name(&self) -> Option<&str> {
        self.get("K8S_POD_NAME")
    }

    /// `K8S_POD_UID`; older runtimes do not send it.
    #[must_use]
    pub fn pod_uid(&self) -> Option<&str> {
        self.get("K8S_POD_UID")
    }

    /// `K8S_POD_INFRA_CONTAINER_ID`: the sandbox's container, equal to `CNI_CONTAINERID`.
    #[must_use]
    pub fn pod_infra_container_id(&self) -> Option<&str> {
        self.get("K8S_POD_INFRA_CONTAINER_ID")
    }

    /// `IgnoreUnknown`: whether keys that the plugin does not know are to be passed over. Runtimes write `1`.
    #[must_use]
    pub fn ignore_unknown(&self) -> bool {
        self.get("IgnoreUnknown").is_some_and(|value| value == "1" || value.eq_ignore_ascii_case("true"))
    }

    /// `MAC`: the Ethernet address asked for; an empty one is none.
    ///
    /// # Errors
    /// Code 4 when the value is no Ethernet address.
    pub fn mac(&self) -> Result<Option<Mac>, CniError> {
        self.get("MAC")
            .filter(|text| !text.is_empty())
            .map(|text| text.parse().map_err(|error| invalid(format!("CNI_ARGS: MAC: {error}"))))
            .transpose()
    }

    /// `IP`: the addresses asked for, separated by `,`, each with or without a prefix length, which is not used.
    ///
    /// # Errors
    /// Code 4 when a piece is no address.
    pub fn ips(&self) -> Result<Vec<IpAddr>, CniError> {
        let pieces = self.get("IP").unwrap_or_default().split(',').filter(|piece| !piece.is_empty());
        pieces
            .map(|piece| {
                parse_ip(piece).ok_or_else(|| {
                    invalid(format!("CNI_ARGS: IP holds \"{piece}\"; write an address such as 10.0.0.5"))
                })
            })
            .collect()
    }
}

fn invalid(msg: String) -> CniError {
    CniError::new(ErrorCode::INVALID_ENVIRONMENT, msg)
}

/// `10.0.0.5` or `10.0.0.5/24`: conventions allow both where an address is asked for.
pub(super) fn parse_ip(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    text.parse().ok().or_else(|| text.parse::<ipnet::IpNet>().ok().map(|net| net.addr()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_containerd_sends_is_read() {
        let args = Args::parse(
            "K8S_POD_INFRA_CONTAINER_ID=f00;K8S_POD_UID=u-1;IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web",
        )
        .unwrap();
        assert_eq!(args.pod_namespace(), Some("default"));
        assert_eq!(args.pod_name(), Some("web"));
        assert_eq!(args.pod_uid(), Some("u-1"));
        assert_eq!(args.pod_infra_container_id(), Some("f00"));
        assert!(args.ignore_unknown());
        assert_eq!(args.mac(), Ok(None));
        assert_eq!(args.ips(), Ok(vec![]));
    }

    #[test]
    fn addresses_asked_for_are_read_with_and_without_prefix() {
        let args = Args::parse("IP=10.0.0.5,fd00::5/64;MAC=02:00:00:00:00:01;").unwrap();
        let expected: Vec<IpAddr> = vec!["10.0.0.5".parse().unwrap(), "fd00::5".parse().unwrap()];
        assert_eq!(args.ips(), Ok(expected));
        assert_eq!(args.mac().unwrap().unwrap().to_string(), "02:00:00:00:00:01");
        assert!(!args.ignore_unknown());
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, part) in [("IP=10.0.0.256", "10.0.0.256"), ("MAC=zz", "zz")] {
            let args = Args::parse(text).unwrap();
            let error = args.ips().err().or(args.mac().err()).unwrap();
            assert_eq!(error.code, ErrorCode::INVALID_ENVIRONMENT);
            assert!(error.msg.contains(part), "{error}");
        }
        assert!(Args::parse("A=1;nonsense").unwrap_err().msg.contains("\"nonsense\""));
    }
}
