//! Where the plugin's own words go: to standard error, which the runtime shows when a call fails, or to `logFile`.

use std::fs::File;
use std::io;
use std::sync::Mutex;

use serde_json::Value;
use tracing::Level;
use zerobridge_proto::cni::{CniError, ErrorCode, NetworkConfig};

/// Starts logging as `logLevel` and `logFile` say; sriov-cni's names of levels are kept.
///
/// # Errors
/// Code 7 for another level, code 5 when the file cannot be opened.
pub(crate) fn start(config: &NetworkConfig) -> Result<(), CniError> {
    let level = match config.own.get("logLevel").map(Value::as_str) {
        None => Level::INFO,
        Some(Some("panic" | "error")) => Level::ERROR,
        Some(Some("warning")) => Level::WARN,
        Some(Some("info")) => Level::INFO,
        Some(Some("debug")) => Level::DEBUG,
        Some(_) => {
            let value = &config.own["logLevel"];
            let allowed = "\"panic\", \"error\", \"warning\", \"info\" or \"debug\"";
            return Err(CniError::new(
                ErrorCode::INVALID_CONFIG,
                format!("logLevel is {value}; allowed is {allowed}"),
            ));
        }
    };
    let builder = tracing_subscriber::fmt().with_max_level(level).with_ansi(false).with_target(false);
    let started = match config.own.get("logFile").and_then(Value::as_str).filter(|path| !path.is_empty()) {
        None => builder.with_writer(io::stderr).try_init(),
        Some(path) => {
            let file = File::options().append(true).create(true).open(path).map_err(|error| {
                CniError::new(ErrorCode::IO, format!("cannot open logFile {path}"))
                    .with_details(error.to_string())
            })?;
            builder.with_writer(Mutex::new(file)).try_init()
        }
    };
    // A second call in one process (a test) keeps the first one's logging.
    started.or(Ok(()))
}
