//! A pod keeps its address when its sandbox is made again: against a real ledger.
#![expect(clippy::unwrap_used, reason = "a test program, of which clippy takes the helpers for none")]

use std::net::IpAddr;

use serde_json::json;
use zerobridge_ipam::plugin::{Host, run};
use zerobridge_ipam::{IpamError, LeaseRequest, PoolConfig, lease, release};
use zerobridge_ledger::{Attachment, Ledger, Owner, Pod, Sandbox, UnixSeconds};

fn pool(subnet: &str) -> PoolConfig {
    PoolConfig::parse(&json!({"subnet": subnet}), None).unwrap()
}

fn owner(container_id: &str) -> Owner {
    Owner { container_id: container_id.to_owned(), ifname: "eth0".to_owned() }
}

fn pod(name: &str, uid: &str) -> Option<Pod> {
    Some(Pod { namespace: "team".to_owned(), name: name.to_owned(), uid: Some(uid.to_owned()) })
}

struct Node {
    _directory: tempfile::TempDir,
    ledger: Ledger,
    now: i64,
    boot_id: &'static str,
}

impl Node {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(directory.path()).unwrap();
        Self { _directory: directory, ledger, now: 1_000_000, boot_id: "b1" }
    }

    fn request(&self, container_id: &str, pod: Option<Pod>) -> LeaseRequest {
        LeaseRequest {
            owner: owner(container_id),
            pod,
            device: None,
            mac: None,
            vlan: None,
            rdma: None,
            requested: Vec::new(),
            now: UnixSeconds(self.now),
            boot_id: self.boot_id.to_owned(),
        }
    }

    fn lease_as(&mut self, pool: &PoolConfig, request: &LeaseRequest) -> Result<String, IpamError> {
        let mut transaction = self.ledger.begin().unwrap();
        let leased = lease(&mut transaction, "blue", pool, request);
        transaction.commit().unwrap();
        leased.map(|leased| leased.ips[0].address.addr().to_string())
    }

    fn lease(
        &mut self,
        pool: &PoolConfig,
        container_id: &str,
        pod: Option<Pod>,
    ) -> Result<String, IpamError> {
        self.lease_as(pool, &self.request(container_id, pod))
    }

    fn release(&mut self, container_id: &str) -> Vec<IpAddr> {
        let mut transaction = self.ledger.begin().unwrap();
        let released =
            release(&mut transaction, &owner(container_id), "blue", UnixSeconds(self.now)).unwrap();
        transaction.commit().unwrap();
        released
    }
}

#[test]
fn a_new_sandbox_of_a_pod_gets_the_address_that_rests_and_not_the_next_one() {
    let pool = pool("10.0.0.0/24");
    let mut node = Node::new();
    assert_eq!(node.lease(&pool, "c1", pod("web", "u1")).unwrap(), "10.0.0.2");
    assert_eq!(node.lease(&pool, "c2", pod("db-0", "u2")).unwrap(), "10.0.0.3");
    node.release("c1");
    assert_eq!(node.lease(&pool, "c3", pod("web", "u1")).unwrap(), "10.0.0.2");
    // Going back for it does not turn the round back.
    assert_eq!(node.lease(&pool, "c4", None).unwrap(), "10.0.0.4");
    // A rest that is over, and that nobody has noticed yet, is as good.
    node.release("c3");
    node.now += 3_600;
    assert_eq!(node.lease(&pool, "c5", pod("web", "u1")).unwrap(), "10.0.0.2");
    assert_eq!(node.ledger.audit().unwrap(), []);
}

#[test]
fn in_a_full_pool_too() {
    let pool = pool("10.0.0.0/29");
    let mut node = Node::new();
    for number in 1..=5 {
        node.lease(&pool, &format!("c{number}"), pod(&format!("p{number}"), &format!("u{number}"))).unwrap();
    }
    for number in [1, 2, 3] {
        node.release(&format!("c{number}"));
        node.now += 1;
    }
    // Another pod would get 10.0.0.2, which has rested longest.
    assert_eq!(node.lease(&pool, "n3", pod("p3", "u3")).unwrap(), "10.0.0.4");
    assert_eq!(node.lease(&pool, "n2", pod("p2", "u2")).unwrap(), "10.0.0.3");
    assert_eq!(node.lease(&pool, "n9", pod("p9", "u9")).unwrap(), "10.0.0.2");
}

#[test]
fn a_namesake_with_another_uid_gets_what_rests_and_never_what_is_held() {
    let pool = pool("10.0.0.0/29");
    let mut node = Node::new();
    assert_eq!(node.lease(&pool, "c1", pod("db-0", "u1")).unwrap(), "10.0.0.2");
    assert_eq!(node.lease(&pool, "c2", pod("db-1", "u2")).unwrap(), "10.0.0.3");
    node.release("c1");
    assert_eq!(node.lease(&pool, "c3", pod("db-0", "u3")).unwrap(), "10.0.0.2");
    for number in 4..=6 {
        node.lease(&pool, &format!("c{number}"), None).unwrap();
    }
    assert!(matches!(node.lease(&pool, "c7", pod("db-0", "u7")), Err(IpamError::Exhausted { .. })));
}

#[test]
fn of_two_that_rest_the_own_one_comes_before_the_namesakes() {
    let pool = pool("10.0.0.0/24");
    let mut node = Node::new();
    node.lease(&pool, "c1", pod("db-0", "u1")).unwrap();
    node.lease(&pool, "c2", pod("db-0", "u2")).unwrap();
    node.release("c1");
    node.now += 1;
    node.release("c2");
    assert_eq!(node.lease(&pool, "c3", pod("db-0", "u1")).unwrap(), "10.0.0.2");
}

#[test]
fn what_the_old_sandbox_still_has_stays_its_own_while_there_is_another() {
    let pool = pool("10.0.0.0/24");
    let mut node = Node::new();
    assert_eq!(node.lease(&pool, "c1", pod("web", "u1")).unwrap(), "10.0.0.2");
    assert_eq!(node.lease(&pool, "c2", pod("web", "u1")).unwrap(), "10.0.0.3");
    assert_eq!(node.release("c1"), ["10.0.0.2".parse::<IpAddr>().unwrap()]);
    assert_eq!(node.lease(&pool, "c2", pod("web", "u1")).unwrap(), "10.0.0.3");
}

#[test]
fn in_a_full_pool_the_new_sandbox_takes_it_over_and_the_late_delete_releases_nothing() {
    let pool = pool("10.0.0.0/30");
    let mut node = Node::new();
    assert_eq!(node.lease(&pool, "c1", pod("web", "u1")).unwrap(), "10.0.0.2");
    assert!(matches!(node.lease(&pool, "c2", pod("other", "u2")), Err(IpamError::Exhausted { .. })));
    assert_eq!(node.lease(&pool, "c3", pod("web", "u1")).unwrap(), "10.0.0.2");
    assert_eq!(node.release("c1"), Vec::<IpAddr>::new());
    let leases = node.ledger.leases().unwrap();
    assert_eq!(leases.iter().map(|lease| &lease.owner).collect::<Vec<_>>(), [&owner("c3")]);

    // Without a UID nobody knows that it is the same pod.
    let nameless = Some(Pod { uid: None, ..pod("web", "u1").unwrap() });
    assert!(matches!(node.lease(&pool, "c4", nameless), Err(IpamError::Exhausted { .. })));
    // Another interface of the pod is another matter.
    let mut second = node.request("c5", pod("web", "u1"));
    second.owner.ifname = "net1".to_owned();
    assert!(matches!(node.lease_as(&pool, &second), Err(IpamError::Exhausted { .. })));
    assert_eq!(node.ledger.audit().unwrap(), []);
}

#[test]
fn an_address_that_is_asked_for_is_taken_over_from_the_same_pod_only() {
    let pool = pool("10.0.0.0/24");
    let mut node = Node::new();
    let asked = |node: &Node, container_id: &str, uid: &str| LeaseRequest {
        requested: vec!["10.0.0.77".parse().unwrap()],
        ..node.request(container_id, pod("vm-0", uid))
    };
    let request = asked(&node, "c1", "u1");
    assert_eq!(node.lease_as(&pool, &request).unwrap(), "10.0.0.77");
    let request = asked(&node, "c2", "u2");
    assert!(matches!(node.lease_as(&pool, &request), Err(IpamError::Taken { .. })));
    let request = asked(&node, "c3", "u1");
    assert_eq!(node.lease_as(&pool, &request).unwrap(), "10.0.0.77");
}

#[test]
fn nothing_is_taken_over_from_a_sandbox_that_still_has_its_device() {
    let pool = pool("10.0.0.0/30");
    let mut node = Node::new();
    node.lease(&pool, "c1", pod("web", "u1")).unwrap();
    let mut transaction = node.ledger.begin().unwrap();
    let attachment = Attachment {
        device: "0000:01:10.0".parse().unwrap(),
        owner: owner("c1"),
        network: "blue".to_owned(),
        sandbox: Sandbox { path: "/run/netns/x".into(), dev: 4, ino: 5 },
        pod: pod("web", "u1"),
        original: "{}".to_owned(),
        wanted: "{}".to_owned(),
        boot_id: "b1".to_owned(),
        created_at: UnixSeconds(0),
    };
    transaction.insert_attachment(&attachment).unwrap();
    transaction.commit().unwrap();
    assert!(matches!(node.lease(&pool, "c2", pod("web", "u1")), Err(IpamError::Exhausted { .. })));
    let mut transaction = node.ledger.begin().unwrap();
    transaction.remove_attachment(&owner("c1")).unwrap();
    transaction.commit().unwrap();
    assert_eq!(node.lease(&pool, "c2", pod("web", "u1")).unwrap(), "10.0.0.2");
}

#[test]
fn after_a_reboot_a_pod_gets_the_address_back_that_nobody_released() {
    let pool = pool("10.0.0.0/24");
    let mut node = Node::new();
    for number in 1..=3 {
        node.lease(&pool, &format!("c{number}"), pod(&format!("p{number}"), &format!("u{number}"))).unwrap();
    }
    node.boot_id = "b2";
    assert_eq!(node.lease(&pool, "n2", pod("p2", "u2")).unwrap(), "10.0.0.3");
    assert_eq!(node.release("c2"), Vec::<IpAddr>::new());
    assert_eq!(node.lease(&pool, "n1", pod("p1", "u1-new")).unwrap(), "10.0.0.2");
}

#[test]
fn what_an_audit_compares_is_in_the_lease() {
    let pool = pool("10.0.0.0/24");
    let mut node = Node::new();
    let request = LeaseRequest {
        device: Some("0000:01:10.0".parse().unwrap()),
        mac: Some("02:00:00:00:00:01".parse().unwrap()),
        vlan: Some(100),
        rdma: Some("mlx5_2".to_owned()),
        ..node.request("c1", pod("web", "u1"))
    };
    node.lease_as(&pool, &request).unwrap();
    let lease = node.ledger.leases().unwrap().remove(0);
    assert_eq!((lease.pod, lease.device, lease.mac), (request.pod, request.device, request.mac));
    assert_eq!((lease.vlan, lease.rdma), (request.vlan, request.rdma));
}

#[test]
fn the_program_reads_the_pod_and_the_rest_from_where_runtimes_write_it() {
    let directory = tempfile::tempdir().unwrap();
    let config = json!({
        "cniVersion": "1.0.0", "name": "blue", "type": "vlan", "vlanId": 100,
        "runtimeConfig": {"mac": "02:00:00:00:00:01", "deviceID": "0000:01:10.0"},
        "ipam": {"type": "zerobridge-ipam", "subnet": "10.0.0.0/30", "stateDir": directory.path()},
    });
    let add = |container_id: &str, uid: &str| {
        let arguments = format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=team;K8S_POD_NAME=web;K8S_POD_UID={uid}");
        let variables = [
            ("CNI_COMMAND", "ADD"),
            ("CNI_CONTAINERID", container_id),
            ("CNI_NETNS", "/run/netns/x"),
            ("CNI_IFNAME", "eth0"),
            ("CNI_PATH", "/opt/cni/bin"),
            ("CNI_ARGS", &arguments),
        ];
        let host = Host { now: UnixSeconds(10), boot_id: "b1".to_owned() };
        let mut answer = Vec::new();
        run(variables, config.to_string().as_bytes(), &mut answer, || Ok(host))
    };
    assert_eq!(add("c1", "u1"), 0);
    // The pool is full: the pod's next sandbox gets the address, another pod does not.
    assert_eq!([add("c2", "u2"), add("c3", "u1")], [1, 0]);
    let lease = Ledger::open(directory.path()).unwrap().leases().unwrap().remove(0);
    assert_eq!((lease.owner, lease.pod), (owner("c3"), pod("web", "u1")));
    assert_eq!((lease.mac.unwrap().to_string().as_str(), lease.vlan), ("02:00:00:00:00:01", Some(100)));
    assert_eq!(lease.device.unwrap().to_string(), "0000:01:10.0");
}
