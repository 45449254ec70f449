//! Whole commands on a node made of folders.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use clap::Parser as _;
use zerobridge_kernel::testing::{SysfsTree, TestNetns};
use zerobridge_kernel::{NetnsId, boot_id};
use zerobridge_ledger::{Attachment, Lease, Ledger, Owner, Pod, Sandbox, UnixSeconds};

use crate::{Cli, run};

const NETWORK: &str =
    r#"{"cniVersion": "1.1.0", "name": "pods", "plugins": [{"type": "zerobridge", "stateDir": "STATE"}]}"#;

/// A node without a kubelet.
struct Node {
    folder: tempfile::TempDir,
    tree: SysfsTree,
}

impl Node {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let tree = SysfsTree::new(folder.path().join("sys"));
        tree.add_igb(0, 2);
        let node = Self { folder, tree };
        fs::create_dir(node.path("from")).unwrap();
        for name in ["zerobridge", "zerobridge-ipam", "zbctl"] {
            node.write(&format!("from/{name}"), &format!("{name} 1"));
        }
        node.network("from/10-pods.conflist", "");
        node
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// A network that keeps its ledger here; `more` is behind it.
    fn network(&self, name: &str, more: &str) {
        let state = self.path("state");
        self.write(name, &(NETWORK.replace("STATE", state.to_str().unwrap()) + more));
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// Every file of the runtime's folders with its content.
    fn folders(&self) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        for folder in ["bin", "net.d"] {
            for entry in fs::read_dir(self.path(folder)).into_iter().flatten().flatten() {
                let name = format!("{folder}/{}", entry.file_name().to_str().unwrap());
                let content = self.read(&name);
                found.insert(name, content);
            }
        }
        found
    }

    /// Whether all is well, and what is said of it.
    fn zbctl(&self, words: &[&str], places: &[(&str, &str)]) -> (bool, String) {
        let mut all: Vec<String> =
            ["zbctl", "node"].iter().chain(words).map(|&word| word.to_owned()).collect();
        for (option, name) in places {
            all.extend([(*option).to_owned(), self.path(name).to_str().unwrap().to_owned()]);
        }
        let cli = Cli::try_parse_from(all).unwrap();
        let (mut out, mut problems) = (Vec::new(), Vec::new());
        let code = run(&cli, &mut out, &mut problems);
        out.extend(problems);
        (code == std::process::ExitCode::SUCCESS, String::from_utf8(out).unwrap())
    }

    fn install(&self, words: &[&str]) -> (bool, String) {
        let places = [
            ("--from", "from"),
            ("--cni-bin-dir", "bin"),
            ("--cni-conf-dir", "net.d"),
            ("--state-dir", "state"),
        ];
        self.zbctl(&[&["install"], words].concat(), &places)
    }

    fn must_install(&self, words: &[&str]) -> String {
        let (ok, said) = self.install(words);
        assert!(ok, "{said}");
        said
    }

    fn with_network(&self) -> [String; 2] {
        ["--network".to_owned(), self.path("from/10-pods.conflist").to_str().unwrap().to_owned()]
    }

    fn uninstall(&self, words: &[&str]) -> (bool, String) {
        let mut places = self.promises();
        places.push(("--devinfo-dir", "devinfo"));
        self.zbctl(&[&["uninstall"], words].concat(), &places)
    }

    fn must_uninstall(&self) -> String {
        let (ok, said) = self.uninstall(&["--apply"]);
        assert!(ok, "{said}");
        said
    }

    fn status(&self) -> (bool, serde_json::Value) {
        let (ok, said) = self.zbctl(&["status", "--json"], &self.promises());
        (ok, serde_json::from_str(&said).unwrap())
    }

    fn promises(&self) -> Vec<(&'static str, &'static str)> {
        vec![
            ("--state-dir", "state"),
            ("--run-dir", "run"),
            ("--cdi-dir", "cdi"),
            ("--kubelet-root", "kubelet"),
            ("--sysfs", "sys"),
        ]
    }

    /// A record of the first VF.
    fn attach(&self, change: impl FnOnce(&mut Attachment)) {
        let mut record = Attachment {
            device: "0000:01:10.0".parse().unwrap(),
            owner: Owner { container_id: "c1".to_owned(), ifname: "net1".to_owned() },
            network: "pods".to_owned(),
            sandbox: Sandbox { path: "/run/netns/nobody's".into(), dev: 4, ino: 5 },
            pod: Some(Pod { namespace: "team".to_owned(), name: "train-0".to_owned(), uid: None }),
            original: "{}".to_owned(),
            wanted: "{}".to_owned(),
            boot_id: boot_id(Path::new("/proc")).unwrap(),
            created_at: UnixSeconds(1),
        };
        change(&mut record);
        let mut ledger = Ledger::open(&self.path("state")).unwrap();
        let mut transaction = ledger.begin().unwrap();
        transaction.insert_attachment(&record).unwrap();
        transaction.commit().unwrap();
    }

    fn attach_in(&self, netns: &TestNetns) {
        let NetnsId { device: dev, inode: ino } = netns.netns().id();
        let path = netns.netns().path().to_owned();
        self.attach(|record| record.sandbox = Sandbox { path, dev, ino });
    }
}

#[test]
fn all_is_put_into_its_place_and_taken_off_without_a_trace() {
    let node = Node::new();
    let [network, file] = node.with_network();
    let tool = node.path("sbin");
    let words =
        [network.as_str(), &file, "--as", "sriov", "--as", "rdma", "--with-zbctl", tool.to_str().unwrap()];
    node.must_install(&words);
    let installed = [
        ("bin/rdma", "zerobridge 1"),
        ("bin/sriov", "zerobridge 1"),
        ("bin/zerobridge", "zerobridge 1"),
        ("bin/zerobridge-ipam", "zerobridge-ipam 1"),
        ("net.d/10-pods.conflist", &node.read("from/10-pods.conflist")),
    ];
    let installed: BTreeMap<String, String> =
        installed.iter().map(|(name, content)| ((*name).to_owned(), (*content).to_owned())).collect();
    assert_eq!(node.folders(), installed);
    assert_eq!(node.read("sbin/zbctl"), "zbctl 1");
    let mode = |name: &str| fs::metadata(node.path(name)).unwrap().permissions().mode() & 0o7777;
    assert_eq!([mode("bin/sriov"), mode("net.d/10-pods.conflist"), mode("state")], [0o755, 0o644, 0o700]);
    let (ok, status) = node.status();
    assert!(ok && status["files"].as_array().unwrap().len() == 6, "{status}");

    let (ok, said) = node.uninstall(&[]);
    assert!(ok && said.contains("--apply does it"), "{said}");
    assert_eq!(node.folders(), installed, "nothing is done without being told to");
    let said = node.must_uninstall();
    assert!(said.contains("the node is as it was"), "{said}");
    for name in ["bin", "net.d", "sbin", "state"] {
        assert!(!node.path(name).exists(), "{name}");
    }
    let (ok, said) = node.uninstall(&["--apply"]);
    assert!(ok && said.contains("nothing is installed"), "{said}");
    assert!(!node.path("state").exists());
}

#[test]
fn what_is_the_same_is_not_written_and_an_open_program_is_kept_by_who_has_it() {
    use std::io::Read as _;
    use std::os::unix::fs::MetadataExt as _;
    let node = Node::new();
    node.must_install(&[]);
    let inode = || fs::metadata(node.path("bin/zerobridge")).unwrap().ino();
    let (before, record) = (inode(), fs::metadata(node.path("state/installed.json")).unwrap().ino());
    fs::set_permissions(node.path("bin/zerobridge"), fs::Permissions::from_mode(0o600)).unwrap();
    let said = node.must_install(&[]);
    assert!(said.contains("bin/zerobridge: is there already"), "{said}");
    assert_eq!(inode(), before);
    assert_eq!(fs::metadata(node.path("state/installed.json")).unwrap().ino(), record);
    assert_eq!(fs::metadata(node.path("bin/zerobridge")).unwrap().permissions().mode() & 0o777, 0o755);

    let mut running = fs::File::open(node.path("bin/zerobridge")).unwrap();
    node.write("from/zerobridge", "zerobridge 2");
    node.must_install(&[]);
    assert_eq!(node.read("bin/zerobridge"), "zerobridge 2");
    let mut text = String::new();
    running.read_to_string(&mut text).unwrap();
    assert_eq!(text, "zerobridge 1");
    let (ok, status) = node.status();
    assert!(ok, "{status}");
}

#[test]
fn what_was_there_before_comes_back_with_all_that_it_was() {
    let node = Node::new();
    node.write("bin/sriov", "the other sriov");
    fs::set_permissions(node.path("bin/sriov"), fs::Permissions::from_mode(0o711)).unwrap();
    fs::create_dir_all(node.path("bin")).unwrap();
    std::os::unix::fs::symlink("../elsewhere", node.path("bin/rdma")).unwrap();
    node.write("net.d/10-pods.conflist", "the other network");
    let [network, file] = node.with_network();
    let said = node.must_install(&["--as", "sriov", "--as", "rdma", &network, &file]);
    assert!(said.contains("kept as") && said.contains("sriov.before-zerobridge"), "{said}");
    assert_eq!(node.read("bin/sriov"), "zerobridge 1");
    // Upgraded, which keeps nothing of ours.
    node.write("from/zerobridge", "zerobridge 2");
    node.must_install(&["--as", "sriov", "--as", "rdma", &network, &file]);
    assert_eq!(node.read("bin/sriov.before-zerobridge"), "the other sriov");
    node.must_uninstall();
    let left: Vec<_> =
        fs::read_dir(node.path("bin")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "{left:?}");
    assert_eq!(node.read("bin/sriov"), "the other sriov");
    assert_eq!(fs::metadata(node.path("bin/sriov")).unwrap().permissions().mode() & 0o777, 0o711);
    assert_eq!(fs::read_link(node.path("bin/rdma")).unwrap(), Path::new("../elsewhere"));
    assert_eq!(node.read("net.d/10-pods.conflist"), "the other network");
}

#[test]
fn what_others_changed_since_is_not_lost() {
    let node = Node::new();
    let [network, file] = node.with_network();
    node.must_install(&["--as", "sriov", &network, &file]);
    node.write("net.d/10-pods.conflist", "changed by hand");
    node.write("bin/sriov", "updated by a package");
    let (ok, status) = node.status();
    assert!(!ok && status.to_string().matches("\"changed\"").count() == 2, "{status}");
    let said = node.must_install(&["--as", "sriov", &network, &file]);
    assert!(said.contains("10-pods.conflist.set-aside"), "{said}");
    assert_eq!(node.read("net.d/10-pods.conflist.set-aside"), "changed by hand");
    node.write("bin/zerobridge", "not ours");
    let said = node.must_uninstall();
    assert!(said.contains("bin/zerobridge: is not as it was installed, and stays"), "{said}");
    assert!(said.contains("10-pods.conflist.set-aside: was put at"), "{said}");
    let expected = [
        ("bin/sriov", "updated by a package"),
        ("bin/zerobridge", "not ours"),
        ("net.d/10-pods.conflist.set-aside", "changed by hand"),
    ];
    let expected: BTreeMap<String, String> =
        expected.iter().map(|(name, content)| ((*name).to_owned(), (*content).to_owned())).collect();
    assert_eq!(node.folders(), expected);
}

#[test]
fn a_network_that_is_no_longer_named_goes_and_a_program_stays() {
    let node = Node::new();
    node.network("from/20-more.conflist", " ");
    let [network, file] = node.with_network();
    let second = node.path("from/20-more.conflist");
    node.must_install(&["--as", "sriov", &network, &file, "--network", second.to_str().unwrap()]);
    assert!(node.folders().contains_key("net.d/20-more.conflist"));
    let said = node.must_install(&[&network, &file]);
    assert!(said.contains("20-more.conflist: removed") && said.contains("sriov: stays"), "{said}");
    assert!(!node.folders().contains_key("net.d/20-more.conflist"));
    assert_eq!(node.read("bin/sriov"), "zerobridge 1");
    node.must_uninstall();
    assert_eq!(node.folders(), BTreeMap::new());
}

#[test]
fn nothing_is_changed_before_all_is_checked() {
    let node = Node::new();
    node.write(
        "from/bad.conflist",
        r#"{"cniVersion": "1.1.0", "name": "pods", "plugins": [{"type": "zerobridge", "vlan": 5000}]}"#,
    );
    let bad = node.path("from/bad.conflist");
    let (ok, said) = node.install(&["--network", bad.to_str().unwrap()]);
    assert!(!ok && said.contains("vlan is 5000") && said.contains("bad.conflist"), "{said}");
    fs::remove_file(node.path("from/zerobridge-ipam")).unwrap();
    let (ok, said) = node.install(&[]);
    assert!(!ok && said.contains("from/zerobridge-ipam") && said.contains("--from"), "{said}");
    fs::create_dir_all(node.path("bin/zerobridge")).unwrap();
    node.write("from/zerobridge-ipam", "zerobridge-ipam 1");
    let (ok, said) = node.install(&[]);
    assert!(!ok && said.contains("neither a file nor a symbolic link"), "{said}");
    assert!(!node.path("state").exists() && !node.path("net.d").exists());
}

#[test]
fn pods_that_have_vfs_or_addresses_keep_it_all_in_place() {
    let node = Node::new();
    let [network, file] = node.with_network();
    node.must_install(&[&network, &file]);
    let netns = TestNetns::new();
    node.attach_in(&netns);
    let before = node.folders();
    for words in [&[][..], &["--apply"]] {
        let (ok, said) = node.uninstall(words);
        assert!(!ok && said.contains("in use: team/train-0 has VF 0000:01:10.0 as net1"), "{said}");
        assert!(said.contains("kubectl drain"), "{said}");
        assert_eq!(node.folders(), before);
    }
    let (ok, status) = node.status();
    assert!(ok && status["attachments"][0]["pod"] == "train-0", "{status}");

    // Without a kubelet that says whose the VF is, a namespace that is gone is not enough.
    drop(netns);
    let (ok, said) = node.uninstall(&["--apply"]);
    assert!(!ok && said.contains("when the kubelet says that no pod holds it"), "{said}");
}

#[test]
fn an_address_of_another_plugins_pod_keeps_it_too() {
    let node = Node::new();
    node.must_install(&[]);
    let boot = boot_id(Path::new("/proc")).unwrap();
    let lease = |address: &str, container: &str, boot_id: &str, device: Option<&str>| Lease {
        network: "blue".to_owned(),
        address: address.parse().unwrap(),
        owner: Owner { container_id: container.to_owned(), ifname: "net1".to_owned() },
        pod: None,
        device: device.map(|device| device.parse().unwrap()),
        mac: None,
        vlan: None,
        rdma: None,
        boot_id: boot_id.to_owned(),
        created_at: UnixSeconds(1),
    };
    let mut ledger = Ledger::open(&node.path("state")).unwrap();
    let mut transaction = ledger.begin().unwrap();
    transaction.insert_lease(&lease("10.0.0.5", "living", &boot, None)).unwrap();
    transaction.insert_lease(&lease("10.0.0.6", "earlier", "another boot", None)).unwrap();
    transaction.insert_lease(&lease("10.0.0.7", "alone", &boot, Some("0000:01:10.0"))).unwrap();
    transaction.commit().unwrap();
    let (ok, said) = node.uninstall(&["--apply"]);
    assert!(!ok && said.matches("in use").count() == 1, "{said}");
    assert!(said.contains("container living has 10.0.0.5 of network blue on net1"), "{said}");
    let mut transaction = ledger.begin().unwrap();
    let living = Owner { container_id: "living".to_owned(), ifname: "net1".to_owned() };
    transaction.release_leases(&living, None, UnixSeconds(2)).unwrap();
    transaction.commit().unwrap();
    drop(ledger);
    node.must_uninstall();
    assert!(!node.path("state").exists());
}

#[test]
fn what_a_dead_pod_left_is_given_back_first() {
    let node = Node::new();
    node.must_install(&[]);
    node.attach(|record| record.boot_id = "another boot".to_owned());
    let (ok, said) = node.uninstall(&[]);
    assert!(ok && said.contains("0000:01:10.0: would be given back"), "{said}");
    let said = node.must_uninstall();
    assert!(said.contains("0000:01:10.0: given back") && said.contains("the ledger"), "{said}");
    assert!(!node.path("state").exists());
}

#[test]
fn what_cannot_be_given_back_keeps_it_with_the_reason() {
    let node = Node::new();
    node.must_install(&[]);
    node.attach(|record| {
        record.boot_id = "another boot".to_owned();
        record.wanted = r#"{"ipam": {"network": "pods", "plugin": "absent", "path": "/absent", "args": "", "config": {}, "result": null}}"#.to_owned();
    });
    let (ok, said) = node.uninstall(&["--apply"]);
    assert!(!ok && said.contains("cannot be given back") && said.contains("\"absent\""), "{said}");
    assert!(node.path("bin/zerobridge").exists());
}

#[test]
fn the_state_is_kept_where_that_is_asked_for() {
    let node = Node::new();
    node.must_install(&[]);
    drop(Ledger::open(&node.path("state")).unwrap());
    node.write("run/vf-0000:01:10.0.lock", "");
    let (ok, said) = node.uninstall(&["--apply", "--keep-state"]);
    assert!(ok && said.contains("the ledger is kept"), "{said}");
    assert!(Ledger::exists(&node.path("state")) && node.path("run").exists());
    assert!(!node.path("state/installed.json").exists() && !node.path("bin").exists());
}

#[test]
fn locks_and_files_of_devices_go_and_those_of_others_stay() {
    use std::os::unix::net::UnixListener;
    let node = Node::new();
    node.must_install(&[]);
    node.write("run/vf-0000:01:10.0.lock", "");
    for file in ["run/incarnations", "run/resources", "state/blocks.lock"] {
        node.write(file, "");
    }
    node.write("cdi/zerobridge.rdma-0000:01:10.0.json", "{}");
    node.write("cdi/nvidia.json", "{}");
    node.write("devinfo/zerobridge.io-vf-0000:01:10.0-device.json", "{}");
    let said = node.must_uninstall();
    assert!(said.contains("stay until the next boot"), "without a kubelet nobody knows: {said}");
    assert!(!node.path("run").exists() && !node.path("state").exists());
    assert!(!node.path("cdi/zerobridge.rdma-0000:01:10.0.json").exists());
    assert!(node.path("cdi/nvidia.json").exists());
    assert!(node.path("devinfo/zerobridge.io-vf-0000:01:10.0-device.json").exists());

    node.must_install(&[]);
    let sockets = node.path("kubelet/device-plugins");
    fs::create_dir_all(&sockets).unwrap();
    let daemon = UnixListener::bind(sockets.join("zerobridge-vf-1.sock")).unwrap();
    let (ok, said) = node.uninstall(&["--apply"]);
    assert!(!ok && said.contains("zerobridge-device-plugin runs"), "{said}");
    drop(daemon);
    node.must_uninstall();
}

#[test]
fn the_machine_is_the_one_that_was_named() {
    let node = Node::new();
    node.must_install(&[]);
    node.attach(|record| record.boot_id = "another boot".to_owned());
    node.tree.remove("0000:01:10.0".parse().unwrap());
    node.must_uninstall();
}
