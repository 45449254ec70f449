//! `zbctl node status`: what is installed, whether it is as it was installed, and what keeps it on the node.

use std::io::Write;
use std::path::PathBuf;

use serde::Serialize;

use super::file::Content;
use super::promises::{Attached, Leased, Promiser, Promises};
use super::record::{Entry, Kind, Record};
use super::take;
use crate::cli::StatusArguments;
use crate::{Failure, Finding, table, write_json};

/// The answer as JSON. `docs/zbctl.md` describes it; what is there stays there.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    version: Option<String>,
    files: Vec<Row>,
    attachments: Vec<Attached>,
    abandoned: Vec<Attached>,
    addresses: Vec<Leased>,
    notes: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    path: PathBuf,
    kind: Kind,
    state: State,
    content: Option<Content>,
    found: Option<Content>,
    before: Option<PathBuf>,
    aside: Vec<PathBuf>,
}

/// Whether a file is as it was installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
enum State {
    /// It is.
    AsInstalled,
    /// An installation was interrupted before it came to this file.
    Unfinished,
    /// Nothing is there.
    Missing,
    /// Something else is there.
    Changed,
}

impl State {
    fn told(self) -> &'static str {
        match self {
            Self::AsInstalled => "as installed",
            Self::Unfinished => "unfinished: install again",
            Self::Missing => "missing: install again",
            Self::Changed => "changed since: install again, or leave it",
        }
    }
}

pub(crate) fn run(arguments: &StatusArguments, out: &mut impl Write) -> Result<Finding, Failure> {
    let record = Record::load(&arguments.promises.state_dir)?;
    let rows =
        record.iter().flat_map(|record| &record.files).map(row).collect::<Result<Vec<_>, Failure>>()?;
    let promiser = Promiser::look(&arguments.promises)?;
    let notes = promiser.held().as_ref().err().cloned().into_iter().collect();
    let Promises { attachments, abandoned, addresses } = promiser.promises()?;
    let answer = Answer {
        version: record.map(|record| record.version),
        files: rows,
        attachments,
        abandoned,
        addresses,
        notes,
    };
    if arguments.json {
        write_json(out, &answer)?;
    } else {
        tell(&answer, out)?;
    }
    let is_whole = answer.files.iter().all(|row| row.state == State::AsInstalled);
    Ok(if is_whole { Finding::Fine } else { Finding::Problem })
}

fn row(entry: &Entry) -> Result<Row, Failure> {
    let (found, _) = take::step(entry)?;
    let content = entry.contents.last().cloned();
    let state = match &found {
        None => State::Missing,
        found if *found == content && entry.contents.len() == 1 => State::AsInstalled,
        Some(found) if entry.is_ours(found) => State::Unfinished,
        Some(_) => State::Changed,
    };
    Ok(Row {
        path: entry.path.clone(),
        kind: entry.kind,
        state,
        content,
        found,
        before: entry.before.as_ref().map(|before| before.path.clone()).filter(|path| path.exists()),
        aside: entry.aside.iter().filter(|path| path.exists()).cloned().collect(),
    })
}

fn tell(answer: &Answer, out: &mut impl Write) -> Result<(), Failure> {
    match &answer.version {
        None => writeln!(out, "nothing is installed")?,
        Some(version) => {
            writeln!(out, "version {version} is installed")?;
            let rows: Vec<[String; 4]> = answer.files.iter().map(cells).collect();
            table::write(out, ["FILE", "CONTENT", "STATE", "BEFORE"], &rows)?;
        }
    }
    for attached in &answer.attachments {
        writeln!(out, "in use: {attached}")?;
    }
    for leased in &answer.addresses {
        writeln!(out, "in use: {leased}")?;
    }
    for attached in &answer.abandoned {
        writeln!(out, "left behind: {attached}")?;
    }
    for note in &answer.notes {
        writeln!(out, "note: {note}")?;
    }
    Ok(())
}

fn cells(row: &Row) -> [String; 4] {
    /// As much of a digest as tells two apart.
    const SHORT: usize = "sha256:".len() + 12;
    let content = row.content.as_ref().map_or("", |content| content.as_str());
    [
        row.path.display().to_string(),
        content.chars().take(SHORT).collect(),
        row.state.told().to_owned(),
        table::or_dash(row.before.as_ref().map_or_else(String::new, |path| path.display().to_string())),
    ]
}
