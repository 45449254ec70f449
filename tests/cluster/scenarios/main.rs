//! Zerobridge on a cluster of two nodes, as users meet it: `kubectl apply`, a DaemonSet, Multus, pods on both nodes.
//!
//! `make cluster-scenarios` runs all; `cargo test -p zerobridge-cluster --test scenarios -- multus::` those of a group. The scenarios
//! of a group run in one cluster, in the order in which they stand, and each goes on from where the one before ended; when
//! one fails, those that follow it fail too.
#![forbid(unsafe_code)]

mod expect;
mod group;
mod install;
mod lab;
mod migrate;
mod multus;
mod overlay;
mod pods;
mod power;
mod rdma;
mod removal;
mod requests;
mod standalone;
mod update;

use std::process::ExitCode;

use group::{Bench, Group};
use libtest_mimic::Arguments;

const GROUPS: [Group; 3] = [
    lab::GROUP,
    Group {
        name: "multus",
        cluster: "multus",
        multus: true,
        scenarios: &[
            ("an_overlay_gives_each_node_its_vfs", multus::install),
            ("pods_of_a_deployment_reach_each_other_on_both_nodes", multus::deployment),
            ("everything_is_restarted_and_nothing_is_lost", multus::restarts),
            ("an_update_keeps_running_pods", update::to_another_image),
            ("a_pod_that_names_a_network_gets_its_request", requests::added),
            ("a_node_loses_its_power_and_comes_back", power::lost_and_back),
            ("two_pods_on_two_nodes_talk_by_rdma", rdma::between_nodes),
            ("removal_waits_for_pods_and_leaves_the_nodes_as_they_were", removal::refused_and_done),
            ("what_was_removed_is_installed_again", removal::again),
            ("configurations_of_the_older_plugins_work_unchanged", migrate::unchanged),
        ],
    },
    Group {
        name: "standalone",
        cluster: "standalone",
        multus: false,
        scenarios: &[
            ("a_vf_is_the_only_interface_and_probes_reach_it", standalone::probes),
            ("nodes_and_pods_see_each_other_under_their_own_addresses", standalone::addresses),
        ],
    },
];

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // They go on from each other, and a cluster takes both processors.
    arguments.test_threads = Some(1);
    let bench = Bench::default();
    let trials = GROUPS.iter().flat_map(|group| group.trials(&bench)).collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    bench.clear();
    conclusion.exit_code()
}
