//! One attachment: a VF, or a whole function, in a pod, as a value, and the way from what is to what should be.
//!
//! `observe` reads the kernel, `diff` decides, `apply` performs; ADD converges on what the pod wants, DEL on what the VF
//! was before, and a crash between any two requests leaves something that the next convergence repairs. Refuses to know
//! CNI, Kubernetes and the ledger.

mod access;
mod converge;
mod diff;
mod error;
mod guid;
mod mac;
#[cfg(test)]
pub(crate) mod model;
mod neighbours;
mod rdma;
mod rdma_access;
mod rdma_wanted;
mod setting;
mod state;
mod wanted;

pub use access::VfAccess;
pub use converge::OnRefusal;
pub use diff::{Operation, diff};
pub use error::{AttachmentError, SettingRefusal};
pub use rdma_access::ReadyRdma;
pub(crate) use rdma_wanted::machine_obstacle;
pub use state::{LinkState, Place, RdmaKind, RdmaPlace, RdmaState, VfState};
pub use wanted::{Wish, wanted};
