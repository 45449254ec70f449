//! The numbers by which programs tell their releases.
//!
//! Refuses to know which release has what.

/// The first two numbers. Distributions add much of their own behind those.
pub(crate) fn first_two_numbers(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split(['.', '-', '+']);
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}
