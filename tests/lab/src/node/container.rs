//! Programs in a pod's container, without privileges.
//!
//! What they may do is what the runtime leaves them, which [`Pod::output`](super::Pod::output) does not show: it keeps root's capabilities.

use super::Node;
use super::pod::Pod;
use crate::machine::{Guest, GuestError};

/// Of nobody, and of nobody's group.
pub(super) const USER: u32 = 65534;
/// The one capability that verbs may need, for memory beyond the limit of what may be locked.
pub(super) const LOCK: &str = "IPC_LOCK";

impl Node {
    /// Makes [`RDMA_IMAGE`](crate::RDMA_IMAGE) known to the runtime, which takes it for the same one if it is again.
    ///
    /// # Errors
    /// When the runtime refuses it, or the VM is lost.
    pub fn import_rdma_image(&self, guest: &mut Guest) -> Result<(), GuestError> {
        let archive = self.prepared.rdma_image.display().to_string();
        guest.run(&[&self.ctr(), "-n", "k8s.io", "image", "import", "--local", &archive])?;
        Ok(())
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
