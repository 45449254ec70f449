//! Why a cluster is not, or not any more, as a test needs it.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;
use zerobridge_lab::{CacheError, GuestError, PlaceError, PrepareError, VmError};

use crate::control_plane::ControlPlaneError;
use crate::process::ProcessError;

/// Why a cluster is not as it should be.
#[derive(Debug, Error)]
pub enum ClusterError {
    /// No cache.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// There is no folder for its files.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// The programs could not be built.
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    /// etcd or the API server.
    #[error(transparent)]
    ControlPlane(#[from] ControlPlaneError),
    /// Another program on the host.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// The nodes did not come up; the report ends the sentence, since it is for a person to read.
    #[error("the cluster did not come up\n{report}\n")]
    NotUp {
        /// What everything else was like at that time.
        report: String,
        /// What failed.
        #[source]
        source: Box<ClusterError>,
    },
    /// A node's VM did not boot.
    #[error("the VM of node {node}")]
    Vm {
        /// The node.
        node: String,
        /// Why.
        #[source]
        source: VmError,
    },
    /// Something failed in a node's VM.
    #[error("on node {node}")]
    Guest {
        /// The node.
        node: String,
        /// What.
        #[source]
        source: GuestError,
    },
    /// A node was used that has no power.
    #[error("node {node} is switched off: power_on() comes first")]
    Off {
        /// The node.
        node: String,
    },
    /// There is no such node.
    #[error("node {index} of {nodes}: they are counted from 0")]
    NoNode {
        /// The number.
        index: usize,
        /// How many there are.
        nodes: usize,
    },
    /// A number of nodes that the lab cannot make.
    #[error("{nodes} nodes: a wire has two ends, so that there may be 1 or 2")]
    Nodes {
        /// What was asked for.
        nodes: u8,
    },
    /// A file or folder.
    #[error("{action} {path}")]
    File {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A program on the host could not be run.
    #[error("run `{command}`")]
    Run {
        /// Its command line.
        command: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A program on the host failed.
    #[error("`{command}` failed:\n{said}")]
    Failed {
        /// Its command line.
        command: String,
        /// What it said.
        said: String,
    },
    /// kubectl printed something that is not the JSON that it was asked for.
    #[error("`{command}` printed no JSON that is understood")]
    NotJson {
        /// Its command line.
        command: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The threads of the cluster's own connections cannot be started.
    #[error("start the threads of the cluster's connections")]
    Threads(#[source] io::Error),
    /// A condition did not come true.
    #[error("{what} did not happen within {} s; last seen: {last}", limit.as_secs())]
    TooLate {
        /// What was waited for.
        what: String,
        /// For how long.
        limit: Duration,
        /// The last look at it.
        last: String,
    },
}

impl ClusterError {
    pub(super) fn file(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { action, path, source }
    }
}
