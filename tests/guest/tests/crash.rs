//! `lab-guest crash` as it is called: a program is killed before each thing that it does, and before nothing else.
#![expect(clippy::unwrap_used, reason = "a test program, of which clippy takes the helpers for none")]

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use zerobridge_lab_guest::{Count, CrashPlan, CrashPoint, CrashReport, Program};

fn shell(folder: &Path, script: &str) -> Program {
    let argv = ["sh", "-c", &format!("cd {} && {script}", folder.display())].map(String::from).to_vec();
    Program { argv, ..Program::default() }
}

fn crash(plan: &CrashPlan) -> CrashReport {
    let mut child = Command::new(env!("CARGO_BIN_EXE_lab-guest"))
        .arg("crash")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(serde_json::to_string(plan).unwrap().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Two folders, made by two processes, and a file, written by the shell itself.
fn plan(folder: &Path, points: impl IntoIterator<Item = Option<u64>>) -> CrashPlan {
    CrashPlan {
        prepare: vec![shell(folder, "mkdir there")],
        victim: shell(folder, "mkdir a; mkdir b; echo text > file"),
        count: Count::Changes,
        points: points.into_iter().map(|kill_at| CrashPoint { kill_at, repair: 0 }).collect(),
        repairs: vec![vec![shell(folder, "rm -rf *")]],
        look: vec![shell(folder, "ls; cat file 2>/dev/null || true")],
        settle: Vec::new(),
    }
}

#[test]
fn each_change_is_a_point_and_what_came_before_it_stays() {
    let folder = tempfile::tempdir().unwrap();
    let whole = crash(&plan(folder.path(), [None]));
    let calls: Vec<&str> = whole.runs[0].calls.iter().map(String::as_str).collect();
    let file = format!("write {}/file", folder.path().display());
    // Where a shell opens a file by `open` or by `openat`, or makes a folder by `mkdirat`, that is its own affair.
    assert_eq!(calls.len(), 4, "{calls:?}");
    assert!(calls[2].starts_with("open") && calls[3] == file, "{calls:?}");

    let report = crash(&plan(folder.path(), (1..=5).map(Some)));
    assert_eq!(report.failure, None);
    let seen: Vec<(bool, &str)> =
        report.runs.iter().map(|run| (run.killed, report.states[run.left][0].as_str())).collect();
    let expected = [
        (true, "there\n"),
        (true, "a\nthere\n"),
        (true, "a\nb\nthere\n"),
        (true, "a\nb\nfile\nthere\n"),
        (false, "a\nb\nfile\nthere\ntext\n"),
    ];
    assert_eq!(seen, expected);
    assert!(report.runs.iter().all(|run| run.repaired == 0), "{report:?}");
}

#[test]
fn a_repair_that_fails_ends_the_report_with_what_it_said() {
    let folder = tempfile::tempdir().unwrap();
    let mut plan = plan(folder.path(), [Some(2), Some(1)]);
    plan.repairs = vec![vec![shell(folder.path(), "echo cannot >&2; exit 4")]];
    let report = crash(&plan);
    let failure = report.failure.unwrap();
    assert!(failure.contains("ended with 4") && failure.contains("cannot"), "{failure}");
    assert_eq!(report.runs.len(), 1);
}

#[test]
fn every_call_counts_where_that_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let changes = crash(&plan(folder.path(), [None])).runs[0].calls.len();
    let all = crash(&CrashPlan { count: Count::All, ..plan(folder.path(), [None]) });
    assert!(all.runs[0].calls.len() > 10 * changes, "{:?}", all.runs[0].calls);
}
