//! Figures of ADD and DEL: Zerobridge against the reference plugins, and against the least that it could cost.
//!
//! One VF, one run: each contender attaches and gives back the same VF, in turns of ten, so that what the machine does
//! meanwhile strikes all alike. Prints and never judges: an emulated machine is slower than any that it stands for, so
//! only the proportions say something.

use std::io::{self, Write};
use std::time::Duration;

use serde_json::{Value, json};
use thiserror::Error;
use zerobridge_lab_guest::{Cycles, Run, Runs};

use crate::lab::{Lab, LabError};
use crate::machine::{Guest, GuestError, Program, program, succeeded};
use crate::network::CniCall;

/// Cycles of each contender in one turn.
const TURN: u32 = 10;
/// Cycles before the first turn, for caches and the ledger's file.
const WARM_UP: u32 = 2;
/// A turn takes some ten seconds on an emulated machine that has nothing else to do.
const LIMIT: Duration = Duration::from_secs(300);
const SANDBOX: &str = "figures";
const FLOOR: &str = "/opt/cni/floor";

/// Why there are no figures.
#[derive(Debug, Error)]
pub enum AttachmentFiguresError {
    /// The lab did not come up.
    #[error(transparent)]
    Lab(#[from] LabError),
    /// A command failed.
    #[error(transparent)]
    Guest(#[from] GuestError),
    /// Nobody listens.
    #[error("print the figures")]
    Print(#[from] io::Error),
}

/// Who attaches, and what it took.
struct Contender {
    name: &'static str,
    cycles: Cycles,
    runs: Runs,
}

impl Contender {
    fn new(name: &'static str, first: Program, second: Program) -> Self {
        let between = Some(program(&["udevadm", "settle"]));
        Self { name, cycles: Cycles { rounds: TURN, first, second, between }, runs: Runs::default() }
    }

    fn plugin(name: &'static str, config: &Value) -> Self {
        let call = |command| CniCall::new(command, SANDBOX, config).program();
        Self::new(name, call("ADD"), call("DEL"))
    }

    fn turn(&mut self, guest: &mut Guest, lab_guest: &str, rounds: u32) -> Result<Runs, GuestError> {
        let cycles = Cycles { rounds, ..self.cycles.clone() };
        let stdin = serde_json::to_string(&cycles).unwrap_or_default();
        let program = Program { stdin, ..program(&[lab_guest, "cycles"]) };
        let command = format!("{} cycles of {}", rounds, self.name);
        let text = succeeded(&command, guest.output(program, LIMIT)?)?;
        serde_json::from_str(&text).map_err(|source| GuestError::NotJson { command, text, source })
    }
}

/// Takes the figures and prints a line for each: `cycles` of each contender, rounded up to whole turns; a hundred last some
/// ten minutes on an emulated machine. `floor` is the program that makes the requests to the kernel and nothing else.
///
/// # Errors
/// When the lab or a contender fails.
pub fn attachment_figures(
    lab: &mut Lab,
    floor: &str,
    cycles: u32,
    out: &mut dyn Write,
) -> Result<(), AttachmentFiguresError> {
    let lab_guest = lab.guest_program();
    let guest = lab.install_reference()?;
    guest.run(&["cp", floor, FLOOR])?;
    guest.run(&["ip", "netns", "add", SANDBOX])?;
    let mut contenders = contenders(guest)?;
    for contender in &mut contenders {
        contender.turn(guest, &lab_guest, WARM_UP)?;
    }
    for _ in 0..cycles.div_ceil(TURN) {
        for contender in &mut contenders {
            let runs = contender.turn(guest, &lab_guest, TURN)?;
            contender.runs.first.extend(runs.first);
            contender.runs.second.extend(runs.second);
            contender.runs.peak_kib = contender.runs.peak_kib.max(runs.peak_kib);
        }
    }
    guest.run(&["ip", "netns", "del", SANDBOX])?;
    Ok(print(&contenders, out)?)
}

fn contenders(guest: &mut Guest) -> Result<[Contender; 3], GuestError> {
    // A VF whose address the PF imposed, and whose link therefore has its carrier as soon as it is up.
    let vf = guest.vf(1, 0)?;
    let links = guest.links()?;
    let name = links.into_iter().find(|link| link.pci() == Some(vf)).map(|link| link.ifname);
    let ours = json!({
        "cniVersion": "1.1.0", "name": "ours", "type": "zerobridge", "deviceID": vf, "vlan": 100, "spoofchk": "on",
        "ipam": {"type": "zerobridge-ipam", "ranges": [[{"subnet": "10.7.0.0/24"}]]},
    });
    let pair = json!({
        "cniVersion": "1.0.0", "name": "pair", "type": "host-device", "pciBusID": vf,
        "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.8.0.0/24"}]]},
    });
    let netns = format!("/run/netns/{SANDBOX}");
    let floor = |command| {
        let name = name.as_deref().unwrap_or_default();
        program(&[FLOOR, command, "enp1s0", "0", name, &netns, "net1", "10.9.0.2/24"])
    };
    Ok([
        Contender::plugin("zerobridge", &ours),
        Contender::plugin("host-device + host-local", &pair),
        Contender::new("floor", floor("add"), floor("del")),
    ])
}

fn print(contenders: &[Contender; 3], out: &mut dyn Write) -> io::Result<()> {
    let [ours, pair, floor] = contenders;
    let count = ours.runs.first.len();
    writeln!(out, "{count} cycles each, milliseconds{:31} wall p50     p99   CPU p50     p99", "")?;
    type Of = fn(&Runs) -> &[Run];
    let verbs: [(&str, Of); 2] = [("ADD", |runs| &runs.first), ("DEL", |runs| &runs.second)];
    for (verb, of) in verbs {
        for contender in contenders {
            let [wall, cpu] = columns(of(&contender.runs));
            let figures = [wall.0, wall.1, cpu.0, cpu.1].map(|time| format!("{:8.1}", time * 1e3));
            writeln!(out, "{verb} {:54} {}", contender.name, figures.join(""))?;
        }
    }
    for (verb, of) in verbs {
        let [mine, theirs, least] = [ours, pair, floor].map(|contender| columns(of(&contender.runs)));
        let [wall, cpu, above] = [mine[0].0 / theirs[0].0, mine[1].0 / theirs[1].0, mine[0].0 / least[0].0];
        writeln!(
            out,
            "{verb}: {wall:.2} x the wall and {cpu:.2} x the CPU time of host-device + host-local, {above:.2} x the wall of \
             the floor (medians)"
        )?;
    }
    for contender in contenders {
        let peak = u32::try_from(contender.runs.peak_kib).map_or(f64::NAN, f64::from) / 1024.0;
        writeln!(out, "{} has {peak:.1} MiB at most", contender.name)?;
    }
    Ok(())
}

/// Median and 99th percentile of wall and of processor time, in seconds.
fn columns(runs: &[Run]) -> [(f64, f64); 2] {
    let kinds: [fn(&Run) -> Duration; 2] = [|run| run.wall, |run| run.cpu];
    kinds.map(|kind| {
        let mut times: Vec<Duration> = runs.iter().map(kind).collect();
        times.sort_unstable();
        let at = |percent| times.get(times.len() * percent / 100).map_or(f64::NAN, Duration::as_secs_f64);
        (at(50), at(99))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contender(name: &'static str, wall: u64, cpu: u64) -> Contender {
        let run = |factor| Run {
            wall: Duration::from_millis(wall * factor),
            cpu: Duration::from_millis(cpu * factor),
        };
        // One slow run in a hundred is the 99th percentile and not the median.
        let first = (0..100).map(|round| run(if round == 0 { 3 } else { 1 })).collect();
        let runs = Runs { first, second: vec![run(2)], peak_kib: 3 * 1024 };
        Contender { runs, ..Contender::new(name, Program::default(), Program::default()) }
    }

    #[test]
    fn medians_are_compared_and_the_slowest_shown() {
        let contenders = [contender("ours", 100, 20), contender("pair", 250, 80), contender("floor", 80, 10)];
        let mut out = Vec::new();
        print(&contenders, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("   100.0   300.0    20.0    60.0\n"), "{text}");
        assert!(text.contains("ADD: 0.40 x the wall and 0.25 x the CPU time"), "{text}");
        assert!(text.contains("1.25 x the wall of the floor"), "{text}");
        assert!(text.contains("ours has 3.0 MiB at most"), "{text}");
    }
}
