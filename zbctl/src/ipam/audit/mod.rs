//! `zbctl ipam audit` compares the ledger with the namespaces and the API objects; `zbctl ipam repair` puts right what a
//! report of it names and what is still so.

mod fault;
mod judge;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read as _, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use zerobridge_blocks::IPBlock;
use zerobridge_kernel::{BootIdError, NetnsError, boot_id};
use zerobridge_ledger::{Ledger, LedgerError, Transaction, UnixSeconds};

use self::fault::{Fault, Held, Mend};
use self::judge::{Evidence, judge};
use crate::cli::{AuditArguments, EvidenceArguments, RepairArguments};
use crate::ledger::{cached, living};
use crate::{Failure, Finding};

/// What an audit found. A person may take faults out of it before it is repaired by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Report {
    /// How many transactions the ledger had seen.
    sequence: i64,
    /// The boot.
    boot_id: String,
    /// What is wrong.
    faults: BTreeSet<Fault>,
}

/// What keeps addresses from being audited or repaired.
#[derive(Debug, Error)]
pub(crate) enum AuditError {
    /// A file that was named.
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    /// Its content.
    #[error("{} is not what {wanted} writes", path.display())]
    Content { path: PathBuf, wanted: &'static str, source: serde_json::Error },
    /// The boot.
    #[error(transparent)]
    BootId(#[from] BootIdError),
    /// This program's own namespace.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// There is no ledger, and this program makes none.
    #[error("there is no ledger in {}", directory.display())]
    NoLedger { directory: PathBuf },
    /// The report is of a ledger that has seen more.
    #[error(
        "the report is of sequence {report}, and the ledger only at {ledger}: it is of another ledger, or this one was replaced; audit again"
    )]
    Sequence { report: i64, ledger: i64 },
    /// The report is from before a reboot.
    #[error("the report is from before the last reboot; audit again")]
    EarlierBoot,
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

pub(crate) fn run(arguments: &AuditArguments, out: &mut impl Write) -> Result<Finding, Failure> {
    let mut ledger = open(&arguments.evidence.survey.state_dir)?;
    let transaction = ledger.begin().map_err(AuditError::from)?;
    let (boot_id, faults) = look(&arguments.evidence, &transaction)?;
    let sequence = transaction.sequence().map_err(AuditError::from)?;
    drop(transaction);
    let finding = if faults.is_empty() { Finding::Fine } else { Finding::Problem };
    if arguments.json {
        let report = Report { sequence, boot_id, faults: faults.into_keys().collect() };
        serde_json::to_writer_pretty(&mut *out, &report)?;
        writeln!(out)?;
        return Ok(finding);
    }
    for (fault, mend) in &faults {
        match mend {
            Some(mend) => writeln!(out, "{fault}: repair would {mend}")?,
            None => writeln!(out, "{fault}")?,
        }
    }
    let can_be = faults.values().flatten().count();
    writeln!(out, "{} faults at sequence {sequence}, of which repair can put right {can_be}", faults.len())?;
    Ok(finding)
}

pub(crate) fn repair(arguments: &RepairArguments, out: &mut impl Write) -> Result<Finding, Failure> {
    let text = read(&arguments.from_report)?;
    let report: Report = parse(&arguments.from_report, "`zbctl ipam audit --json`", &text)?;
    let mut ledger = open(&arguments.evidence.survey.state_dir)?;
    let mut transaction = ledger.begin().map_err(AuditError::from)?;
    let (boot_id, mut faults) = look(&arguments.evidence, &transaction)?;
    let sequence = transaction.sequence().map_err(AuditError::from)?;
    if report.boot_id != boot_id {
        return Err(AuditError::EarlierBoot.into());
    }
    if report.sequence > sequence {
        return Err(AuditError::Sequence { report: report.sequence, ledger: sequence }.into());
    }
    let now = UnixSeconds::from(SystemTime::now());
    let (mut mended, mut left) = (0_u32, 0_u32);
    for fault in &report.faults {
        match faults.remove(fault) {
            None => writeln!(out, "no longer so: {fault}")?,
            Some(None) => {
                left += 1;
                writeln!(out, "for a person to see to: {fault}")?;
            }
            Some(Some(mend)) => {
                mended += 1;
                writeln!(out, "{fault}: {mend}")?;
                apply(&mut transaction, fault, &mend, now).map_err(AuditError::from)?;
            }
        }
    }
    if arguments.apply {
        transaction.commit().map_err(AuditError::from)?;
        writeln!(out, "put right: {mended}; left: {left}")?;
    } else {
        writeln!(out, "nothing was changed: {mended} can be put right, {left} cannot; --apply does it")?;
    }
    Ok(if left == 0 { Finding::Fine } else { Finding::Problem })
}

fn apply(
    transaction: &mut Transaction<'_>,
    fault: &Fault,
    mend: &Mend,
    now: UnixSeconds,
) -> Result<(), LedgerError> {
    match (fault, mend) {
        (
            Fault::Abandoned(Held { network, address, .. })
            | Fault::OfEarlierBoot(Held { network, address, .. }),
            Mend::Release,
        ) => transaction.release_address(network, *address, now).map(drop),
        (_, Mend::Lease(lease)) => transaction.insert_lease_in_use(lease),
        (
            Fault::NotMarked { network, address } | Fault::MarkedInVain { network, address },
            Mend::Mark(taken),
        ) => transaction.set_mark(network, *address, *taken),
        _ => Ok(()),
    }
}

/// Looks at everything while nobody leases, so that no address changes hands meanwhile.
fn look(
    arguments: &EvidenceArguments,
    transaction: &Transaction<'_>,
) -> Result<(String, BTreeMap<Fault, Option<Mend>>), AuditError> {
    let (living, mut unseen) = living::survey(&arguments.survey.netns_dir, &arguments.survey.procfs)?;
    let (cached, unread) = cached::read(&arguments.survey.cni_cache);
    unseen.extend(unread);
    let boot_id = boot_id(&arguments.survey.procfs)?;
    let objects = match &arguments.ip_blocks {
        Some(path) => Some(parse::<Objects>(path, "`kubectl get ipblocks -o json`", &read(path)?)?.items),
        None => None,
    };
    let evidence = Evidence {
        living: &living,
        unseen: &unseen,
        cached: &cached,
        networks: &arguments.survey.networks,
        blocks: arguments.node.as_deref().zip(objects.as_deref()),
        boot_id: &boot_id,
        now: SystemTime::now().into(),
    };
    let faults = judge(transaction, &evidence)?;
    Ok((boot_id, faults))
}

#[derive(Deserialize)]
struct Objects {
    items: Vec<IPBlock>,
}

fn open(directory: &Path) -> Result<Ledger, AuditError> {
    if !Ledger::exists(directory) {
        return Err(AuditError::NoLedger { directory: directory.to_owned() });
    }
    Ok(Ledger::open(directory)?)
}

/// A file, or standard input for `-`.
fn read(path: &Path) -> Result<String, AuditError> {
    let mut text = String::new();
    let read = match path.to_str() {
        Some("-") => io::stdin().read_to_string(&mut text),
        _ => File::open(path).and_then(|mut file| file.read_to_string(&mut text)),
    };
    read.map(|_| text).map_err(|source| AuditError::Read { path: path.to_owned(), source })
}

fn parse<T: for<'a> Deserialize<'a>>(path: &Path, wanted: &'static str, text: &str) -> Result<T, AuditError> {
    let error = |source| AuditError::Content { path: path.to_owned(), wanted, source };
    serde_json::from_str(text).map_err(error)
}

#[cfg(test)]
mod tests;
