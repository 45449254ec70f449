use std::fs;
use std::path::Path;

use serde_json::json;
use zerobridge_ledger::{Block, ClaimedPod, Owner, SetAside};

use super::*;

fn lease(network: &str, address: &str, container_id: &str) -> Lease {
    Lease {
        network: network.to_owned(),
        address: address.parse().unwrap(),
        owner: Owner { container_id: container_id.to_owned(), ifname: "eth0".to_owned() },
        pod: None,
        device: Some("0000:01:10.0".parse().unwrap()),
        mac: Some("02:00:00:00:00:01".parse().unwrap()),
        vlan: Some(7),
        rdma: None,
        boot_id: "this".to_owned(),
        created_at: UnixSeconds(1_000),
    }
}

/// A node with an address of each kind, and a block and a claim of the pool `gold`, which network `pods` leases from.
fn node() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let random = folder.path().join("proc/sys/kernel/random");
    fs::create_dir_all(&random).unwrap();
    fs::write(random.join("boot_id"), "this\n").unwrap();
    let mut ledger = Ledger::open(&folder.path().join("state")).unwrap();
    let mut transaction = ledger.begin().unwrap();
    let of_pod = Pod { namespace: "team".to_owned(), name: "web-0".to_owned(), uid: Some("u".to_owned()) };
    transaction.insert_lease(&Lease { pod: Some(of_pod), ..lease("blue", "10.0.0.9", "c1") }).unwrap();
    transaction
        .insert_lease(&Lease { boot_id: "before".to_owned(), ..lease("blue", "10.0.0.10", "c2") })
        .unwrap();
    let spec = json!({"subnet": "10.1.0.0/24", "blockSize": 8, "restSeconds": 500}).to_string();
    transaction.put_pool("gold", &spec, UnixSeconds(1)).unwrap();
    assert_eq!(transaction.bind_pool("gold", "pods").unwrap(), None);
    let net = "10.1.0.8/29".parse().unwrap();
    let block = Block { pool: "gold".to_owned(), net, claimed_at: UnixSeconds(900), draining: false };
    transaction.enter_block(&block).unwrap();
    for (network, address) in [("blue", "10.0.0.11"), ("pods", "10.1.0.9")] {
        transaction.insert_lease(&lease(network, address, "c3")).unwrap();
    }
    let released = Owner { container_id: "c3".to_owned(), ifname: "eth0".to_owned() };
    transaction.release_leases(&released, None, UnixSeconds(1_100)).unwrap();
    transaction
        .insert_set_aside(&SetAside {
            network: "blue".to_owned(),
            address: "10.0.0.12".parse().unwrap(),
            mac: "02:00:00:00:00:99".parse().unwrap(),
            found_for: released,
            seen_at: UnixSeconds(1_150),
        })
        .unwrap();
    let named = [("team".to_owned(), "web-1".to_owned(), "u".to_owned())];
    transaction.name_claims("gold", &named).unwrap();
    transaction
        .enter_claim(&ClaimedPod {
            pool: "gold".to_owned(),
            namespace: "team".to_owned(),
            name: "web-0".to_owned(),
            claim: "u".to_owned(),
            address: Some("10.1.0.77".parse().unwrap()),
        })
        .unwrap();
    transaction.commit().unwrap();
    folder
}

fn arguments(folder: &Path, network: Option<&str>) -> ListArguments {
    ListArguments {
        json: true,
        network: network.map(str::to_owned),
        rest_seconds: 60,
        set_aside_seconds: 600,
        state_dir: folder.join("state"),
        procfs: folder.join("proc"),
    }
}

#[test]
fn everything_that_is_not_free_is_shown_with_its_owner_and_its_end() {
    let folder = node();
    let ledger = Ledger::open(&folder.path().join("state")).unwrap();
    let answer = read(&ledger, &arguments(folder.path(), None), "this").unwrap();
    let mut out = Vec::new();
    show(&answer, UnixSeconds(1_155), &mut out).unwrap();
    let expected = "\
NETWORK  ADDRESS    STATE                     OWNER              DEVICE        MAC                FOR    UNTIL
blue     10.0.0.9   leased                    team/web-0 eth0    0000:01:10.0  02:00:00:00:00:01  2 min  -
blue     10.0.0.10  leased before the reboot  container c2 eth0  0000:01:10.0  02:00:00:00:00:01  2 min  -
blue     10.0.0.11  resting                   container c3 eth0  0000:01:10.0  02:00:00:00:00:01  55 s   in 5 s
blue     10.0.0.12  set aside                 container c3 eth0  -             02:00:00:00:00:99  5 s    in 9 min
pods     10.1.0.9   resting                   container c3 eth0  0000:01:10.0  02:00:00:00:00:01  55 s   in 7 min

POOL  BLOCK        NETWORK  STATE  LEASED  RESTING  FREE
gold  10.1.0.8/29  pods     held   0       1        7

POOL  CLAIMED FOR  ADDRESS
gold  team/web-0   10.1.0.77
gold  team/web-1   not on this node
";
    assert_eq!(String::from_utf8(out).unwrap(), expected);
}

#[test]
fn the_same_as_json_of_one_network() {
    let folder = node();
    let mut out = Vec::new();
    assert_eq!(run(&arguments(folder.path(), Some("pods")), &mut out).unwrap(), Finding::Fine);
    let answer: Value = serde_json::from_slice(&out).unwrap();
    assert_eq!(
        answer,
        json!({
            "addresses": [{
                "network": "pods", "address": "10.1.0.9", "state": "resting", "container": "c3", "interface": "eth0",
                "pod": null, "device": "0000:01:10.0", "mac": "02:00:00:00:00:01", "vlan": 7, "rdma": null,
                "since": 1_100, "until": 1_600
            }],
            "blocks": [{
                "pool": "gold", "block": "10.1.0.8/29", "network": "pods", "leased": 0, "resting": 1, "free": 7,
                "draining": false, "since": 900
            }],
            "claims": [
                {"pool": "gold", "namespace": "team", "pod": "web-0", "address": "10.1.0.77"},
                {"pool": "gold", "namespace": "team", "pod": "web-1", "address": null}
            ]
        })
    );
}

#[test]
fn no_ledger_is_made_to_be_shown() {
    let folder = tempfile::tempdir().unwrap();
    let error = run(&arguments(folder.path(), None), &mut Vec::new()).unwrap_err();
    assert!(error.to_string().contains("no ledger in"), "{error}");
    assert!(!folder.path().join("state").exists());
}

#[test]
fn a_leg_of_the_node_has_its_address_over_boots() {
    let folder = node();
    let mut ledger = Ledger::open(&folder.path().join("state")).unwrap();
    let of_leg =
        Lease { owner: Owner::leg("pods"), boot_id: "before".to_owned(), ..lease("red", "10.0.0.7", "") };
    let mut transaction = ledger.begin().unwrap();
    transaction.insert_lease(&of_leg).unwrap();
    transaction.commit().unwrap();
    let answer = read(&ledger, &arguments(folder.path(), Some("red")), "this").unwrap();
    let mut out = Vec::new();
    show(&answer, UnixSeconds(1_155), &mut out).unwrap();
    let shown = String::from_utf8(out).unwrap();
    assert!(shown.contains("red      10.0.0.7  leased  leg pods  0000:01:10.0"), "{shown}");
}
