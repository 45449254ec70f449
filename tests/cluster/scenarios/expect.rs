//! Expectations: a scenario goes on or ends with a sentence that says what was seen instead.

use std::error::Error;
use std::fmt::Debug;

use crate::group::Outcome;

/// Goes on if `holds`.
pub(crate) fn that(holds: bool, otherwise: impl FnOnce() -> String) -> Outcome {
    if holds { Ok(()) } else { Err(otherwise().into()) }
}

/// Goes on if both are equal.
pub(crate) fn equal<T: PartialEq + Debug>(what: &str, seen: &T, expected: &T) -> Outcome {
    that(seen == expected, || format!("{what} is {seen:?}, expected {expected:?}"))
}

/// The value, or an end that says what was missing.
pub(crate) fn some<T>(value: Option<T>, what: &str) -> Result<T, Box<dyn Error>> {
    value.ok_or_else(|| what.into())
}
