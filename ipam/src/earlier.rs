//! What a pod's interface had before, in earlier sandboxes of the pod.
//!
//! A pod whose sandbox is made again gets a new container id, and its address should not change with it: peers, DNS and
//! NCCL's rendezvous know the old one. Three cases, from harmless to careful:
//!
//! - The address rests, or was leased before the last reboot: nobody uses it, and it is given again. A pod is known by its
//!   UID; one with a new UID and the old name, such as a StatefulSet's, gets what its namesake left, too.
//! - The old sandbox still has it, because its DEL was lost or is late, and another address can be had: the pod gets
//!   another one, and the old one stays until its DEL or a GC. Two sandboxes of one pod may both live for a moment.
//! - The old sandbox still has it and nothing else can be had: it is taken over, by the same UID only. The kubelet makes a
//!   sandbox only after it has stopped the pod's others (`computePodActions` and `SyncPod` in
//!   `pkg/kubelet/kuberuntime/kuberuntime_manager.go`: it kills the pod first, and ends there if that fails), so the old
//!   sandbox is about to be gone or is gone. Not while the ledger has an attachment of the old sandbox: then its VF may
//!   still carry the address. `zerobridge` gives that VF back before it leases, which lets the address rest, so that this
//!   is the first case. The late DEL finds no lease of its container and releases nothing.

use std::net::IpAddr;

use tracing::{info, warn};
use zerobridge_ledger::{Lease, Owner, Pod, Records};

use crate::IpamError;
use crate::lease::{Choice, LeaseRequest};

/// The addresses of a pod's earlier sandboxes in one network, for one interface name.
#[derive(Debug, Default)]
pub(crate) struct Earlier {
    /// Nobody uses them; the one to prefer first.
    unused: Vec<IpAddr>,
    /// Other sandboxes of the pod have them.
    held: Vec<Lease>,
}

impl Earlier {
    /// What the ledger knows of `pod`, whose sandbox now is `owner`.
    pub(crate) fn of(
        records: &Records,
        network: &str,
        pod: &Pod,
        owner: &Owner,
        boot_id: &str,
    ) -> Result<Self, IpamError> {
        let is_same = |lease: &Lease| {
            let uid = lease.pod.as_ref().and_then(|pod| pod.uid.as_ref());
            uid.is_some() && uid == pod.uid.as_ref()
        };
        let resting = records.resting_of_pod(network, pod, &owner.ifname)?;
        let leases = records.leases_of_pod(network, pod, &owner.ifname)?;
        let (living, bygone): (Vec<_>, Vec<_>) =
            leases.into_iter().partition(|lease| lease.boot_id == boot_id);
        let mut unused: Vec<Lease> = resting.into_iter().map(|resting| resting.lease).chain(bygone).collect();
        // Stable: of each kind, the one released last stays the first.
        unused.sort_by_key(|lease| !is_same(lease));
        let mut held = Vec::new();
        for lease in living {
            if lease.owner.container_id == owner.container_id || !is_same(&lease) {
                continue;
            }
            match records.attachment_of(&lease.owner)? {
                Some(attachment) => info!(network, address = %lease.address, holder = %lease.owner,
                    device = %attachment.device, "an earlier sandbox of the pod still has the device with the address"),
                None => held.push(lease),
            }
        }
        Ok(Self { unused: unused.into_iter().map(|lease| lease.address).collect(), held })
    }

    /// The address to give again, of those that `is_fit` is true for.
    pub(crate) fn unused(&self, is_fit: impl Fn(IpAddr) -> bool) -> Option<IpAddr> {
        self.unused.iter().copied().find(|address| is_fit(*address))
    }

    /// What to do instead of failing with `error`: when that says that no address can be had, the one that an earlier
    /// sandbox has, of those that `is_fit` is true for.
    pub(crate) fn take_over(
        &self,
        error: IpamError,
        network: &str,
        request: &LeaseRequest,
        is_fit: impl Fn(IpAddr) -> bool,
    ) -> Result<Choice, IpamError> {
        match self.held.iter().find(|lease| error.is_for_want_of_addresses() && is_fit(lease.address)) {
            None => Err(error),
            Some(lease) => {
                warn!(network, address = %lease.address, from = %lease.owner, to = %request.owner,
                    "no other address can be had; taking over the one of the pod's earlier sandbox");
                Ok(Choice::Again(lease.address))
            }
        }
    }
}
