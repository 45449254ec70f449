//! A program that is killed again and again, each time somewhere else: what is to be done, and what was seen.

use serde::{Deserialize, Serialize};

use zerobridge_crash::Count;

use crate::Program;

/// What `lab-guest crash` reads from its standard input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CrashPlan {
    /// Run before the victim, each time; all must succeed.
    pub prepare: Vec<Program>,
    /// The program to be killed.
    pub victim: Program,
    /// Which of its system calls have a number.
    pub count: Count,
    /// Where it is killed, in this order.
    pub points: Vec<CrashPoint>,
    /// Ways to repair what it leaves; in each, all must succeed.
    pub repairs: Vec<Vec<Program>>,
    /// Their outputs together say what the machine is like.
    pub look: Vec<Program>,
    /// Waits for what the machine's services still have to do. It takes long, so it is run at the beginning and when what
    /// is seen after a repair is not what was seen there.
    pub settle: Vec<Program>,
}

/// One run of the victim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CrashPoint {
    /// The number, from 1, of the call at whose entry it is killed; none to let it end.
    pub kill_at: Option<u64>,
    /// Which of the ways to repair follows.
    pub repair: usize,
}

/// What `lab-guest crash` writes to its standard output.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CrashReport {
    /// Everything that the machine was seen to be like: the outputs of the programs that look. The first one is from
    /// before the first run.
    pub states: Vec<Vec<String>>,
    /// One for each point, until one fails.
    pub runs: Vec<CrashRun>,
    /// Why there are no more.
    pub failure: Option<String>,
}

/// What was seen of one run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CrashRun {
    /// The calls that counted; before the last of them it was killed, if it was.
    pub calls: Vec<String>,
    /// Whether it was killed.
    pub killed: bool,
    /// What it left, by its place in [`CrashReport::states`].
    pub left: usize,
    /// What the repair made of that.
    pub repaired: usize,
}
