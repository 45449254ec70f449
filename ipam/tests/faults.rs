//! The program `zerobridge-ipam` on a machine that fails: killed before each of its writes, on a full and on a read-only
//! disk, with a ledger that is cut short, scribbled on or without its log. Each time it either goes on properly or says
//! clearly what is wrong, and never gives an address to two containers.
//!
//! Needs root, for the disks are real ones of a mount namespace of their own.
#![expect(clippy::unwrap_used, reason = "a test program, of which clippy takes the helpers for none")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use serde_json::{Value, json};
use zerobridge_crash::{Count, Victim};
use zerobridge_ledger::Ledger;

const PROGRAM: &str = env!("CARGO_BIN_EXE_zerobridge-ipam");

/// A pool in a directory.
struct Pool {
    directory: PathBuf,
    subnet: &'static str,
}

/// The exit code and what is on standard output.
#[derive(Debug)]
struct Answer {
    code: i32,
    said: Value,
    #[expect(dead_code, reason = "shown when a test fails")]
    log: String,
}

impl Pool {
    fn new(directory: &Path, subnet: &'static str) -> Self {
        Self { directory: directory.to_owned(), subnet }
    }

    fn stdin(&self) -> String {
        json!({
            "cniVersion": "1.1.0", "name": "blue", "type": "macvlan",
            "ipam": {"type": "zerobridge-ipam", "subnet": self.subnet, "stateDir": self.directory},
        })
        .to_string()
    }

    fn variables(command: &str, container_id: &str) -> BTreeMap<String, String> {
        [
            ("CNI_COMMAND", command),
            ("CNI_CONTAINERID", container_id),
            ("CNI_NETNS", "/run/netns/gone"),
            ("CNI_IFNAME", "eth0"),
            ("CNI_PATH", "/opt/cni/bin"),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
    }

    fn call(&self, command: &str, container_id: &str) -> Answer {
        let mut child = Command::new(PROGRAM)
            .envs(Self::variables(command, container_id))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(self.stdin().as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let said = if text.is_empty() { Value::Null } else { serde_json::from_str(&text).unwrap() };
        let code = output.status.code().unwrap();
        Answer { code, said, log: String::from_utf8(output.stderr).unwrap() }
    }

    /// The address of a container, or the message of the error, which must be one that an operator can act on.
    fn add(&self, container_id: &str) -> Result<String, String> {
        let answer = self.call("ADD", container_id);
        match answer.code {
            0 => Ok(answer.said["ips"][0]["address"].as_str().unwrap().to_owned()),
            _ => Err(answer.clear_error()),
        }
    }

    fn del(&self, container_id: &str) -> Result<(), String> {
        let answer = self.call("DEL", container_id);
        if answer.code == 0 { Ok(()) } else { Err(answer.clear_error()) }
    }

    /// Fails unless it goes well.
    #[track_caller]
    fn must_add(&self, container_id: &str) -> String {
        self.add(container_id).unwrap()
    }

    /// Runs a command and kills it before its write number `kill_at`. `true` if it lived that long.
    fn kill(&self, command: &str, container_id: &str, kill_at: u64) -> (bool, Vec<String>) {
        let (argv, stdin) = ([PROGRAM.to_owned()], self.stdin());
        let env = Self::variables(command, container_id);
        let ended =
            Victim { argv: &argv, env: &env, stdin: &stdin }.run(Count::Changes, Some(kill_at)).unwrap();
        assert!(ended.killed || ended.code == 0, "{}{}", ended.stdout, ended.stderr);
        (ended.killed, ended.calls)
    }
}

impl Answer {
    /// The message of an error, after it has been seen to name a file of the ledger, and to have the code of its kind.
    #[track_caller]
    fn clear_error(&self) -> String {
        assert_eq!(self.code, 1, "{self:?}");
        let text = |key: &str| self.said[key].as_str().unwrap_or_default().to_owned();
        let message = format!("{}: {}", text("msg"), text("details"));
        assert_eq!(self.said["code"], json!(5), "{self:?}");
        assert!(message.contains("ledger."), "no file is named: {self:?}");
        message
    }
}

/// Copies the files of a directory into a new one.
fn copy_of(directory: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    copy
}

/// Kills `command` of `container_id` before each of its writes, each time in a copy of `prepared`, then lets `judge` see
/// what is left. Returns the writes.
fn kill_everywhere(
    prepared: &Path,
    command: &str,
    container_id: &str,
    judge: impl Fn(&Pool, &str),
) -> Vec<String> {
    for kill_at in 1.. {
        let copy = copy_of(prepared);
        let pool = Pool::new(copy.path(), "10.0.0.0/29");
        let (killed, calls) = pool.kill(command, container_id, kill_at);
        let place = format!("killed before write {kill_at}: {calls:#?}");
        judge(&pool, &place);
        if !killed {
            return calls;
        }
    }
    unreachable!()
}

/// Five containers get the five addresses of the pool, and the sixth is told that it is full.
fn the_pool_is_whole(pool: &Pool, containers: [&str; 5], place: &str) -> BTreeMap<String, String> {
    let mut given = BTreeMap::new();
    for container in containers {
        let address = pool.add(container);
        assert!(address.is_ok(), "{place}: {address:?}");
        given.insert(container.to_owned(), address.unwrap());
    }
    assert_eq!(given.values().collect::<BTreeSet<_>>().len(), 5, "{place}: {given:?}");
    let sixth = pool.call("ADD", "sixth");
    assert_eq!(sixth.said["code"], json!(11), "{place}: {sixth:?}");
    let ledger = Ledger::open(&pool.directory).unwrap();
    assert_eq!(ledger.audit().unwrap(), [], "{place}");
    given
}

#[test]
fn killed_before_any_write_of_an_add_nothing_is_lost_and_nothing_given_twice() {
    let prepared = tempfile::tempdir().unwrap();
    let pool = Pool::new(prepared.path(), "10.0.0.0/29");
    let held: Vec<String> = ["c1", "c2"].iter().map(|container| pool.must_add(container)).collect();
    let writes = kill_everywhere(prepared.path(), "ADD", "c3", |pool, place| {
        // The container that died in the middle is asked for last: it must still have, or get, an address of its own.
        let given = the_pool_is_whole(pool, ["c1", "c2", "c4", "c5", "c3"], place);
        assert_eq!([&given["c1"], &given["c2"]], [&held[0], &held[1]], "{place}");
    });
    // The log, and the number of transactions beside it.
    assert!(writes.iter().any(|call| call.contains("ledger.db-wal")), "{writes:?}");
    assert!(writes.iter().any(|call| call.contains("ledger.lock")), "{writes:?}");
}

#[test]
fn killed_before_any_write_of_the_first_add_the_next_one_makes_the_ledger() {
    let prepared = tempfile::tempdir().unwrap();
    let writes = kill_everywhere(prepared.path(), "ADD", "c1", |pool, place| {
        the_pool_is_whole(pool, ["c1", "c2", "c3", "c4", "c5"], place);
    });
    assert!(writes.len() > 10, "{writes:?}");
}

#[test]
fn killed_before_any_write_of_a_delete_the_next_delete_does_it() {
    let prepared = tempfile::tempdir().unwrap();
    let pool = Pool::new(prepared.path(), "10.0.0.0/29");
    for container in ["c1", "c2", "c3", "c4", "c5"] {
        pool.must_add(container);
    }
    kill_everywhere(prepared.path(), "DEL", "c2", |pool, place| {
        assert_eq!(pool.del("c2"), Ok(()), "{place}");
        the_pool_is_whole(pool, ["c1", "c3", "c4", "c5", "new"], place);
    });
}

#[test]
fn killed_before_any_write_while_the_log_is_folded_nothing_is_lost() {
    let prepared = tempfile::tempdir().unwrap();
    let pool = Pool::new(prepared.path(), "10.0.0.0/29");
    let held = pool.must_add("c1");
    let log = prepared.path().join("ledger.db-wal");
    let mut ledger = Ledger::open(prepared.path()).unwrap();
    for number in 0_u32.. {
        let mut transaction = ledger.begin().unwrap();
        transaction.set_cursor("green", 0, std::net::Ipv4Addr::from_bits(number).into()).unwrap();
        // One transaction before the log is long enough to be folded.
        if fs::metadata(&log).unwrap().len() > 64 * 4096 - 3 * 4096 {
            break;
        }
        transaction.commit().unwrap();
    }
    drop(ledger);
    let writes = kill_everywhere(prepared.path(), "ADD", "c2", |pool, place| {
        let given = the_pool_is_whole(pool, ["c1", "c2", "c3", "c4", "c5"], place);
        assert_eq!(given["c1"], held, "{place}");
    });
    assert!(writes.iter().any(|call| call.ends_with("ledger.db")), "it was not folded: {writes:?}");
}

#[test]
fn killed_before_any_write_of_a_migration_the_ledger_is_the_old_one_or_the_new_one() {
    let prepared = tempfile::tempdir().unwrap();
    let path = prepared.path().join("ledger.db");
    let old = concat!(env!("CARGO_MANIFEST_DIR"), "/../ledger/src/schema/1.sql");
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let boot_id = boot_id.trim();
    let script = format!(
        "PRAGMA journal_mode = wal; {} PRAGMA application_id = 1514294343; PRAGMA user_version = 1;
         INSERT INTO leases VALUES ('blue', 4, x'0a000002', '10.0.0.2', 'c1', 'eth0', NULL, '{boot_id}', 10, NULL);
         INSERT INTO chunks VALUES ('blue', 4, x'0a000000', zeroblob(512));",
        fs::read_to_string(old).unwrap()
    );
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection.execute_batch(&script).unwrap();
    let mut taken = [0_u8; 512];
    taken[0] = 0b100;
    connection.execute("UPDATE chunks SET taken = ?1", [taken]).unwrap();
    drop(connection);
    kill_everywhere(prepared.path(), "ADD", "c2", |pool, place| {
        let given = the_pool_is_whole(pool, ["c1", "c2", "c3", "c4", "c5"], place);
        assert_eq!(given["c1"], "10.0.0.2/29", "{place}");
    });
}

/// Runs `work` on a disk of its own: a tmpfs of `kibibytes` in a mount namespace that ends with it.
fn on_a_disk(kibibytes: u32, work: impl FnOnce(&Path) + Send) {
    let folder = tempfile::tempdir().unwrap();
    let inside = || {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
        let options = format!("size={kibibytes}k");
        mount(Some("tmpfs"), folder.path(), Some("tmpfs"), MsFlags::empty(), Some(options.as_str())).unwrap();
        work(folder.path());
    };
    // The programs that it starts are in its namespace, the other tests are not.
    std::thread::scope(|scope| scope.spawn(inside).join().unwrap());
}

fn remount(disk: &Path, flags: MsFlags, options: &str) {
    mount(None::<&str>, disk, None::<&str>, MsFlags::MS_REMOUNT | flags, Some(options)).unwrap();
}

#[test]
fn a_full_disk_is_an_error_and_what_was_given_before_stays_given() {
    for kibibytes in (4..=160).step_by(12) {
        on_a_disk(kibibytes, |disk| {
            let pool = Pool::new(&disk.join("state"), "10.0.0.0/22");
            let mut given = BTreeMap::new();
            let mut failures = 0;
            for number in 0..40 {
                let container = format!("c{number}");
                match pool.add(&container) {
                    Ok(address) => assert_eq!(given.insert(address, container), None),
                    Err(_) => failures += 1,
                }
                if failures > 2 {
                    break;
                }
            }
            assert!(failures > 0, "{kibibytes} KiB are enough for {} containers", given.len());
            remount(disk, MsFlags::empty(), "size=4m");
            for (address, container) in &given {
                assert_eq!(pool.must_add(container), *address);
            }
            for number in 100..105 {
                let container = format!("c{number}");
                assert_eq!(given.insert(pool.must_add(&container), container), None);
            }
            assert_eq!(Ledger::open(&pool.directory).unwrap().audit().unwrap(), []);
        });
    }
}

#[test]
fn a_read_only_disk_is_an_error_that_says_so() {
    on_a_disk(4096, |disk| {
        let pool = Pool::new(&disk.join("state"), "10.0.0.0/22");
        remount(disk, MsFlags::MS_RDONLY, "size=4m");
        assert!(pool.call("ADD", "c1").said["details"].as_str().unwrap().contains("Read-only file system"));
        remount(disk, MsFlags::empty(), "size=4m");
        let address = pool.must_add("c1");
        remount(disk, MsFlags::MS_RDONLY, "size=4m");
        let (add, delete) = (pool.add("c2").unwrap_err(), pool.del("c1").unwrap_err());
        assert!(
            add.contains("Read-only file system") && delete.contains("Read-only file system"),
            "{add}; {delete}"
        );
        remount(disk, MsFlags::empty(), "size=4m");
        assert_eq!(pool.must_add("c1"), address);
        assert_ne!(pool.must_add("c2"), address);
    });
}

/// A pool with some 300 containers, whose ledger is many pages long, and the addresses that they have. With `folded`, all of
/// it is in `ledger.db`; else what came last is in the log alone.
fn large(directory: &Path, folded: bool) -> BTreeSet<String> {
    const LOG: u64 = 20 * 4096;
    let pool = Pool::new(directory, "10.0.0.0/22");
    let mut held: BTreeSet<String> = (0..300).map(|number| pool.must_add(&format!("c{number}"))).collect();
    fold(directory);
    let is_short = || fs::metadata(directory.join("ledger.db-wal")).unwrap().len() < LOG;
    held.extend(
        (300..).take_while(|_| !folded && is_short()).map(|number| pool.must_add(&format!("c{number}"))),
    );
    held
}

fn fold(directory: &Path) {
    let connection = rusqlite::Connection::open(directory.join("ledger.db")).unwrap();
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    connection.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).unwrap();
}

/// Calls the program on a spoilt copy of a ledger: whatever it answers, no address of `held` may go to another container.
/// Returns whether all went well.
fn nothing_twice(prepared: &Path, held: &BTreeSet<String>, what: &str, spoil: impl FnOnce(&Path)) -> bool {
    let copy = copy_of(prepared);
    spoil(copy.path());
    let pool = Pool::new(copy.path(), "10.0.0.0/22");
    let mut given = BTreeSet::new();
    let mut errors = Vec::new();
    for container in ["n1", "n2", "n3"] {
        match pool.add(container) {
            Ok(address) => {
                assert!(!held.contains(&address), "{what}: {address} was given to {container}, too");
                assert!(given.insert(address), "{what}: the same twice");
            }
            Err(error) => errors.push(error),
        }
    }
    let known =
        ["is damaged", "is not a ledger", "transactions, and", "failed", "cannot be read", "is leased to"];
    for error in &errors {
        assert!(known.iter().any(|part| error.contains(part)), "{what}: {error}");
    }
    errors.is_empty()
}

#[test]
fn a_ledger_that_was_cut_short_gives_nothing_twice() {
    let prepared = tempfile::tempdir().unwrap();
    let held = large(prepared.path(), true);
    let length = fs::metadata(prepared.path().join("ledger.db")).unwrap().len();
    let pages = length / 4096;
    assert!(pages > 15, "{pages} pages");
    let odd = [0, 1, 15, 16, 50, 99, 100, 511, 512, 1000, 4095, 4097];
    let whole = (1..pages).flat_map(|page| [page * 4096, page * 4096 + 2048]);
    for cut in odd.into_iter().chain(whole) {
        let cut_short = |directory: &Path| {
            fs::OpenOptions::new()
                .write(true)
                .open(directory.join("ledger.db"))
                .unwrap()
                .set_len(cut)
                .unwrap();
        };
        let well = nothing_twice(prepared.path(), &held, &format!("cut to {cut}"), cut_short);
        assert!(!well, "cut to {cut} of {length} bytes, and nobody noticed");
    }
    // One byte less is one byte changed, which only its meaning could tell.
    nothing_twice(prepared.path(), &held, "one byte less", |directory| {
        fs::OpenOptions::new()
            .write(true)
            .open(directory.join("ledger.db"))
            .unwrap()
            .set_len(length - 1)
            .unwrap();
    });
    assert!(nothing_twice(prepared.path(), &held, "whole", |_| ()));
}

#[test]
fn a_ledger_with_scribbled_pages_gives_nothing_twice() {
    let prepared = tempfile::tempdir().unwrap();
    let held = large(prepared.path(), true);
    let path = prepared.path().join("ledger.db");
    let pages = usize::try_from(fs::metadata(&path).unwrap().len()).unwrap() / 4096;
    let mut noise = 0x9e37_79b9_u32;
    let mut random = move || {
        noise ^= noise << 13;
        noise ^= noise >> 17;
        noise ^= noise << 5;
        noise.to_le_bytes()[0]
    };
    let mut noticed = 0;
    for page in 0..pages {
        for (scribble, first) in
            [("zeros", 0), ("ones", 0), ("noise", 0), ("noise", 2048), ("another page", 0)]
        {
            let what = format!("{scribble} in page {page} from byte {first}");
            let well = nothing_twice(prepared.path(), &held, &what, |directory| {
                let mut bytes = fs::read(directory.join("ledger.db")).unwrap();
                let other = bytes[(page + 1) % pages * 4096..][..4096].to_vec();
                for (place, byte) in bytes[page * 4096..][..4096].iter_mut().enumerate().skip(first) {
                    *byte = match scribble {
                        "zeros" => 0,
                        "ones" => 0xff,
                        "noise" => random(),
                        _ => other[place],
                    };
                }
                fs::write(directory.join("ledger.db"), bytes).unwrap();
            });
            noticed += usize::from(!well);
        }
    }
    assert!(noticed > pages, "{noticed} of {} were noticed", pages * 5);
}

#[test]
fn a_ledger_that_lost_its_log_gives_nothing_twice() {
    let prepared = tempfile::tempdir().unwrap();
    let held = large(prepared.path(), false);
    let log = |directory: &Path| directory.join("ledger.db-wal");
    let length = fs::metadata(log(prepared.path())).unwrap().len();
    assert!(length > 4096 * 10, "{length}");
    assert!(!nothing_twice(prepared.path(), &held, "deleted", |directory| fs::remove_file(log(directory))
        .unwrap()));
    assert!(!nothing_twice(prepared.path(), &held, "both deleted", |directory| {
        fs::remove_file(log(directory)).unwrap();
        fs::remove_file(directory.join("ledger.db")).unwrap();
    }));
    assert!(!nothing_twice(prepared.path(), &held, "garbage", |directory| {
        fs::write(log(directory), vec![0x5a; usize::try_from(length).unwrap()]).unwrap();
    }));
    for cut in [0, 31, 32, 100, 4096, length / 2, length - 4096, length - 1] {
        let cut_short = |directory: &Path| {
            fs::OpenOptions::new().write(true).open(log(directory)).unwrap().set_len(cut).unwrap();
        };
        assert!(!nothing_twice(prepared.path(), &held, &format!("cut to {cut}"), cut_short), "cut to {cut}");
    }
    for frame in [0, 3, (length - 32) / 4120 - 1] {
        let what = format!("a byte of frame {frame}");
        assert!(
            !nothing_twice(prepared.path(), &held, &what, |directory| {
                let mut bytes = fs::read(log(directory)).unwrap();
                bytes[usize::try_from(32 + frame * 4120 + 24 + 77).unwrap()] ^= 0xff;
                fs::write(log(directory), bytes).unwrap();
            }),
            "{what}"
        );
    }
    // The index is made anew from the log.
    assert!(nothing_twice(prepared.path(), &held, "index deleted", |directory| {
        fs::remove_file(directory.join("ledger.db-shm")).unwrap();
    }));
    assert!(nothing_twice(prepared.path(), &held, "index scribbled on", |directory| {
        let length = fs::metadata(directory.join("ledger.db-shm")).unwrap().len();
        fs::write(directory.join("ledger.db-shm"), vec![0x5a; usize::try_from(length).unwrap()]).unwrap();
    }));
}
