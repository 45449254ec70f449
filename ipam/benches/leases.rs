//! What an address costs, in a pool in which nothing, a thousand and 64,000 are held: in this process, and by a whole
//! process of the program, beside the reference plugin host-local in the same run.
//!
//! `make bench` runs it with the shipped program. `ZEROBRIDGE_REFERENCE_DIR` names the folder of `host-local`; without it,
//! host-local is left out.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};
use zerobridge_ipam::{LeaseRequest, PoolConfig, lease, release};
use zerobridge_ledger::{Lease, Ledger, Owner};
use zerobridge_measure::{Outcome, figure, milliseconds, program, run, show, show_microseconds};

const REFERENCE: &str = "ZEROBRIDGE_REFERENCE_DIR";
const NETWORK: &str = "blue";
/// 10.0.0.0/16, in which 10.0.0.1 is the gateway's.
const SUBNET: &str = "10.0.0.0/16";
const FIRST: u32 = 0x0a00_0002;
const HELD: [u32; 3] = [0, 1_000, 64_000];
const REPETITIONS: u32 = 200;
/// host-local reads a file for each held address, at each call.
const FEW: u32 = 10;
const AT_ONCE: u32 = 64;

fn main() -> ExitCode {
    run(measure)
}

fn measure() -> Outcome<()> {
    for held in HELD {
        in_process(held)?;
    }
    let own = program("zerobridge-ipam", env!("CARGO_BIN_EXE_zerobridge-ipam"));
    let reference = std::env::var_os(REFERENCE).map(|folder| PathBuf::from(folder).join("host-local"));
    for held in HELD {
        let folder = tempfile::tempdir()?;
        fill_ledger(folder.path(), held)?;
        by_program(&Plugin { program: &own, folder: folder.path() }, held, REPETITIONS)?;
        let Some(reference) = &reference else { continue };
        let folder = tempfile::tempdir()?;
        fill_directory(&folder.path().join(NETWORK), held)?;
        let repetitions = if held > 1_000 { FEW } else { REPETITIONS };
        by_program(&Plugin { program: reference, folder: folder.path() }, held, repetitions)?;
    }
    Ok(())
}

fn in_process(held: u32) -> Outcome<()> {
    let folder = tempfile::tempdir()?;
    fill_ledger(folder.path(), held)?;
    let mut ledger = Ledger::open(folder.path())?;
    let pool = PoolConfig::parse(&json!({"subnet": SUBNET}), None)?;
    let (mut leases, mut releases) = (Vec::new(), Vec::new());
    for number in 0..REPETITIONS {
        let owner = owner(&format!("new{number}"));
        let now = SystemTime::now().into();
        let request = LeaseRequest {
            owner: owner.clone(),
            pod: None,
            device: None,
            mac: None,
            vlan: None,
            rdma: None,
            requested: Vec::new(),
            now,
            boot_id: "b1".to_owned(),
        };
        leases.push(timed(|| {
            let mut transaction = ledger.begin()?;
            lease(&mut transaction, NETWORK, &pool, &request)?;
            Ok(transaction.commit()?)
        })?);
        releases.push(timed(|| {
            let mut transaction = ledger.begin()?;
            release(&mut transaction, &owner, NETWORK, now)?;
            Ok(transaction.commit()?)
        })?);
    }
    show_microseconds(&format!("in process, lease, {held} held"), leases);
    show_microseconds(&format!("in process, release, {held} held"), releases);
    Ok(())
}

/// An IPAM plugin, and where it keeps its addresses.
struct Plugin<'a> {
    program: &'a Path,
    folder: &'a Path,
}

impl Plugin<'_> {
    fn name(&self) -> String {
        self.program.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    }

    fn start(&self, command: &str, container_id: &str) -> Outcome<Child> {
        // Each of the two reads its own of the two keys that say where the addresses are.
        let config = json!({
            "cniVersion": "1.0.0", "name": NETWORK, "type": "macvlan",
            "ipam": {"type": self.name(), "ranges": [[{"subnet": SUBNET}]],
                     "stateDir": self.folder, "dataDir": self.folder},
        });
        let mut child = Command::new(self.program)
            .env_clear()
            .envs([("CNI_COMMAND", command), ("CNI_CONTAINERID", container_id), ("CNI_IFNAME", "eth0")])
            .envs([("CNI_NETNS", "/run/netns/x"), ("CNI_PATH", "/opt/cni/bin")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        child.stdin.take().ok_or("no standard input")?.write_all(config.to_string().as_bytes())?;
        Ok(child)
    }

    fn call(&self, command: &str, container_id: &str) -> Outcome<()> {
        finish(self.start(command, container_id)?).map(drop)
    }
}

/// The answer of a plugin that must succeed.
fn finish(child: Child) -> Outcome<String> {
    let output = child.wait_with_output()?;
    let text = String::from_utf8(output.stdout)?;
    if output.status.success() { Ok(text) } else { Err(format!("{}: {text}", output.status).into()) }
}

fn by_program(plugin: &Plugin<'_>, held: u32, repetitions: u32) -> Outcome<()> {
    let (mut adds, mut deletes) = (Vec::new(), Vec::new());
    for number in 0..repetitions {
        let container = format!("new{number}");
        adds.push(timed(|| plugin.call("ADD", &container))?);
        deletes.push(timed(|| plugin.call("DEL", &container))?);
    }
    let name = plugin.name();
    show(&format!("{name} ADD, {held} held"), adds);
    show(&format!("{name} DEL, {held} held"), deletes);
    if held > 1_000 && repetitions == FEW {
        // An hour's work for host-local on a slow disk.
        return Ok(());
    }
    let started = Instant::now();
    let all = (0..AT_ONCE).map(|number| plugin.start("ADD", &format!("at-once{number}")));
    let answers: Vec<String> =
        all.collect::<Outcome<Vec<_>>>()?.into_iter().map(finish).collect::<Outcome<_>>()?;
    let time = started.elapsed();
    let addresses: BTreeSet<String> = answers.iter().map(|text| address_in(text)).collect::<Outcome<_>>()?;
    if addresses.len() != answers.len() {
        return Err(format!("{name} gave one of {addresses:?} twice").into());
    }
    figure(&format!("{name}, 64 at once, {held} held"), &format!("{:>7.2} ms in all", milliseconds(time)));
    Ok(())
}

fn address_in(answer: &str) -> Outcome<String> {
    let answer: Value = serde_json::from_str(answer)?;
    let address = answer.pointer("/ips/0/address").and_then(Value::as_str);
    Ok(address.ok_or("an answer without an address")?.to_owned())
}

fn timed(action: impl FnOnce() -> Outcome<()>) -> Outcome<Duration> {
    let started = Instant::now();
    action().map(|()| started.elapsed())
}

fn owner(container_id: &str) -> Owner {
    Owner { container_id: container_id.to_owned(), ifname: "eth0".to_owned() }
}

fn fill_ledger(folder: &Path, held: u32) -> Outcome<()> {
    let mut ledger = Ledger::open(folder)?;
    let mut transaction = ledger.begin()?;
    // Of this boot: those of another would be taken back.
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    for number in 0..held {
        let address = Ipv4Addr::from_bits(FIRST + number).into();
        transaction.insert_lease(&Lease {
            network: NETWORK.to_owned(),
            address,
            owner: owner(&format!("held{number}")),
            pod: None,
            device: None,
            mac: None,
            vlan: None,
            rdma: None,
            boot_id: boot_id.trim().to_owned(),
            created_at: SystemTime::now().into(),
        })?;
        transaction.set_cursor(NETWORK, 0, address)?;
    }
    Ok(transaction.commit()?)
}

/// As host-local leaves it (containernetworking/plugins, `plugins/ipam/host-local/backend/disk`).
fn fill_directory(folder: &Path, held: u32) -> Outcome<()> {
    fs::create_dir_all(folder)?;
    for number in 0..held {
        let address = Ipv4Addr::from_bits(FIRST + number);
        fs::write(folder.join(address.to_string()), format!("held{number}\r\neth0"))?;
    }
    if let Some(last) = held.checked_sub(1) {
        fs::write(folder.join("last_reserved_ip.0"), Ipv4Addr::from_bits(FIRST + last).to_string())?;
    }
    Ok(())
}
