//! What the kubelet says that it can allocate and what it has allocated, from its pod-resources socket.
//!
//! Runs in the guest so that a measured time does not include the way to the host. Refuses to know what a resource is
//! for, and who changes it.

mod follow;
mod lister;
mod wait;
mod watch;

use std::io::{self, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;
use thiserror::Error;

use lister::{Lister, POD_RESOURCES};

/// Why there is no answer.
#[derive(Debug, Error)]
pub(crate) enum ResourcesError {
    /// The arguments are not as they should be.
    #[error(
        "resources {arguments}: write allocatable, pods, wait RESOURCE COUNT SECONDS [OLD-SOCKET-INODE], \
         follow SECONDS RESOURCE=COUNT… -- PROGRAM [ARGUMENT…], or watch RESOURCE SECONDS MILLISECONDS"
    )]
    Usage {
        /// What was given.
        arguments: String,
    },
    /// The client's own set-up failed.
    #[error("set up a client of {POD_RESOURCES}")]
    Client {
        /// What failed.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The kubelet cannot be reached, or refused.
    #[error("{call} at {POD_RESOURCES}")]
    Call {
        /// The remote procedure.
        call: &'static str,
        /// Its answer.
        #[source]
        source: Box<tonic::Status>,
    },
    /// The condition did not come true in time.
    #[error("{seconds} s after {event} {wanted} was not allocatable; last seen: {last}")]
    TooLate {
        /// The limit.
        seconds: u64,
        /// Since when it counts.
        event: String,
        /// What was waited for.
        wanted: String,
        /// What was seen last.
        last: String,
    },
    /// What is to follow an event was so before it.
    #[error("{wanted} is allocatable before the event that is to bring it about")]
    AlreadySo {
        /// What was waited for.
        wanted: String,
    },
    /// The event's program did not do its work.
    #[error("the event `{program}` {ended}")]
    Event {
        /// The command line.
        program: String,
        /// How it ended.
        ended: String,
    },
    /// The event's program could not be started or waited for.
    #[error("run the event `{program}`")]
    Run {
        /// The command line.
        program: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The answer could not be printed.
    #[error("print the answer")]
    Print {
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

/// Asks as told and prints a line of JSON.
pub(crate) fn run(arguments: &[&str]) -> Result<(), ResourcesError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| ResourcesError::Client { source: error.into() })?;
    let usage = || ResourcesError::Usage { arguments: arguments.join(" ") };
    // The client's channel starts a task, so it is made inside the runtime.
    let _inside = runtime.enter();
    let mut lister = Lister::new();
    match *arguments {
        ["allocatable"] => print(&runtime.block_on(lister.allocatable())?),
        ["pods"] => print(&runtime.block_on(lister.pods())?),
        ["wait", resource, count, seconds, ref old @ ..] => {
            let count = count.parse().map_err(|_| usage())?;
            let seconds = seconds.parse().map_err(|_| usage())?;
            let old = match old {
                [] => None,
                [inode] => Some(inode.parse().map_err(|_| usage())?),
                _ => return Err(usage()),
            };
            print(&runtime.block_on(wait::wait(&mut lister, resource, count, seconds, old))?)
        }
        ["follow", seconds, ref rest @ ..] => {
            let seconds = seconds.parse().map_err(|_| usage())?;
            let (wanted, event) = follow::parse(rest).ok_or_else(usage)?;
            print(&runtime.block_on(follow::follow(&mut lister, &wanted, seconds, &event))?)
        }
        ["watch", resource, seconds, milliseconds] => {
            let seconds = seconds.parse().map_err(|_| usage())?;
            let milliseconds = milliseconds.parse().map_err(|_| usage())?;
            print(&runtime.block_on(watch::watch(&mut lister, resource, seconds, milliseconds))?)
        }
        _ => Err(usage()),
    }
}

fn print(answer: &impl Serialize) -> Result<(), ResourcesError> {
    let fail = |source| ResourcesError::Print { source };
    let text = serde_json::to_string(answer).map_err(|error| fail(error.into()))?;
    writeln!(io::stdout(), "{text}").map_err(fail)
}

/// The clock in microseconds since 1970, comparable with the time stamps in a program's log.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
