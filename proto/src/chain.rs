//! An error with everything that led to it, on one line: in a CNI error's details, a gRPC status, a log.

use std::iter::{once, successors};

/// The error and its sources, from the outside in, joined by colons. No error of this workspace repeats its source.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let sources = successors(error.source(), |source| source.source());
    once(error.to_string()).chain(sources.map(ToString::to_string)).collect::<Vec<_>>().join(": ")
}
