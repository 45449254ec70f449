use std::ffi::OsString;
use std::time::Duration;

use serde_json::json;
use zerobridge_kernel::Sysfs;
use zerobridge_ledger::UnixSeconds;
use zerobridge_proto::cni::{Environment, ErrorCode, NetworkConfig};

use super::*;
use crate::attachment::model::at_home;
use crate::config::{Config, Paths};
use crate::recording_ipam::{GIVES, RecordingIpam};

/// A node whose VF is so far gone that nothing of it has to be restored, and an IPAM plugin.
struct World {
    folder: tempfile::TempDir,
    ipam: RecordingIpam,
    ledger: Ledger,
    config: NetworkConfig,
    stdin: String,
    variables: Vec<(OsString, OsString)>,
}

impl World {
    fn new(body: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ipam = RecordingIpam::install(folder.path(), "recording", body);
        let ledger = Ledger::open(&folder.path().join("state")).unwrap();
        let stdin = json!({
            "cniVersion": "1.1.0", "name": "blue", "type": "zerobridge", "deviceID": "0000:01:10.0",
            "ipam": {"type": "recording", "any": "key"}, "args": {"cni": {"ips": ["10.9.0.5"]}},
        })
        .to_string();
        let config = NetworkConfig::decode(stdin.as_bytes()).unwrap();
        let path = folder.path().to_str().unwrap();
        let variables = [
            ("CNI_COMMAND", "ADD"),
            ("CNI_CONTAINERID", "c1"),
            ("CNI_IFNAME", "eth0"),
            ("CNI_NETNS", "/run/netns/x"),
            ("CNI_PATH", path),
            ("CNI_ARGS", "K8S_POD_NAME=web"),
        ];
        let variables = variables.map(|(name, value)| (name.into(), value.into())).to_vec();
        Self { folder, ipam, ledger, config, stdin, variables }
    }

    /// Does `work` with what ADD would have of the call.
    fn attempt<T>(
        &mut self,
        existing: Option<&Attachment>,
        work: impl FnOnce(&Attempt<'_>, &mut Ledger) -> Result<T, CniError>,
    ) -> Result<T, CniError> {
        let variables = self.variables.iter().map(|(name, value)| (name, value));
        let environment = Environment::parse(variables).unwrap();
        let call = Call {
            environment: &environment,
            variables: &self.variables,
            config: &self.config,
            stdin: self.stdin.as_bytes(),
            paths: Paths::default(),
            boot_id: "this".to_owned(),
            now: UnixSeconds(10),
        };
        let config = Config::parse(&self.config, &environment.args).unwrap();
        let (device, network) = (config.device.unwrap(), &config.networks[0]);
        let selection = Selection { device, network };
        let wish = Wish { device, network, ifname: &call.environment.ifname, rdma_mode: None };
        let repairer = Repairer {
            sysfs: Sysfs::new(self.folder.path().join("sys")),
            run_dir: self.folder.path().join("run"),
            cdi_dir: self.folder.path().join("cdi"),
            boot_id: "this".to_owned(),
            on_behalf_of: "a test".to_owned(),
            patience: Duration::ZERO,
        };
        let attempt = Attempt {
            call: &call,
            repairer: &repairer,
            wish,
            source: Source::of(&call, selection)?.carried_by(wish, &at_home())?,
            sandbox: Sandbox { path: "/run/netns/x".into(), dev: 4, ino: 5 },
            original: &at_home(),
            existing,
        };
        work(&attempt, &mut self.ledger)
    }

    /// Promises as ADD does, and takes it back when told to.
    fn add(&mut self, existing: Option<&Attachment>, then: Then) -> Result<Promise, CniError> {
        self.attempt(existing, |attempt, ledger| {
            let promise = attempt.promise(ledger)?;
            let record = promise.record.clone();
            let refusal = || CniError::new(codes::REFUSED, "the kernel refused");
            let kept = match then {
                Then::RefuseMove => Err(refusal()),
                _ => attempt.ask(ledger, &promise),
            };
            let kept = match then {
                Then::RefuseAddresses => Err(refusal()),
                _ => kept,
            };
            kept.map(|answered| answered.unwrap_or(promise))
                .map_err(|failure| attempt.take_back(ledger, &record, failure))
        })
    }

    /// Promises as ADD does and then finds that a foreign host has some of the addresses.
    fn replace(&mut self, foreign: &[&str], is_last: bool) -> Result<Promise, CniError> {
        let mac = "02:00:00:00:00:09".parse().unwrap();
        let found: Vec<Foreign> =
            foreign.iter().map(|text| Foreign { address: text.parse().unwrap(), mac }).collect();
        self.attempt(None, |attempt, ledger| {
            attempt.promise(ledger)?;
            attempt.replace(attempt.pool_source().unwrap(), ledger, &found, is_last)
        })
    }

    /// The addresses that are leased, that are set aside, and that the one record wants.
    fn addresses(&self) -> [Vec<String>; 3] {
        let leased = self.ledger.leases().unwrap().iter().map(|lease| lease.address.to_string()).collect();
        let set_aside = self.ledger.set_aside().unwrap();
        let set_aside = set_aside.iter().map(|found| format!("{} {}", found.address, found.mac)).collect();
        let records = self.records();
        let wanted = records.iter().flat_map(|record| record::wanted(record).unwrap().addresses);
        [leased, set_aside, wanted.map(|net| net.addr().to_string()).collect()]
    }

    fn records(&self) -> Vec<Attachment> {
        self.ledger.attachments().unwrap()
    }
}

/// What the kernel does to the VF.
#[derive(Clone, Copy)]
enum Then {
    Keep,
    RefuseMove,
    RefuseAddresses,
}

#[test]
fn a_plugin_gets_the_calls_environment_and_its_whole_configuration() {
    let mut world = World::new(GIVES);
    let promise = world.add(None, Then::Keep).unwrap();
    let calls = world.ipam.calls();
    assert_eq!(calls.len(), 1);
    assert_eq!(calls[0].stdin, world.stdin, "byte for byte");
    for (name, value) in &world.variables {
        assert_eq!(calls[0].variables[name.to_str().unwrap()], value.to_str().unwrap());
    }
    assert_eq!(promise.wanted.addresses, ["10.9.0.5/24".parse().unwrap()]);
    assert_eq!(promise.wanted.routes[0].gateway, Some("10.9.0.1".parse().unwrap()));
    assert_eq!(promise.leased.dns.nameservers, ["10.9.0.53"]);
    assert_eq!(world.records(), [promise.record]);
}

#[test]
fn results_of_every_version_are_understood() {
    for answer in [
        r#"{"cniVersion": "0.2.0", "ip4": {"ip": "10.9.0.5/24", "gateway": "10.9.0.1"}}"#,
        r#"{"ip4": {"ip": "10.9.0.5/24"}}"#,
        r#"{"cniVersion": "0.4.0", "ips": [{"version": "4", "address": "10.9.0.5/24"}], "dns": {}}"#,
        r#"{"cniVersion": "1.0.0", "ips": [{"address": "10.9.0.5/24"}], "routes": null}"#,
    ] {
        let mut world = World::new(&format!("echo '{answer}'"));
        let promise = world.add(None, Then::Keep).unwrap();
        assert_eq!(promise.wanted.addresses, ["10.9.0.5/24".parse().unwrap()], "{answer}");
    }
}

#[test]
fn a_repeated_add_is_answered_from_the_record_alone() {
    let mut world = World::new(GIVES);
    let first = world.add(None, Then::Keep).unwrap();
    let again = world.add(Some(&first.record), Then::Keep).unwrap();
    assert_eq!((again.wanted, again.leased), (first.wanted, first.leased));
    assert_eq!(world.ipam.commands(), ["ADD"]);
}

#[test]
fn a_plugin_that_failed_gets_a_del_and_its_own_error_is_passed_on() {
    let refuses =
        r#"echo '{"cniVersion": "1.1.0", "code": 111, "msg": "no room", "details": "all 7 used"}'; exit 1"#;
    for (body, code, parts) in [
        (refuses, 111, ["no room", "all 7 used"]),
        ("kill -9 $$", codes::IPAM_FAILED.number(), ["signal: 9", "it printed nothing"]),
        ("echo oops; exit 3", codes::IPAM_FAILED.number(), ["exit status: 3", "oops"]),
        ("echo oops", codes::IPAM_FAILED.number(), ["no answer of the specification", "oops"]),
        (r#"echo '{"ips": []}'"#, codes::IPAM_FAILED.number(), ["gave no address", "key ipam"]),
        (r#"echo '{"ips": [{"address": "x"}]}'"#, ErrorCode::DECODE.number(), ["result:", "address"]),
    ] {
        let mut world = World::new(&format!("test $CNI_COMMAND != ADD && exit 0\n{body}"));
        let error = world.add(None, Then::Keep).unwrap_err();
        assert_eq!(error.code.number(), code, "{body}: {error}");
        for part in ["IPAM plugin recording"].into_iter().chain(parts) {
            assert!(error.to_string().contains(part), "{body}: {error}");
        }
        assert_eq!(world.ipam.commands(), ["ADD", "DEL"], "{body}");
        assert_eq!(world.records(), [], "{body}");
    }
}

#[test]
fn an_add_that_fails_after_the_plugin_gave_addresses_gives_them_back() {
    let mut world = World::new(GIVES);
    let error = world.add(None, Then::RefuseAddresses).unwrap_err();
    assert_eq!(error.msg, "the kernel refused");
    assert_eq!(world.ipam.commands(), ["ADD", "DEL"]);
    let calls = world.ipam.calls();
    assert_eq!(calls[1].stdin, calls[0].stdin);
    assert_eq!(calls[1].variables["CNI_NETNS"], "/run/netns/x");
    assert_eq!(world.records(), []);
}

#[test]
fn an_add_that_fails_before_the_plugin_was_asked_leaves_nothing() {
    let mut world = World::new(GIVES);
    let error = world.add(None, Then::RefuseMove).unwrap_err();
    assert_eq!(error.msg, "the kernel refused");
    // It is told all the same: a DEL for what it does not know is no failure.
    assert_eq!((world.ipam.commands().join(" "), world.records()), ("DEL".to_owned(), vec![]));
}

#[test]
fn what_the_plugin_does_not_take_back_stays_recorded() {
    let mut world = World::new("exit 1");
    let error = world.add(None, Then::Keep).unwrap_err();
    assert!(error.details.contains("could not all be taken back: DEL of IPAM plugin recording"), "{error}");
    let [intent] = world.records().try_into().unwrap();
    let delegation = record::delegation(&intent).unwrap().unwrap();
    assert_eq!(delegation.result, None);
    assert_eq!(record::wanted(&intent).unwrap().addresses, []);

    // The ADD died while the plugin worked: the next one first has it forget whatever that was.
    RecordingIpam::install(world.folder.path(), "recording", GIVES);
    world.add(Some(&intent), Then::Keep).unwrap();
    assert_eq!(world.ipam.commands(), ["ADD", "DEL", "DEL", "ADD"]);
}

#[test]
fn a_plugin_that_is_not_there_is_named_before_anything_is_promised() {
    let mut world = World::new(GIVES);
    std::fs::remove_file(world.ipam.program()).unwrap();
    let error = world.add(None, Then::Keep).unwrap_err();
    assert_eq!(error.code, ErrorCode::INVALID_CONFIG);
    for part in ["\"recording\"", "CNI_PATH", world.folder.path().to_str().unwrap()] {
        assert!(error.to_string().contains(part), "{error}");
    }
    assert_eq!(world.records(), []);
}

#[test]
fn an_interface_keeps_the_plugin_that_gave_its_addresses() {
    let mut world = World::new(GIVES);
    let first = world.add(None, Then::Keep).unwrap();
    world.config.ipam = Some(json!({"type": "zerobridge-ipam", "subnet": "10.0.0.0/24"}));
    let error = world.add(Some(&first.record), Then::Keep).unwrap_err();
    assert_eq!(error.code, codes::INTERFACE_EXISTS);
    assert_eq!((world.records(), world.ledger.leases().unwrap()), (vec![first.record], vec![]));
}

/// A world whose addresses come from the pool in this process.
fn with_pool(ipam: serde_json::Value, requested: &[&str]) -> World {
    let mut world = World::new("exit 1");
    let mut own = json!({"type": "zerobridge-ipam", "conflictProbe": true});
    own.as_object_mut().unwrap().extend(ipam.as_object().unwrap().clone());
    let mut stdin: serde_json::Value = serde_json::from_str(&world.stdin).unwrap();
    (stdin["ipam"], stdin["args"]["cni"]["ips"]) = (own, json!(requested));
    world.stdin = stdin.to_string();
    world.config = NetworkConfig::decode(world.stdin.as_bytes()).unwrap();
    world
}

#[test]
fn an_address_that_is_anothers_is_replaced_with_its_record_at_once() {
    let ranges = json!({"ranges": [[{"subnet": "10.9.0.0/24"}], [{"subnet": "fd00::/64"}]],
        "routes": [{"dst": "0.0.0.0/0"}]});
    let mut world = with_pool(ranges, &[]);
    let promise = world.replace(&["10.9.0.2"], false).unwrap();
    let [leased, set_aside, wanted] = world.addresses();
    assert_eq!(leased, ["10.9.0.3", "fd00::2"]);
    assert_eq!(set_aside, ["10.9.0.2 02:00:00:00:00:09"]);
    assert_eq!(wanted, leased);
    assert_eq!(world.records(), [promise.record]);
    assert_eq!(promise.wanted.routes[0].gateway, Some("10.9.0.1".parse().unwrap()));
    // What is told the runtime is what was promised last.
    let told = promise.leased.ips.iter().map(|ip| ip.address.addr().to_string()).collect::<Vec<_>>();
    assert_eq!(told, wanted);
    assert_eq!(world.ledger.audit().unwrap(), []);
}

#[test]
fn a_lease_says_what_carries_its_address_after_a_replacement_too() {
    let mut world = with_pool(json!({"subnet": "10.9.0.0/24"}), &[]);
    let mut stdin: serde_json::Value = serde_json::from_str(&world.stdin).unwrap();
    (stdin["vlan"], stdin["mac"]) = (json!(100), json!("02:00:00:00:0a:01"));
    world.config = NetworkConfig::decode(stdin.to_string().as_bytes()).unwrap();
    world.replace(&["10.9.0.2"], false).unwrap();
    let leases = world.ledger.leases().unwrap();
    let carried: Vec<_> = leases.iter().map(|lease| (lease.address, lease.mac, lease.vlan)).collect();
    let mac = "02:00:00:00:0a:01".parse().unwrap();
    assert_eq!(carried, [("10.9.0.3".parse().unwrap(), Some(mac), Some(100))]);
}

#[test]
fn an_address_that_was_asked_for_is_not_replaced() {
    let mut world = with_pool(json!({"subnet": "10.9.0.0/24"}), &["10.9.0.5"]);
    let error = world.replace(&["10.9.0.5"], false).unwrap_err();
    assert_eq!(error.code, codes::ADDRESS_CONFLICT);
    for part in ["network blue", "02:00:00:00:00:09 has 10.9.0.5", "was asked for"] {
        assert!(error.to_string().contains(part), "{error}");
    }
    // Left for whoever takes the attempt back: the record. The address is nobody's of this node.
    let [leased, set_aside, wanted] = world.addresses();
    assert_eq!(
        (leased.len(), set_aside, wanted),
        (0, vec!["10.9.0.5 02:00:00:00:00:09".to_owned()], vec!["10.9.0.5".to_owned()])
    );
}

#[test]
fn what_is_found_is_kept_though_nothing_can_take_its_place() {
    let small = json!({"subnet": "10.9.0.0/24", "rangeEnd": "10.9.0.2"});
    for (ipam, is_last, code) in [
        (small, false, ErrorCode::TRY_AGAIN_LATER),
        (json!({"subnet": "10.9.0.0/24"}), true, codes::ADDRESS_CONFLICT),
    ] {
        let mut world = with_pool(ipam, &[]);
        let error = world.replace(&["10.9.0.2"], is_last).unwrap_err();
        assert_eq!(error.code, code, "{error}");
        assert!(error.to_string().contains("02:00:00:00:00:09 has 10.9.0.2"), "{error}");
        let [leased, set_aside, _] = world.addresses();
        assert_eq!((leased.len(), set_aside.len()), (0, 1));
        assert_eq!(world.ledger.audit().unwrap(), []);
    }
}
