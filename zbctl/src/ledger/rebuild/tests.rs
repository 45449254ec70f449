use std::fs;

use zerobridge_kernel::testing::TestNetns;
use zerobridge_ledger::{Lease, Ledger, SetAside};

use super::*;
use crate::cli::SurveyArguments;
use crate::ledger::fixture;

const MAC: &str = "02:00:00:00:00:77";

/// A node with a ledger of 400 leases, of which `c5` lives in a namespace and `c6`, too, and the runtime's memory of them.
struct World {
    folder: tempfile::TempDir,
    _pods: [TestNetns; 2],
}

fn lease(number: u32) -> Lease {
    fixture::lease(number, "this", 1)
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open(&folder.path().join("state")).unwrap();
        let mut transaction = ledger.begin().unwrap();
        for number in 5..405 {
            transaction.insert_lease(&lease(number)).unwrap();
        }
        transaction.commit().unwrap();
        for name in ["results", "netns", "proc/sys/kernel/random"] {
            fs::create_dir_all(folder.path().join(name)).unwrap();
        }
        fs::write(folder.path().join("proc/sys/kernel/random/boot_id"), "this\n").unwrap();
        let pods = [5, 6].map(|number| {
            let net = format!("10.77.0.{number}/24");
            let pod = TestNetns::new();
            pod.ip(&format!("link add eth0 address {MAC} type veth peer name other"));
            pod.ip(&format!("addr add {net} dev eth0"));
            std::os::unix::fs::symlink(pod.netns().path(), folder.path().join("netns").join(pod.name()))
                .unwrap();
            let container = format!("c{number}");
            let record = cached::testing::record("blue", &container, "eth0", "zerobridge-ipam", MAC, &net);
            fs::write(folder.path().join(format!("results/blue-{container}-eth0")), record).unwrap();
            pod
        });
        Self { folder, _pods: pods }
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    fn arguments(&self) -> RebuildArguments {
        let at = |name: &str| self.folder.path().join(name);
        let survey = SurveyArguments {
            networks: Vec::new(),
            state_dir: self.state(),
            netns_dir: at("netns"),
            cni_cache: at("results"),
            procfs: at("proc"),
        };
        RebuildArguments { survey, apply: false, despite_unseen: false }
    }

    fn rebuild(&self, change: impl FnOnce(&mut RebuildArguments)) -> (Finding, String) {
        let mut arguments = self.arguments();
        change(&mut arguments);
        let mut out = Vec::new();
        let finding = run(&arguments, &mut out).unwrap();
        (finding, String::from_utf8(out).unwrap())
    }

    fn damage(&self) {
        for name in ["ledger.db", "ledger.db-wal"] {
            fs::write(self.state().join(name), "nothing that anybody can read").unwrap();
        }
    }
}

#[test]
fn of_a_ledger_that_is_lost_the_addresses_of_living_pods_are_found_and_not_given_again() {
    let world = World::new();
    world.damage();
    assert!(Ledger::open(&world.state()).is_err());
    let (finding, told) = world.rebuild(|_| ());
    assert_eq!(finding, Finding::Fine);
    assert!(
        told.contains("in use and not in the ledger: 10.77.0.5 of network blue, eth0 of container c5"),
        "{told}"
    );
    assert!(told.contains("nothing was changed"), "{told}");
    assert!(Ledger::open(&world.state()).is_err());

    let (finding, told) = world.rebuild(|arguments| arguments.apply = true);
    assert_eq!(finding, Finding::Fine);
    let mut ledger = Ledger::open(&world.state()).unwrap();
    let leases = ledger.leases().unwrap();
    let owners: Vec<&str> = leases.iter().map(|lease| lease.owner.container_id.as_str()).collect();
    assert_eq!(owners, ["c5", "c6"]);
    assert_eq!(leases[0].pod.as_ref().unwrap().uid.as_deref(), Some("u-1"));
    assert_eq!(leases[0].mac, Some(MAC.parse().unwrap()));
    let mut transaction = ledger.begin().unwrap();
    assert!(transaction.insert_lease(&Lease { owner: lease(9).owner, ..lease(5) }).is_err());
    transaction.insert_lease(&lease(9)).unwrap();
    transaction.commit().unwrap();
    let aside = told.lines().last().unwrap().split(" in ").last().unwrap();
    assert!(fs::read(PathBuf::from(aside).join("ledger.db")).unwrap().starts_with(b"nothing that"), "{told}");
}

#[test]
fn of_a_whole_ledger_nothing_is_lost_and_an_address_in_use_neither_rests_nor_is_set_aside() {
    let world = World::new();
    let mut ledger = Ledger::open(&world.state()).unwrap();
    let mut transaction = ledger.begin().unwrap();
    transaction.release_leases(&lease(5).owner, None, UnixSeconds(2)).unwrap();
    let foreign = SetAside {
        network: "blue".to_owned(),
        address: lease(6).address,
        mac: MAC.parse().unwrap(),
        found_for: lease(6).owner,
        seen_at: UnixSeconds(2),
    };
    transaction.insert_set_aside(&foreign).unwrap();
    transaction.commit().unwrap();
    assert_eq!(world.rebuild(|arguments| arguments.apply = true).0, Finding::Fine);
    let ledger = Ledger::open(&world.state()).unwrap();
    assert_eq!(ledger.leases().unwrap().len(), 400);
    assert_eq!((ledger.resting_in("blue").unwrap(), ledger.set_aside().unwrap()), (vec![], vec![]));
    assert_eq!(ledger.audit().unwrap(), []);
}

#[test]
fn a_namespace_that_cannot_be_looked_into_is_a_problem_unless_told_otherwise() {
    let world = World::new();
    world.damage();
    std::os::unix::fs::symlink("/proc/self/ns/uts", world.folder.path().join("netns/strange")).unwrap();
    let (finding, told) = world.rebuild(|arguments| arguments.apply = true);
    assert!(
        finding == Finding::Problem && told.contains("problem: what addresses") && told.contains("strange"),
        "{told}"
    );
    assert!(Ledger::open(&world.state()).is_err());
    let (finding, _) = world.rebuild(|arguments| (arguments.apply, arguments.despite_unseen) = (true, true));
    assert_eq!(finding, Finding::Fine);
    assert_eq!(Ledger::open(&world.state()).unwrap().leases().unwrap().len(), 2);
}

#[test]
fn where_no_ledger_ever_was_that_is_said() {
    let world = World::new();
    let nowhere = world.folder.path().join("results");
    let mut arguments = world.arguments();
    arguments.survey.state_dir = nowhere;
    let error = run(&arguments, &mut Vec::new()).unwrap_err();
    assert!(error.to_string().contains("ledger.db"), "{error}");
}
