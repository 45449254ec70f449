//! What can be wrong with a configuration.

use std::error::Error as StdError;
use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// A configuration that cannot be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("cannot read the configuration {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the kernel answered.
        #[source]
        source: io::Error,
    },
    /// The file is no JSON. The source names line and column.
    #[error("the configuration is no valid JSON")]
    Syntax(#[source] serde_json::Error),
    /// A key that nobody reads.
    #[error("unknown key {key}; {remedy}")]
    UnknownKey {
        /// The key and where it stands.
        key: String,
        /// The nearest known key, or all of them.
        remedy: String,
    },
    /// A key that stands twice in one object.
    #[error("{key} is written twice; keep one")]
    RepeatedKey {
        /// The key and where it stands.
        key: String,
    },
    /// A key that must be there.
    #[error("{key} is missing: {purpose}")]
    MissingKey {
        /// The key and where it should stand.
        key: String,
        /// What it says.
        purpose: &'static str,
    },
    /// A value of the wrong kind.
    #[error("{place} is {found}; write {expected}")]
    WrongKind {
        /// Where it stands.
        place: String,
        /// What stands there.
        found: String,
        /// What should stand there.
        expected: &'static str,
    },
    /// A list without entries.
    #[error(
        "{place} is an empty list; write at least one {entry}, or leave the key out if it may be left out"
    )]
    EmptyList {
        /// Where it stands.
        place: String,
        /// What it is a list of.
        entry: &'static str,
    },
    /// A value that means nothing. The source says why.
    #[error("{place} is not valid")]
    Invalid {
        /// Where it stands.
        place: String,
        /// What is wrong with the value.
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
    /// A pool without a single selector.
    #[error(
        "{place} selects nothing in particular, which would offer every VF of this node to any pod; write at least one \
         of pfNames, vendors, devices, drivers, pciAddresses, or {{\"any\": true}} if that is what you want"
    )]
    NoSelector {
        /// Where it should stand.
        place: String,
    },
    /// A pool that wants every VF and some VFs.
    #[error("{place} says \"any\": true and selects as well; keep one of the two")]
    AnyAndSome {
        /// Where it stands.
        place: String,
    },
    /// Two pools with one resource.
    #[error("pools[{first}] and pools[{second}] both offer {resource}; rename one, or merge their selectors")]
    RepeatedResource {
        /// The resource.
        resource: String,
        /// Position of the earlier pool.
        first: usize,
        /// Position of the later pool.
        second: usize,
    },
    /// Two pools whose resources lead to one environment variable.
    #[error(
        "pools[{first}] and pools[{second}] both set the environment variable {variable}, so that a container with \
         devices of both would lose one; rename one resource"
    )]
    RepeatedVariable {
        /// The variable.
        variable: String,
        /// Position of the earlier pool.
        first: usize,
        /// Position of the later pool.
        second: usize,
    },
}

impl ConfigError {
    pub(super) fn invalid(place: String, source: impl StdError + Send + Sync + 'static) -> Self {
        Self::Invalid { place, source: Box::new(source) }
    }
}
