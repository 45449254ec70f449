//! `zbctl ledger rebuild --apply`, killed before each of its writes.
#![expect(clippy::unwrap_used, reason = "a test program, of which clippy takes the helpers for none")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;

use zerobridge_crash::{Count, Ended, Victim};
use zerobridge_ledger::{Lease, Ledger, LedgerError, Owner, UnixSeconds};

fn lease(number: u32) -> Lease {
    Lease {
        network: "blue".to_owned(),
        address: Ipv4Addr::from_bits(0x0a4d_0000 + number).into(),
        owner: Owner { container_id: format!("c{number}"), ifname: "eth0".to_owned() },
        pod: None,
        device: None,
        mac: None,
        vlan: None,
        rdma: None,
        boot_id: "this".to_owned(),
        created_at: UnixSeconds(1),
    }
}

/// A ledger whose log has not been folded, and a machine without namespaces.
fn prepare(folder: &Path) {
    let mut ledger = Ledger::open(&folder.join("state")).unwrap();
    for number in 0..20 {
        let mut transaction = ledger.begin().unwrap();
        transaction.insert_lease(&lease(number)).unwrap();
        transaction.commit().unwrap();
    }
    fs::create_dir_all(folder.join("proc/sys/kernel/random")).unwrap();
    fs::write(folder.join("proc/sys/kernel/random/boot_id"), "this\n").unwrap();
}

fn rebuild(folder: &Path, kill_at: Option<u64>) -> Ended {
    let at = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let words = [env!("CARGO_BIN_EXE_zbctl"), "ledger", "rebuild", "--apply"];
    let mut argv: Vec<String> = words.map(str::to_owned).into();
    for (option, name) in
        [("--state-dir", "state"), ("--netns-dir", "netns"), ("--cni-cache", "results"), ("--procfs", "proc")]
    {
        argv.extend([option.to_owned(), at(name)]);
    }
    // What it makes of the copy that it works on is in its own directory.
    fs::create_dir_all(folder.join("tmp")).unwrap();
    let env = BTreeMap::from([("TMPDIR".to_owned(), at("tmp"))]);
    Victim { argv: &argv, env: &env, stdin: "" }.run(Count::Changes, kill_at).unwrap()
}

/// How far writing comes with what is there: the leases of the ledger, or that it refuses to be written.
fn leases(folder: &Path) -> Option<BTreeSet<String>> {
    let written = Ledger::open(&folder.join("state")).and_then(|mut ledger| {
        let leases = ledger.leases()?;
        ledger.begin()?.commit()?;
        Ok(leases)
    });
    match written {
        Ok(leases) => Some(leases.into_iter().map(|lease| lease.address.to_string()).collect()),
        Err(error) => {
            assert!(matches!(error, LedgerError::Behind { .. }), "{error}");
            None
        }
    }
}

#[test]
fn killed_anywhere_it_leaves_a_whole_ledger_or_one_that_is_not_written() {
    let all: BTreeSet<String> = (0..20).map(|number| lease(number).address.to_string()).collect();
    let whole = tempfile::tempdir().unwrap();
    prepare(whole.path());
    let ended = rebuild(whole.path(), None);
    assert_eq!(ended.code, 0, "{}{}", ended.stdout, ended.stderr);
    assert_eq!(leases(whole.path()), Some(all.clone()));

    // Copying and making the new one takes most of the writes, and all of them go to another directory.
    let is_in_place = |call: &&String| call.contains("state/") || !call.contains('/');
    let in_place = ended.calls.iter().filter(is_in_place).count();
    assert!(in_place > 8, "{:#?}", ended.calls);
    let mut refusals = 0;
    for kill_at in 1..=ended.calls.len() {
        if !is_in_place(&&ended.calls[kill_at - 1]) {
            continue;
        }
        let folder = tempfile::tempdir().unwrap();
        prepare(folder.path());
        let ended = rebuild(folder.path(), Some(kill_at.try_into().unwrap()));
        let place = format!("killed before {:?}", ended.calls.last());
        assert!(ended.killed, "{place}");
        let left = leases(folder.path());
        refusals += usize::from(left.is_none());
        assert!(left.is_none_or(|left| left == all), "{place}");
        let again = rebuild(folder.path(), None);
        // The directory that the killed one put the old files into is named by the second.
        if again.code != 0 {
            assert!(again.stderr.contains("ledger-replaced-"), "{place}: {}{}", again.stdout, again.stderr);
            std::thread::sleep(std::time::Duration::from_millis(1_100));
            let again = rebuild(folder.path(), None);
            assert_eq!(again.code, 0, "{place}: {}{}", again.stdout, again.stderr);
        }
        assert_eq!(leases(folder.path()), Some(all.clone()), "{place}");
    }
    assert!(refusals > 0);
}
