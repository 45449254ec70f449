//! The VM: QEMU's command line, the running machine, and the way into its guest.
//!
//! Refuses to know Kubernetes and Zerobridge.

mod guest;
mod qemu;
mod vm;

pub(crate) use guest::succeeded;
pub use guest::{Guest, GuestError, program};
pub use qemu::Hardware;
pub use vm::{Vm, VmError};
pub use zerobridge_lab_guest::{Count, CrashPlan, CrashPoint, CrashReport, CrashRun, Output, Program, State};
