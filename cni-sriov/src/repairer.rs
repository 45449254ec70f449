//! Ending an attachment: the VF as it was before, then the record and the leases gone in one transaction.
//!
//! The one way in which an attachment ends. DEL is this for the owner's record, GC for records that the runtime no longer
//! knows, ADD for a record whose pod died without either, and the node's daemon for whatever nobody asks about any more.
//! Refuses to know who that is: whether a record may end is the caller's judgement.

use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;
use tracing::{info, warn};
use zerobridge_kernel::{Netns, NetnsError, NetnsId, Sysfs, SysfsError};
use zerobridge_ledger::{Attachment, Ledger, LedgerError, UnixSeconds};
use zerobridge_proto::PciAddress;
use zerobridge_proto::cni::{CniError, Command};

use crate::attachment::{AttachmentError, VfAccess};
use crate::delegate::Delegate;
use crate::documents::DocumentError;
use crate::lock::{LockError, VfLock};
use crate::rdma_nodes;
use crate::record::{self, RecordError};

/// Ends attachments of this node.
#[derive(Clone, Debug)]
pub struct Repairer {
    /// The machine's PCI functions. The sysfs must show the network namespace of the host, and the calling thread must be
    /// in that namespace.
    pub sysfs: Sysfs,
    /// Where the locks of VFs are, the same for everybody who changes VFs; usually `/run/zerobridge`.
    pub run_dir: PathBuf,
    /// Where the specifications of RDMA nodes are, the same for everybody who changes VFs; usually `/var/run/cdi`.
    pub cdi_dir: PathBuf,
    /// The kernel's `boot_id`: an attachment of another boot is forgotten, its VF being left alone.
    pub boot_id: String,
    /// Who does it, for whoever finds a VF locked: `DEL of eth0 of container 4f1c`.
    pub on_behalf_of: String,
    /// How long a VF that somebody else is changing is waited for.
    pub patience: Duration,
}

/// Why an attachment could not be ended. Its record and its leases are kept, so that a later attempt finds them.
#[derive(Debug, Error)]
pub enum RepairError {
    /// Somebody else is changing the VF, or nobody can lock it.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The ledger does not answer.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The record does not say what the VF was.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// Nobody can say whether the namespace of the record still exists.
    #[error(transparent)]
    Sandbox(#[from] NetnsError),
    /// The VF is out of reach, or the kernel refused.
    #[error(transparent)]
    Vf(#[from] AttachmentError),
    /// The container runtime could not be told that the RDMA device is no longer the pod's.
    #[error(transparent)]
    Nodes(#[from] DocumentError),
    /// The VF is as it was before, but the IPAM plugin that gave the addresses does not take them back.
    #[error(transparent)]
    Ipam(CniError),
}

impl Repairer {
    /// Ends the attachment that `record` describes. `false` when there is none any more, or another one: then nothing was
    /// touched, because whoever changed the record knew more than the caller.
    ///
    /// # Errors
    /// [`RepairError`].
    pub fn repair(
        &self,
        ledger: &mut Ledger,
        record: &Attachment,
        now: UnixSeconds,
    ) -> Result<bool, RepairError> {
        self.end_if(ledger, record.device, now, &[], |current| current == record)
    }

    /// Locks a VF and ends its attachment if that is, now that nobody else can change it, still the one that is meant.
    /// `delegates` is as for [`give_back`](Self::give_back).
    pub(crate) fn end_if(
        &self,
        ledger: &mut Ledger,
        device: PciAddress,
        now: UnixSeconds,
        delegates: &[Delegate],
        is_meant: impl Fn(&Attachment) -> bool,
    ) -> Result<bool, RepairError> {
        let _lock = self.lock(device)?;
        match ledger.attachment_of_device(device)? {
            Some(current) if is_meant(&current) => {
                self.give_back(ledger, &current, now, delegates).map(|()| true)
            }
            _ => Ok(false),
        }
    }

    /// Brings the VF of `record` back to what it was and forgets the record. The caller holds the VF's lock.
    ///
    /// Of `delegates`, the IPAM plugins of the caller's own configuration, that of the record's network is told to give its
    /// addresses up. The one that the record names is told by what the ledger kept of its ADD, unless it is the same.
    pub(crate) fn give_back(
        &self,
        ledger: &mut Ledger,
        record: &Attachment,
        now: UnixSeconds,
        delegates: &[Delegate],
    ) -> Result<(), RepairError> {
        let device = record.device;
        let recorded = record::delegation(record)?;
        let given = delegates.iter().find(|delegate| delegate.network() == record.network);
        let recorded = recorded.filter(|recorded| !given.is_some_and(|given| given.is_that_of(recorded)));
        // First, so that no container is given nodes that are about to be somebody else's.
        rdma_nodes::remove(&self.cdi_dir, device)?;
        if record.boot_id == self.boot_id {
            self.restore(record)?;
        } else {
            // Its VF was made anew by this boot, so what it was before is as gone as the pod.
            info!(%device, owner = %record.owner, "forget an attachment of an earlier boot");
        }
        // Only now, as below. The record stays until the plugin has done it: nobody else would know whom to ask.
        let recorded = recorded.map(|recorded| Delegate::of_record(&recorded, &record.owner));
        for delegate in given.into_iter().chain(&recorded) {
            delegate.forward(Command::Del).map_err(RepairError::Ipam)?;
        }
        let mut transaction = ledger.begin()?;
        transaction.remove_attachment(&record.owner)?;
        // Only now: an address is free when nobody carries it any more, not when somebody is about to drop it.
        transaction.release_leases(&record.owner, None, now)?;
        transaction.commit()?;
        info!(%device, owner = %record.owner, "gave the VF back");
        Ok(())
    }

    /// Locks a VF.
    pub(crate) fn lock(&self, device: PciAddress) -> Result<VfLock, LockError> {
        VfLock::acquire(&self.run_dir, device, &self.on_behalf_of, self.patience)
    }

    /// The namespace of a record, when it is still the one that the record speaks of.
    ///
    /// # Errors
    /// The namespace exists but cannot be opened, so nobody can say.
    pub fn sandbox_of(&self, record: &Attachment) -> Result<Option<Netns>, NetnsError> {
        if record.boot_id != self.boot_id {
            return Ok(None);
        }
        let recorded = NetnsId { device: record.sandbox.dev, inode: record.sandbox.ino };
        match Netns::open(&record.sandbox.path) {
            Ok(netns) => Ok(Some(netns).filter(|netns| netns.id() == recorded)),
            Err(error) if error.is_gone() => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn restore(&self, record: &Attachment) -> Result<(), RepairError> {
        let device = record.device;
        let original = record::original(record)?;
        let sandbox = self.sandbox_of(record)?;
        let restored =
            VfAccess::open(&self.sysfs, device, sandbox).and_then(|mut access| access.restore(&original));
        match restored {
            Err(AttachmentError::Sysfs { source: SysfsError::NoSuchFunction { .. }, .. }) => {
                warn!(%device, "the VF no longer exists; there is nothing to restore");
                Ok(())
            }
            other => Ok(other?),
        }
    }
}

#[cfg(test)]
mod tests {
    use zerobridge_kernel::testing::{SysfsTree, TestNetns};
    use zerobridge_ledger::{Lease, Owner, Sandbox};

    use super::*;
    use crate::attachment::model::{at_home, in_pod};

    const VF: &str = "0000:01:10.0";
    const NOW: UnixSeconds = UnixSeconds(1_000);

    /// A node with two VFs whose PF is of another machine, and one attachment.
    struct World {
        folder: tempfile::TempDir,
        tree: SysfsTree,
        ledger: Ledger,
        record: Attachment,
    }

    impl World {
        fn new(change: impl FnOnce(&mut Attachment)) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let tree = SysfsTree::new(folder.path().join("sys"));
            tree.add_igb(0, 2);
            let mut ledger = Ledger::open(folder.path()).unwrap();
            let owner = Owner { container_id: "c1".to_owned(), ifname: "eth0".to_owned() };
            let mut record = Attachment {
                device: VF.parse().unwrap(),
                owner: owner.clone(),
                network: "blue".to_owned(),
                sandbox: Sandbox { path: folder.path().join("netns"), dev: 4, ino: 5 },
                pod: None,
                original: record::encode(&at_home()).unwrap(),
                wanted: record::encode(&in_pod()).unwrap(),
                boot_id: "this".to_owned(),
                created_at: UnixSeconds(10),
            };
            change(&mut record);
            let lease = Lease {
                network: "blue".to_owned(),
                address: "10.0.0.5".parse().unwrap(),
                owner,
                pod: None,
                device: Some(record.device),
                mac: None,
                vlan: None,
                rdma: None,
                boot_id: record.boot_id.clone(),
                created_at: record.created_at,
            };
            let mut transaction = ledger.begin().unwrap();
            transaction.insert_attachment(&record).unwrap();
            transaction.insert_lease(&lease).unwrap();
            transaction.commit().unwrap();
            Self { folder, tree, ledger, record }
        }

        fn repairer(&self) -> Repairer {
            Repairer {
                sysfs: Sysfs::new(self.tree.root()),
                run_dir: self.folder.path().join("run"),
                cdi_dir: self.folder.path().join("cdi"),
                boot_id: "this".to_owned(),
                on_behalf_of: "a test".to_owned(),
                patience: Duration::ZERO,
            }
        }

        fn repair(&mut self) -> Result<bool, RepairError> {
            let record = self.record.clone();
            self.repairer().repair(&mut self.ledger, &record, NOW)
        }

        /// Attachments, leases, and addresses that rest.
        fn promises(&self) -> [usize; 3] {
            let resting = self.ledger.resting_in("blue").unwrap().len();
            [self.ledger.attachments().unwrap().len(), self.ledger.leases().unwrap().len(), resting]
        }
    }

    #[test]
    fn what_needs_no_vf_ends_and_its_addresses_rest() {
        let earlier_boot = World::new(|record| record.boot_id = "another".to_owned());
        let absent_vf = World::new(|_| ());
        absent_vf.tree.remove(VF.parse().unwrap());
        for mut world in [earlier_boot, absent_vf] {
            assert_eq!(world.promises(), [1, 1, 0]);
            assert!(world.repair().unwrap());
            assert_eq!(world.promises(), [0, 0, 1]);
            assert_eq!(world.ledger.resting_in("blue").unwrap()[0].released_at, NOW);
            assert!(!world.repair().unwrap(), "there is nothing left to end");
        }
    }

    #[test]
    fn a_record_that_has_changed_meanwhile_is_left_alone() {
        let mut world = World::new(|record| record.boot_id = "another".to_owned());
        world.record.created_at = UnixSeconds(11);
        assert!(!world.repair().unwrap());
        assert_eq!(world.promises(), [1, 1, 0]);
    }

    #[test]
    fn what_cannot_be_restored_keeps_its_record_and_its_addresses() {
        let mut out_of_reach = World::new(|_| ());
        let error = out_of_reach.repair().unwrap_err();
        assert!(matches!(&error, RepairError::Vf(AttachmentError::PfWithoutLink { .. })), "{error}");

        let mut unreadable = World::new(|record| record.original = r#"{"link": 7}"#.to_owned());
        let error = unreadable.repair().unwrap_err();
        assert!(matches!(&error, RepairError::Record(_)) && error.to_string().contains(VF), "{error}");

        let mut locked = World::new(|_| ());
        let other = Repairer { on_behalf_of: "ADD of eth0".to_owned(), ..locked.repairer() };
        let _lock = other.lock(locked.record.device).unwrap();
        let error = locked.repair().unwrap_err();
        assert!(error.to_string().contains("locked by ADD of eth0"), "{error}");

        for world in [out_of_reach, unreadable, locked] {
            assert_eq!(world.promises(), [1, 1, 0]);
        }
    }

    #[test]
    fn a_namespace_is_the_records_only_under_the_same_path_with_the_same_number() {
        let [netns, other] = [TestNetns::new(), TestNetns::new()];
        let recorded = |world: &World, sandbox: Sandbox| {
            let record = Attachment { sandbox, ..world.record.clone() };
            world.repairer().sandbox_of(&record).unwrap().map(|netns| netns.id())
        };
        let world = World::new(|_| ());
        let sandbox = record::sandbox(netns.netns());
        assert_eq!(recorded(&world, sandbox.clone()), Some(netns.netns().id()));
        let path_used_again = Sandbox { path: other.netns().path().to_owned(), ..sandbox };
        assert_eq!(recorded(&world, path_used_again), None);
        drop(netns);
        assert_eq!(recorded(&world, sandbox), None);
    }
}
