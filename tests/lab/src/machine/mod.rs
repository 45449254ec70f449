//! The VM: QEMU's command line, the running machine, and the way into its guest.
//!
//! Refuses to know Kubernetes and Zerobridge.

mod guest;
mod place;
mod qemu;
mod vm;

pub(crate) use guest::succeeded;
pub use guest::{Guest, GuestError, look_until, program};
pub use place::{Place, PlaceError};
pub use qemu::{Forward, HOST_ADDRESS, Hardware, MANAGEMENT_PREFIX, Member, Wire};
pub use vm::{Vm, VmError};
pub use zerobridge_lab_guest::{Count, CrashPlan, CrashPoint, CrashReport, CrashRun, Output, Program, State};
