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
    /// Keys of two formats at the top of the file.
    #[error(
        "the configuration has {first} and {second}, which belong to two formats; keep one format in one file, and \
         convert the other with --print-config"
    )]
    Mixed {
        /// A key of one format.
        first: String,
        /// A key of another.
        second: String,
    },
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
    /// A number that is too small, too large, or not whole.
    #[error("{place} is {found}; write a whole number from {least} to {most}")]
    OutOfRange {
        /// Where it stands.
        place: String,
        /// What stands there.
        found: String,
        /// The smallest number allowed.
        least: u64,
        /// The largest number allowed.
        most: u64,
    },
    /// A word that is none of those allowed.
    #[error("{place} is \"{found}\", which means nothing there; {remedy}")]
    UnknownWord {
        /// Where it stands.
        place: String,
        /// What stands there.
        found: String,
        /// The nearest word, or all of them.
        remedy: String,
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
        "{place} selects nothing in particular, which would offer every device of its kind on this node to any pod; \
         write at least one selector such as pfNames, vendors or drivers, or {remedy} if that is what you want"
    )]
    NoSelector {
        /// Where it should stand.
        place: String,
        /// How to ask for everything.
        remedy: &'static str,
    },
    /// A pool that wants every VF and some VFs.
    #[error("{place} says \"any\": true and selects as well; keep one of the two")]
    AnyAndSome {
        /// Where it stands.
        place: String,
    },
    /// A selector that the devices of the pool do not have.
    #[error(
        "{place} selects nothing in a pool of deviceType \"{kind}\"; such a pool can be selected by {allowed}"
    )]
    NotOfKind {
        /// The selector and where it stands.
        place: String,
        /// The pool's kind.
        kind: &'static str,
        /// The selectors that it has.
        allowed: String,
    },
    /// Two settings that exclude each other.
    #[error("{place} and {other} exclude each other: {reason}; {remedy}")]
    Conflict {
        /// One of them, and where it stands.
        place: String,
        /// The other.
        other: String,
        /// Why.
        reason: &'static str,
        /// What to do.
        remedy: &'static str,
    },
    /// A section for nodes that does not say for which.
    #[error("{place} does not say which nodes it is for; write names, labels, or both")]
    NoCondition {
        /// Where the section stands.
        place: String,
    },
    /// Two legs where one is meant.
    #[error("{first} and {second} are both {what}; {remedy}")]
    RepeatedLeg {
        /// Where the earlier leg stands.
        first: String,
        /// Where the later leg stands.
        second: String,
        /// What they have in common.
        what: String,
        /// What to do.
        remedy: &'static str,
    },
    /// Two pools with one resource.
    #[error("{first} and {second} both offer {resource}; rename one, or merge their selectors")]
    RepeatedResource {
        /// The resource.
        resource: String,
        /// Where the earlier pool stands.
        first: String,
        /// Where the later pool stands.
        second: String,
    },
    /// Two pools whose resources lead to one environment variable.
    #[error(
        "{first} and {second} both set the environment variable {variable}, so that a container with devices of both \
         would lose one; rename one resource"
    )]
    RepeatedVariable {
        /// The variable.
        variable: String,
        /// Where the earlier pool stands.
        first: String,
        /// Where the later pool stands.
        second: String,
    },
}

impl ConfigError {
    pub(super) fn invalid(place: String, source: impl StdError + Send + Sync + 'static) -> Self {
        Self::Invalid { place, source: Box::new(source) }
    }
}
