//! What a person needs to see when a scenario failed: the guest's logs and the state of its links and ledger.

use std::fmt::Write;
use std::fs;
use std::time::Duration;

use crate::machine::{Vm, program};
use crate::prepare::tail;
use crate::programs::LEDGER;

const LIMIT: Duration = Duration::from_secs(20);
const KUBELET_LOG: &str = "kubelet.log";

/// Everything, as text. What cannot be had is replaced by the reason.
#[must_use]
pub fn report(vm: &mut Vm) -> String {
    let mut text = String::new();
    section(&mut text, "console", &vm.console());
    let mut logs: Vec<_> =
        fs::read_dir(vm.out()).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    logs.sort();
    for path in logs {
        let content = String::from_utf8_lossy(&fs::read(&path).unwrap_or_default()).into_owned();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let shown = if name == KUBELET_LOG { tail(&told_by_kubelet(&content)) } else { tail(&content) };
        section(&mut text, &name, &shown);
    }
    for argv in [
        &["dmesg", "--notime"][..],
        &["ip", "-d", "link"],
        &["ip", "netns", "list"],
        &["sqlite3", "-line", LEDGER, "SELECT * FROM attachments; SELECT * FROM leases;"],
    ] {
        let said = match vm.guest.output(program(argv), LIMIT) {
            Ok(output) => output.stdout + &output.stderr,
            Err(error) => error.to_string(),
        };
        let shown = if argv[0] == "dmesg" { tail(&said) } else { said };
        section(&mut text, &argv.join(" "), &shown);
    }
    text
}

/// Of the kubelet's log, which repeats the node's state every second: what is about pods, and what went wrong.
fn told_by_kubelet(log: &str) -> String {
    let matters = |line: &&str| line.starts_with(['E', 'F']) || line.contains("SyncLoop");
    log.lines().filter(matters).collect::<Vec<_>>().join("\n")
}

fn section(text: &mut String, title: &str, body: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "--- {title}\n{}", body.trim_end());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kubelets_chatter_is_left_out_and_its_errors_stay() {
        let log = "I1 setters.go] \"Updated capacity\"\nE2 pod_workers.go] \"Error syncing pod\"\n\
                   I3 kubelet.go] \"SyncLoop ADD\" pods=[\"default/ada-lab\"]\n";
        let told = told_by_kubelet(log);
        assert_eq!(told.lines().count(), 2);
        assert!(told.starts_with("E2") && told.contains("SyncLoop ADD"));
    }
}
