use std::fs;

use serde_json::json;
use zerobridge_kernel::testing::TestNetns;
use zerobridge_ledger::{Block, ClaimedPod, Lease, Owner};

use super::*;
use crate::cli::SurveyArguments;
use crate::ledger::fixture::lease;

const MAC: &str = "02:00:00:00:00:77";
const BOOT: &str = "this";

/// A node on which `c5` lives, and the runtime remembers it.
struct World {
    folder: tempfile::TempDir,
    _pod: TestNetns,
}

impl World {
    fn new(leases: &[Lease]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open(&folder.path().join("state")).unwrap();
        let mut transaction = ledger.begin().unwrap();
        for lease in leases {
            transaction.insert_lease(lease).unwrap();
        }
        transaction.commit().unwrap();
        for name in ["results", "netns", "proc/sys/kernel/random"] {
            fs::create_dir_all(folder.path().join(name)).unwrap();
        }
        fs::write(folder.path().join("proc/sys/kernel/random/boot_id"), BOOT).unwrap();
        let pod = TestNetns::new();
        pod.ip(&format!("link add eth0 address {MAC} type veth peer name other"));
        pod.ip("addr add 10.77.0.5/24 dev eth0");
        std::os::unix::fs::symlink(pod.netns().path(), folder.path().join("netns/pod")).unwrap();
        let record = cached::testing::record("blue", "c5", "eth0", "zerobridge-ipam", MAC, "10.77.0.5/24");
        fs::write(folder.path().join("results/blue-c5-eth0"), record).unwrap();
        Self { folder, _pod: pod }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn evidence(&self) -> EvidenceArguments {
        let survey = SurveyArguments {
            networks: Vec::new(),
            state_dir: self.at("state"),
            netns_dir: self.at("netns"),
            cni_cache: self.at("results"),
            procfs: self.at("proc"),
        };
        EvidenceArguments { survey, ip_blocks: None, node: None }
    }

    fn ledger(&self) -> Ledger {
        Ledger::open(&self.at("state")).unwrap()
    }

    fn audit_with(&self, json: bool, evidence: EvidenceArguments) -> (Finding, String) {
        let mut out = Vec::new();
        let finding = run(&AuditArguments { json, evidence }, &mut out).unwrap();
        (finding, String::from_utf8(out).unwrap())
    }

    /// The report, which is also written to a file.
    fn report(&self) -> Report {
        let (_, text) = self.audit_with(true, self.evidence());
        fs::write(self.at("report.json"), &text).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    fn repair(&self, apply: bool) -> Result<(Finding, String), Failure> {
        let arguments =
            RepairArguments { from_report: self.at("report.json"), apply, evidence: self.evidence() };
        let mut out = Vec::new();
        let finding = repair(&arguments, &mut out)?;
        Ok((finding, String::from_utf8(out).unwrap()))
    }
}

#[test]
fn a_node_on_which_all_is_well_has_no_faults() {
    let world = World::new(&[lease(5, BOOT, 1)]);
    let (finding, told) = world.audit_with(false, world.evidence());
    assert_eq!(
        (finding, told.as_str()),
        (Finding::Fine, "0 faults at sequence 1, of which repair can put right 0\n")
    );
}

#[test]
fn every_fault_of_leases_is_found_in_both_directions_and_put_right() {
    let fresh = UnixSeconds::from(SystemTime::now()).0;
    // A leg's lease is none of them, though it is of an earlier boot and no pod has the address.
    let of_leg = Lease { owner: Owner::leg("pods"), ..lease(10, "earlier", 1) };
    let leases = [lease(6, BOOT, 1), lease(7, BOOT, fresh), lease(8, "earlier", 1), of_leg];
    let world = World::new(&leases);
    let mut ledger = world.ledger();
    let mut transaction = ledger.begin().unwrap();
    transaction.set_mark("blue", leases[1].address, false).unwrap();
    transaction.set_mark("blue", lease(9, BOOT, 1).address, true).unwrap();
    transaction.commit().unwrap();

    let report = world.report();
    let told: Vec<String> = report.faults.iter().map(ToString::to_string).collect();
    let expected = [
        "10.77.0.6 of network blue is leased to eth0 of container c6, and no interface has it",
        "10.77.0.8 of network blue was leased to eth0 of container c8 before the last reboot",
        "10.77.0.5 of network blue is in use by eth0 of container c5, and not leased",
        "10.77.0.7 of network blue is taken, and counted as free",
        "10.77.0.9 of network blue is free, and counted as taken",
    ];
    assert_eq!(told, expected);

    let before = ledger.sequence().unwrap();
    let (finding, told) = world.repair(false).unwrap();
    assert!(
        finding == Finding::Fine && told.ends_with("5 can be put right, 0 cannot; --apply does it\n"),
        "{told}"
    );
    assert_eq!(ledger.sequence().unwrap(), before);

    let (finding, told) = world.repair(true).unwrap();
    assert!(finding == Finding::Fine && told.ends_with("put right: 5; left: 0\n"), "{told}");
    assert_eq!(world.report().faults, BTreeSet::new());
    let owners: Vec<String> =
        ledger.leases().unwrap().into_iter().map(|lease| lease.owner.container_id).collect();
    assert_eq!(owners, ["c5", "c7", "node:leg"]);
    assert_eq!(ledger.resting_in("blue").unwrap().len(), 2);
}

#[test]
fn what_is_no_longer_so_is_left_and_a_report_of_another_ledger_or_boot_is_refused() {
    let world = World::new(&[lease(5, BOOT, 1), lease(6, BOOT, 1)]);
    let report = world.report();
    assert_eq!(report.faults.len(), 1);
    let mut ledger = world.ledger();
    let mut transaction = ledger.begin().unwrap();
    transaction.free_address("blue", lease(6, BOOT, 1).address).unwrap();
    transaction.insert_lease(&Lease { owner: lease(16, BOOT, 1).owner, ..lease(6, BOOT, 1) }).unwrap();
    transaction.commit().unwrap();
    let (_, told) = world.repair(true).unwrap();
    assert!(told.starts_with("no longer so: 10.77.0.6"), "{told}");
    assert_eq!(ledger.leases().unwrap().len(), 2);

    let refused = |change: &dyn Fn(&mut Report)| {
        let mut report = report.clone();
        change(&mut report);
        fs::write(world.at("report.json"), serde_json::to_string(&report).unwrap()).unwrap();
        world.repair(true).unwrap_err().to_string()
    };
    let error = refused(&|report| report.sequence = 900);
    assert!(error.contains("900") && error.contains("audit again"), "{error}");
    let error = refused(&|report| report.boot_id = "earlier".to_owned());
    assert!(error.contains("last reboot"), "{error}");
    fs::write(world.at("report.json"), "{\"faults\": 3}").unwrap();
    assert!(world.repair(true).unwrap_err().to_string().contains("zbctl ipam audit --json"));
}

#[test]
fn while_something_is_not_seen_no_lease_is_called_abandoned() {
    let world = World::new(&[lease(5, BOOT, 1), lease(6, BOOT, 1)]);
    std::os::unix::fs::symlink("/proc/self/ns/uts", world.at("netns/strange")).unwrap();
    let report = world.report();
    let [Fault::Unseen { what }] = &Vec::from_iter(report.faults)[..] else { panic!("more than that") };
    assert!(what.contains("strange"), "{what}");
    let (finding, told) = world.repair(true).unwrap();
    assert!(finding == Finding::Problem && told.starts_with("for a person to see to"), "{told}");
}

#[test]
fn blocks_are_compared_with_their_objects_and_leases_with_blocks() {
    let world = World::new(&[lease(5, BOOT, 1)]);
    let mut ledger = world.ledger();
    let mut transaction = ledger.begin().unwrap();
    transaction.name_incarnation("i1").unwrap();
    let spec = json!({"subnet": "10.77.0.0/24", "blockSize": 16}).to_string();
    transaction.put_pool("gold", &spec, UnixSeconds(1)).unwrap();
    transaction.bind_pool("gold", "blue").unwrap();
    let net = "10.77.0.16/28".parse().unwrap();
    let block = Block { pool: "gold".to_owned(), net, claimed_at: UnixSeconds(1), draining: false };
    transaction.enter_block(&block).unwrap();
    transaction.commit().unwrap();

    let object = |index: u32, block: &str, node: &str| {
        json!({"apiVersion": "zerobridge.io/v1alpha1", "kind": "IPBlock", "metadata": {"name": format!("gold-{index}")},
               "spec": {"pool": "gold", "index": index, "block": block,
                        "holder": {"node": node, "incarnation": "i1", "bootId": BOOT}}})
    };
    let told_with = |objects: serde_json::Value| {
        fs::write(world.at("blocks.json"), json!({"kind": "List", "items": objects}).to_string()).unwrap();
        let evidence = EvidenceArguments {
            ip_blocks: Some(world.at("blocks.json")),
            node: Some("n1".to_owned()),
            ..world.evidence()
        };
        world.audit_with(false, evidence).1
    };
    let outside =
        "10.77.0.5 of network blue is leased, and is of pool gold in a block that is not this node's\n";
    let told = told_with(json!([object(1, "10.77.0.16/28", "n1")]));
    assert!(told.starts_with(outside) && told.contains("1 faults"), "{told}");
    let told = told_with(json!([object(1, "10.77.0.16/28", "n2"), object(3, "10.77.0.48/28", "n1")]));
    assert!(told.contains("block 10.77.0.16/28 of pool gold is in the ledger, and no IPBlock"), "{told}");
    assert!(told.contains("block 10.77.0.48/28 of pool gold is this ledger's"), "{told}");

    // One that is a pod's own lies in no block of the node.
    let mut transaction = ledger.begin().unwrap();
    let (pool, namespace, name) = ("gold".to_owned(), "team".to_owned(), "web-0".to_owned());
    let address = Some("10.77.0.5".parse().unwrap());
    transaction.enter_claim(&ClaimedPod { pool, namespace, name, claim: "u".to_owned(), address }).unwrap();
    transaction.commit().unwrap();
    let told = told_with(json!([object(1, "10.77.0.16/28", "n1")]));
    assert!(told.contains("0 faults"), "{told}");
}

#[test]
fn where_there_is_no_ledger_none_is_made() {
    let world = World::new(&[]);
    let mut evidence = world.evidence();
    evidence.survey.state_dir = world.at("nowhere");
    let error = run(&AuditArguments { json: false, evidence }, &mut Vec::new()).unwrap_err().to_string();
    assert!(error.contains("nowhere") && !world.at("nowhere").exists(), "{error}");
}
