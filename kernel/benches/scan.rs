//! What a look at a large machine costs: 16 PFs with 64 VFs each, all with a netdev.
//!
//! `cargo bench -p zerobridge-kernel --features testing` prints the first look, looks without and after a change,
//! finding the character devices of one VF, and the memory that a scanner and what it saw take. The machine is a tree of
//! files in a temporary folder: the kernel's sysfs answers faster than a disk's file system, and slower than nothing.

use std::hint::black_box;
use std::process::ExitCode;
use std::time::Instant;

use zerobridge_kernel::testing::SysfsTree;
use zerobridge_kernel::{Scanner, Sysfs};
use zerobridge_measure::{Outcome, figure, repeat, resident, run, show};

const PFS: u8 = 16;
const VFS: u8 = 64;
const REPETITIONS: usize = 200;

fn main() -> ExitCode {
    run(measure)
}

fn measure() -> Outcome<()> {
    let folder = tempfile::tempdir()?;
    let tree = SysfsTree::new(folder.path());
    let sysfs = Sysfs::new(folder.path());
    let vf = tree.add_large_machine(PFS, VFS);

    let before = resident("self")?;
    let mut scanner = Scanner::new(sysfs.clone());
    let machine = scanner.scan()?;
    let memory = resident("self")?.saturating_sub(before);
    figure("scanner and machine", &format!("{} functions, {memory} KiB", machine.functions.len()));

    show("first look", repeat(REPETITIONS, || Ok(Scanner::new(sysfs.clone()).scan().map(drop)?))?);
    show("look without a change", repeat(REPETITIONS, || Ok(scanner.scan().map(drop)?))?);
    // The change is made outside the time.
    let mut times = Vec::new();
    for round in 0..REPETITIONS {
        tree.bind(vf, Some(if round % 2 == 0 { "vfio-pci" } else { "igbvf" }));
        let started = Instant::now();
        black_box(scanner.scan()?);
        times.push(started.elapsed());
    }
    show("look after one change", times);
    show("character devices of one VF", repeat(REPETITIONS, || Ok(sysfs.character_devices(vf).map(drop)?))?);
    Ok(())
}
