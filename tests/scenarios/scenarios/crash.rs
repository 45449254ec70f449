//! A plugin killed between any two system calls leaves something that the next DEL repairs.

use std::error::Error;

use serde::Deserialize;
use zerobridge_lab::{CniCall, Guest, Lab, Snapshot};

use crate::expect;
use crate::group::{Group, Outcome, say};
use crate::hand::{Attached, promises_of, remove_sandbox};

/// At how many places of one call the plugin is killed.
const POINTS: u64 = 20;
const REPORT: &str = "/run/crash.json";

pub(crate) const GROUP: Group = Group {
    name: "crash",
    vm: "crash",
    scenarios: &[
        ("add_killed_at_twenty_points_is_undone_by_del", add_killed_is_undone_by_del),
        ("del_killed_at_twenty_points_is_finished_by_del", del_killed_is_finished_by_del),
    ],
};

/// What `lab-guest crash` reports.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    calls: u64,
    killed_at: Option<u64>,
    code: i32,
}

/// Makes a call with the plugin traced, and killed at the entry of its system call number `at`, if given.
fn traced(lab: &mut Lab, call: &CniCall, at: Option<u64>) -> Result<Report, Box<dyn Error>> {
    let mut argv = vec![lab.guest_program(), "crash".into(), REPORT.into()];
    argv.extend(at.into_iter().flat_map(|number| ["--at".into(), number.to_string()]));
    argv.push("--".into());
    let mut program = call.program();
    program.argv.splice(0..0, argv);
    let guest = &mut lab.vm.guest;
    let output = guest.output(program, std::time::Duration::from_secs(120))?;
    expect::that(output.code == 0, || format!("the tracer failed: {}", output.stderr))?;
    let report: Report = serde_json::from_str(&guest.read(REPORT)?.unwrap_or_default())?;
    expect::that(report.killed_at.is_some() || report.code == 0, || {
        format!("{} failed by itself: {} {}", call.command, output.stdout, output.stderr)
    })?;
    Ok(report)
}

/// The system calls at which to kill a run of `calls`: evenly spread, the last one included.
fn points(calls: u64) -> Vec<u64> {
    (1..=POINTS).map(|point| (calls * point / POINTS).max(1)).collect()
}

/// What the kills of one scenario did: a scenario in which none hit, or none left anything behind, proves nothing.
#[derive(Default)]
struct Tally {
    killed: u64,
    stranded: u64,
}

impl Tally {
    /// Looks at what a killed call left, and says so.
    fn look(
        &mut self,
        guest: &mut Guest,
        before: &Snapshot,
        call: &CniCall,
        at: u64,
        report: &Report,
    ) -> Outcome {
        let changed = guest.snapshot()?.differences(before).len();
        let (attachments, leases) = promises_of(guest, &call.container)?;
        let Some(number) = report.killed_at else {
            say(&format!("  {} ended before system call {at}", call.command));
            return Ok(());
        };
        self.killed += 1;
        self.stranded += u64::from(changed > 0 || attachments > 0 || leases > 0);
        say(&format!(
            "  {} killed at system call {at:>3} (number {number:>3}): {changed} settings changed, {attachments} \
             attachments and {leases} leases in the ledger",
            call.command
        ));
        Ok(())
    }

    fn judge(&self) -> Outcome {
        // A run may take a few calls more or less than the one that was counted.
        expect::that(self.killed + 2 >= POINTS, || {
            format!("only {} of {POINTS} runs were killed", self.killed)
        })?;
        expect::that(self.stranded > 0, || "no kill left anything to repair".into())
    }
}

/// Ends unless nothing is left of the attachment.
fn nothing_is_left(guest: &mut Guest, before: &Snapshot, container: &str, when: &str) -> Outcome {
    expect::as_before(guest, before).map_err(|error| format!("{when}: {error}"))?;
    expect::equal(&format!("{when}: what the ledger has"), &promises_of(guest, container)?, &(0, 0))
}

fn add_killed_is_undone_by_del(lab: &mut Lab) -> Outcome {
    let before = lab.pristine();
    let guest = lab.install_plugins()?;
    let device = guest.vf(1, 0)?;
    // The first call of all makes the ledger; the ones that are killed find it.
    let name = "crash-add";
    let attached = Attached::new(guest, name, device)?;
    let (add, del) = (CniCall { command: "ADD", ..attached.del() }, attached.del());
    guest.cni_success(&del)?;
    let calls = traced(lab, &add, None)?.calls;
    lab.vm.guest.cni_success(&del)?;
    let mut tally = Tally::default();
    for at in points(calls) {
        let report = traced(lab, &add, Some(at))?;
        let guest = &mut lab.vm.guest;
        tally.look(guest, &before, &add, at, &report)?;
        guest.cni_success(&del)?;
        nothing_is_left(guest, &before, name, &format!("ADD killed at {at} of {calls}, then DEL"))?;
    }
    remove_sandbox(&mut lab.vm.guest, name)?;
    tally.judge()
}

fn del_killed_is_finished_by_del(lab: &mut Lab) -> Outcome {
    let before = lab.pristine();
    let guest = lab.install_plugins()?;
    // A VF that chose its own address: there is more to give back than with one whose address the PF imposed.
    let device = guest.vf(2, 1)?;
    let name = "crash-del";
    let attached = Attached::new(guest, name, device)?;
    let (add, del) = (CniCall { command: "ADD", ..attached.del() }, attached.del());
    let calls = traced(lab, &del, None)?.calls;
    nothing_is_left(&mut lab.vm.guest, &before, name, "DEL while it was counted")?;
    let mut tally = Tally::default();
    for at in points(calls) {
        lab.vm.guest.cni_success(&add)?;
        let report = traced(lab, &del, Some(at))?;
        let guest = &mut lab.vm.guest;
        tally.look(guest, &before, &del, at, &report)?;
        guest.cni_success(&del)?;
        nothing_is_left(guest, &before, name, &format!("DEL killed at {at} of {calls}, then DEL"))?;
    }
    remove_sandbox(&mut lab.vm.guest, name)?;
    tally.judge()
}
