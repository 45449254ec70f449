//! Kills a program before a chosen one of its system calls, to see what such a death leaves behind.
//!
//! The program is the one that is shipped, not one built for the purpose, and what its libraries do counts like what it
//! does itself. Refuses to know what the program is and what should be left.
#![forbid(unsafe_code)]

mod change;
mod trace;

use std::io;

use nix::errno::Errno;
use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use trace::{Ended, Victim};

/// Which system calls count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Count {
    /// Those that change something that outlives the process. Nothing happens between two of them, so to die after one
    /// is to die before the next.
    Changes,
    /// All.
    All,
}

/// Why a program could not be traced.
#[derive(Debug, Error)]
pub enum TraceError {
    /// The program could not be started.
    #[error("start {program}")]
    Start {
        /// Which.
        program: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// ptrace or wait failed.
    #[error("trace {program}: {call}")]
    Trace {
        /// Which.
        program: String,
        /// The system call.
        call: &'static str,
        /// What the kernel said.
        #[source]
        source: Errno,
    },
}

impl TraceError {
    fn trace(program: &str, call: &'static str) -> impl FnOnce(Errno) -> Self {
        move |source| Self::Trace { program: program.into(), call, source }
    }
}
