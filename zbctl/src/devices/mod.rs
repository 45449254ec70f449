//! `zbctl devices`: one row for each PF, VF and SF, and for whatever else a pool offers.

mod row;

use std::io::Write;

use serde::Serialize;
use zerobridge_device_plugin::{Obstacle, explain};

use crate::cli::DevicesArguments;
use crate::node::Node;
use crate::owners::Source;
use crate::{Failure, Finding, table, write_json};
use row::Row;

/// The answer as JSON. `docs/zbctl.md` describes it; what is there stays there.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer<'a> {
    devices: Vec<Row>,
    /// Who says who has which device; `null` if nobody does.
    owners_from: Option<Source>,
    /// What keeps the node from giving what its pools promise.
    obstacles: Vec<ObstacleAnswer>,
    /// What could not be found out.
    notes: &'a [String],
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ObstacleAnswer {
    /// One word.
    reason: &'static str,
    pools: Vec<String>,
    /// The same and what to do, as a sentence.
    told: String,
}

pub(crate) fn run(
    arguments: &DevicesArguments,
    out: &mut impl Write,
    problems: &mut impl Write,
) -> Result<Finding, Failure> {
    let node = Node::read(&arguments.node)?;
    tell(&node, arguments.json, out)?;
    if !arguments.json {
        for note in &node.notes {
            writeln!(problems, "zbctl: {note}")?;
        }
    }
    Ok(Finding::Fine)
}

fn tell(node: &Node, json: bool, out: &mut impl Write) -> Result<(), Failure> {
    let (devices, obstacles) = (rows(node), node.obstacles());
    if json {
        let Node { owners_from, notes, .. } = node;
        let obstacles = obstacles.iter().map(ObstacleAnswer::of).collect();
        return write_json(out, &Answer { devices, owners_from: *owners_from, obstacles, notes });
    }
    if devices.is_empty() {
        writeln!(out, "there is no PF, VF or SF on this machine")?;
    } else {
        let cells: Vec<_> = devices.iter().map(Row::cells).collect();
        table::write(out, Row::HEADS, &cells)?;
    }
    for obstacle in obstacles {
        writeln!(out, "not ready: {obstacle}")?;
    }
    Ok(())
}

impl ObstacleAnswer {
    fn of(obstacle: &Obstacle) -> Self {
        Self {
            reason: obstacle.cause.name(),
            pools: obstacle.pools.iter().map(ToString::to_string).collect(),
            told: obstacle.cause.to_string(),
        }
    }
}

fn rows(node: &Node) -> Vec<Row> {
    explain(&node.config.pools, &node.around, node.owners.resources.as_ref())
        .iter()
        .filter_map(|explanation| Row::of(explanation, node))
        .collect()
}

#[cfg(test)]
mod tests;
