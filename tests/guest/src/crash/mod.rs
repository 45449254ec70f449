//! Kills a program before each of its system calls that change something, one run each, and looks at what is left.
//!
//! The program is the one that is shipped, not one built for the purpose, and what its libraries do counts like what it
//! does itself. Refuses to know what the program is and what should be left: programs that prepare, repair and look are
//! given to it, and whoever gave them judges what was seen.

use std::io::{self, Read, Write};
use std::time::Duration;

use thiserror::Error;
use zerobridge_crash::{TraceError, Victim};
use zerobridge_lab_guest::{CrashPlan, CrashPoint, CrashReport, CrashRun, Output, Program};

use crate::process;

/// How long a program that prepares, repairs or looks may take.
const LIMIT: Duration = Duration::from_secs(60);

/// Why there can be no report.
#[derive(Debug, Error)]
pub(crate) enum CrashError {
    /// Standard input holds no plan, or standard output is closed.
    #[error("read the plan from standard input and write the report to standard output")]
    Plan(#[source] io::Error),
    /// A program could not be started.
    #[error("start {program}")]
    Start {
        /// Which.
        program: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The victim could not be traced.
    #[error(transparent)]
    Trace(#[from] TraceError),
}

/// Carries out the [`CrashPlan`] on standard input and writes the [`CrashReport`] to standard output.
pub(crate) fn run() -> Result<(), CrashError> {
    let mut text = String::new();
    io::stdin().read_to_string(&mut text).map_err(CrashError::Plan)?;
    let plan = serde_json::from_str(&text).map_err(|error| CrashError::Plan(error.into()))?;
    let report = serde_json::to_string(&carry_out(&plan)?).map_err(|error| CrashError::Plan(error.into()))?;
    writeln!(io::stdout(), "{report}").map_err(CrashError::Plan)
}

fn carry_out(plan: &CrashPlan) -> Result<CrashReport, CrashError> {
    let mut report = CrashReport::default();
    let outcome = all_succeed(&plan.settle)
        .and_then(|()| look(&mut report.states, &plan.look))
        .and_then(|_| plan.points.iter().try_for_each(|point| run_once(plan, *point, &mut report)));
    match outcome {
        Ok(()) => {}
        Err(Stop::Failure(text)) => report.failure = Some(text),
        Err(Stop::Error(error)) => return Err(error),
    }
    Ok(report)
}

/// Why no more points follow.
enum Stop {
    /// What the report is to say.
    Failure(String),
    /// There can be no report.
    Error(CrashError),
}

fn run_once(plan: &CrashPlan, point: CrashPoint, report: &mut CrashReport) -> Result<(), Stop> {
    all_succeed(&plan.prepare)?;
    let Program { argv, env, stdin } = &plan.victim;
    let ended = Victim { argv, env, stdin }.run(plan.count, point.kill_at);
    let ended = ended.map_err(|error| Stop::Error(error.into()))?;
    let left = look(&mut report.states, &plan.look)?;
    report.runs.push(CrashRun { calls: ended.calls, killed: ended.killed, left, repaired: left });
    if !ended.killed && ended.code != 0 {
        return Err(Stop::Failure(format!("it ended with {}: {}{}", ended.code, ended.stdout, ended.stderr)));
    }
    all_succeed(plan.repairs.get(point.repair).map(Vec::as_slice).unwrap_or_default())?;
    let mut repaired = look(&mut report.states, &plan.look)?;
    if repaired > 0 {
        all_succeed(&plan.settle)?;
        repaired = look(&mut report.states, &plan.look)?;
    }
    if let Some(run) = report.runs.last_mut() {
        run.repaired = repaired;
    }
    Ok(())
}

/// Runs programs one after the other.
fn all_succeed(programs: &[Program]) -> Result<(), Stop> {
    programs.iter().try_for_each(|program| succeeded(program).map(drop))
}

/// What the programs that look print, as its place among `states`.
fn look(states: &mut Vec<Vec<String>>, programs: &[Program]) -> Result<usize, Stop> {
    let state = programs.iter().map(succeeded).collect::<Result<Vec<_>, _>>()?;
    Ok(states.iter().position(|known| *known == state).unwrap_or_else(|| {
        states.push(state);
        states.len() - 1
    }))
}

/// The standard output of a program.
fn succeeded(program: &Program) -> Result<String, Stop> {
    let name = program.argv.join(" ");
    let output = process::run(program, LIMIT)
        .map_err(|source| Stop::Error(CrashError::Start { program: name.clone(), source }))?;
    if output.code == 0 && !output.timed_out {
        return Ok(output.stdout);
    }
    let variable = |name| program.env.get(name).map(|value| format!("{name}={value} ")).unwrap_or_default();
    let (command, Output { code, stdout, stderr, .. }) = (variable("CNI_COMMAND"), output);
    Err(Stop::Failure(format!("`{command}{name}` ended with {code}: {stdout}{stderr}")))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn shell(script: &str) -> Program {
        Program { argv: ["sh", "-c", script].map(String::from).to_vec(), ..Program::default() }
    }

    /// `lab-guest` traces a copy of itself, and a unit test is another program: the same is done by the lab's scenarios.
    #[test]
    fn what_a_program_says_when_it_fails_is_in_the_report() {
        let mut states = Vec::new();
        let Err(Stop::Failure(text)) = look(&mut states, &[shell("echo out; echo err >&2; exit 3")]) else {
            panic!("it did not fail");
        };
        assert_eq!(text, "`sh -c echo out; echo err >&2; exit 3` ended with 3: out\nerr\n");
    }

    #[test]
    fn a_state_that_was_seen_before_has_the_same_place() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("state");
        let program = [shell(&format!("cat {}", file.display()))];
        let mut states = Vec::new();
        let seen = ["a", "b", "a"].map(|content| {
            fs::write(&file, content).unwrap();
            look(&mut states, &program).ok().unwrap()
        });
        assert_eq!(seen, [0, 1, 0]);
    }
}
