//! The programs on a real node: attached once to the control group of all pods, before any pod is there.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use super::ServicesError;
use crate::lab::Lab;
use crate::machine::{GuestError, State, program};
use crate::node::{BLUE, PodRequest};

const LIMIT: Duration = Duration::from_secs(60);
const PINS: &str = "/run/services";
const CGROUP: &str = "/sys/fs/cgroup/kubepods";
/// A Service of the made up table, and a request of no bytes to its backend.
const ASK: &str = r"printf '\000\000\000\000\000\000\000\000' | nc -w 5 10.97.0.5 80";

/// Has a container reach a Service: one pod by a kubelet and a containerd, with a VF as its only interface, and one in whose
/// namespace the backends are.
///
/// # Errors
/// When the node does not come up, or the container does not get its answer.
pub fn services_in_pods(
    lab: &mut Lab,
    services: &Path,
    object: &Path,
    out: &mut dyn Write,
) -> Result<(), ServicesError> {
    let [services, object] = [services, object].map(|path| path.display().to_string());
    let (guest, node) = lab.node()?;
    guest.shell(&format!("mkdir -p {PINS} && mount -t bpf bpf {PINS}"))?;
    let bpf = ["bpf", "--object", &object, "--cgroup", CGROUP, "--pins", PINS, "--services", "10"];
    guest.run(&[&[services.as_str()], &bpf[..]].concat())?;

    let pods = node.run_pods(guest, &["client", "backend"].map(|name| PodRequest::with_one(name, BLUE)))?;
    let [client, backend] = pods.as_slice() else {
        return Err(GuestError::Refused { message: format!("{} pods instead of two", pods.len()) }.into());
    };
    let [from, to] = [&client.netns, &backend.netns];
    guest.shell(&format!(
        "ip -n {to} route add local 10.128.0.0/12 dev lo
         ip -n {from} route add 10.128.0.0/12 via {}",
        backend.ip
    ))?;
    let server = guest.start(program(&["ip", "netns", "exec", to, &services, "serve"]), "services-pod")?;
    let said = guest.wait_for("an answer of the Service", LIMIT, |guest| {
        if let State::Ended(code) = guest.state(server)? {
            return Err(GuestError::Refused { message: format!("the backend ended with {code}") });
        }
        let output = client.output(guest, &["sh", "-c", ASK])?;
        let right =
            output.stdout.starts_with("10.132.0.") && output.stdout.contains(&format!(" {}:", client.ip));
        Ok(if right { Ok(output.stdout) } else { Err(format!("{}{}", output.stdout, output.stderr)) })
    })?;
    writeln!(out, "\na container of a pod asked 10.97.0.5:80; backend and source were {}", said.trim_end())?;
    guest.kill(server)?;
    node.delete_pods(guest, &pods)?;
    Ok(())
}
