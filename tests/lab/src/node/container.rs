//! Programs in containers without privileges: in one that is started by hand beside the kubelet's, or in a pod's own.
//!
//! What they may do is what the runtime leaves them, which [`Pod::output`] does not show: it keeps root's capabilities.

use super::Node;
use super::pod::Pod;
use crate::machine::{Guest, GuestError};
use crate::prepare::RDMA_IMAGE;

/// Of nobody, and of nobody's group.
pub(super) const USER: u32 = 65534;
/// The one capability that verbs may need, for memory beyond the limit of what may be locked.
pub(super) const LOCK: &str = "IPC_LOCK";
/// What containerd gives a container that does not say otherwise.
const USUAL: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

impl Node {
    /// Makes [`RDMA_IMAGE`] known to the runtime, which takes it for the same one if it is again.
    ///
    /// # Errors
    /// When the runtime refuses it, or the VM is lost.
    pub fn import_rdma_image(&self, guest: &mut Guest) -> Result<(), GuestError> {
        let archive = self.prepared.rdma_image.display().to_string();
        guest.run(&[&self.ctr(), "-n", "k8s.io", "image", "import", "--local", &archive])?;
        Ok(())
    }

    /// The words that run a program in a new container of [`RDMA_IMAGE`], once: in a network namespace that exists, as
    /// nobody, with one capability, the runtime's usual system calls, and these device nodes.
    #[must_use]
    pub fn unprivileged(&mut self, namespace: &str, nodes: &[&str]) -> Vec<String> {
        let capability = |name: &&str| ["--cap-drop".to_owned(), format!("CAP_{name}")];
        let mut words = [&self.ctr(), "-n", "k8s.io", "run", "--rm", "--seccomp"].map(str::to_owned).to_vec();
        words.extend([
            "--user".to_owned(),
            format!("{USER}:{USER}"),
            "--cap-add".to_owned(),
            format!("CAP_{LOCK}"),
        ]);
        words.extend(USUAL.iter().flat_map(capability));
        words.extend(["--with-ns".to_owned(), format!("network:/run/netns/{namespace}")]);
        words.extend(nodes.iter().flat_map(|node| ["--device".to_owned(), (*node).to_owned()]));
        words.extend([RDMA_IMAGE.to_owned(), self.log_name("by-hand")]);
        words
    }

    /// The words that run a program in a pod's container as the runtime would: with its user and its capabilities.
    #[must_use]
    pub fn exec(&mut self, pod: &Pod) -> Vec<String> {
        let name = self.log_name("exec");
        [&self.ctr(), "-n", "k8s.io", "tasks", "exec", "--exec-id", &name, &pod.container]
            .map(str::to_owned)
            .to_vec()
    }

    fn ctr(&self) -> String {
        self.prepared.containerd.join("ctr").display().to_string()
    }
}
