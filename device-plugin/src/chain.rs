//! An error with everything that led to it, on one line.

use std::error::Error;

/// The error and its sources, from the outside in, joined by colons. No error of this workspace repeats its source.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text.push_str(": ");
        text.push_str(&source.to_string());
        next = source.source();
    }
    text
}
