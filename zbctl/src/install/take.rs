//! `zbctl node uninstall`: networks first, so that no pod begins; then programs, once no pod needs them; then what they wrote.
//!
//! What cannot be done is told, and the rest is done.

use std::io::Write;

use zerobridge_proto::chain;

use super::file;
use super::plan::{self, Take};
use super::promises::{CALL_PATIENCE, Promiser, Promises, wait_for_calls};
use super::record::{Entry, Kind, Record, Turn};
use super::{InstallError, remains, stay};
use crate::cli::UninstallArguments;
use crate::{Failure, Finding, kubelet};

pub(crate) fn run(arguments: &UninstallArguments, out: &mut impl Write) -> Result<Finding, Failure> {
    let finding = uninstall(arguments, out)?;
    if finding == Finding::Fine && arguments.stay {
        writeln!(out, "done; waiting for SIGTERM")?;
        out.flush()?;
        stay::until_told()?;
    }
    Ok(finding)
}

fn uninstall(arguments: &UninstallArguments, out: &mut impl Write) -> Result<Finding, Failure> {
    let state_dir = &arguments.promises.state_dir;
    if Record::load(state_dir)?.is_none() {
        writeln!(out, "nothing is installed: there is no record of it in {}", state_dir.display())?;
        // What one that was killed at its very end left.
        if arguments.apply && state_dir.exists() {
            Turn::take(state_dir)?.end(state_dir)?;
        }
        return Ok(Finding::Fine);
    }
    if !arguments.apply {
        return rehearse(arguments, out);
    }
    let turn = Turn::take(state_dir)?;
    let Some(mut record) = Record::load(state_dir)? else {
        turn.end(state_dir)?;
        return Ok(Finding::Fine);
    };
    if !arguments.keep_state
        && kubelet::has_daemon(&arguments.promises.kubelet_root).map_err(InstallError::from)?
    {
        writeln!(
            out,
            "problem: zerobridge-device-plugin runs and would write anew what is removed: end it first"
        )?;
        writeln!(out, "nothing was taken off")?;
        return Ok(Finding::Problem);
    }
    let mut promiser = Promiser::look(&arguments.promises)?;
    let (lines, promises) = promiser.settle()?;
    tell(out, &lines)?;
    if promises.keep_the_programs() {
        tell_promises(out, &promises)?;
        writeln!(out, "nothing was taken off: {REMEDY}")?;
        return Ok(Finding::Problem);
    }

    let mut problems = Vec::new();
    take_all(&record, true, out, &mut problems)?;
    for call in wait_for_calls(&arguments.promises.run_dir, CALL_PATIENCE) {
        problems.push(format!("{call} has been under way for {} s", CALL_PATIENCE.as_secs()));
    }
    let mut promiser = Promiser::look(&arguments.promises)?;
    let (lines, promises) = promiser.settle()?;
    tell(out, &lines)?;
    if promises.keep_the_programs() || !problems.is_empty() {
        tell_promises(out, &promises)?;
        tell_problems(out, &problems)?;
        writeln!(out, "the networks were taken off, the programs stay: {REMEDY}")?;
        return Ok(Finding::Problem);
    }
    // No pod is left that the node would have to reach.
    problems.extend(promiser.end_legs()?);
    take_all(&record, false, out, &mut problems)?;
    if !arguments.keep_state {
        let remains = remains::remove(arguments, &promiser);
        tell(out, &remains.lines)?;
        problems.extend(remains.problems);
    }
    for folder in record.folders.drain(..).rev() {
        match file::remove_empty_folder(&folder) {
            Ok(_) => {}
            Err(error) => problems.push(chain(&error)),
        }
    }
    if !problems.is_empty() {
        tell_problems(out, &problems)?;
        writeln!(out, "not all was taken off: see to the problems and do it again")?;
        return Ok(Finding::Problem);
    }
    Record::forget(state_dir)?;
    turn.end(state_dir)?;
    writeln!(
        out,
        "the node is as it was{}",
        if arguments.keep_state { ", and the ledger is kept" } else { "" }
    )?;
    Ok(Finding::Fine)
}

/// What to do about pods.
const REMEDY: &str = "delete or move these pods (kubectl drain), and do it again";

/// Says what would be done.
fn rehearse(arguments: &UninstallArguments, out: &mut impl Write) -> Result<Finding, Failure> {
    let Some(record) = Record::load(&arguments.promises.state_dir)? else { return Ok(Finding::Fine) };
    for entry in &record.files {
        let path = entry.path.display();
        let (_, step) = step(entry)?;
        match step {
            Take::Nothing => writeln!(out, "{path}: is gone already")?,
            Take::Remove => writeln!(out, "{path}: would be removed")?,
            Take::PutBack(name) => writeln!(out, "{path}: would be what is kept as {}", name.display())?,
            Take::Forget(_) => writeln!(out, "{path}: is what was there before")?,
            Take::Leave => writeln!(out, "{path}: is not as it was installed, and would stay")?,
        }
    }
    let promises = Promiser::look(&arguments.promises)?.promises()?;
    for attached in &promises.abandoned {
        writeln!(
            out,
            "{}: would be given back, {}",
            attached.device,
            attached.reason.as_deref().unwrap_or_default()
        )?;
    }
    tell_promises(out, &promises)?;
    if promises.keep_the_programs() {
        writeln!(out, "nothing was changed, and --apply would change nothing: {REMEDY}")?;
        return Ok(Finding::Problem);
    }
    writeln!(out, "nothing was changed; --apply does it")?;
    Ok(Finding::Fine)
}

/// Takes the networks off, or all the others.
fn take_all(
    record: &Record,
    networks: bool,
    out: &mut impl Write,
    problems: &mut Vec<String>,
) -> Result<(), Failure> {
    for taken in record.files.iter().rev().filter(|entry| (entry.kind == Kind::Network) == networks) {
        let path = taken.path.display();
        match entry(taken) {
            Ok(Take::Nothing) => {}
            Ok(Take::Remove) => writeln!(out, "{path}: removed")?,
            Ok(Take::PutBack(_) | Take::Forget(_)) => writeln!(out, "{path}: is what was there before")?,
            Ok(Take::Leave) => {
                writeln!(out, "{path}: is not as it was installed, and stays")?;
                if let Some(before) = taken.before.as_ref().filter(|before| before.path.exists()) {
                    writeln!(out, "{}: what was there before stays, too", before.path.display())?;
                }
            }
            Err(error) => problems.push(chain(&error)),
        }
        for aside in taken.aside.iter().filter(|aside| aside.exists()) {
            writeln!(out, "{}: was put at {path} by somebody else, and stays", aside.display())?;
        }
    }
    Ok(())
}

/// Takes one file off, and says how.
pub(super) fn entry(entry: &Entry) -> Result<Take, InstallError> {
    let path = &entry.path;
    file::discard(path).map_err(|source| InstallError::Remove { path: path.clone(), source })?;
    let (_, step) = step(entry)?;
    match &step {
        Take::Nothing | Take::Leave => {}
        Take::Remove => file::remove(path)?,
        Take::PutBack(name) => file::put_back(name, path)?,
        Take::Forget(name) => file::remove(name)?,
    }
    Ok(step)
}

/// What stands at the place of an entry, and how it is taken off.
pub(super) fn step(entry: &Entry) -> Result<(Option<file::Content>, Take), InstallError> {
    let found = file::look(&entry.path)?;
    let kept = match &entry.before {
        Some(before) => file::look(&before.path)?,
        None => None,
    };
    let step = plan::take(entry, found.as_ref(), kept.as_ref());
    Ok((found, step))
}

fn tell(out: &mut impl Write, lines: &[String]) -> Result<(), Failure> {
    lines.iter().try_for_each(|line| Ok(writeln!(out, "{line}")?))
}

fn tell_problems(out: &mut impl Write, problems: &[String]) -> Result<(), Failure> {
    problems.iter().try_for_each(|problem| Ok(writeln!(out, "problem: {problem}")?))
}

fn tell_promises(out: &mut impl Write, promises: &Promises) -> Result<(), Failure> {
    for attached in &promises.attachments {
        writeln!(out, "in use: {attached}")?;
    }
    for leased in &promises.addresses {
        writeln!(out, "in use: {leased}")?;
    }
    Ok(())
}
