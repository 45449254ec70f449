//! `zbctl node` on a machine that fails: killed before each of its changes, on a full and on a read-only disk.
//!
//! Needs root, for the disks are real ones of a mount namespace of their own.
#![expect(clippy::unwrap_used, reason = "a test program, of which clippy takes the helpers for none")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use zerobridge_crash::{Count, Ended, Victim};

const ZBCTL: &str = env!("CARGO_BIN_EXE_zbctl");

/// Every file with its content and its mode.
type Tree = BTreeMap<String, (String, u32)>;

/// Programs of a version, two networks, and what others have where they go.
fn prepare(folder: &Path) {
    version(folder, 1);
    for (name, text) in [
        ("bin/sriov", "the other sriov"),
        ("bin/bridge", "another plugin"),
        ("net.d/10-pods.conflist", "the other network"),
        ("net.d/99-loopback.conf", "another network"),
    ] {
        write(folder, name, text);
    }
    fs::set_permissions(folder.join("bin/sriov"), fs::Permissions::from_mode(0o711)).unwrap();
    for name in ["run", "cdi", "kubelet", "sys/bus/pci/devices"] {
        fs::create_dir_all(folder.join(name)).unwrap();
    }
}

fn version(folder: &Path, version: u32) {
    for name in ["zerobridge", "zerobridge-ipam", "zbctl"] {
        write(folder, &format!("from/{name}"), &format!("{name} {version}").repeat(2000));
    }
    let network = serde_json::json!({
        "cniVersion": "1.1.0", "name": "pods",
        "plugins": [{"type": "zerobridge", "vlan": version, "stateDir": folder.join("state")}],
    });
    for name in ["10-pods", "20-more"] {
        write(folder, &format!("from/{name}.conflist"), &network.to_string());
    }
}

fn write(folder: &Path, name: &str, text: &str) {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// What is in the folders of the runtime and of the state.
fn tree(folder: &Path) -> Tree {
    let mut found = Tree::new();
    for name in ["bin", "net.d", "sbin", "state"] {
        for entry in fs::read_dir(folder.join(name)).into_iter().flatten().flatten() {
            let name = format!("{name}/{}", entry.file_name().to_str().unwrap());
            let mode = entry.metadata().unwrap().permissions().mode() & 0o7777;
            // The ledger is no text.
            let text = String::from_utf8_lossy(&fs::read(entry.path()).unwrap()).into_owned();
            found.insert(name, (text, mode));
        }
    }
    found
}

fn install(folder: &Path, networks: &[&str]) -> Vec<String> {
    let at = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let mut argv: Vec<String> = [ZBCTL, "node", "install", "--as", "sriov"].map(str::to_owned).into();
    for (option, name) in [
        ("--from", "from"),
        ("--cni-bin-dir", "bin"),
        ("--cni-conf-dir", "net.d"),
        ("--state-dir", "state"),
        ("--with-zbctl", "sbin"),
    ] {
        argv.extend([option.to_owned(), at(name)]);
    }
    for network in networks {
        argv.extend(["--network".to_owned(), at(&format!("from/{network}.conflist"))]);
    }
    argv
}

fn uninstall(folder: &Path, more: &[&str]) -> Vec<String> {
    let at = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let mut argv: Vec<String> = [ZBCTL, "node", "uninstall", "--apply"].map(str::to_owned).into();
    for (option, name) in [
        ("--state-dir", "state"),
        ("--run-dir", "run"),
        ("--cdi-dir", "cdi"),
        ("--devinfo-dir", "devinfo"),
        ("--kubelet-root", "kubelet"),
        ("--sysfs", "sys"),
    ] {
        argv.extend([option.to_owned(), at(name)]);
    }
    argv.extend(more.iter().map(|&word| word.to_owned()));
    argv
}

fn run(argv: &[String], kill_at: Option<u64>) -> Ended {
    Victim { argv, env: &BTreeMap::new(), stdin: "" }.run(Count::Changes, kill_at).unwrap()
}

#[track_caller]
fn must(argv: &[String]) {
    let ended = run(argv, None);
    assert_eq!(ended.code, 0, "{argv:?}: {}{}", ended.stdout, ended.stderr);
}

/// Kills `command` before each of its changes, each time on a node that `before` has prepared. What is left has all that
/// others had, is repaired by `repair`, and then taken off without a trace.
fn kill_everywhere(
    before: impl Fn(&Path),
    command: impl Fn(&Path) -> Vec<String>,
    repair: impl Fn(&Path) -> Vec<String>,
    whole: impl Fn(&Path) -> Tree,
) -> usize {
    for kill_at in 1.. {
        let node = tempfile::tempdir().unwrap();
        let folder = node.path();
        prepare(folder);
        let original = tree(folder);
        before(folder);
        let ended = run(&command(folder), Some(kill_at));
        if !ended.killed {
            assert_eq!(ended.code, 0, "{}{}", ended.stdout, ended.stderr);
            return ended.calls.len();
        }
        let place = format!("killed before {:?}, number {kill_at}", ended.calls.last());
        let left = tree(folder);
        for (name, (text, _)) in &original {
            let anywhere = left.values().any(|(there, _)| there == text);
            assert!(anywhere, "{place}: {name} is lost: {left:#?}");
        }
        // A runtime finds either program, whole, at any moment.
        let sriov = &left["bin/sriov"].0;
        let ours = sriov.starts_with("zerobridge ") && sriov.len().is_multiple_of(2000);
        assert!(ours || sriov == "the other sriov", "{place}: {sriov}");

        let argv = repair(folder);
        let repaired = run(&argv, None);
        assert_eq!(repaired.code, 0, "{place}: {}{}", repaired.stdout, repaired.stderr);
        let expected = whole(folder);
        let without_record = |mut tree: Tree| {
            tree.retain(|name, _| !name.starts_with("state/"));
            tree
        };
        assert_eq!(without_record(tree(folder)), without_record(expected), "{place}");
        must(&uninstall(folder, &[]));
        assert_eq!(tree(folder), original, "{place}");
        assert!(!folder.join("state").exists() && !folder.join("sbin").exists(), "{place}");
    }
    0
}

/// What an installation by nobody else leaves.
fn installed(version: u32, networks: &'static [&'static str]) -> impl Fn(&Path) -> Tree {
    move |folder| {
        let other = tempfile::tempdir().unwrap();
        prepare(other.path());
        self::version(other.path(), version);
        // The networks name their own folder.
        for name in ["10-pods", "20-more"] {
            let name = format!("from/{name}.conflist");
            let text = fs::read_to_string(folder.join(&name)).unwrap();
            let [there, here] = [folder, other.path()].map(|path| path.join("state"));
            let text = text.replace(there.to_str().unwrap(), here.to_str().unwrap());
            fs::write(other.path().join(&name), text).unwrap();
        }
        must(&install(other.path(), networks));
        let [there, here] = [folder, other.path()].map(|path| path.to_str().unwrap().to_owned());
        tree(other.path())
            .into_iter()
            .map(|(name, (text, mode))| (name, (text.replace(&here, &there), mode)))
            .collect()
    }
}

fn original(_: &Path) -> Tree {
    let node = tempfile::tempdir().unwrap();
    prepare(node.path());
    tree(node.path())
}

const BOTH: &[&str] = &["10-pods", "20-more"];
const ONE: &[&str] = &["20-more"];

#[test]
fn a_killed_installation_is_completed_by_the_next_one() {
    let changes = kill_everywhere(
        |_| (),
        |folder| install(folder, BOTH),
        |folder| install(folder, BOTH),
        installed(1, BOTH),
    );
    assert!(changes > 30, "{changes}");
}

#[test]
fn a_killed_installation_is_taken_off() {
    kill_everywhere(|_| (), |folder| install(folder, BOTH), |folder| uninstall(folder, &[]), original);
}

/// Programs of another version, and a network that goes.
#[test]
fn a_killed_upgrade_is_completed_by_the_next_one() {
    let before = |folder: &Path| {
        must(&install(folder, BOTH));
        version(folder, 2);
    };
    let changes = kill_everywhere(
        before,
        |folder| install(folder, ONE),
        |folder| install(folder, ONE),
        installed(2, ONE),
    );
    assert!(changes > 30, "{changes}");
}

#[test]
fn a_killed_upgrade_is_taken_off() {
    let before = |folder: &Path| {
        must(&install(folder, BOTH));
        version(folder, 2);
    };
    kill_everywhere(before, |folder| install(folder, ONE), |folder| uninstall(folder, &[]), original);
}

#[test]
fn a_killed_uninstallation_is_completed_by_the_next_one() {
    let before = |folder: &Path| {
        must(&install(folder, BOTH));
        drop(zerobridge_ledger::Ledger::open(&folder.join("state")).unwrap());
    };
    let changes =
        kill_everywhere(before, |folder| uninstall(folder, &[]), |folder| uninstall(folder, &[]), original);
    assert!(changes > 20, "{changes}");
}

#[test]
fn a_killed_uninstallation_is_installed_again() {
    let before = |folder: &Path| {
        must(&install(folder, BOTH));
        drop(zerobridge_ledger::Ledger::open(&folder.join("state")).unwrap());
    };
    kill_everywhere(
        before,
        |folder| uninstall(folder, &[]),
        |folder| install(folder, BOTH),
        installed(1, BOTH),
    );
}

/// Does `work` with a disk of this size mounted at a folder, which nobody else sees.
fn on_a_disk(kibibytes: u32, work: impl FnOnce(&Path) + Send) {
    let folder = tempfile::tempdir().unwrap();
    let inside = || {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
        let options = format!("size={kibibytes}k");
        fs::create_dir(folder.path().join("bin")).unwrap();
        let bin = folder.path().join("bin");
        mount(Some("tmpfs"), &bin, Some("tmpfs"), MsFlags::empty(), Some(options.as_str())).unwrap();
        prepare(folder.path());
        work(folder.path());
    };
    // The programs that it starts are in its namespace, the other tests are not.
    std::thread::scope(|scope| scope.spawn(inside).join().unwrap());
}

fn remount(bin: &Path, flags: MsFlags, options: &str) {
    mount(None::<&str>, bin, None::<&str>, MsFlags::MS_REMOUNT | flags, Some(options)).unwrap();
}

#[test]
fn on_a_full_disk_nothing_half_written_is_left() {
    for kibibytes in [12, 28, 40, 60, 80] {
        on_a_disk(kibibytes, |folder| {
            let before = tree(folder);
            let ended = run(&install(folder, BOTH), None);
            let said = ended.stdout + &ended.stderr;
            assert_eq!(ended.code, 1, "{kibibytes} KiB are enough: {said}");
            assert!(said.contains("make room on the file system of") && said.contains("bin"), "{said}");
            assert_eq!(tree(folder), before);
            assert!(!folder.join("state").exists() && !folder.join("sbin").exists());
            remount(&folder.join("bin"), MsFlags::empty(), "size=4m");
            must(&install(folder, BOTH));
            // An upgrade needs room for both.
            let whole = tree(folder);
            remount(&folder.join("bin"), MsFlags::empty(), "size=100k");
            version(folder, 2);
            let ended = run(&install(folder, BOTH), None);
            assert_eq!(ended.code, 1, "{}", ended.stdout);
            assert_eq!(tree(folder), whole, "the version before stays whole, and remembered as such");
            must(&uninstall(folder, &[]));
            assert_eq!(tree(folder), before);
        });
    }
}

#[test]
fn a_read_only_folder_is_named_with_what_to_do() {
    on_a_disk(4096, |folder| {
        let bin = folder.join("bin");
        let before = tree(folder);
        remount(&bin, MsFlags::MS_RDONLY, "size=4m");
        let ended = run(&install(folder, BOTH), None);
        assert_eq!(ended.code, 1, "{}", ended.stdout);
        let expected = format!("{} is read-only here: mount it writable", bin.display());
        assert!(ended.stderr.contains(&expected), "{}", ended.stderr);
        assert_eq!(tree(folder), before);
        remount(&bin, MsFlags::empty(), "size=4m");
        must(&install(folder, BOTH));
        remount(&bin, MsFlags::MS_RDONLY, "size=4m");
        let ended = run(&uninstall(folder, &[]), None);
        assert!(ended.code == 1 && ended.stdout.contains("Read-only file system"), "{}", ended.stdout);
        assert_eq!(tree(folder)["net.d/10-pods.conflist"].0, "the other network", "what can be done is done");
        remount(&bin, MsFlags::empty(), "size=4m");
        must(&uninstall(folder, &[]));
        assert_eq!(tree(folder), before);
    });
}

struct Ends(Child);

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn one_that_stays_sleeps_until_it_is_told_to_end() {
    let node = tempfile::tempdir().unwrap();
    prepare(node.path());
    must(&install(node.path(), BOTH));
    let argv = uninstall(node.path(), &["--stay"]);
    let mut stays = Ends(Command::new(&argv[0]).args(&argv[1..]).stdout(Stdio::null()).spawn().unwrap());
    let process = format!("/proc/{}", stays.0.id());
    // Asleep for good, and not in one of the waits before.
    let is_asleep = || !node.path().join("state").exists();
    let started = Instant::now();
    while !is_asleep() {
        assert!(started.elapsed() < Duration::from_secs(30));
        std::thread::sleep(Duration::from_millis(20));
    }
    // The handler is what SigCgt tells: bit 14 for signal 15 (proc_pid_status(5)).
    let handles = || {
        let status = fs::read_to_string(format!("{process}/status")).unwrap();
        let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap().trim().to_owned();
        u64::from_str_radix(&mask, 16).unwrap() & (1 << 14) != 0
    };
    while !handles() {
        assert!(started.elapsed() < Duration::from_secs(30));
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(stays.0.try_wait().unwrap().is_none());
    // User and system time, in ticks of 10 ms (fields 14 and 15 in proc_pid_stat(5)).
    let ticks = || -> u64 {
        let stat = fs::read_to_string(format!("{process}/stat")).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        fields[11..13].iter().map(|field| field.parse::<u64>().unwrap()).sum()
    };
    let before = ticks();
    std::thread::sleep(Duration::from_secs(1));
    assert!(ticks() - before <= 1, "it works while it waits");
    kill(Pid::from_raw(stays.0.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
    assert_eq!(stays.0.wait().unwrap().code(), Some(0));
}
