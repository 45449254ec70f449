//! Scenarios in a cluster of two nodes with Multus, as ordinary test results.
//!
//! `make cluster-lab-test` runs all, `cargo test -p zerobridge-cluster --test scenarios -- NAME` those with that in their name.
//! All share one cluster, which comes up when the first of them runs. A scenario leaves it as it found it; one that fails
//! spoils it, and the next gets a fresh one.
#![forbid(unsafe_code)]

mod bench;
mod expect;
mod lab;

use std::process::ExitCode;

use bench::{Bench, Group};
use libtest_mimic::Arguments;

const GROUPS: [Group; 1] = [lab::GROUP];

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // One cluster at a time; and its programs end with the thread that has started them, which must be this one.
    arguments.test_threads = Some(1);
    let bench = Bench::default();
    let trials = GROUPS.iter().flat_map(|group| group.trials(&bench)).collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    bench.clear();
    conclusion.exit_code()
}
