//! `zbctl legs`: one row for each leg of the node, as the kernel and the ledger have it.

use std::io::Write;

use serde::Serialize;
use zerobridge_device_plugin::{LegStanding, LegStatus, look_at_legs};

use crate::cli::LegsArguments;
use crate::node::Node;
use crate::table::{self, or_dash};
use crate::{Failure, Finding, write_json};

const HEADS: [&str; 8] = ["LEG", "KIND", "NETWORK", "DEVICE", "INTERFACE", "VLAN", "ADDRESSES", "STATE"];

/// The answer as JSON. `docs/zbctl.md` describes it; what is there stays there.
#[derive(Debug, Serialize)]
struct Answer<'a> {
    legs: &'a [LegStatus],
    /// What could not be found out.
    notes: &'a [String],
}

pub(crate) fn run(
    arguments: &LegsArguments,
    out: &mut impl Write,
    problems: &mut impl Write,
) -> Result<Finding, Failure> {
    let Node { config, around, notes, .. } = Node::read(&arguments.node)?;
    let legs = look_at_legs(&config.legs, &around.machine, &arguments.node.state_dir)?;
    if arguments.json {
        write_json(out, &Answer { legs: &legs, notes: &notes })?;
    } else {
        show(&legs, out)?;
        for note in &notes {
            writeln!(problems, "zbctl: {note}")?;
        }
    }
    let is_fine = legs.iter().all(|leg| leg.state == LegStanding::Up && leg.problem.is_none());
    Ok(if is_fine { Finding::Fine } else { Finding::Problem })
}

fn show(legs: &[LegStatus], out: &mut impl Write) -> Result<(), Failure> {
    if legs.is_empty() {
        return Ok(writeln!(out, "this node has no leg")?);
    }
    Ok(table::write(out, HEADS, &legs.iter().map(cells).collect::<Vec<_>>())?)
}

fn cells(leg: &LegStatus) -> [String; 8] {
    let state = match &leg.problem {
        None => leg.state.name().to_owned(),
        Some(problem) => format!("{}: {problem}", leg.state.name()),
    };
    let addresses: Vec<String> = leg.addresses.iter().map(ToString::to_string).collect();
    [
        leg.name.clone(),
        or_dash(leg.kind.unwrap_or_default()),
        leg.network.clone(),
        or_dash(leg.device.map(|device| device.to_string()).unwrap_or_default()),
        or_dash(leg.interface.clone().unwrap_or_default()),
        or_dash(leg.vlan.map(|vlan| vlan.to_string()).unwrap_or_default()),
        or_dash(addresses.join(",")),
        state,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_leg_is_a_row_with_what_is_in_the_way() {
        let up = LegStatus {
            name: "pods".to_owned(),
            kind: Some("vlan"),
            network: "blue".to_owned(),
            device: Some("0000:01:00.0".parse().unwrap()),
            interface: Some("ens1f0.100".to_owned()),
            vlan: Some(100),
            addresses: ["10.0.0.5/24", "fd00::5/64"].map(|net| net.parse().unwrap()).to_vec(),
            state: LegStanding::Up,
            problem: None,
        };
        let down = LegStatus {
            name: "wire".to_owned(),
            kind: Some("pf"),
            device: None,
            interface: None,
            vlan: None,
            addresses: Vec::new(),
            state: LegStanding::Down,
            problem: Some("no PF of this machine has an interface ens9".to_owned()),
            ..up.clone()
        };
        let mut out = Vec::new();
        show(&[up.clone(), down], &mut out).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "LEG   KIND  NETWORK  DEVICE        INTERFACE   VLAN  ADDRESSES               STATE\n\
             pods  vlan  blue     0000:01:00.0  ens1f0.100  100   10.0.0.5/24,fd00::5/64  up\n\
             wire  pf    blue     -             -           -     -                       \
             down: no PF of this machine has an interface ens9\n"
        );
        let answer = serde_json::to_value(Answer { legs: &[up], notes: &[] }).unwrap();
        assert_eq!(
            answer["legs"][0],
            serde_json::json!({
                "name": "pods", "kind": "vlan", "network": "blue", "device": "0000:01:00.0", "interface": "ens1f0.100",
                "vlan": 100, "addresses": ["10.0.0.5/24", "fd00::5/64"], "state": "up", "problem": null,
            })
        );
    }
}
