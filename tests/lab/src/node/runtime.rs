//! containerd in the guest, with the lab's image and whatever CNI plugins are installed.

use std::path::Path;
use std::time::Duration;

use crate::machine::{Guest, GuestError, program};
use crate::prepare::{IMAGE, Prepared};

const CONFIG_PATH: &str = "/etc/containerd/config.toml";
/// containerd writes a task's process here (`init.pid`) for as long as the task exists.
pub(crate) const TASKS: &str = "/run/containerd/io.containerd.runtime.v2.task/k8s.io";
const LIMIT: Duration = Duration::from_secs(120);

/// Starts containerd and imports the lab's image. Returns its process.
pub(crate) fn start(guest: &mut Guest, prepared: &Prepared) -> Result<u32, GuestError> {
    let pid = launch(guest, prepared)?;
    import(guest, prepared, &prepared.image)?;
    Ok(pid)
}

/// Starts containerd and waits until it answers. Returns its process.
///
/// # Errors
/// When it does not answer, or the VM is lost.
pub fn launch(guest: &mut Guest, prepared: &Prepared) -> Result<u32, GuestError> {
    guest.write(CONFIG_PATH, &config())?;
    let folder = prepared.containerd.display().to_string();
    let mut containerd = program(&[&format!("{folder}/containerd"), "--config", CONFIG_PATH]);
    // It looks for its shim in PATH.
    let path = format!("{folder}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    containerd.env.insert("PATH".into(), path);
    // iproute2's first namespace mounts the folder of namespaces onto itself, with what is in it by then: a pod's from before
    // would stay busy, and containerd could not remove it.
    guest.shell("ip netns add first && ip netns delete first")?;
    let pid = guest.start(containerd, "containerd")?;
    let ctr = format!("{folder}/ctr");
    guest.wait_for("containerd's first answer", LIMIT, |guest| {
        let output = guest.output(program(&[&ctr, "version"]), LIMIT)?;
        Ok(if output.code == 0 { Ok(()) } else { Err(output.stderr) })
    })?;
    Ok(pid)
}

/// Makes the image in an archive known to containerd; `archive` is a path in the guest.
///
/// # Errors
/// When containerd refuses it, or the VM is lost.
pub fn import(guest: &mut Guest, prepared: &Prepared, archive: &Path) -> Result<(), GuestError> {
    let ctr = prepared.containerd.join("ctr").display().to_string();
    let archive = archive.display().to_string();
    guest.run_within(&[&ctr, "-n", "k8s.io", "image", "import", "--local", &archive], LIMIT)?;
    Ok(())
}

/// No loopback plugin: containerd raises `lo` itself, so that Zerobridge is the only CNI plugin on the node.
fn config() -> String {
    format!(
        r#"version = 3
root = "/var/lib/containerd"
state = "/run/containerd"

[grpc]
address = "/run/containerd/containerd.sock"

[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "{IMAGE}"

[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = ["/opt/cni/bin"]
conf_dir = "/etc/cni/net.d"
use_internal_loopback = true

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
"#
    )
}
