//! The operator's command: shows a node's devices and addresses, explains why one is in a pool or is not, checks a
//! configuration, takes addresses over from host-local, compares the ledger with what is so, makes a damaged one anew, and
//! puts the programs on a node and takes them off.
//!
//! Reads, compares and shows, with the same code by which the daemon decides, and works without the daemon. Changes
//! nothing but the ledger, and that only when told to by `--apply`, and what it installs. Refuses to decide anything about
//! devices and addresses by rules of its own.
#![forbid(unsafe_code)]

mod check;
mod cli;
mod devices;
mod explain;
mod install;
mod ipam;
mod kubelet;
mod ledger;
mod legs;
mod node;
mod owners;
mod probe;
mod table;

use std::io::{self, Write};
use std::process::ExitCode;

use thiserror::Error;
use zerobridge_proto::chain;

pub use cli::Cli;
use cli::{Command, ConfigCommand, IpamCommand, LedgerCommand, NodeCommand};

/// What keeps a command from its answer.
#[derive(Debug, Error)]
enum Failure {
    /// The answer could not be written.
    #[error("cannot write the answer")]
    Write(#[from] io::Error),
    /// The answer could not be written as JSON.
    #[error("cannot write the answer as JSON")]
    Json(#[from] serde_json::Error),
    /// The node could not be read.
    #[error(transparent)]
    Node(#[from] node::NodeError),
    /// host-local's addresses could not be taken over.
    #[error(transparent)]
    Adopt(#[from] ipam::adopt::AdoptError),
    /// Addresses could not be listed.
    #[error(transparent)]
    List(#[from] ipam::list::ListError),
    /// Addresses could not be audited or repaired.
    #[error(transparent)]
    Audit(#[from] ipam::audit::AuditError),
    /// The ledger could not be made anew.
    #[error(transparent)]
    Rebuild(#[from] ledger::rebuild::RebuildError),
    /// The daemon could not be asked.
    #[error(transparent)]
    Probe(#[from] probe::ProbeError),
    /// Something could not be installed, or taken off.
    #[error(transparent)]
    Install(#[from] install::InstallError),
    /// The node's legs could not be looked at.
    #[error(transparent)]
    Legs(#[from] zerobridge_device_plugin::LegsError),
    /// There is no such device, or pool.
    #[error(transparent)]
    Unknown(#[from] explain::Unknown),
}

/// What a command found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Finding {
    Fine,
    Problem,
}

/// Runs a command. The answer goes to `out`; what keeps it from being given goes to `problems`.
///
/// The exit code is 0, or 1 if there is a problem. (A command line that means nothing ends with 2 before it comes here.)
pub fn run(cli: &Cli, out: &mut impl Write, problems: &mut impl Write) -> ExitCode {
    let finding = match &cli.command {
        Command::Devices(arguments) => devices::run(arguments, out, problems),
        Command::Explain(arguments) => explain::run(arguments, out, problems),
        Command::Legs(arguments) => legs::run(arguments, out, problems),
        Command::Config(ConfigCommand::Check(arguments)) => check::run(arguments, out),
        Command::Ipam(IpamCommand::List(arguments)) => ipam::list::run(arguments, out),
        Command::Ipam(IpamCommand::Adopt(arguments)) => ipam::adopt::run(arguments, out),
        Command::Ipam(IpamCommand::Audit(arguments)) => ipam::audit::run(arguments, out),
        Command::Ipam(IpamCommand::Repair(arguments)) => ipam::audit::repair(arguments, out),
        Command::Ledger(LedgerCommand::Rebuild(arguments)) => ledger::rebuild::run(arguments, out),
        Command::Probe(arguments) => probe::run(arguments, out),
        Command::Node(NodeCommand::Install(arguments)) => install::install(arguments, out),
        Command::Node(NodeCommand::Uninstall(arguments)) => install::uninstall(arguments, out),
        Command::Node(NodeCommand::Status(arguments)) => install::status(arguments, out),
    };
    match finding {
        Ok(Finding::Fine) => ExitCode::SUCCESS,
        Ok(Finding::Problem) => ExitCode::FAILURE,
        // Whoever reads the answer has seen enough of it.
        Err(Failure::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(failure) => {
            // If even this cannot be written, the exit code still says it.
            let _ = writeln!(problems, "zbctl: {}", chain(&failure));
            ExitCode::FAILURE
        }
    }
}

fn write_json(out: &mut impl Write, value: &impl serde::Serialize) -> Result<(), Failure> {
    serde_json::to_writer_pretty(&mut *out, value).map_err(|error| match error.io_error_kind() {
        Some(kind) => Failure::Write(kind.into()),
        None => Failure::Json(error),
    })?;
    Ok(writeln!(out)?)
}

#[cfg(test)]
mod tests;
