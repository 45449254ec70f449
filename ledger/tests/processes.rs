//! The ledger under many processes and under `kill -9`.
//!
//! The processes are this test binary itself, called again with `ZEROBRIDGE_LEDGER_ROLE` set; a thread would share the
//! memory whose loss is what is tested here.
#![expect(clippy::unwrap_used, reason = "a test program, of which clippy takes the helpers for none")]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use zerobridge_ledger::{Attachment, Lease, Ledger, Owner, Sandbox, UnixSeconds};

const ROLE: &str = "ZEROBRIDGE_LEDGER_ROLE";
const DIRECTORY: &str = "ZEROBRIDGE_LEDGER_DIRECTORY";
const NUMBER: &str = "ZEROBRIDGE_LEDGER_NUMBER";

fn start(role: &str, directory: &Path, number: u32) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture", "--test-threads=1"])
        .env(ROLE, role)
        .env(DIRECTORY, directory)
        .env(NUMBER, number.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// What a process does that was started by one of the tests; nothing otherwise.
#[test]
fn child() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let directory = std::env::var(DIRECTORY).unwrap();
    let number = std::env::var(NUMBER).unwrap().parse().unwrap();
    match role.as_str() {
        "once" => once(directory.as_ref(), number),
        "churn" => churn(directory.as_ref(), number),
        other => panic!("no role {other}"),
    }
}

/// Opens the ledger and takes the first free address.
fn once(directory: &Path, number: u32) {
    let mut ledger = Ledger::open(directory).unwrap();
    let mut transaction = ledger.begin().unwrap();
    let (low, high) = ("10.0.0.1".parse().unwrap(), "10.0.15.254".parse().unwrap());
    let address = transaction.chunk("blue", low).unwrap().first_free(low, high).unwrap();
    transaction.insert_lease(&Lease { address, ..lease(number) }).unwrap();
    transaction.commit().unwrap();
}

/// Attaches and detaches for ever, telling each promise once it is made.
fn churn(directory: &Path, first: u32) {
    let mut ledger = Ledger::open(directory).unwrap();
    let mut stdout = std::io::stdout();
    for number in first..=u32::MAX {
        let mut transaction = ledger.begin().unwrap();
        transaction.insert_attachment(&attachment(number)).unwrap();
        transaction.insert_lease(&lease(number)).unwrap();
        transaction.commit().unwrap();
        writeln!(stdout, "\nmade {number}").unwrap();
        stdout.flush().unwrap();
        if number % 3 == 0 {
            let mut transaction = ledger.begin().unwrap();
            assert!(transaction.remove_attachment(&owner(number)).unwrap());
            transaction.release_leases(&owner(number), None, UnixSeconds(i64::from(number))).unwrap();
            transaction
                .end_rest("blue", UnixSeconds(i64::from(number) - 30), UnixSeconds(i64::from(number)), 3)
                .unwrap();
            transaction.commit().unwrap();
        }
    }
}

fn owner(number: u32) -> Owner {
    Owner { container_id: format!("c{number}"), ifname: "eth0".to_owned() }
}

fn lease(number: u32) -> Lease {
    Lease {
        network: "blue".to_owned(),
        address: Ipv4Addr::from_bits(0x0a00_0000 + number).into(),
        owner: owner(number),
        pod: None,
        device: None,
        mac: None,
        vlan: None,
        rdma: None,
        boot_id: "b1".to_owned(),
        created_at: UnixSeconds(0),
    }
}

fn attachment(number: u32) -> Attachment {
    let device = format!("{:04x}:{:02x}:00.0", number >> 8, number & 0xff);
    Attachment {
        device: device.parse().unwrap(),
        owner: owner(number),
        network: "blue".to_owned(),
        sandbox: Sandbox { path: "/run/netns/x".into(), dev: 4, ino: 1 },
        pod: None,
        original: "{}".to_owned(),
        wanted: "{}".to_owned(),
        boot_id: "b1".to_owned(),
        created_at: UnixSeconds(0),
    }
}

#[test]
fn sixty_four_processes_at_once_find_no_file_and_get_an_address_each() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("state");
    let children: Vec<Child> = (0..64).map(|number| start("once", &directory, number)).collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
    let ledger = Ledger::open(&directory).unwrap();
    let leases = ledger.leases().unwrap();
    let addresses: BTreeSet<_> = leases.iter().map(|lease| lease.address).collect();
    let owners: BTreeSet<_> = leases.iter().map(|lease| &lease.owner).collect();
    assert_eq!((leases.len(), addresses.len(), owners.len()), (64, 64, 64));
    assert_eq!(addresses.last().unwrap().to_string(), "10.0.0.64");
    assert_eq!(ledger.audit().unwrap(), []);
}

#[test]
fn a_process_killed_anywhere_loses_no_promise_and_leaves_none_half_made() {
    let directory = tempfile::tempdir().unwrap();
    let mut next = 1;
    for round in 0_u64..40 {
        let mut child = start("churn", directory.path(), next);
        let mut told = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut promised: Vec<u32> = Vec::new();
        let number = |line: &str| line.strip_prefix("made ").map(|number| number.parse::<u32>().unwrap());
        // Killed at another point of its work in each round: after a few promises and a part of one more.
        let few = usize::try_from(round % 7).unwrap();
        while promised.len() <= few {
            let line = told.next().expect("the process ended by itself").unwrap();
            promised.extend(number(&line));
        }
        std::thread::sleep(Duration::from_micros(round * 137 % 3000));
        child.kill().unwrap();
        child.wait().unwrap();
        promised.extend(told.map_while(Result::ok).filter_map(|line| number(&line)));

        let ledger = Ledger::open(directory.path()).unwrap();
        assert_eq!(ledger.audit().unwrap(), [], "round {round}");
        let attached: BTreeSet<Owner> = ledger.attachments().unwrap().into_iter().map(|a| a.owner).collect();
        let leased: BTreeSet<Owner> = ledger.leases().unwrap().into_iter().map(|l| l.owner).collect();
        assert_eq!(attached, leased, "round {round}");
        // A number divisible by 3 may or may not have been given back before the end.
        let kept = promised.iter().filter(|number| *number % 3 != 0);
        for number in kept {
            assert!(attached.contains(&owner(*number)), "round {round}: {number} is lost");
        }
        // One more than was told may have been committed.
        next = promised.last().unwrap() + 2;
    }
}

#[test]
fn the_processes_of_these_tests_say_when_they_fail() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut child = start("once", file.path(), 1);
    let mut told = String::new();
    child.stdout.take().unwrap().read_to_string(&mut told).unwrap();
    assert!(!child.wait().unwrap().success());
    assert!(told.contains("FAILED"), "{told}");
}
