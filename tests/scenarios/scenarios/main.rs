//! Scenarios in the lab's VM, as ordinary test results.
//!
//! `cargo test -p zerobridge-scenarios` runs all, with a name or part of one (`del::`) those; `-- --list` lists them.
//! The scenarios of a group, and sometimes of several, share one VM, which boots when the first of them runs. A scenario leaves the VM as it found
//! it; one that fails spoils it, and the next gets a fresh one.
#![forbid(unsafe_code)]

mod addresses;
mod bad_input;
mod cdi;
mod chaos;
mod conformance;
mod crash;
mod defects;
mod del;
mod expect;
mod first_pod;
mod group;
mod hand;
mod health;
mod inventory;
mod lab;
mod legs;
mod node_install;
mod rdma_attachment;
mod rdma_exclusive;
mod rdma_pods;
mod rdma_shared;
mod rdma_station;
mod rolling;
mod zbctl;

use std::process::ExitCode;

use group::{Bench, Group};
use libtest_mimic::Arguments;

// Those of one VM one after the other, and in the first those that need no node before those that start one.
const GROUPS: [Group; 22] = [
    lab::GROUP,
    del::GROUP,
    addresses::GROUP,
    crash::GROUP,
    chaos::GROUP,
    bad_input::GROUP,
    first_pod::GROUP,
    inventory::GROUP,
    rolling::GROUP,
    cdi::GROUP,
    health::GROUP,
    zbctl::GROUP,
    node_install::GROUP,
    legs::GROUP,
    conformance::GROUP,
    defects::GROUP,
    rdma_shared::GROUP,
    rdma_attachment::SHARED,
    rdma_pods::SHARED,
    rdma_exclusive::GROUP,
    rdma_attachment::EXCLUSIVE,
    rdma_pods::EXCLUSIVE,
];

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // One VM at a time: an emulated one takes two processors, and times in a crowded one mislead.
    arguments.test_threads = Some(1);
    let bench = Bench::default();
    let trials = GROUPS.iter().flat_map(|group| group.trials(&bench)).collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    bench.clear();
    conclusion.exit_code()
}
