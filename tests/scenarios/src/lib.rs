//! Scenarios that run in the lab, each an ordinary test result: see `scenarios/`. The library has what of them is pure
//! and has tests of its own.
#![forbid(unsafe_code)]

mod chaos;

pub use chaos::{Chaos, Disturbance, FLAVOURS, PluginCall, Step, Verb};
