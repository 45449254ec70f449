//! `zerobridge-ipam`: address management for CNI plugins. Configuration comes on standard input and in `CNI_*`
//! variables, the answer goes to standard output, and logs to standard error at `ZEROBRIDGE_LOG_LEVEL` (warn).
#![forbid(unsafe_code)]

use std::io::{self, IsTerminal, Read};
use std::process::ExitCode;

use tracing::Level;
use zerobridge_ipam::plugin::{Host, run};

fn main() -> ExitCode {
    let level = std::env::var("ZEROBRIDGE_LOG_LEVEL").ok().and_then(|text| text.parse().ok());
    tracing_subscriber::fmt()
        .with_max_level(level.unwrap_or(Level::WARN))
        .with_writer(io::stderr)
        .with_ansi(false)
        .init();
    // Called by hand, without a configuration, it answers at once instead of waiting for one.
    let stdin: Box<dyn Read> =
        if io::stdin().is_terminal() { Box::new(io::empty()) } else { Box::new(io::stdin()) };
    ExitCode::from(run(std::env::vars_os(), stdin, &mut io::stdout(), Host::observe))
}
