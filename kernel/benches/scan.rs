//! What a look at a large machine costs: 16 PFs with 64 VFs each, all with a netdev.
//!
//! `cargo bench -p zerobridge-kernel --features testing` prints the first look, looks without and after a change,
//! finding the character devices of one VF, and the memory that a scanner and what it saw take. The machine is a tree of
//! files in a temporary folder: the kernel's sysfs answers faster than a disk's file system, and slower than nothing.

use std::error::Error;
use std::fs;
use std::hint::black_box;
use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use zerobridge_kernel::testing::SysfsTree;
use zerobridge_kernel::{Scanner, Sysfs};

const PFS: u8 = 16;
const VFS: u8 = 64;
const REPETITIONS: u32 = 200;

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    // `cargo test --benches` runs this too, and measures nothing.
    if std::env::args().all(|argument| argument != "--bench") {
        return ExitCode::SUCCESS;
    }
    match measure() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(&format!("failed: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn measure() -> Outcome<()> {
    let folder = tempfile::tempdir()?;
    let tree = SysfsTree::new(folder.path());
    let sysfs = Sysfs::new(folder.path());
    let vf = tree.add_large_machine(PFS, VFS);

    let before = resident()?;
    let mut scanner = Scanner::new(sysfs.clone());
    let machine = scanner.scan()?;
    let memory = resident()?.saturating_sub(before);
    report(&format!("{:28} {} functions, {memory} KiB", "scanner and machine", machine.functions.len()));

    show("first look", timed(|| Ok(Scanner::new(sysfs.clone()).scan().map(drop)?))?);
    show("look without a change", timed(|| Ok(scanner.scan().map(drop)?))?);
    // The change is made outside the time.
    let mut times = Vec::new();
    for round in 0..REPETITIONS {
        tree.bind(vf, Some(if round % 2 == 0 { "vfio-pci" } else { "igbvf" }));
        let started = Instant::now();
        black_box(scanner.scan()?);
        times.push(started.elapsed());
    }
    show("look after one change", times);
    show("character devices of one VF", timed(|| Ok(sysfs.character_devices(vf).map(drop)?))?);
    Ok(())
}

fn timed(mut action: impl FnMut() -> Outcome<()>) -> Outcome<Vec<Duration>> {
    (0..REPETITIONS)
        .map(|_| {
            let started = Instant::now();
            action()?;
            Ok(started.elapsed())
        })
        .collect()
}

/// The memory of this process in KiB, the kernel's `VmRSS`.
fn resident() -> Outcome<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

fn show(name: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let percentile = |percent: usize| times[times.len() * percent / 100].as_secs_f64() * 1000.0;
    report(&format!("{name:28} p50 {:>6.2} ms   p99 {:>6.2} ms", percentile(50), percentile(99)));
}

fn report(line: &str) {
    // Without standard output there is nobody to tell.
    let _ = writeln!(std::io::stdout(), "{line}");
}
