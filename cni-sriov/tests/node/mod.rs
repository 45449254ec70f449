//! A node for the program to run on: a sysfs tree with two VFs whose PF has no link, folders, IPAM plugins, a kubelet.
#![allow(dead_code, unreachable_pub, reason = "every test program of this crate uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test that cannot prepare its node has failed")]

mod kubelet;
mod recording_ipam;

use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use zerobridge_kernel::testing::{SysfsTree, TestNetns};
use zerobridge_ledger::{Attachment, Lease, Ledger, Owner, Sandbox, UnixSeconds};

pub use recording_ipam::RecordingIpam;

/// The two VFs.
pub const VFS: [&str; 2] = ["0000:01:10.0", "0000:01:10.2"];

/// Folders of a node.
pub struct Node {
    folder: tempfile::TempDir,
    pub tree: SysfsTree,
}

/// What the program answered.
#[derive(Debug)]
pub struct Answer {
    /// Its exit code.
    pub exit: i32,
    /// Its standard output, `Value::Null` when it printed nothing.
    pub out: Value,
    /// Its standard error.
    pub log: String,
}

impl Node {
    /// A node without a ledger.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let tree = SysfsTree::new(folder.path().join("sys"));
        tree.add_igb(0, 2);
        std::fs::create_dir(folder.path().join("bin")).unwrap();
        Self { folder, tree }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The configuration of network `blue` with these keys beside.
    pub fn config(&self, own: Value) -> Value {
        let mut config = json!({
            "cniVersion": "1.1.0", "name": "blue", "type": "zerobridge", "stateDir": self.path("state"),
            "runDir": self.path("run"), "kubeletRoot": self.path("kubelet"), "sysfs": self.path("sys"),
        });
        config.as_object_mut().unwrap().extend(own.as_object().unwrap().clone());
        config
    }

    /// Installs an IPAM plugin in `CNI_PATH`.
    pub fn ipam(&self, name: &str, body: &str) -> RecordingIpam {
        RecordingIpam::install(&self.path("bin"), name, body)
    }

    /// Makes the kubelet answer with these allocatable devices of `x/vf`.
    pub fn kubelet(&self, devices: &[&str]) -> kubelet::Kubelet {
        kubelet::Kubelet::start(&self.path("kubelet"), devices)
    }

    /// Calls the program for `eth0` of container `c1`.
    pub fn call(&self, command: &str, config: &Value) -> Answer {
        self.call_with(command, config, &[])
    }

    /// Likewise, with variables changed; one that is set to nothing is not set.
    pub fn call_with(&self, command: &str, config: &Value, changes: &[(&str, &str)]) -> Answer {
        Answer::of(self.start(command, config.to_string().as_bytes(), changes))
    }

    /// Starts a call.
    pub fn start(&self, command: &str, stdin: &[u8], changes: &[(&str, &str)]) -> Child {
        let bin = self.path("bin");
        let mut process = Command::new(env!("CARGO_BIN_EXE_zerobridge"));
        process.env_clear().env("PATH", std::env::var_os("PATH").unwrap());
        process.env("CNI_COMMAND", command).env("CNI_CONTAINERID", "c1").env("CNI_IFNAME", "eth0");
        process.env("CNI_NETNS", "/run/netns/gone").env("CNI_PATH", format!("/absent:{}", bin.display()));
        process.env("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web");
        for (name, value) in changes {
            match *value {
                "" => process.env_remove(name),
                value => process.env(name, value),
            };
        }
        process.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = process.spawn().unwrap();
        // Some calls fail before they read it.
        let _written = child.stdin.take().unwrap().write_all(stdin);
        child
    }

    pub fn ledger(&self) -> Ledger {
        Ledger::open(&self.path("state")).unwrap()
    }

    /// Records that a VF is attached to `eth0` of a container, in network `blue`, with an address of its pool. The VF is
    /// at home already; `wanted` is its state with these keys beside.
    pub fn attach(&self, device: &str, container_id: &str, address: &str, beside: Value) -> Attachment {
        let mut wanted: Value = serde_json::from_str(STATE).unwrap();
        wanted.as_object_mut().unwrap().extend(beside.as_object().unwrap().clone());
        let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap().trim().to_owned();
        let record = Attachment {
            device: device.parse().unwrap(),
            owner: owner(container_id),
            network: "blue".to_owned(),
            sandbox: Sandbox { path: "/run/netns/gone".into(), dev: 4, ino: 5 },
            pod: None,
            original: STATE.to_owned(),
            wanted: wanted.to_string(),
            boot_id,
            created_at: UnixSeconds(10),
        };
        let mut ledger = self.ledger();
        let mut transaction = ledger.begin().unwrap();
        transaction.insert_attachment(&record).unwrap();
        transaction.insert_lease(&lease(address, &record)).unwrap();
        transaction.commit().unwrap();
        record
    }

    /// Changes a record as if its VF had been moved into this namespace.
    pub fn in_namespace(&self, mut record: Attachment, netns: &TestNetns) {
        let id = netns.netns().id();
        record.sandbox = Sandbox { path: netns.netns().path().to_owned(), dev: id.device, ino: id.inode };
        let mut ledger = self.ledger();
        let mut transaction = ledger.begin().unwrap();
        transaction.remove_attachment(&record.owner).unwrap();
        transaction.insert_attachment(&record).unwrap();
        transaction.commit().unwrap();
    }

    /// Leases an address of network `blue` to a container that has no VF.
    pub fn lease_alone(&self, container_id: &str, address: &str) {
        let record = self.attach(VFS[1], container_id, address, json!({}));
        let mut ledger = self.ledger();
        let mut transaction = ledger.begin().unwrap();
        transaction.remove_attachment(&record.owner).unwrap();
        transaction.commit().unwrap();
    }

    /// Who is attached, and which addresses are leased.
    pub fn promises(&self) -> (Vec<String>, Vec<String>) {
        let ledger = self.ledger();
        let attachments = ledger.attachments().unwrap().into_iter().map(|record| record.owner.container_id);
        let leases = ledger.leases().unwrap().into_iter().map(|lease| lease.address.to_string());
        (attachments.collect(), leases.collect())
    }
}

impl Answer {
    pub fn of(child: Child) -> Self {
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let out = if text.is_empty() { Value::Null } else { serde_json::from_str(&text).unwrap() };
        Self { exit: output.status.code().unwrap(), out, log: String::from_utf8(output.stderr).unwrap() }
    }

    /// Success without a word on standard output.
    #[track_caller]
    pub fn assert_silent_success(&self) {
        assert_eq!((self.exit, &self.out), (0, &Value::Null), "{self:?}");
    }

    /// An error object with this code, whose message and details hold these texts. Returns both.
    #[track_caller]
    pub fn assert_error(&self, code: u32, parts: &[&str]) -> String {
        assert!(self.exit != 0 && self.out["code"] == json!(code), "expected code {code}: {self:?}");
        let field = |name: &str| self.out[name].as_str().unwrap_or_default().to_owned();
        let text = format!("{}: {}", field("msg"), field("details"));
        for part in parts {
            assert!(text.contains(part), "\"{part}\" is not in: {text}");
        }
        text
    }
}

pub fn owner(container_id: &str) -> Owner {
    Owner { container_id: container_id.to_owned(), ifname: "eth0".to_owned() }
}

fn lease(address: &str, record: &Attachment) -> Lease {
    Lease {
        network: record.network.clone(),
        address: address.parse().unwrap(),
        owner: record.owner.clone(),
        pod: None,
        device: Some(record.device),
        mac: None,
        vlan: None,
        rdma: None,
        boot_id: record.boot_id.clone(),
        created_at: record.created_at,
    }
}

/// A VF on the host, as the ledger keeps it.
const STATE: &str = r#"{
    "admin": {"mac": "02:00:00:00:00:01", "vlan": {"id": 0, "qos": 0, "protocol": "802.1q"}, "spoof_check": true,
              "trust": false, "link_state": "auto", "min_tx_rate": 0, "max_tx_rate": 0},
    "link": {"place": "host", "name": "enp1s0f0v0", "alt_names": [], "mac": "02:00:00:00:00:01", "mtu": 1500,
             "up": false},
    "addresses": [], "routes": []
}"#;
