use std::fs::FileTimes;

use zerobridge_ledger::{Owner, SetAside};

use super::*;

/// A node with host-local's directory of a network, and a machine that was started at 1,000,000.
struct World {
    folder: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (proc, from) = (folder.path().join("proc"), folder.path().join("blue"));
        fs::create_dir_all(proc.join("sys/kernel/random")).unwrap();
        fs::write(proc.join("sys/kernel/random/boot_id"), "this\n").unwrap();
        fs::write(proc.join("stat"), "cpu 1 2 3\nbtime 1000000\nprocesses 7\n").unwrap();
        fs::create_dir(from).unwrap();
        let world = Self { folder };
        world.file("lock", "");
        world.file("last_reserved_ip.0", "10.0.0.9");
        world.file("10.0.0.9", "c1\r\neth0");
        world.file("10.0.0.10", "c2\r\neth0");
        world.file("fd00::9", "c1\r\neth0");
        world
    }

    fn file(&self, name: &str, content: &str) {
        let path = self.folder.path().join("blue").join(name);
        fs::write(&path, content).unwrap();
        let written = UNIX_EPOCH + Duration::from_secs(if name == "10.0.0.10" { 999_000 } else { 1_000_500 });
        let file = fs::File::options().write(true).open(path).unwrap();
        file.set_times(FileTimes::new().set_modified(written)).unwrap();
    }

    fn ledger(&self) -> Ledger {
        Ledger::open(&self.folder.path().join("state")).unwrap()
    }

    fn adopt(&self, apply: bool) -> (Finding, String) {
        let at = |name: &str| self.folder.path().join(name);
        let arguments = AdoptArguments {
            from: at("blue"),
            network: "blue".to_owned(),
            apply,
            state_dir: at("state"),
            procfs: at("proc"),
        };
        let mut out = Vec::new();
        let finding = run(&arguments, &mut out).unwrap();
        (finding, String::from_utf8(out).unwrap())
    }
}

fn owner(container_id: &str) -> Owner {
    Owner { container_id: container_id.to_owned(), ifname: "eth0".to_owned() }
}

#[test]
fn addresses_become_leases_once_and_only_when_told_to() {
    let world = World::new();
    let (finding, told) = world.adopt(false);
    assert_eq!(finding, Finding::Fine);
    assert!(told.contains("10.0.0.10: eth0 of container c2, from before the last reboot\n"), "{told}");
    assert!(told.contains("nothing was changed: 3 of"), "{told}");
    assert_eq!(world.ledger().leases().unwrap(), []);

    assert_eq!(world.adopt(true).0, Finding::Fine);
    let leases = world.ledger().leases().unwrap();
    let shown: Vec<(String, &str, i64)> =
        leases.iter().map(|lease| (lease.address.to_string(), &*lease.boot_id, lease.created_at.0)).collect();
    let expected = [
        ("10.0.0.9", "this", 1_000_500),
        ("10.0.0.10", EARLIER_BOOT, 999_000),
        ("fd00::9", "this", 1_000_500),
    ];
    assert_eq!(shown, expected.map(|(address, boot, at)| (address.to_owned(), boot, at)));
    assert_eq!(world.ledger().cursor("blue", 0).unwrap(), Some("10.0.0.9".parse().unwrap()));
    assert_eq!(world.ledger().audit().unwrap(), []);

    let (finding, told) = world.adopt(true);
    assert!(
        finding == Finding::Fine && told.contains("took over 0 of") && told.contains("3 known"),
        "{told}"
    );
    assert_eq!(world.ledger().leases().unwrap(), leases);
    // A DEL finds its lease by the owner that host-local wrote down.
    let mut ledger = world.ledger();
    let mut transaction = ledger.begin().unwrap();
    assert_eq!(
        transaction.release_leases(&owner("c1"), Some("blue"), UnixSeconds(1_000_600)).unwrap().len(),
        2
    );
}

#[test]
fn a_file_without_an_owner_is_named_and_keeps_everything_from_being_changed() {
    let world = World::new();
    world.file("10.0.0.11", "");
    let (finding, told) = world.adopt(true);
    assert_eq!(finding, Finding::Problem);
    assert!(told.contains("blue/10.0.0.11: it is empty") && told.contains("delete the file"), "{told}");
    assert_eq!(world.ledger().leases().unwrap(), []);
    fs::remove_file(world.folder.path().join("blue/10.0.0.11")).unwrap();
    assert_eq!(world.adopt(true).0, Finding::Fine);
}

#[test]
fn an_address_that_another_has_here_is_a_conflict_and_one_that_rests_is_none() {
    let world = World::new();
    world.adopt(true);
    let mut ledger = world.ledger();
    let mut transaction = ledger.begin().unwrap();
    transaction.release_leases(&owner("c1"), None, UnixSeconds(1_000_600)).unwrap();
    transaction.commit().unwrap();
    world.file("10.0.0.9", "c7\r\neth0");
    world.file("fd00::9", "c7\r\neth0");
    assert_eq!(world.adopt(true).0, Finding::Fine);
    assert_eq!(ledger.leases_of(&owner("c7")).unwrap().len(), 2);

    world.file("10.0.0.10", "c8\r\neth0");
    let (finding, told) = world.adopt(true);
    assert_eq!(finding, Finding::Problem);
    assert!(
        told.contains("host-local gave it to eth0 of container c8, and the ledger to eth0 of container c2"),
        "{told}"
    );
    assert_eq!(world.ledger().audit().unwrap(), []);
}

#[test]
fn an_address_that_was_set_aside_for_a_foreign_host_is_taken_over_too() {
    let world = World::new();
    let mut ledger = world.ledger();
    let mut transaction = ledger.begin().unwrap();
    let found = SetAside {
        network: "blue".to_owned(),
        address: "10.0.0.9".parse().unwrap(),
        mac: "02:00:00:00:00:09".parse().unwrap(),
        found_for: owner("c3"),
        seen_at: UnixSeconds(1_000_400),
    };
    transaction.insert_set_aside(&found).unwrap();
    transaction.commit().unwrap();
    assert_eq!(world.adopt(true).0, Finding::Fine);
    assert_eq!(ledger.lease_at("blue", found.address).unwrap().unwrap().owner, owner("c1"));
    assert_eq!((ledger.set_aside().unwrap(), ledger.audit().unwrap()), (vec![], vec![]));
}

#[test]
fn a_directory_that_is_not_there_is_named() {
    let world = World::new();
    fs::remove_dir_all(world.folder.path().join("blue")).unwrap();
    let arguments = AdoptArguments {
        from: world.folder.path().join("blue"),
        network: "blue".to_owned(),
        apply: true,
        state_dir: world.folder.path().join("state"),
        procfs: world.folder.path().join("proc"),
    };
    let error = run(&arguments, &mut Vec::new()).unwrap_err();
    assert!(error.to_string().contains("blue"), "{error}");
}
