//! One pass: reads the promises, decides about each, ends what is to be ended, and says what was found.
//!
//! Blocking, because a repair waits for the kernel. Every pass is complete by itself: what fails is tried again by the next.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use tracing::{debug, info, warn};
use zerobridge_cni_sriov::{RepairError, Repairer};
use zerobridge_kernel::Machine;
use zerobridge_ledger::{Attachment, Ledger, LedgerError, Pod, UnixSeconds};
use zerobridge_proto::{PciAddress, chain};

use super::decision::{Cause, Decision, Situation};
use super::report::{Report, leases_alone, under_pod_names};
use super::sandbox::fate;
use crate::health::DirtyVfs;
use crate::pod_resources::Held;

/// Ends what nobody owns, pass after pass. The calling thread must be in the network namespace of the host.
#[derive(Debug)]
pub struct Reconciler {
    state_dir: PathBuf,
    repairer: Repairer,
    grace: Duration,
    told: BTreeSet<Report>,
    told_failures: BTreeMap<PciAddress, String>,
}

/// What one pass did and found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reconciliation {
    /// Number of attachments that stay.
    pub kept: usize,
    /// Attachments that were ended.
    pub repaired: Vec<Repair>,
    /// Attachments that are to be ended and could not be, and why not.
    pub failed: Vec<(Repair, String)>,
    /// The VFs that are not fit for another pod: a pod left them, and they could not be restored. One that a pod still holds
    /// is not given to another.
    pub(crate) dirty: DirtyVfs,
    /// What only a person can decide.
    pub reports: BTreeSet<Report>,
}

/// An attachment that nobody owns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repair {
    /// The VF.
    pub device: PciAddress,
    /// Why nobody owns it.
    pub cause: Cause,
    /// The pod that had it, where the runtime named one.
    pub pod: Option<Pod>,
}

impl Reconciler {
    /// A reconciler of the ledger in `state_dir`. Promises younger than `grace` are left alone.
    #[must_use]
    pub fn new(state_dir: PathBuf, repairer: Repairer, grace: Duration) -> Self {
        Self { state_dir, repairer, grace, told: BTreeSet::new(), told_failures: BTreeMap::new() }
    }

    /// Makes one pass. `held` is what the kubelet said a moment ago, at most `grace` ago.
    ///
    /// # Errors
    /// The ledger could not be read; nothing was changed then.
    pub fn pass(
        &mut self,
        held: Option<&Held>,
        machine: &Machine,
        now: SystemTime,
    ) -> Result<Reconciliation, LedgerError> {
        // Where no CNI plugin ever wrote, there is nothing to read, and a ledger is not the daemon's to make.
        if !self.state_dir.exists() {
            return Ok(Reconciliation::default());
        }
        let mut ledger = Ledger::open(&self.state_dir)?;
        let (mut attachments, mut leases) = (ledger.attachments()?, ledger.leases()?);
        // What the node's legs have outlives boots and has no pod; whoever keeps the legs ends it.
        attachments.retain(|record| !record.owner.is_leg());
        leases.retain(|lease| !lease.owner.is_leg());
        let now = UnixSeconds::from(now);
        let situation = self.situation(held, machine, now);

        let mut pass = Reconciliation::default();
        pass.reports.extend(leases_alone(&leases, &attachments, |since| situation.is_settled(since)));
        pass.reports.extend(under_pod_names(machine, &attachments));
        let decisions: Vec<Decision> =
            attachments.iter().map(|record| situation.decide(record, &fate(&record.sandbox))).collect();
        for (record, decision) in attachments.iter().zip(decisions) {
            match decision {
                Decision::Keep => pass.kept += 1,
                Decision::Report(report) => {
                    pass.kept += 1;
                    pass.reports.insert(report);
                }
                Decision::Repair(cause) => self.repair(&mut ledger, record, cause, now, &mut pass),
            }
        }
        self.tell(&pass);
        Ok(pass)
    }

    /// What a pass would do about each attachment. Nothing is changed.
    ///
    /// # Errors
    /// The ledger could not be read.
    pub fn judge(
        &self,
        held: Option<&Held>,
        machine: &Machine,
        now: SystemTime,
    ) -> Result<Vec<(Attachment, Decision)>, LedgerError> {
        if !Ledger::exists(&self.state_dir) {
            return Ok(Vec::new());
        }
        let attachments = Ledger::open(&self.state_dir)?.attachments()?;
        let situation = self.situation(held, machine, UnixSeconds::from(now));
        let decide = |record: Attachment| {
            let decision = situation.decide(&record, &fate(&record.sandbox));
            (record, decision)
        };
        Ok(attachments.into_iter().filter(|record| !record.owner.is_leg()).map(decide).collect())
    }

    fn situation<'a>(
        &'a self,
        held: Option<&'a Held>,
        machine: &'a Machine,
        now: UnixSeconds,
    ) -> Situation<'a> {
        Situation { boot_id: &self.repairer.boot_id, held, machine, now, grace: self.grace }
    }

    fn repair(
        &self,
        ledger: &mut Ledger,
        record: &Attachment,
        cause: Cause,
        now: UnixSeconds,
        pass: &mut Reconciliation,
    ) {
        let device = record.device;
        let repair = Repair { device, cause, pod: record.pod.clone() };
        match self.repairer.repair(ledger, record, now) {
            Ok(true) => {
                let pod = record.pod.as_ref().map(|pod| format!("{}/{}", pod.namespace, pod.name));
                info!(%device, owner = %record.owner, pod, %cause, "repaired what a pod left behind");
                pass.repaired.push(repair);
            }
            Ok(false) => debug!(%device, owner = %record.owner, "somebody else was faster"),
            Err(error) => {
                let reason = chain(&error);
                // An IPAM plugin is told when the VF is home already. One of an earlier boot is as the boot made it.
                if cause == Cause::Abandoned && !matches!(error, RepairError::Ipam(_)) {
                    let left = format!("a pod left it behind, and restoring it failed: {reason}");
                    pass.dirty.insert(device, left);
                }
                pass.failed.push((repair, reason));
            }
        }
    }

    /// What lasts is told once.
    fn tell(&mut self, pass: &Reconciliation) {
        for report in pass.reports.difference(&self.told) {
            warn!(%report, "the reconciler leaves this to you");
        }
        self.told.clone_from(&pass.reports);
        let failures = pass.failed.iter().map(|(repair, error)| (repair.device, error.clone())).collect();
        for (device, error) in &failures {
            if self.told_failures.get(device) != Some(error) {
                warn!(%device, error, "cannot repair what a pod left behind; it is tried again");
            }
        }
        self.told_failures = failures;
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use zerobridge_kernel::testing::{SysfsTree, TestNetns};
    use zerobridge_kernel::{NetnsId, Scanner, Sysfs};
    use zerobridge_ledger::{Lease, Owner, Sandbox};

    use super::super::decision::fixture::{held, owner, record};
    use super::*;

    const VF: &str = "0000:01:10.0";

    /// A node with a ledger, and a card as a tree of files, whose PF has therefore no link that would lead to its VFs.
    struct World {
        folder: tempfile::TempDir,
        tree: SysfsTree,
        reconciler: Reconciler,
    }

    impl World {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let tree = SysfsTree::new(folder.path().join("sys"));
            tree.add_igb(0, 2);
            let repairer = Repairer {
                sysfs: Sysfs::new(tree.root()),
                run_dir: folder.path().join("run"),
                cdi_dir: folder.path().join("cdi"),
                boot_id: "this".to_owned(),
                on_behalf_of: "a test".to_owned(),
                patience: Duration::ZERO,
            };
            let reconciler = Reconciler::new(folder.path().join("state"), repairer, Duration::from_secs(30));
            Self { folder, tree, reconciler }
        }

        fn ledger(&self) -> Ledger {
            Ledger::open(&self.folder.path().join("state")).unwrap()
        }

        /// Records an attachment with an address.
        fn attach(&self, record: &Attachment, address: &str) {
            let mut ledger = self.ledger();
            let mut transaction = ledger.begin().unwrap();
            transaction.insert_attachment(record).unwrap();
            transaction
                .insert_lease(&Lease {
                    network: record.network.clone(),
                    address: address.parse().unwrap(),
                    owner: record.owner.clone(),
                    pod: None,
                    device: Some(record.device),
                    mac: None,
                    vlan: None,
                    rdma: None,
                    boot_id: record.boot_id.clone(),
                    created_at: record.created_at,
                })
                .unwrap();
            transaction.commit().unwrap();
        }

        /// A pass 90 s after the records of the fixture.
        fn pass(&mut self, held: Option<&Held>) -> Reconciliation {
            let machine = Scanner::new(Sysfs::new(self.tree.root())).scan().unwrap();
            self.reconciler.pass(held, &machine, UNIX_EPOCH + Duration::from_secs(100)).unwrap()
        }

        fn owners(&self) -> Vec<Owner> {
            self.ledger().attachments().unwrap().into_iter().map(|record| record.owner).collect()
        }

        fn resting(&self) -> Vec<String> {
            let resting = self.ledger().resting_in("blue").unwrap();
            resting.into_iter().map(|resting| resting.lease.address.to_string()).collect()
        }
    }

    fn in_namespace(record: Attachment, netns: &TestNetns) -> Attachment {
        let NetnsId { device: dev, inode: ino } = netns.netns().id();
        Attachment { sandbox: Sandbox { path: netns.netns().path().to_owned(), dev, ino }, ..record }
    }

    #[test]
    fn without_a_ledger_none_is_made() {
        let mut world = World::new();
        assert_eq!(world.pass(Some(&Held::default())), Reconciliation::default());
        assert!(!world.folder.path().join("state").exists());
    }

    /// The life of a namespace decides; the VF itself is taken away first, so that nothing of it has to be restored.
    #[test]
    fn an_attachment_ends_when_its_namespace_is_gone_and_the_kubelet_agrees() {
        let mut world = World::new();
        let netns = TestNetns::new();
        let record = in_namespace(record(), &netns);
        world.attach(&record, "10.0.0.5");
        let nobody = Held::default();
        let kept = Reconciliation { kept: 1, ..Reconciliation::default() };
        assert_eq!(world.pass(Some(&nobody)), kept, "the namespace lives");

        drop(netns);
        world.tree.remove(record.device);
        let (device, owner) = (record.device, record.owner.clone());
        let report = Report::HoldersUnknown { device, owner: owner.clone() };
        assert_eq!(world.pass(None).reports, [report].into());
        let pods = vec!["pod default/web".to_owned()];
        let report = Report::HeldWithoutNamespace { device, owner, pods };
        assert_eq!(world.pass(Some(&held(&[VF]))).reports, [report].into());
        assert_eq!(world.owners(), [record.owner]);

        let repair = Repair { device, cause: Cause::Abandoned, pod: None };
        let expected = Reconciliation { repaired: vec![repair], ..Reconciliation::default() };
        assert_eq!(world.pass(Some(&nobody)), expected);
        assert_eq!((world.owners(), world.resting()), (vec![], vec!["10.0.0.5".to_owned()]));
        assert_eq!(world.pass(Some(&nobody)), Reconciliation::default(), "and all is well");
    }

    #[test]
    fn what_cannot_be_restored_is_dirty_and_does_not_keep_the_others() {
        let mut world = World::new();
        let stuck = record();
        let earlier = Attachment {
            device: "0000:01:10.2".parse().unwrap(),
            owner: owner("c2"),
            boot_id: "another".to_owned(),
            ..record()
        };
        world.attach(&stuck, "10.0.0.5");
        world.attach(&earlier, "10.0.0.6");
        for repaired in [1, 0] {
            let pass = world.pass(Some(&Held::default()));
            assert_eq!((pass.repaired.len(), pass.failed.len()), (repaired, 1));
            let dirty = &pass.dirty;
            assert!(dirty[&stuck.device].contains("has no network interface on the host"), "{dirty:?}");
            assert_eq!(dirty.len(), 1);
            assert_eq!((world.owners(), world.resting()), (vec![owner("c1")], vec!["10.0.0.6".to_owned()]));
        }
    }

    /// Whatever boot its promises are from: it has no namespace and no pod that would tell.
    #[test]
    fn what_a_leg_has_is_left_to_whoever_keeps_legs() {
        let mut world = World::new();
        let owner = Owner::leg("pods");
        world.attach(
            &Attachment { boot_id: "another".to_owned(), owner: owner.clone(), ..record() },
            "10.0.0.5",
        );
        assert_eq!(world.pass(Some(&Held::default())), Reconciliation::default());
        assert_eq!((world.owners(), world.ledger().leases().unwrap().len()), (vec![owner.clone()], 1));
        let mut ledger = world.ledger();
        let mut transaction = ledger.begin().unwrap();
        transaction.remove_attachment(&owner).unwrap();
        transaction.commit().unwrap();
        assert_eq!(
            world.pass(Some(&Held::default())),
            Reconciliation::default(),
            "a lease alone is no fault"
        );
    }

    /// Addresses that nobody takes back keep their record, and the VF, which is home, is fit for the next pod.
    #[test]
    fn an_ipam_plugin_that_fails_makes_no_vf_dirty() {
        let mut world = World::new();
        let mut wanted: serde_json::Value = serde_json::from_str(&record().wanted).unwrap();
        wanted["ipam"] = serde_json::json!({
            "network": "blue", "plugin": "absent", "path": "/absent", "args": "", "config": {}, "result": null,
        });
        world.attach(&Attachment { wanted: wanted.to_string(), ..record() }, "10.0.0.5");
        world.tree.remove(record().device);
        let pass = world.pass(Some(&Held::default()));
        assert!(pass.failed[0].1.contains("\"absent\", and no directory of CNI_PATH has it"), "{pass:?}");
        assert_eq!((pass.dirty, world.owners()), (DirtyVfs::new(), vec![owner("c1")]));
    }

    #[test]
    fn a_vf_that_a_call_is_changing_is_left_to_it_until_the_next_pass() {
        let mut world = World::new();
        world.attach(&record(), "10.0.0.5");
        let path = world.folder.path().join(format!("run/vf-{VF}.lock"));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, "ADD of eth0").unwrap();
        let lock = std::fs::File::open(&path).unwrap();
        lock.lock().unwrap();
        world.tree.remove(record().device);
        let pass = world.pass(Some(&Held::default()));
        assert!(pass.failed[0].1.contains("locked by ADD of eth0"), "{pass:?}");
        drop(lock);
        assert_eq!(world.pass(Some(&Held::default())).repaired.len(), 1);
    }

    #[test]
    fn what_is_found_beside_the_records_is_reported() {
        let mut world = World::new();
        let record = record();
        world.attach(&record, "10.0.0.5");
        let mut ledger = world.ledger();
        let mut transaction = ledger.begin().unwrap();
        transaction.remove_attachment(&record.owner).unwrap();
        transaction.commit().unwrap();
        world.tree.hide_netdev(record.device, "enp1s0f0v0");
        world.tree.show_netdev(record.device, "net1");
        let told: Vec<String> =
            world.pass(Some(&Held::default())).reports.iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                "eth0 of container c1 has no VF any more, and still address 10.0.0.5 of network blue",
                "VF 0000:01:10.0 is on the host as net1, a name of pods, and has no record",
            ]
        );
    }
}
