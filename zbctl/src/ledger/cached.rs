//! What the runtime remembers of its CNI calls: libcni keeps the result of each ADD until its DEL, in a file of JSON named
//! `NETWORK-CONTAINER-IFNAME` (containernetworking/cni v1.3, `libcni/api.go`, `cachedInfo`). containerd, CRI-O and Multus
//! all have it from libcni, in `/var/lib/cni/results`.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::Value;
use zerobridge_ledger::{Owner, Pod};
use zerobridge_proto::Mac;
use zerobridge_proto::cni::AddResult;

/// One interface that a runtime has added and not deleted, as far as its addresses are of this project's pools.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cached {
    pub(crate) network: String,
    pub(crate) owner: Owner,
    pub(crate) pod: Option<Pod>,
    pub(crate) addresses: Vec<IpAddr>,
    /// The Ethernet addresses of the result's interfaces.
    pub(crate) macs: Vec<Mac>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    container_id: String,
    if_name: String,
    network_name: String,
    config: String,
    #[serde(default)]
    cni_args: Option<Vec<[String; 2]>>,
    result: Value,
}

/// Reads a cache. Also returns what in it cannot be read; a cache that is not there is an empty one.
pub(crate) fn read(directory: &Path) -> (Vec<Cached>, Vec<String>) {
    let (mut found, mut unread) = (Vec::new(), Vec::new());
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return (found, unread),
        Err(error) => return (found, vec![format!("{}: {error}", directory.display())]),
    };
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        match fs::read(&path) {
            Ok(text) => match parse(&text) {
                Ok(cached) => found.extend(cached),
                Err(reason) => unread.push(format!("{}: {reason}", path.display())),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => unread.push(format!("{}: {error}", path.display())),
        }
    }
    found.sort_by(|left, right| (&left.network, &left.owner).cmp(&(&right.network, &right.owner)));
    unread.sort();
    (found, unread)
}

/// `None` for what has its addresses from another IPAM plugin.
fn parse(text: &[u8]) -> Result<Option<Cached>, String> {
    let record: Record = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    let config = STANDARD.decode(&record.config).map_err(|error| format!("config: {error}"))?;
    let config: Value = serde_json::from_slice(&config).map_err(|error| format!("config: {error}"))?;
    if !is_ours(&config) {
        return Ok(None);
    }
    let result = AddResult::decode(&record.result).map_err(|error| error.to_string())?;
    let arguments = record.cni_args.unwrap_or_default();
    let argument = |wanted: &str| {
        arguments
            .iter()
            .find(|[key, _]| key == wanted)
            .map(|[_, value]| value.clone())
            .filter(|it| !it.is_empty())
    };
    let pod = argument("K8S_POD_NAMESPACE").zip(argument("K8S_POD_NAME"));
    Ok(Some(Cached {
        network: record.network_name,
        owner: Owner { container_id: record.container_id, ifname: record.if_name },
        pod: pod.map(|(namespace, name)| Pod { namespace, name, uid: argument("K8S_POD_UID") }),
        addresses: result.ips.iter().map(|ip| ip.address.addr()).collect(),
        macs: result
            .interfaces
            .iter()
            .filter_map(|interface| interface.mac.as_deref()?.parse().ok())
            .collect(),
    }))
}

/// Whether some plugin of a configuration, or of a list of them, leases from a pool of this project.
fn is_ours(config: &Value) -> bool {
    let leases =
        |plugin: &Value| plugin.pointer("/ipam/type").and_then(Value::as_str) == Some("zerobridge-ipam");
    leases(config)
        || config.get("plugins").and_then(Value::as_array).is_some_and(|plugins| plugins.iter().any(leases))
}

/// Records as libcni writes them.
#[cfg(test)]
pub(crate) mod testing {
    use serde_json::json;

    use super::*;

    pub(crate) fn record(
        network: &str,
        container_id: &str,
        ifname: &str,
        ipam: &str,
        mac: &str,
        net: &str,
    ) -> String {
        let config = json!({"cniVersion": "1.0.0", "name": network, "plugins": [
            {"type": "macvlan", "ipam": {"type": ipam, "subnet": "10.77.0.0/24"}}, {"type": "tuning"}]});
        json!({
            "kind": "cniCacheV1", "containerId": container_id, "ifName": ifname, "networkName": network,
            "config": STANDARD.encode(config.to_string()),
            "cniArgs": [["IgnoreUnknown", "1"], ["K8S_POD_NAMESPACE", "team"], ["K8S_POD_NAME", "web"],
                        ["K8S_POD_UID", "u-1"]],
            "result": {"cniVersion": "1.0.0", "dns": {}, "interfaces": [{"name": ifname, "mac": mac, "sandbox": "/x"}],
                       "ips": [{"address": net, "interface": 0}]},
        })
        .to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_of_our_pools_is_read_and_the_rest_is_passed_over() {
        let directory = tempfile::tempdir().unwrap();
        let mac = "02:00:00:00:00:77";
        let file = |name: &str, content: &str| fs::write(directory.path().join(name), content).unwrap();
        file("blue-c1-eth0", &testing::record("blue", "c1", "eth0", "zerobridge-ipam", mac, "10.77.0.5/24"));
        file("red-c1-net1", &testing::record("red", "c1", "net1", "host-local", mac, "10.77.0.6/24"));
        file("broken", "{");
        let (cached, unread) = read(directory.path());
        let expected = Cached {
            network: "blue".to_owned(),
            owner: Owner { container_id: "c1".to_owned(), ifname: "eth0".to_owned() },
            pod: Some(Pod {
                namespace: "team".to_owned(),
                name: "web".to_owned(),
                uid: Some("u-1".to_owned()),
            }),
            addresses: vec!["10.77.0.5".parse().unwrap()],
            macs: vec![mac.parse().unwrap()],
        };
        assert_eq!(cached, [expected]);
        assert!(unread.len() == 1 && unread[0].contains("broken"), "{unread:?}");
        assert_eq!(read(Path::new("/nowhere")), (Vec::new(), Vec::new()));
    }
}
