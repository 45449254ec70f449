//! `zbctl ipam adopt`: host-local's addresses become leases of the ledger, so that its pods keep them under
//! `zerobridge-ipam` and their DEL releases them.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use thiserror::Error;
use zerobridge_kernel::{BootIdError, boot_id};
use zerobridge_ledger::{Lease, Ledger, LedgerError, Records, UnixSeconds};

use super::host_local::{HostLocal, Reserved};
use crate::cli::AdoptArguments;
use crate::{Failure, Finding};

/// The boot of a lease that is older than the present one. Which one it was, nobody knows; that no container outlived it is
/// what counts.
const EARLIER_BOOT: &str = "before host-local's addresses were adopted";

/// What keeps host-local's addresses from being taken over.
#[derive(Debug, Error)]
pub(crate) enum AdoptError {
    /// host-local's directory or a file in it.
    #[error("cannot read {}, where host-local keeps the addresses of the network", path.display())]
    Read { path: PathBuf, source: io::Error },
    /// The boot.
    #[error(transparent)]
    BootId(#[from] BootIdError),
    /// When the machine was started.
    #[error("cannot read when this machine was started from {}", path.display())]
    BootTime { path: PathBuf, source: io::Error },
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// What is to be done about one address.
#[derive(Debug, PartialEq, Eq)]
enum Judgement {
    /// It is to be leased, whether it rests in the ledger or is set aside there.
    Lease(Lease),
    /// Its owner has it already.
    Known,
    /// Another has it.
    HeldBy(Lease),
}

pub(crate) fn run(arguments: &AdoptArguments, out: &mut impl Write) -> Result<Finding, Failure> {
    let found =
        HostLocal::read(&arguments.from).map_err(|(path, source)| AdoptError::Read { path, source })?;
    let (network, from) = (arguments.network.as_str(), arguments.from.display());
    for (path, reason) in &found.refused {
        writeln!(out, "refused: {}: {reason}", path.display())?;
    }
    let boot = Boot::read(&arguments.procfs)?;
    let mut ledger = Ledger::open(&arguments.state_dir).map_err(AdoptError::from)?;
    let mut transaction = ledger.begin().map_err(AdoptError::from)?;
    let (mut adopted, mut known, mut conflicts) = (Vec::new(), 0, 0);
    for reserved in &found.reserved {
        match judge(&transaction, network, reserved, &boot).map_err(AdoptError::from)? {
            Judgement::Lease(lease) => adopted.push(lease),
            Judgement::Known => known += 1,
            Judgement::HeldBy(lease) => {
                conflicts += 1;
                let (address, owner) = (reserved.address, &reserved.owner);
                writeln!(
                    out,
                    "refused: {address}: host-local gave it to {owner}, and the ledger to {}",
                    lease.owner
                )?;
            }
        }
    }
    let problem = !found.refused.is_empty() || conflicts > 0;
    for lease in &adopted {
        let earlier = if lease.boot_id == EARLIER_BOOT { ", from before the last reboot" } else { "" };
        writeln!(out, "{}: {}{earlier}", lease.address, lease.owner)?;
    }
    let summary = format!("{} of {from} for network {network}, {known} known already", adopted.len());
    if problem {
        writeln!(out, "nothing was changed: {summary}; first see to what is refused")?;
        return Ok(Finding::Problem);
    }
    if !arguments.apply {
        writeln!(out, "nothing was changed: {summary}; --apply takes them over")?;
        return Ok(Finding::Fine);
    }
    let write = || -> Result<(), LedgerError> {
        for lease in &adopted {
            // That it rests here, or was seen with a foreign host, says less than host-local, which has given it away
            // since: the foreign host may be that very container.
            transaction.insert_lease_in_use(lease)?;
        }
        for (slot, address) in &found.last {
            if transaction.cursor(network, *slot)?.is_none() {
                transaction.set_cursor(network, *slot, *address)?;
            }
        }
        transaction.commit()
    };
    write().map_err(AdoptError::from)?;
    writeln!(out, "took over {summary}")?;
    Ok(Finding::Fine)
}

fn judge(
    records: &Records,
    network: &str,
    reserved: &Reserved,
    boot: &Boot,
) -> Result<Judgement, LedgerError> {
    Ok(match records.lease_at(network, reserved.address)? {
        Some(lease) if lease.owner == reserved.owner => Judgement::Known,
        Some(lease) => Judgement::HeldBy(lease),
        None => Judgement::Lease(Lease {
            network: network.to_owned(),
            address: reserved.address,
            owner: reserved.owner.clone(),
            pod: None,
            device: None,
            mac: None,
            vlan: None,
            rdma: None,
            boot_id: boot.of(reserved.since).to_owned(),
            created_at: reserved.since.into(),
        }),
    })
}

/// The present boot.
#[derive(Debug)]
struct Boot {
    id: String,
    since: UnixSeconds,
}

impl Boot {
    fn read(procfs: &Path) -> Result<Self, AdoptError> {
        let path = procfs.join("stat");
        let failed = |source| AdoptError::BootTime { path: path.clone(), source };
        let text = fs::read_to_string(&path).map_err(failed)?;
        // proc_stat(5): seconds since 1970.
        let seconds = text.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok());
        let seconds = seconds.ok_or_else(|| failed(io::Error::other("it has no line btime")))?;
        Ok(Self { id: boot_id(procfs)?, since: (UNIX_EPOCH + Duration::from_secs(seconds)).into() })
    }

    /// The boot in which a file was written.
    fn of(&self, written: SystemTime) -> &str {
        if UnixSeconds::from(written) < self.since { EARLIER_BOOT } else { &self.id }
    }
}

#[cfg(test)]
mod tests;
