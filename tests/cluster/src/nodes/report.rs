//! What a person needs to see when something failed in a cluster.

use std::fmt::Write as _;
use std::time::Duration;

use zerobridge_lab::{program, report as report_of_vm};

use super::cluster::Cluster;
use super::node::ClusterNode;
use crate::process::end_of_log;

const LIMIT: Duration = Duration::from_secs(30);
const QUESTIONS: [&[&str]; 5] = [
    &["get", "nodes", "-o", "wide"],
    &["get", "pods", "-A", "-o", "wide"],
    &["get", "daemonsets,deployments,jobs", "-A"],
    &["get", "events", "-A", "--sort-by=.lastTimestamp"],
    &["describe", "nodes"],
];
/// What containers have said, by pod.
const PODS: &str = "for log in /var/log/pods/*/*/*.log; do
    if [ -e \"$log\" ]; then echo \"== $log\"; tail -n 40 \"$log\"; fi
done";

/// Everything, as text. What cannot be had is replaced by the reason.
pub(super) fn report(cluster: &mut Cluster) -> String {
    let mut text = String::new();
    for question in QUESTIONS {
        let said = cluster.kubectl(question).unwrap_or_else(|error| error.to_string());
        section(&mut text, &format!("kubectl {}", question.join(" ")), &said);
    }
    for name in ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "etcd"] {
        section(&mut text, name, &end_of_log(cluster.folder(), name));
    }
    for node in cluster.nodes_mut() {
        let said = report_of(node);
        section(&mut text, &format!("node {}", node.name()), &said);
    }
    text
}

fn report_of(node: &mut ClusterNode) -> String {
    let Ok(vm) = node.vm() else { return "switched off".to_owned() };
    let mut text = report_of_vm(vm);
    let said = match vm.guest.output(program(&["sh", "-c", PODS]), LIMIT) {
        Ok(output) => output.stdout,
        Err(error) => error.to_string(),
    };
    section(&mut text, "containers", &said);
    text
}

fn section(text: &mut String, title: &str, body: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "--- {title}\n{}", body.trim_end());
}
