//! Scenarios that run in the lab, each an ordinary test result: see `scenarios/`.
//!
//! The library is empty; cargo wants one so that the package can hold a test target.
#![forbid(unsafe_code)]
