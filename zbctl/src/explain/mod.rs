//! `zbctl explain`: what each pool makes of a device, selector by selector.

mod text;

use std::io::Write;

use serde::Serialize;
use thiserror::Error;
use zerobridge_device_plugin::{Explanation, Hardware, Outcome, PoolExplanation, Verdict, explain};

use crate::cli::ExplainArguments;
use crate::node::Node;
use crate::owners::Source;
use crate::{Failure, Finding, write_json};

/// What was asked about is not there.
#[derive(Debug, Error)]
pub(crate) enum Unknown {
    /// No such device.
    #[error("there is no device {device} on this machine; zbctl devices lists those that there are")]
    Device {
        /// What was asked about.
        device: Hardware,
    },
    /// No such pool.
    #[error("the configuration has no pool {pool} for this node; it has: {known}")]
    Pool {
        /// What was asked about.
        pool: String,
        /// Those that there are.
        known: String,
    },
}

/// The answer as JSON. `docs/zbctl.md` describes it; what is there stays there.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer<'a> {
    device: String,
    /// The pool that offers it.
    offered_by: Option<String>,
    pools: Vec<PoolAnswer<'a>>,
    /// Who says who has which device; `null` if nobody does.
    owners_from: Option<Source>,
    /// What could not be found out.
    notes: &'a [String],
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct PoolAnswer<'a> {
    pool: String,
    /// One word.
    outcome: &'static str,
    /// The same, as a sentence.
    told: String,
    /// For each alternative of the pool's selectors, what each says.
    alternatives: Vec<Vec<VerdictAnswer<'a>>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct VerdictAnswer<'a> {
    selector: &'static str,
    kept: bool,
    wanted: &'a str,
    found: &'a str,
}

pub(crate) fn run(
    arguments: &ExplainArguments,
    out: &mut impl Write,
    problems: &mut impl Write,
) -> Result<Finding, Failure> {
    let node = Node::read(&arguments.node)?;
    tell(&node, arguments, out)?;
    if !arguments.json {
        for note in &node.notes {
            writeln!(problems, "zbctl: {note}")?;
        }
    }
    Ok(Finding::Fine)
}

fn tell(node: &Node, arguments: &ExplainArguments, out: &mut impl Write) -> Result<(), Failure> {
    let explanation = explain(&node.config.pools, &node.around, node.owners.resources.as_ref())
        .into_iter()
        .find(|explanation| explanation.device == arguments.device)
        .ok_or_else(|| Unknown::Device { device: arguments.device.clone() })?;
    let offered_by = explanation.offered_by().map(|pool| pool.resource.to_string());
    let chosen = chosen(explanation, arguments.pool.as_deref())?;
    if arguments.json {
        let pools = chosen.pools.iter().map(PoolAnswer::of).collect();
        let device = chosen.device.to_string();
        let Node { owners_from, notes, .. } = node;
        write_json(out, &Answer { device, offered_by, pools, owners_from: *owners_from, notes })
    } else {
        Ok(text::write(out, &chosen, node)?)
    }
}

/// The explanation without other pools than the one that was asked about.
fn chosen(mut explanation: Explanation, pool: Option<&str>) -> Result<Explanation, Unknown> {
    let Some(wanted) = pool else { return Ok(explanation) };
    let all: Vec<String> = explanation.pools.iter().map(|pool| pool.resource.to_string()).collect();
    explanation.pools.retain(|pool| pool.resource.to_string() == wanted || pool.resource.name() == wanted);
    if explanation.pools.is_empty() {
        let known = if all.is_empty() { "none".to_owned() } else { all.join(", ") };
        return Err(Unknown::Pool { pool: wanted.to_owned(), known });
    }
    Ok(explanation)
}

impl<'a> PoolAnswer<'a> {
    fn of(pool: &'a PoolExplanation) -> Self {
        let outcome = match &pool.outcome {
            Outcome::Offered => "offered",
            Outcome::Held => "held",
            Outcome::HeldElsewhere { .. } => "heldElsewhere",
            Outcome::OtherKind { .. } => "otherKind",
            Outcome::Dropped => "dropped",
            Outcome::Withheld(_) => "withheld",
            Outcome::Taken { .. } => "taken",
        };
        let verdicts = |verdicts: &'a Vec<Verdict>| verdicts.iter().map(VerdictAnswer::of).collect();
        Self {
            pool: pool.resource.to_string(),
            outcome,
            told: pool.outcome.to_string(),
            alternatives: pool.alternatives.iter().map(verdicts).collect(),
        }
    }
}

impl<'a> VerdictAnswer<'a> {
    fn of(verdict: &'a Verdict) -> Self {
        let Verdict { selector, kept, wanted, found } = verdict;
        Self { selector: selector.name(), kept: *kept, wanted, found }
    }
}

#[cfg(test)]
mod tests;
