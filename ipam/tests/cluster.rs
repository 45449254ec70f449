//! Cluster mode against a real ledger: what the node's blocks are is what a network gives out.
#![expect(clippy::unwrap_used, reason = "a test program, of which clippy takes the helpers for none")]

use std::net::IpAddr;
use std::path::Path;

use serde_json::{Value, json};
use zerobridge_ipam::plugin::{Host, run};
use zerobridge_ledger::{Block, ClaimedPod, Ledger, UnixSeconds};

const NOW: UnixSeconds = UnixSeconds(1_000_000);

/// A node that holds blocks, and calls the IPAM plugin.
struct Node {
    directory: tempfile::TempDir,
}

impl Node {
    fn new(blocks: &[&str]) -> Self {
        let node = Self { directory: tempfile::tempdir().unwrap() };
        let mut ledger = node.ledger();
        let mut transaction = ledger.begin().unwrap();
        let spec = json!({"subnet": "10.0.0.0/24", "routes": [{"dst": "0.0.0.0/0"}], "restSeconds": 60, "blockSize": 4});
        transaction.put_pool("gold", &spec.to_string(), NOW).unwrap();
        for net in blocks {
            let net = net.parse().unwrap();
            let block = Block { pool: "gold".to_owned(), net, claimed_at: NOW, draining: false };
            transaction.enter_block(&block).unwrap();
        }
        transaction.commit().unwrap();
        node
    }

    fn ledger(&self) -> Ledger {
        Ledger::open(self.directory.path()).unwrap()
    }

    /// Whether it succeeded, and the answer.
    fn call(&self, command: &str, container: &str, network: &str) -> (bool, Value) {
        self.call_for(command, container, network, "")
    }

    /// The same, with `CNI_ARGS`.
    fn call_for(&self, command: &str, container: &str, network: &str, args: &str) -> (bool, Value) {
        let variables = [
            ("CNI_ARGS", args),
            ("CNI_COMMAND", command),
            ("CNI_CONTAINERID", container),
            ("CNI_IFNAME", "eth0"),
            ("CNI_NETNS", "/run/netns/x"),
            ("CNI_PATH", "/opt/cni/bin"),
        ];
        let config = config(self.directory.path(), network);
        let mut answer = Vec::new();
        let host = || Ok(Host { now: NOW, boot_id: "b1".to_owned() });
        let code = run(variables, config.to_string().as_bytes(), &mut answer, host);
        (code == 0, serde_json::from_slice(&answer).unwrap_or(Value::Null))
    }

    /// The pod `team/web-0`, in a container of its own.
    fn add_web(&self, container: &str) -> (bool, Value) {
        self.call_for("ADD", container, "blue", "K8S_POD_NAMESPACE=team;K8S_POD_NAME=web-0;K8S_POD_UID=u")
    }

    fn claim(&self, address: Option<&str>) {
        let mut ledger = self.ledger();
        let mut transaction = ledger.begin().unwrap();
        let pod = ClaimedPod {
            pool: "gold".to_owned(),
            namespace: "team".to_owned(),
            name: "web-0".to_owned(),
            claim: "u1".to_owned(),
            address: address.map(|address| address.parse().unwrap()),
        };
        transaction.name_claims("gold", &[("team".to_owned(), "web-0".to_owned(), "u1".to_owned())]).unwrap();
        if pod.address.is_some() {
            transaction.enter_claim(&pod).unwrap();
        }
        transaction.commit().unwrap();
    }

    fn add(&self, container: &str) -> (bool, Value) {
        self.call("ADD", container, "blue")
    }
}

fn config(state_dir: &Path, network: &str) -> Value {
    let ipam = json!({"type": "zerobridge-ipam", "mode": "cluster", "pool": "gold", "stateDir": state_dir});
    json!({"cniVersion": "1.1.0", "name": network, "type": "any", "ipam": ipam})
}

fn address(answer: &Value) -> &str {
    answer["ips"][0]["address"].as_str().unwrap()
}

fn first(net: &str) -> IpAddr {
    net.split('/').next().unwrap().parse().unwrap()
}

#[test]
fn addresses_come_from_the_blocks_with_the_subnets_prefix_gateway_and_routes() {
    let node = Node::new(&["10.0.0.0/30", "10.0.0.64/30"]);
    let (success, answer) = node.add("c1");
    assert!(success, "{answer}");
    assert_eq!((address(&answer), &answer["ips"][0]["gateway"]), ("10.0.0.2/24", &json!("10.0.0.1")));
    assert_eq!(answer["routes"][0]["dst"], "0.0.0.0/0");
    let more: Vec<String> =
        ["c2", "c3", "c4", "c5", "c6"].map(|container| address(&node.add(container).1).to_owned()).into();
    assert_eq!(more, ["10.0.0.3/24", "10.0.0.64/24", "10.0.0.65/24", "10.0.0.66/24", "10.0.0.67/24"]);
    assert_eq!(address(&node.add("c3").1), "10.0.0.64/24", "a repeated ADD gets the same");

    let (success, answer) = node.add("c7");
    assert!(!success);
    assert_eq!(answer["code"], 11);
    assert!(answer["msg"].as_str().unwrap().contains("all 6 addresses of the 2 blocks"), "{answer}");
    assert_eq!(node.call("STATUS", "", "blue").1["code"], 50);
    assert!(node.call("DEL", "c2", "blue").0);
    assert!(node.call("STATUS", "", "blue").0);
}

#[test]
fn nothing_new_is_leased_from_a_draining_block_and_what_is_leased_stays() {
    let node = Node::new(&["10.0.0.8/30", "10.0.0.64/30"]);
    let kept = address(&node.add("c1").1).to_owned();
    assert_eq!(kept, "10.0.0.8/24");
    let mut ledger = node.ledger();
    let mut transaction = ledger.begin().unwrap();
    transaction.set_draining("gold", first("10.0.0.8/30"), true).unwrap();
    transaction.commit().unwrap();
    assert_eq!(address(&node.add("c2").1), "10.0.0.64/24");
    assert_eq!(address(&node.add("c1").1), kept);
}

#[test]
fn a_node_without_a_block_or_a_pool_is_tried_again() {
    let node = Node::new(&[]);
    let (success, answer) = node.add("c1");
    assert_eq!((success, &answer["code"]), (false, &json!(11)), "{answer}");
    assert!(answer["msg"].as_str().unwrap().contains("the 0 blocks"), "{answer}");
    let empty = Node { directory: tempfile::tempdir().unwrap() };
    let (success, answer) = empty.add("c1");
    assert_eq!((success, &answer["code"]), (false, &json!(11)), "{answer}");
    assert!(answer["msg"].as_str().unwrap().contains("--ip-pool gold"), "{answer}");
}

#[test]
fn two_networks_never_lease_the_same_address_of_a_pool() {
    let node = Node::new(&["10.0.0.8/30"]);
    assert!(node.add("c1").0);
    let (success, answer) = node.call("ADD", "c2", "green");
    assert_eq!((success, &answer["code"]), (false, &json!(7)), "{answer}");
    assert!(answer["msg"].as_str().unwrap().contains("network blue"), "{answer}");
}

#[test]
fn a_pod_with_a_claim_gets_its_address_or_none() {
    let node = Node::new(&["10.0.0.64/30"]);
    node.claim(None);
    let (success, answer) = node.add_web("c1");
    assert_eq!((success, &answer["code"]), (false, &json!(11)), "{answer}");
    let told = answer["msg"].as_str().unwrap();
    assert!(told.contains("pod team/web-0") && told.contains("ipclaims"), "{told}");

    node.claim(Some("10.0.0.9"));
    let (success, answer) = node.add_web("c1");
    assert!(success, "{answer}");
    assert_eq!((address(&answer), &answer["ips"][0]["gateway"]), ("10.0.0.9/24", &json!("10.0.0.1")));
    assert_eq!(answer["routes"][0]["dst"], "0.0.0.0/0");
    assert_eq!(address(&node.add_web("c1").1), "10.0.0.9/24", "a repeated ADD");
    assert!(node.call("CHECK", "c1", "blue").0);

    // Nobody else gets it, whoever asks and however few are left.
    for container in ["c2", "c3", "c4", "c5"] {
        assert!(address(&node.add(container).1).starts_with("10.0.0.6"));
    }
    let (success, answer) = node.add("c6");
    assert!(
        !success && answer["msg"].as_str().unwrap().contains("all 4 addresses of the 1 blocks"),
        "{answer}"
    );
    let (success, answer) = node.call_for("ADD", "c6", "blue", "IP=10.0.0.9");
    assert_eq!((success, &answer["code"]), (false, &json!(7)), "{answer}");

    // It is given again at once, though it rests.
    assert!(node.call("DEL", "c1", "blue").0);
    let asked = "K8S_POD_NAMESPACE=team;K8S_POD_NAME=web-0;K8S_POD_UID=u;IP=10.0.0.9";
    assert_eq!(address(&node.call_for("ADD", "c7", "blue", asked).1), "10.0.0.9/24");
    assert!(node.call_for("ADD", "c7", "blue", asked).0, "a repeated ADD that asks for it");
    assert!(node.call("DEL", "c2", "blue").0);
    let other = asked.replace("10.0.0.9", "10.0.0.64");
    let (success, answer) = node.call_for("ADD", "c8", "blue", &other);
    assert_eq!((success, &answer["code"]), (false, &json!(7)), "{answer}");
    assert!(answer["msg"].as_str().unwrap().contains("reserves 10.0.0.9 for the pod"), "{answer}");
}

#[test]
fn a_claim_that_came_later_applies_at_the_next_start() {
    let node = Node::new(&["10.0.0.64/30"]);
    assert_eq!(address(&node.add_web("c1").1), "10.0.0.64/24");
    node.claim(None);
    assert_eq!(address(&node.add_web("c1").1), "10.0.0.64/24", "a repeated ADD keeps what it has");
    assert!(!node.add_web("c2").0, "another sandbox does not get another address");
    node.claim(Some("10.0.0.9"));
    assert_eq!(address(&node.add_web("c1").1), "10.0.0.64/24");
    assert!(node.call("DEL", "c1", "blue").0);
    assert_eq!(address(&node.add_web("c2").1), "10.0.0.9/24");
    // Round robin goes on where it was.
    assert_eq!(address(&node.add("c3").1), "10.0.0.65/24");
}

#[test]
fn a_pods_own_address_is_not_in_two_of_its_sandboxes() {
    let node = Node::new(&[]);
    node.claim(Some("10.0.0.9"));
    assert!(node.add_web("c1").0);
    let another = "K8S_POD_NAMESPACE=team;K8S_POD_NAME=web-0;K8S_POD_UID=another";
    let (success, answer) = node.call_for("ADD", "c2", "blue", another);
    assert_eq!((success, &answer["code"]), (false, &json!(11)), "of another pod of that name: {answer}");
    assert!(answer["msg"].as_str().unwrap().contains("container c1"), "{answer}");
    assert_eq!(address(&node.add_web("c3").1), "10.0.0.9/24", "of the same pod, whose DEL was lost");
    assert_eq!(node.ledger().leases().unwrap().len(), 1);
}
