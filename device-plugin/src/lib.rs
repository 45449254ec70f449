//! The node daemon: offers VFs to the kubelet as extended resources, and tells containers about the VFs they are given.
//!
//! Knows pools, selectors and the kubelet's registration. Refuses to know how a VF gets into a pod and which address it
//! has there: that is the CNI plugin's part.
#![forbid(unsafe_code)]

mod allocation;
mod cli;
mod config;
mod daemon;
mod device_info;
mod endpoint;
mod inventory;
mod kubelet_dir;
mod pool;
mod registration;
mod resource;
mod selector;
mod server;

pub use cli::Cli;
pub use config::{Config, ConfigError, PoolConfig};
pub use daemon::{DaemonError, Settings, run};
pub use endpoint::EndpointError;
pub use resource::{DEFAULT_PREFIX, ResourceName, ResourceNameError};
pub use selector::{HexId, PfSelector, SelectorError, Selectors};
