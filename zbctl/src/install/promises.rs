//! What the node still owes to pods, for which the programs must stay: VFs that are attached and addresses that are leased.
//!
//! What nobody owns any more is told by the reconciler's own judgement, and ended by its own pass. Refuses to judge by rules
//! of its own.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::{self, File, TryLockError};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;
use zerobridge_cni_sriov::Repairer;
use zerobridge_device_plugin::{Decision, Held, LegStatus, Reconciler, end_legs};
use zerobridge_kernel::{Machine, Scanner, Sysfs, boot_id};
use zerobridge_ledger::{Attachment, Lease, Ledger, LedgerError, Owner, Records};
use zerobridge_proto::{PciAddress, chain};

use super::InstallError;
use super::remains::is_vf_lock;
use crate::cli::PromiseArguments;
use crate::kubelet;

/// How old a record must be before its pod counts as gone because its namespace is: a call that is under way needs its time.
const GRACE: Duration = Duration::from_secs(60);

/// How long a VF is waited for that a call is changing: longer than any single call takes.
pub(super) const CALL_PATIENCE: Duration = Duration::from_secs(30);

/// How often is looked whether a call has ended.
const INTERVAL: Duration = Duration::from_millis(20);

/// What is owed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Promises {
    /// VFs of pods that live, or of which nobody can say that they do not.
    pub(super) attachments: Vec<Attached>,
    /// VFs that nobody owns any more.
    pub(super) abandoned: Vec<Attached>,
    /// Addresses that interfaces of other plugins have.
    pub(super) addresses: Vec<Leased>,
}

/// A VF that is attached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Attached {
    /// The pod's namespace; `null` if the runtime named no pod.
    pub(super) namespace: Option<String>,
    /// The pod's name.
    pub(super) pod: Option<String>,
    /// ID of the pod's sandbox.
    pub(super) container: String,
    /// The interface in the pod.
    pub(super) interface: String,
    /// The VF.
    #[serde(serialize_with = "as_text")]
    pub(super) device: PciAddress,
    /// What is doubtful, or why it could not be given back; `null` while its pod lives.
    pub(super) reason: Option<String>,
}

/// An address that is leased to an interface of another plugin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Leased {
    /// The pod's namespace; `null` if the runtime named no pod.
    pub(super) namespace: Option<String>,
    /// The pod's name.
    pub(super) pod: Option<String>,
    /// ID of the pod's sandbox.
    pub(super) container: String,
    /// The interface in the pod.
    pub(super) interface: String,
    /// The network.
    pub(super) network: String,
    /// The address.
    pub(super) address: IpAddr,
}

fn as_text<S: serde::Serializer>(device: &PciAddress, out: S) -> Result<S::Ok, S::Error> {
    out.collect_str(device)
}

/// The node whose promises are looked at.
#[derive(Debug)]
pub(super) struct Promiser {
    state_dir: PathBuf,
    repairer: Repairer,
    machine: Machine,
    /// What pods hold, if the kubelet says.
    held: Result<Held, String>,
    reconciler: Reconciler,
}

impl Promiser {
    /// Looks at the node.
    pub(super) fn look(arguments: &PromiseArguments) -> Result<Self, InstallError> {
        let boot_id = boot_id(&arguments.procfs)?;
        let repairer = Repairer {
            sysfs: Sysfs::new(&arguments.sysfs),
            run_dir: arguments.run_dir.clone(),
            cdi_dir: arguments.cdi_dir.clone(),
            boot_id,
            on_behalf_of: "zbctl node uninstall".to_owned(),
            patience: CALL_PATIENCE,
        };
        Ok(Self {
            state_dir: arguments.state_dir.clone(),
            repairer: repairer.clone(),
            machine: Scanner::new(Sysfs::new(&arguments.sysfs)).scan()?,
            held: kubelet::held(&arguments.kubelet_root).map_err(|error| chain(&error)),
            reconciler: Reconciler::new(arguments.state_dir.clone(), repairer, GRACE),
        })
    }

    /// What pods hold, or why nobody knows.
    pub(super) fn held(&self) -> &Result<Held, String> {
        &self.held
    }

    /// Whether a ledger may go: nobody has a VF or an address of it.
    pub(super) fn is_free(&self, records: &Records) -> Result<bool, LedgerError> {
        Ok(records.attachments()?.is_empty() && alone(records, &self.repairer.boot_id)?.is_empty())
    }

    /// What is owed. Changes nothing.
    pub(super) fn promises(&self) -> Result<Promises, InstallError> {
        let mut promises = Promises::default();
        if !Ledger::exists(&self.state_dir) {
            return Ok(promises);
        }
        let judged = self.reconciler.judge(self.held.as_ref().ok(), &self.machine, SystemTime::now())?;
        for (record, decision) in judged {
            match decision {
                Decision::Keep => promises.attachments.push(Attached::new(record, None)),
                Decision::Report(report) => {
                    promises.attachments.push(Attached::new(record, Some(report.to_string())));
                }
                Decision::Repair(cause) => {
                    promises.abandoned.push(Attached::new(record, Some(cause.to_string())));
                }
            }
        }
        let ledger = Ledger::open(&self.state_dir)?;
        promises.addresses = alone(&ledger, &self.repairer.boot_id)?;
        Ok(promises)
    }

    /// Takes away the legs that the node has in its pods' networks. Returns a line for each of which something is left.
    pub(super) fn end_legs(&self) -> Result<Vec<String>, InstallError> {
        let (repairer, held) = (self.repairer.clone(), self.held.as_ref().ok());
        let left = end_legs(&self.state_dir, repairer, &self.machine, held, SystemTime::now())?;
        let line = |leg: LegStatus| {
            let problem = leg.problem.unwrap_or_else(|| leg.state.name().to_owned());
            format!("the node's leg {} cannot be taken away: {problem}", leg.name)
        };
        Ok(left.into_iter().map(line).collect())
    }

    /// Gives back what nobody owns, by the reconciler's own pass. Returns a line for each, and what is owed then.
    pub(super) fn settle(&mut self) -> Result<(Vec<String>, Promises), InstallError> {
        if !Ledger::exists(&self.state_dir) {
            return Ok((Vec::new(), Promises::default()));
        }
        let pass = self.reconciler.pass(self.held.as_ref().ok(), &self.machine, SystemTime::now())?;
        let done =
            pass.repaired.iter().map(|repair| format!("{}: given back, {}", repair.device, repair.cause));
        let lines = done.collect();
        let mut promises = self.promises()?;
        for abandoned in std::mem::take(&mut promises.abandoned) {
            let failure = pass.failed.iter().find(|(repair, _)| repair.device == abandoned.device);
            let reason =
                failure.map(|(_, reason)| format!("its pod is gone, and it cannot be given back: {reason}"));
            promises.attachments.push(Attached { reason: reason.or(abandoned.reason.clone()), ..abandoned });
        }
        Ok((lines, promises))
    }
}

impl Promises {
    /// Whether anything is owed.
    pub(super) fn keep_the_programs(&self) -> bool {
        !self.attachments.is_empty() || !self.addresses.is_empty()
    }
}

impl Attached {
    fn new(record: Attachment, reason: Option<String>) -> Self {
        let (namespace, pod) = record.pod.map(|pod| (pod.namespace, pod.name)).unzip();
        let Owner { container_id: container, ifname: interface } = record.owner;
        Self { namespace, pod, container, interface, device: record.device, reason }
    }
}

impl fmt::Display for Attached {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let owner = owner(self.namespace.as_deref(), self.pod.as_deref(), &self.container);
        write!(out, "{owner} has VF {} as {}", self.device, self.interface)?;
        self.reason.iter().try_for_each(|reason| write!(out, "; {reason}"))
    }
}

impl fmt::Display for Leased {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let owner = owner(self.namespace.as_deref(), self.pod.as_deref(), &self.container);
        write!(out, "{owner} has {} of network {} on {}", self.address, self.network, self.interface)
    }
}

fn owner(namespace: Option<&str>, pod: Option<&str>, container: &str) -> String {
    match (namespace, pod) {
        (Some(namespace), Some(pod)) => format!("{namespace}/{pod}"),
        _ => format!("container {container}"),
    }
}

/// Addresses of this boot that belong to no attachment: their interfaces are of other plugins, whose DEL needs ours. One that
/// came with a VF and outlived its attachment is nobody's.
fn alone(records: &Records, boot_id: &str) -> Result<Vec<Leased>, LedgerError> {
    let attached: BTreeSet<Owner> = records.attachments()?.into_iter().map(|record| record.owner).collect();
    let is_alone = |lease: &Lease| {
        lease.device.is_none() && lease.boot_id == boot_id && !attached.contains(&lease.owner)
    };
    let leased = |lease: Lease| {
        let (namespace, pod) = lease.pod.map(|pod| (pod.namespace, pod.name)).unzip();
        let Owner { container_id: container, ifname: interface } = lease.owner;
        Leased { namespace, pod, container, interface, network: lease.network, address: lease.address }
    };
    Ok(records.leases()?.into_iter().filter(is_alone).map(leased).collect())
}

/// Waits until no call changes a VF that has one of the locks in `run_dir`. Returns who still does after `patience`.
pub(super) fn wait_for_calls(run_dir: &Path, patience: Duration) -> Vec<String> {
    let started = Instant::now();
    let locks = fs::read_dir(run_dir).into_iter().flatten().flatten();
    let mut held = Vec::new();
    for path in locks.map(|entry| entry.path()).filter(|path| is_vf_lock(path)) {
        let Ok(file) = File::options().read(true).write(true).open(&path) else { continue };
        loop {
            match file.try_lock() {
                Err(TryLockError::WouldBlock) if started.elapsed() < patience => thread::sleep(INTERVAL),
                Err(TryLockError::WouldBlock) => {
                    held.push(fs::read_to_string(&path).unwrap_or_default());
                    break;
                }
                // Held by nobody, or by nobody that can be waited for.
                Ok(()) | Err(TryLockError::Error(_)) => break,
            }
        }
    }
    held
}
