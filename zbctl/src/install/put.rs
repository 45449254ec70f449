//! `zbctl node install`: programs and networks into their places.
//!
//! Everything is read and checked first, then remembered, then written beside its place, and only then put into it: what can
//! fail for lack of room or rights fails before anything has changed.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use zerobridge_cni_sriov::network_file::{IPAM_NAME, NAME};

use super::file::{self, Content};
use super::plan::{self, Put, Take, Wanted};
use super::record::{Entry, Kind, Record, Turn, version};
use super::{InstallError, network, take};
use crate::cli::InstallArguments;
use crate::{Failure, Finding};

/// This program's own name.
const ZBCTL: &str = "zbctl";

/// What everybody may run, and root may change.
const PROGRAM_MODE: u32 = 0o755;

/// What everybody may read: some runtimes' configurations are collected by others than root.
const NETWORK_MODE: u32 = 0o644;

/// The folders of the runtime, which it makes so itself.
const FOLDER_MODE: u32 = 0o755;

/// A file to be installed.
#[derive(Debug)]
struct Source {
    wanted: Wanted,
    bytes: Vec<u8>,
}

pub(crate) fn run(arguments: &InstallArguments, out: &mut impl Write) -> Result<Finding, Failure> {
    let sources = sources(arguments)?;
    let turn = Turn::take(&arguments.state_dir)?;
    let remembered = Record::load(&arguments.state_dir)?;
    match put(arguments, remembered.clone(), &sources, out) {
        Err(failure) => {
            // What never began need not be remembered.
            if remembered.is_none() && Record::load(&arguments.state_dir)?.is_none() {
                turn.end(&arguments.state_dir)?;
            }
            Err(failure)
        }
        put => put,
    }
}

fn put(
    arguments: &InstallArguments,
    remembered: Option<Record>,
    sources: &[Source],
    out: &mut impl Write,
) -> Result<Finding, Failure> {
    let state_dir = &arguments.state_dir;
    let mut record = remembered.clone().unwrap_or_else(Record::new);
    let mut puts = Vec::new();
    for source in sources {
        let found = file::look(&source.wanted.path)?;
        let remembered = record.entry(&source.wanted.path);
        puts.push((source, plan::put(&source.wanted, remembered, found.as_ref(), file::look)?));
    }
    let is_wanted = |entry: &Entry| sources.iter().any(|source| source.wanted.path == entry.path);
    let dropped: Vec<Entry> = record
        .files
        .iter()
        .filter(|entry| entry.kind == Kind::Network && !is_wanted(entry))
        .cloned()
        .collect();
    let rest = record.files.iter().filter(|entry| !is_wanted(entry)).cloned();
    record.files = puts.iter().map(|(_, put)| put.entry.clone()).chain(rest).collect();
    for folder in folders(sources) {
        let missing = file::missing_folders(&folder);
        record.folders.extend(
            missing.into_iter().filter(|folder| !record.folders.contains(folder)).collect::<Vec<_>>(),
        );
    }
    record.version = version();

    if remembered.as_ref() != Some(&record) {
        record.save(state_dir)?;
    }
    if let Err(error) = stage(sources, &puts, &record) {
        for (source, _) in &puts {
            // Best effort, as is the rest of the way back.
            let _ = file::discard(&source.wanted.path);
        }
        let _ = match &remembered {
            Some(remembered) => remembered.save(state_dir),
            None => Record::forget(state_dir),
        };
        for folder in record.folders.iter().rev() {
            let _ = file::remove_empty_folder(folder);
        }
        return Err(error.into());
    }
    for (source, put) in &puts {
        act(source, put, out)?;
    }
    for entry in &dropped {
        let step = take::entry(entry)?;
        tell_dropped(entry, &step, out)?;
    }
    for entry in record.files.iter().filter(|entry| entry.kind != Kind::Network && !is_wanted(entry)) {
        writeln!(
            out,
            "{}: stays from an earlier installation, until `zbctl node uninstall`",
            entry.path.display()
        )?;
    }

    let mut tidy = record.clone();
    tidy.files.retain(|entry| !dropped.contains(entry));
    for (source, _) in &puts {
        let entry = tidy.files.iter_mut().find(|entry| entry.path == source.wanted.path);
        if let Some(entry) = entry {
            entry.contents = vec![source.wanted.content.clone()];
        }
    }
    if tidy != record {
        tidy.save(state_dir)?;
    }
    let version = version();
    writeln!(out, "version {version} is installed, {} files", puts.len())?;
    Ok(Finding::Fine)
}

/// Everything that is to be installed: programs, other names of the plugin, and networks at last, so that no runtime calls
/// what is not there yet.
fn sources(arguments: &InstallArguments) -> Result<Vec<Source>, InstallError> {
    let read = |name: &str| {
        let path = arguments.from.join(name);
        fs::read(&path).map_err(|source| InstallError::Source { path, source })
    };
    let source = |path: PathBuf, kind: Kind, bytes: Vec<u8>| Source {
        wanted: Wanted { path, kind, content: Content::of(&bytes) },
        bytes,
    };
    let plugin = read(NAME)?;
    let bin = &arguments.cni_bin_dir;
    let mut sources = vec![source(bin.join(IPAM_NAME), Kind::Program, read(IPAM_NAME)?)];
    sources.push(source(bin.join(NAME), Kind::Program, plugin.clone()));
    let names: BTreeSet<&str> = arguments.names.iter().map(String::as_str).collect();
    for name in &names {
        sources.push(source(bin.join(name), Kind::Replacement, plugin.clone()));
    }
    if let Some(folder) = &arguments.with_zbctl {
        sources.push(source(folder.join(ZBCTL), Kind::Program, read(ZBCTL)?));
    }
    let names: Vec<&str> = names.into_iter().collect();
    for network in network::read(&arguments.networks, &names, &arguments.state_dir)? {
        sources.push(source(arguments.cni_conf_dir.join(&network.name), Kind::Network, network.bytes));
    }
    Ok(sources)
}

fn folders(sources: &[Source]) -> BTreeSet<PathBuf> {
    sources.iter().filter_map(|source| source.wanted.path.parent()).map(Path::to_owned).collect()
}

/// Writes everything beside its place.
fn stage(sources: &[Source], puts: &[(&Source, Put)], record: &Record) -> Result<(), InstallError> {
    // Also where nothing is written: a killed installation may have come no further.
    for source in sources {
        let path = &source.wanted.path;
        file::discard(path).map_err(|source| InstallError::Write { path: path.clone(), source })?;
    }
    for folder in &record.folders {
        file::make_folder(folder, FOLDER_MODE)?;
    }
    for (source, put) in puts.iter().filter(|(_, put)| put.write) {
        file::stage(&source.wanted.path, &source.bytes, mode(put.entry.kind))?;
    }
    Ok(())
}

fn mode(kind: Kind) -> u32 {
    match kind {
        Kind::Program | Kind::Replacement => PROGRAM_MODE,
        Kind::Network => NETWORK_MODE,
    }
}

fn act(source: &Source, put: &Put, out: &mut impl Write) -> Result<(), Failure> {
    let path = &source.wanted.path;
    if let Some(name) = &put.keep {
        file::keep(path, name)?;
    }
    if put.write {
        file::finish(path)?;
    } else {
        file::ensure_mode(path, mode(put.entry.kind))?;
    }
    let done = if put.write { "installed" } else { "is there already" };
    let kept = match &put.keep {
        Some(name) => format!("; what stood there is kept as {}", name.display()),
        None => String::new(),
    };
    Ok(writeln!(out, "{}: {done}{kept}", path.display())?)
}

fn tell_dropped(entry: &Entry, step: &Take, out: &mut impl Write) -> Result<(), Failure> {
    let path = entry.path.display();
    let done = match step {
        Take::Nothing => return Ok(()),
        Take::Remove => "removed, no --network names it any more",
        Take::PutBack(_) | Take::Forget(_) => "is what was there before; no --network names ours any more",
        Take::Leave => "was changed since it was installed and stays, though no --network names it any more",
    };
    Ok(writeln!(out, "{path}: {done}")?)
}
