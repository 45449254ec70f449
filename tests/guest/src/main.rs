//! What the lab runs inside its VM: the first process, the agent that the host talks to, and tools for tests.
//!
//! Refuses to know which test is running.
#![forbid(unsafe_code)]

mod agent;
mod crash;
mod cycles;
mod init;
mod process;
mod resources;

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;

use zerobridge_proto::chain;

const USAGE: &str = "usage: lab-guest init | agent
       lab-guest crash < PLAN > REPORT
       lab-guest cycles
       lab-guest resources allocatable | pods
       lab-guest resources wait RESOURCE COUNT SECONDS [OLD-SOCKET-INODE]
       lab-guest resources follow SECONDS RESOURCE=COUNT… -- PROGRAM [ARGUMENT…]
       lab-guest resources watch RESOURCE SECONDS MILLISECONDS";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        ["init"] => init::run().map_err(Into::into),
        ["agent"] => agent::run().map_err(Into::into),
        ["crash"] => crash::run().map_err(Into::into),
        ["cycles"] => cycles::run().map_err(Into::into),
        ["resources", rest @ ..] => resources::run(rest).map_err(Into::into),
        _ => Err(Box::<dyn Error>::from(USAGE)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing is left to tell it to when standard error is gone.
            let _ = writeln!(io::stderr(), "lab-guest: {}", chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}
