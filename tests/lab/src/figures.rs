//! Figures of the daemon on a real node: how soon the kubelet knows, and what it costs while nothing happens.
//!
//! Prints, never judges: an emulated machine is slower than any that it stands for.

use std::io::{self, Write};
use std::time::Duration;

use serde_json::{Value, json};
use thiserror::Error;

use crate::lab::{CARDS, Lab, LabError, VFS_PER_CARD};
use crate::machine::GuestError;
use crate::network::rebinding;
use crate::node::BLUE;

/// How often each event is brought about.
const ROUNDS: usize = 5;
/// How long the daemon is watched doing nothing.
const IDLE: Duration = Duration::from_secs(60);
/// How long the first messages after a start may still cost something.
const SETTLED: Duration = Duration::from_secs(5);
const LIMIT: Duration = Duration::from_secs(30);
/// What the daemon logs once the kubelet's list is out of date.
const CHANGED: &str = "devices changed";
const DAY: u64 = 24 * 60 * 60 * 1_000_000;

/// Why there are no figures.
#[derive(Debug, Error)]
pub enum FiguresError {
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

/// All VFs of the node in one pool.
fn one_pool() -> Value {
    json!({"pools": [{"resourceName": "vf", "selectors": {"drivers": ["igbvf"]}}]})
}

/// Takes the figures, which lasts some two minutes, and prints a line for each.
///
/// # Errors
/// When the lab fails, or an event has no consequence.
pub fn figures(lab: &mut Lab, out: &mut dyn Write) -> Result<(), FiguresError> {
    at_rest(lab, out)?;
    events(lab, out)
}

fn at_rest(lab: &mut Lab, out: &mut dyn Write) -> Result<(), FiguresError> {
    let (guest, node) = lab.node()?;
    node.reconfigure(guest, &one_pool(), &[])?;
    std::thread::sleep(SETTLED);
    let before = node.usage(guest)?;
    std::thread::sleep(IDLE);
    let after = node.usage(guest)?;
    let vfs = CARDS * VFS_PER_CARD;
    writeln!(out, "daemon, {vfs} VFs: {:.1} MiB resident", mebibytes(after.resident_kib))?;
    writeln!(
        out,
        "daemon, idle for {} s: {} ms of processor time (in steps of 10), woken {} times",
        IDLE.as_secs(),
        after.cpu.saturating_sub(before.cpu).as_millis(),
        after.wakeups.saturating_sub(before.wakeups),
    )?;
    Ok(())
}

fn mebibytes(kibibytes: u64) -> f64 {
    u32::try_from(kibibytes).map_or(f64::NAN, f64::from) / 1024.0
}

fn events(lab: &mut Lab, out: &mut dyn Write) -> Result<(), FiguresError> {
    let (guest, node) = lab.node()?;
    node.reconfigure(guest, &one_pool(), &["--log-level", "debug"])?;
    let vf = guest.vf(2, 0)?;
    let all = usize::from(CARDS * VFS_PER_CARD);
    let events = [
        ("driver unbound", format!("echo {vf} > /sys/bus/pci/devices/{vf}/driver/unbind"), all - 1),
        ("driver bound", rebinding(vf, "igbvf"), all),
    ];
    let mut times = events.each_ref().map(|_| (Vec::new(), Vec::new()));
    for _ in 0..ROUNDS {
        for ((_, script, count), (listed, seen)) in events.iter().zip(&mut times) {
            let log = node.device_plugin_log(guest)?.len();
            let followed = node.follow(guest, script, &[(BLUE, *count)], LIMIT)?;
            let written = node.device_plugin_log(guest)?;
            listed.extend(first_change(written.get(log..).unwrap_or_default(), followed.ended));
            seen.push(followed.delay());
        }
    }
    for ((event, ..), (listed, seen)) in events.iter().zip(times) {
        writeln!(out, "{event}: the daemon's list is new after {}", summary(listed))?;
        writeln!(out, "{event}: allocatable after {}", summary(seen))?;
    }
    Ok(())
}

/// How long after the event, which ended at `ended` (microseconds since 1970), the log has the first word of a change;
/// zero if it came before the end.
fn first_change(log: &str, ended: u64) -> Option<Duration> {
    let at = time_of_day(log.lines().find(|line| line.contains(CHANGED))?)?;
    let late = (at + DAY - ended % DAY) % DAY;
    Some(if late > DAY / 2 { Duration::ZERO } else { Duration::from_micros(late) })
}

/// Microseconds since midnight, from a time stamp as in `2026-01-31T12:34:56.789012Z`.
fn time_of_day(line: &str) -> Option<u64> {
    let (_, time) = line.split_once('T')?;
    let (time, _) = time.split_once('Z')?;
    let (clock, fraction) = time.split_once('.')?;
    let seconds = clock.split(':').try_fold(0, |sum, part| Some(sum * 60 + part.parse::<u64>().ok()?))?;
    Some(seconds * 1_000_000 + format!("{fraction:0<6}").get(..6)?.parse::<u64>().ok()?)
}

/// Median and worst of `times`.
fn summary(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    match (times.get(times.len() / 2), times.last()) {
        (Some(median), Some(worst)) => {
            format!(
                "{} ms (median of {}), {} ms at worst",
                median.as_millis(),
                times.len(),
                worst.as_millis()
            )
        }
        _ => "(nothing seen)".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_found_by_its_time_of_day() {
        let log = "2026-11-24T12:49:53.000001Z  INFO x: registered\n2026-11-24T12:49:55.375525Z  INFO x: devices changed pool=a/x\n";
        let at = ((12 * 60 + 49) * 60 + 55) * 1_000_000 + 375_525;
        // 2026-11-24 is a whole number of days after 1970; any such number does.
        let midnight = 20_781 * DAY;
        assert_eq!(first_change(log, midnight + at - 7_000), Some(Duration::from_millis(7)));
        assert_eq!(first_change(log, midnight + at + 7_000), Some(Duration::ZERO), "before the event's end");
        assert_eq!(first_change("2026-11-24T12:49:53.000001Z INFO x: registered\n", midnight), None);
        assert_eq!(first_change("devices changed", midnight), None, "no time stamp");
    }

    #[test]
    fn midnight_between_event_and_change_is_no_day_lost() {
        let log = "2026-11-25T00:00:00.002Z  INFO x: devices changed\n";
        assert_eq!(first_change(log, 20_782 * DAY - 1_000), Some(Duration::from_millis(3)));
    }

    #[test]
    fn a_summary_names_the_middle_and_the_worst() {
        let times = [30, 10, 20].map(Duration::from_millis).to_vec();
        assert_eq!(summary(times), "20 ms (median of 3), 30 ms at worst");
        assert_eq!(summary(Vec::new()), "(nothing seen)");
    }
}
