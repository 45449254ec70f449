//! From environment and standard input to an answer on standard output.

use std::ffi::{OsStr, OsString};
use std::fmt::Display;
use std::io::{self, Write};
use std::path::Path;
use std::time::SystemTime;

use zerobridge_kernel::boot_id;
use zerobridge_proto::cni::{CniError, Command, Environment, ErrorCode, NetworkConfig, version_answer};

use crate::add::add;
use crate::call::Call;
use crate::chained;
use crate::check::check;
use crate::config::Paths;
use crate::del::del;
use crate::gc::gc;
use crate::log;
use crate::status::status;

/// Answers one call. Returns the exit code of the process: 0, or 1 with an error object on `stdout`.
///
/// # Errors
/// The answer could not be written.
pub fn run<K: AsRef<OsStr>, V: Into<OsString>>(
    variables: impl IntoIterator<Item = (K, V)>,
    stdin: &[u8],
    now: SystemTime,
    stdout: &mut impl Write,
) -> io::Result<u8> {
    match answer(variables, stdin, now) {
        Ok(None) => Ok(0),
        Ok(Some(answer)) => writeln!(stdout, "{answer}").map(|()| 0),
        Err(error) => {
            tracing::error!(%error, "failed");
            writeln!(stdout, "{}", error.encode(NetworkConfig::answer_version(stdin))).map(|()| 1)
        }
    }
}

fn answer<K: AsRef<OsStr>, V: Into<OsString>>(
    variables: impl IntoIterator<Item = (K, V)>,
    stdin: &[u8],
    now: SystemTime,
) -> Result<Option<Box<dyn Display>>, CniError> {
    let variables: Vec<(OsString, OsString)> =
        variables.into_iter().map(|(name, value)| (name.as_ref().to_owned(), value.into())).collect();
    let environment = Environment::parse(variables.iter().map(|(name, value)| (name, value)))?;
    if environment.command == Command::Version {
        return Ok(Some(Box::new(version_answer(stdin))));
    }
    let config = NetworkConfig::decode(stdin)?;
    // A pod whose ADD failed on a bad value is deleted with the same configuration, and must be able to go away.
    let lenient = environment.command == Command::Del;
    log::start(&config).or_else(|error| if lenient { Ok(()) } else { Err(error) })?;
    environment.command.require(config.version)?;
    let boot_id = boot_id(Path::new("/proc")).map_err(|error| CniError::from_chain(ErrorCode::IO, &error))?;
    let paths =
        Paths::parse(&config).or_else(|error| if lenient { Ok(Paths::default()) } else { Err(error) })?;
    let call = Call {
        environment: &environment,
        variables: &variables,
        config: &config,
        stdin,
        paths,
        boot_id,
        now: now.into(),
    };
    if config.plugin_type == chained::NAME && environment.command != Command::Version {
        let result = chained::chained(&call)?;
        return Ok(result.map(|result| Box::new(result.encode(config.version)) as Box<dyn Display>));
    }
    match environment.command {
        Command::Add => {
            let result = add(&call)?;
            return Ok(Some(Box::new(result.encode(config.version))));
        }
        Command::Del => del(&call)?,
        Command::Check => check(&call)?,
        Command::Gc => gc(&call)?,
        Command::Status => status(&call)?,
        Command::Version => {}
    }
    Ok(None)
}
