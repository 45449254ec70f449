//! The program `zbctl`.
#![forbid(unsafe_code)]

use std::io;
use std::process::ExitCode;

use clap::Parser as _;
use zerobridge_zbctl::{Cli, run};

fn main() -> ExitCode {
    run(&Cli::parse(), &mut io::stdout().lock(), &mut io::stderr().lock())
}
