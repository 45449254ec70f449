//! The CNI plugin: attaches one SR-IOV virtual function to one pod, and gives it back as it was.
//!
//! An attachment is a value ([`attachment::VfState`]); every verb is convergence on one. What the node has promised is
//! in the ledger, what is so is asked of the kernel, and nothing is remembered elsewhere. Refuses to do anything that
//! outlives the call.
//!
//! The node's daemon ends attachments by the same code as DEL does ([`Repairer`]), keeps VFs for the node by it ([`Keep`]), and asks the kubelet by the same
//! client as ADD does ([`list_pod_resources`]). Both write documents for others in one way ([`documents`]).
#![forbid(unsafe_code)]

mod add;
pub mod attachment;
mod call;
mod chained;
mod check;
pub mod codes;
mod config;
mod del;
mod delegate;
pub mod documents;
mod failure;
mod gc;
mod keep;
mod lock;
mod log;
mod neighbours;
pub mod network_file;
mod plugin;
mod pod_resources;
mod promise;
mod rdma;
mod rdma_nodes;
mod record;
#[cfg(test)]
#[path = "../tests/node/recording_ipam.rs"]
mod recording_ipam;
mod repairer;
mod selection;
mod status;

pub use keep::{Keep, KeepError};
pub use lock::LockError;
pub use plugin::run;
pub use pod_resources::{PodResourcesError, list_pod_resources};
pub use rdma_nodes::{forget_rdma_nodes, rdma_nodes_name};
pub use record::RecordError;
pub use repairer::{RepairError, Repairer};
