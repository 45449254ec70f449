//! The presence at the kubelet: sockets, registration, and the gRPC service of each pool.
//!
//! Refuses to know which devices there are and what a container needs: it carries answers that are made elsewhere.

mod answers;
mod endpoint;
mod kubelet_dir;
mod listening;
mod register;
mod registration;
mod server;
mod standing;

pub(crate) use answers::Answers;
pub use endpoint::EndpointError;
pub(crate) use endpoint::{PoolEndpoint, hand_over};
pub use kubelet_dir::is_served;
pub(crate) use kubelet_dir::{KubeletDir, socket_name};
pub(crate) use standing::{Registrations, Standing};
