//! What the ledger costs a short process: start, open, one durable lease, one read by owner, exit.
//!
//! `cargo bench -p zerobridge-ledger` prints percentiles beside those of a process that does nothing. The processes are
//! this program itself, called again with `ZEROBRIDGE_BENCH_DIRECTORY` set.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Instant, SystemTime};

use zerobridge_ledger::{Lease, Ledger, Owner};
use zerobridge_measure::{Outcome, conclude, figure, milliseconds, repeat, run, show};

const DIRECTORY: &str = "ZEROBRIDGE_BENCH_DIRECTORY";
const REPETITIONS: usize = 300;

fn main() -> ExitCode {
    match std::env::var_os(DIRECTORY) {
        Some(directory) => conclude(take_one_address(directory.as_ref())),
        None => run(measure),
    }
}

fn take_one_address(directory: &Path) -> Outcome<()> {
    let owner = Owner { container_id: format!("c{}", std::process::id()), ifname: "eth0".to_owned() };
    let mut ledger = Ledger::open(directory)?;
    let mut transaction = ledger.begin()?;
    let (low, high) = (address(0), address(0xffff));
    let mut at = transaction.cursor("blue", 0)?.unwrap_or(low);
    let free = loop {
        let chunk = transaction.chunk("blue", at)?;
        match chunk.first_free(low, high) {
            Some(free) => break free,
            None => at = Ipv4Addr::from_bits(bits(chunk.last()) + 1).into(),
        }
    };
    transaction.insert_lease(&lease(free, owner.clone()))?;
    transaction.set_cursor("blue", 0, free)?;
    transaction.commit()?;
    match ledger.leases_of(&owner)?.len() {
        0 => Err("the lease is lost".into()),
        _ => Ok(()),
    }
}

fn measure() -> Outcome<()> {
    show("/bin/true", repeat(REPETITIONS, || require(Command::new("/bin/true").spawn()?.wait()?))?);
    for held in [0_u16, 64_000] {
        let directory = tempfile::tempdir()?;
        fill(directory.path(), held)?;
        let process = || require(call(directory.path())?.spawn()?.wait()?);
        show(&format!("one lease, {held} held"), repeat(REPETITIONS, process)?);
    }
    for held in [0_u16, 64_000] {
        let directory = tempfile::tempdir()?;
        fill(directory.path(), held)?;
        let started = Instant::now();
        let children = (0..64).map(|_| call(directory.path())?.spawn().map_err(Into::into));
        for mut child in children.collect::<Outcome<Vec<_>>>()? {
            require(child.wait()?)?;
        }
        let all = started.elapsed();
        figure(&format!("64 at once, {held} held"), &format!("{:>7.2} ms in all", milliseconds(all)));
    }
    Ok(())
}

fn call(directory: &Path) -> Outcome<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.env(DIRECTORY, directory);
    Ok(command)
}

fn require(status: std::process::ExitStatus) -> Outcome<()> {
    if status.success() { Ok(()) } else { Err(format!("a process ended with {status}").into()) }
}

fn fill(directory: &Path, held: u16) -> Outcome<()> {
    let mut ledger = Ledger::open(directory)?;
    let mut transaction = ledger.begin()?;
    for number in 0..held {
        let owner = Owner { container_id: format!("held{number}"), ifname: "eth0".to_owned() };
        transaction.insert_lease(&lease(address(number), owner))?;
        transaction.set_cursor("blue", 0, address(number))?;
    }
    Ok(transaction.commit()?)
}

fn lease(address: IpAddr, owner: Owner) -> Lease {
    Lease {
        network: "blue".to_owned(),
        address,
        owner,
        pod: None,
        device: None,
        mac: None,
        vlan: None,
        rdma: None,
        boot_id: "b1".to_owned(),
        created_at: SystemTime::now().into(),
    }
}

fn address(number: u16) -> IpAddr {
    Ipv4Addr::from_bits(0x0a64_0000 + u32::from(number)).into()
}

fn bits(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(address) => address.to_bits(),
        IpAddr::V6(_) => 0,
    }
}
