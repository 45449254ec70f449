//! `zbctl ledger rebuild`: a new ledger from what is left of a damaged one and from what living namespaces have.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::SystemTime;

use thiserror::Error;
use zerobridge_kernel::{BootIdError, NetnsError, boot_id};
use zerobridge_ledger::{LedgerError, REPLACED, Salvage, Table, UnixSeconds};

use super::plan::{Known, Plan, plan};
use super::{cached, living};
use crate::cli::RebuildArguments;
use crate::{Failure, Finding};

/// What keeps the ledger from being made anew.
#[derive(Debug, Error)]
pub(crate) enum RebuildError {
    /// No room to work.
    #[error("cannot make a directory for the new ledger in {}", path.display())]
    Scratch { path: PathBuf, source: io::Error },
    /// The boot.
    #[error(transparent)]
    BootId(#[from] BootIdError),
    /// This program's own namespace.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// The old ledger cannot be copied, or the new one cannot be written.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

pub(crate) fn run(arguments: &RebuildArguments, out: &mut impl Write) -> Result<Finding, Failure> {
    let temporary = std::env::temp_dir();
    let scratch = tempfile::tempdir_in(&temporary);
    let scratch = scratch.map_err(|source| RebuildError::Scratch { path: temporary, source })?;
    let mut salvage =
        Salvage::read(&arguments.survey.state_dir, scratch.path()).map_err(RebuildError::from)?;
    // Now that nobody leases, so that no address comes between the two looks.
    let (living, unseen) =
        living::survey(&arguments.survey.netns_dir, &arguments.survey.procfs).map_err(RebuildError::from)?;
    let (cached, unread) = cached::read(&arguments.survey.cni_cache);
    let boot_id = boot_id(&arguments.survey.procfs).map_err(RebuildError::from)?;
    let now = UnixSeconds::from(SystemTime::now());

    let read = |salvage: &Salvage| Ok((salvage.ledger.attachments()?, salvage.ledger.leases()?));
    let (attachments, leases) = read(&salvage).map_err(RebuildError::Ledger)?;
    let networks = &arguments.survey.networks;
    let known = Known {
        attachments: &attachments,
        leases: &leases,
        cached: &cached,
        networks,
        boot_id: &boot_id,
        now,
    };
    let plan = plan(&living, &known);

    tell_tables(out, &salvage.tables)?;
    tell_plan(out, &plan)?;
    for text in &unread {
        writeln!(out, "note: cannot be read: {text}")?;
    }
    for text in &unseen {
        writeln!(out, "problem: what addresses are in use there is not known: {text}")?;
    }
    if !plan.unplaced.is_empty() || (!unseen.is_empty() && !arguments.despite_unseen) {
        writeln!(out, "nothing was changed: first see to the problems")?;
        return Ok(Finding::Problem);
    }
    if !arguments.apply {
        writeln!(out, "nothing was changed; --apply puts the new ledger into the place of the old one")?;
        return Ok(Finding::Fine);
    }
    let aside = arguments.survey.state_dir.join(format!("{REPLACED}{}", now.0));
    let apply = || {
        complete(&mut salvage, &plan)?;
        salvage.install(&aside)
    };
    apply().map_err(RebuildError::Ledger)?;
    writeln!(out, "the new ledger is in its place, the old one in {}", aside.display())?;
    Ok(Finding::Fine)
}

/// Writes what is missing into the new ledger.
fn complete(salvage: &mut Salvage, plan: &Plan) -> Result<(), LedgerError> {
    let mut transaction = salvage.ledger.begin()?;
    for lease in &plan.missing {
        transaction.insert_lease_in_use(lease)?;
    }
    transaction.commit()
}

fn tell_tables(out: &mut impl Write, tables: &[Table]) -> io::Result<()> {
    for Table { name, kept, refused, damage } in tables {
        let refused = if *refused > 0 {
            format!(", {refused} rows that make no sense are left out")
        } else {
            String::new()
        };
        let damage =
            damage.as_ref().map(|damage| format!(", and not to its end: {damage}")).unwrap_or_default();
        writeln!(out, "{name}: {kept} rows read{refused}{damage}")?;
    }
    Ok(())
}

fn tell_plan(out: &mut impl Write, plan: &Plan) -> io::Result<()> {
    for lease in &plan.missing {
        writeln!(
            out,
            "in use and not in the ledger: {} of network {}, {}",
            lease.address, lease.network, lease.owner
        )?;
    }
    for (lease, owner) in &plan.of_others {
        let (address, network) = (lease.address, &lease.network);
        writeln!(
            out,
            "note: {address} of network {network} is used by {owner}, and leased to {}",
            lease.owner
        )?;
    }
    for device in &plan.unattached {
        writeln!(out, "note: {device}, has no record: what its PF imposes stays when its pod ends")?;
    }
    for (address, place) in &plan.unplaced {
        writeln!(
            out,
            "problem: {address} of {place}: nobody knows its network; name it with --network NAME"
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
