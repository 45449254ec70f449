//! What the lab's VM and its host say to each other: one JSON value per line over a virtio serial port.
//!
//! Refuses to know what a test wants: it runs programs, keeps or kills them, and moves files.
#![forbid(unsafe_code)]

mod crash_plan;
mod protocol;

pub use crash_plan::{CrashPlan, CrashPoint, CrashReport, CrashRun};
pub use protocol::{Answer, Call, Cycles, Output, PORT_NAME, Program, Reply, Request, Run, Runs, State};
pub use zerobridge_crash::Count;
