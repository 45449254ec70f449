//! The program `zerobridge`: one CNI call.

use std::io::{self, Read};
use std::process::ExitCode;
use std::time::SystemTime;

fn main() -> ExitCode {
    let mut stdin = Vec::new();
    let answered = io::stdin().read_to_end(&mut stdin).and_then(|_| {
        zerobridge_cni_sriov::run(std::env::vars_os(), &stdin, SystemTime::now(), &mut io::stdout())
    });
    answered.map_or(ExitCode::FAILURE, ExitCode::from)
}
