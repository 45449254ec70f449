//! A chaotic hour: seven VFs, seven pods, and everything that happens to them at once and in any order.
//!
//! What happens comes from a number, which is printed. After every step the promises in the ledger and the facts in the
//! kernel must agree, and what no pod holds must be as it was at first. `ZEROBRIDGE_CHAOS_SEED` chooses the number,
//! `ZEROBRIDGE_CHAOS_STEPS` how many steps, `ZEROBRIDGE_CHAOS_SECONDS` for how long if the steps are not given.

mod look;
mod script;
mod world;

use std::error::Error;
use std::str::FromStr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use zerobridge_lab::Lab;
use zerobridge_scenarios::{Chaos, Step};

use crate::group::{Group, Outcome, say};
use world::{PODS, VFS, World};

pub(crate) const GROUP: Group = Group {
    name: "chaos",
    vm: "pods",
    scenarios: &[("promises_and_facts_agree_whatever_happens", promises_and_facts_agree)],
};

/// How long chaos reigns unless a variable says otherwise: as much as a test of every change can afford.
const SECONDS: u64 = 40;
/// Steps between two lines on the screen.
const PROGRESS: usize = 50;

fn variable<T: FromStr>(name: &str) -> Result<Option<T>, Box<dyn Error>> {
    let Ok(text) = std::env::var(name) else { return Ok(None) };
    text.parse().map(Some).map_err(|_| format!("{name} is {text}; write a number").into())
}

fn promises_and_facts_agree(lab: &mut Lab) -> Outcome {
    let clock = || SystemTime::now().duration_since(UNIX_EPOCH).map(|time| time.as_secs());
    let seed = variable("ZEROBRIDGE_CHAOS_SEED")?.map_or_else(clock, Ok)?;
    let steps: Option<usize> = variable("ZEROBRIDGE_CHAOS_STEPS")?;
    let seconds = variable("ZEROBRIDGE_CHAOS_SECONDS")?.unwrap_or(SECONDS);
    say(&format!("  {PODS} pods, {VFS} VFs, ZEROBRIDGE_CHAOS_SEED={seed}"));

    let mut world = World::new(lab)?;
    let deadline = Instant::now() + Duration::from_secs(seconds);
    let mut past: Vec<Step> = Vec::new();
    for step in Chaos::new(seed, PODS, VFS) {
        let enough = steps.map_or_else(|| Instant::now() >= deadline, |steps| past.len() >= steps);
        if enough {
            break;
        }
        past.push(step.clone());
        world.step(&step).map_err(|error| with_past(seed, &past, error.as_ref()))?;
        if past.len().is_multiple_of(PROGRESS) {
            say(&format!("  {} steps: {}", past.len(), world.tally()));
        }
    }
    world.end().map_err(|error| with_past(seed, &past, error.as_ref()))?;
    say(&format!("  {} steps: {}", past.len(), world.tally()));
    world.judge()
}

/// A failure with what it takes to see it again.
fn with_past(seed: u64, past: &[Step], error: &dyn Error) -> Box<dyn Error> {
    let lines: Vec<String> = (1..).zip(past).map(|(number, step)| format!("  {number}. {step:?}")).collect();
    format!(
        "at step {}: {error}\nthe steps of ZEROBRIDGE_CHAOS_SEED={seed} ZEROBRIDGE_CHAOS_STEPS={}:\n{}",
        past.len(),
        past.len(),
        lines.join("\n")
    )
    .into()
}
