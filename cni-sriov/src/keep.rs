//! A VF that the node keeps for itself: set up as an attachment is, and left on the host.
//!
//! The record in the ledger is that of an attachment whose sandbox is the host, so no ADD gets the VF, and it ends as an
//! attachment ends. Addresses are not set here. Refuses to know why the node wants a VF.

use thiserror::Error;
use tracing::info;
use zerobridge_kernel::{Netns, NetnsError, VlanProtocol, VlanTag};
use zerobridge_ledger::{Attachment, Ledger, LedgerError, Owner, UnixSeconds};
use zerobridge_proto::PciAddress;
use zerobridge_proto::cni::CniError;

use crate::attachment::{AttachmentError, LinkState, OnRefusal, Place, VfAccess, VfState};
use crate::lock::LockError;
use crate::record::{self, RecordError};
use crate::repairer::Repairer;

/// What the node wants of a VF.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keep<'a> {
    /// The VF.
    pub device: PciAddress,
    /// Whose it is then: [`Owner::leg`].
    pub owner: Owner,
    /// The network that it is for.
    pub network: &'a str,
    /// The VLAN that the PF puts its frames into, 1 to 4094; `None` leaves what is there.
    pub vlan: Option<u16>,
    /// MTU in bytes; `None` leaves what is there.
    pub mtu: Option<u32>,
}

/// Why the node cannot keep a VF.
#[derive(Debug, Error)]
pub enum KeepError {
    /// A pod, or another leg, has it.
    #[error("VF {device} belongs to {holder}")]
    Taken {
        /// The VF.
        device: PciAddress,
        /// Who has it.
        holder: Owner,
    },
    /// It is bound to a driver for programs.
    #[error("VF {device} has no network interface; bind it to its network driver")]
    NoNetdev {
        /// The VF.
        device: PciAddress,
    },
    /// Somebody else is changing it, or nobody can lock it.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The ledger does not answer.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The record does not say what the VF was.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// A state cannot be written down.
    #[error(transparent)]
    Encode(CniError),
    /// The namespace of this process has no name.
    #[error(transparent)]
    Host(#[from] NetnsError),
    /// The VF is out of reach, or the kernel refused.
    #[error(transparent)]
    Vf(#[from] AttachmentError),
}

impl Repairer {
    /// Brings a VF to what the node wants of it, and sees to it that it stays so. Returns the name of its interface, which
    /// is up and where it was. What it was before is recorded first, so that [`Repairer::repair`] can restore it.
    ///
    /// # Errors
    /// [`KeepError`]; a record that has been made by then stays, for the next attempt or the end.
    pub fn keep(&self, ledger: &mut Ledger, keep: &Keep<'_>, now: UnixSeconds) -> Result<String, KeepError> {
        let device = keep.device;
        let _lock = self.lock(device)?;
        let recorded = ledger.attachment_of_device(device)?;
        if let Some(other) = recorded.as_ref().filter(|record| record.owner != keep.owner) {
            return Err(KeepError::Taken { device, holder: other.owner.clone() });
        }
        let mut access = VfAccess::open(&self.sysfs, device, None)?;
        // A boot makes VFs anew, so what one was in an earlier boot is nothing to go back to.
        let recorded = recorded.filter(|record| record.boot_id == self.boot_id);
        let original = match &recorded {
            Some(record) => record::original(record)?,
            None => access.observe_unattached()?,
        };
        let wanted = wanted(&original, keep);
        let Some(link) = &wanted.link else { return Err(KeepError::NoNetdev { device }) };
        let name = link.name.clone();
        let is_recorded = match &recorded {
            Some(record) => record::wanted(record)? == wanted && record.network == keep.network,
            None => false,
        };
        if !is_recorded {
            let encode = |state| record::encode(state).map_err(KeepError::Encode);
            let record = Attachment {
                device,
                owner: keep.owner.clone(),
                network: keep.network.to_owned(),
                sandbox: record::sandbox(&Netns::current()?),
                pod: None,
                original: encode(&original)?,
                wanted: encode(&wanted)?,
                boot_id: self.boot_id.clone(),
                created_at: now,
            };
            let mut transaction = ledger.begin()?;
            transaction.remove_attachment(&keep.owner)?;
            transaction.insert_attachment(&record)?;
            transaction.commit()?;
            info!(%device, owner = %keep.owner, interface = name, vlan = keep.vlan, "the node keeps the VF");
        }
        access.converge(&wanted, OnRefusal::Stop)?;
        Ok(name)
    }
}

/// What the node makes of a VF that is `original`: everything that is not asked for stays, as for a pod.
fn wanted(original: &VfState, keep: &Keep<'_>) -> VfState {
    let mut state = original.clone();
    if let (Some(admin), Some(id)) = (&mut state.admin, keep.vlan) {
        admin.vlan = VlanTag { id, qos: 0, protocol: VlanProtocol::Dot1Q };
    }
    let imposed = state.admin.map(|admin| admin.mac).filter(|mac| !mac.is_zero());
    state.link = state.link.map(|link| LinkState {
        place: Place::Host,
        // One that the PF imposes and the VF does not carry is a wire that drops everything.
        mac: imposed.unwrap_or(link.mac),
        mtu: keep.mtu.unwrap_or(link.mtu),
        up: true,
        ..link
    });
    state
}

#[cfg(test)]
mod tests {
    use zerobridge_kernel::testing::SysfsTree;
    use zerobridge_ledger::Sandbox;

    use super::*;
    use crate::attachment::model::{at_home, with_vfio};

    fn keep(device: PciAddress) -> Keep<'static> {
        let owner = Owner::leg("pods");
        Keep { device, owner, network: "blue", vlan: Some(100), mtu: Some(9000) }
    }

    #[test]
    fn what_is_not_asked_for_stays() {
        let device = "0000:01:10.0".parse().unwrap();
        let mut expected = at_home();
        expected.admin.as_mut().unwrap().vlan.id = 100;
        let link = expected.link.as_mut().unwrap();
        (link.mtu, link.up) = (9000, true);
        assert_eq!(wanted(&at_home(), &keep(device)), expected);

        let mut up = at_home();
        up.link.as_mut().unwrap().up = true;
        assert_eq!(wanted(&at_home(), &Keep { vlan: None, mtu: None, ..keep(device) }), up);
        assert_eq!(wanted(&with_vfio(), &keep(device)).link, None);
    }

    #[test]
    fn the_vf_takes_on_what_its_pf_imposes() {
        let mut original = at_home();
        original.link.as_mut().unwrap().mac = "02:00:00:00:00:99".parse().unwrap();
        let device = "0000:01:10.0".parse().unwrap();
        assert_eq!(wanted(&original, &keep(device)).link.unwrap().mac, original.admin.unwrap().mac);
    }

    #[test]
    fn a_vf_that_a_pod_has_is_left_to_it() {
        let folder = tempfile::tempdir().unwrap();
        let tree = SysfsTree::new(folder.path().join("sys"));
        tree.add_igb(0, 1);
        let mut ledger = Ledger::open(folder.path()).unwrap();
        let device = "0000:01:10.0".parse().unwrap();
        let holder = Owner { container_id: "c1".to_owned(), ifname: "eth0".to_owned() };
        let record = Attachment {
            device,
            owner: holder.clone(),
            network: "blue".to_owned(),
            sandbox: Sandbox { path: "/run/netns/x".into(), dev: 4, ino: 5 },
            pod: None,
            original: record::encode(&at_home()).unwrap(),
            wanted: record::encode(&at_home()).unwrap(),
            boot_id: "this".to_owned(),
            created_at: UnixSeconds(1),
        };
        let mut transaction = ledger.begin().unwrap();
        transaction.insert_attachment(&record).unwrap();
        transaction.commit().unwrap();
        let repairer = Repairer {
            sysfs: zerobridge_kernel::Sysfs::new(tree.root()),
            run_dir: folder.path().join("run"),
            cdi_dir: folder.path().join("cdi"),
            boot_id: "this".to_owned(),
            on_behalf_of: "a test".to_owned(),
            patience: std::time::Duration::ZERO,
        };
        let error = repairer.keep(&mut ledger, &keep(device), UnixSeconds(2)).unwrap_err();
        assert_eq!(error.to_string(), format!("VF {device} belongs to {holder}"));
        assert_eq!(ledger.attachments().unwrap(), [record]);
    }
}
