//! When a finding counts: a check that fails for a moment, or recovers for one, changes nothing.
//!
//! Pure, with the time passed in. Refuses to know what is checked, and what follows.

use std::time::Duration;

use tokio::time::Instant;

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// All is well.
    Passed,
    /// Something is wrong.
    Failed {
        /// What, in words.
        reason: String,
    },
    /// Nobody can say. It changes nothing, and a change that was pending has to begin again.
    Unknown,
}

/// What is thought of one check of one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    /// Why it fails, in the words of the last failure; `None` while it passes.
    reason: Option<String>,
    /// Since when it is found to be otherwise, without a break.
    otherwise_since: Option<Instant>,
}

impl Standing {
    /// The standing after the first outcome that is known. It counts at once: a pod must not be placed on a dead VF
    /// because the daemon was just started.
    pub(super) fn first(outcome: Outcome) -> Option<Self> {
        let reason = match outcome {
            Outcome::Passed => None,
            Outcome::Failed { reason } => Some(reason),
            Outcome::Unknown => return None,
        };
        Some(Self { reason, otherwise_since: None })
    }

    /// Takes in another outcome, found at `now`. Returns whether that changes the standing.
    pub(super) fn update(&mut self, outcome: Outcome, now: Instant, hold_down: Duration) -> bool {
        let found = match outcome {
            Outcome::Unknown => {
                self.otherwise_since = None;
                return false;
            }
            Outcome::Passed => None,
            Outcome::Failed { reason } => Some(reason),
        };
        if found.is_some() == self.reason.is_some() {
            (self.reason, self.otherwise_since) = (found, None);
            return false;
        }
        let since = *self.otherwise_since.get_or_insert(now);
        let has_lasted = now.saturating_duration_since(since) >= hold_down;
        if has_lasted {
            (self.reason, self.otherwise_since) = (found, None);
        }
        has_lasted
    }

    /// Why it fails; `None` while it passes.
    pub(super) fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    /// When a change that is pending counts, if nothing comes between.
    pub(super) fn due(&self, hold_down: Duration) -> Option<Instant> {
        self.otherwise_since?.checked_add(hold_down)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOLD_DOWN: Duration = Duration::from_millis(1000);

    fn outcome(letter: char) -> Outcome {
        match letter {
            '+' => Outcome::Passed,
            '-' => Outcome::Failed { reason: "broken".to_owned() },
            _ => Outcome::Unknown,
        }
    }

    /// Whether a check counts as failed after each outcome.
    fn run(outcomes: &[(u64, char)], hold_down: Duration) -> Vec<bool> {
        let mut now = Instant::now();
        let mut standing: Option<Standing> = None;
        let mut failed = Vec::new();
        for &(pause, letter) in outcomes {
            now += Duration::from_millis(pause);
            match &mut standing {
                Some(standing) => {
                    standing.update(outcome(letter), now, hold_down);
                }
                None => standing = Standing::first(outcome(letter)),
            }
            failed.push(standing.as_ref().is_some_and(|standing| standing.reason().is_some()));
        }
        failed
    }

    /// Each case: what is found every 600 ms (`+` passed, `-` failed, `?` unknown), and what counts (`-` failed).
    #[test]
    fn what_lasts_counts_and_what_flaps_does_not() {
        for (found, counts, what) in [
            ("++++", "++++", "nothing happens"),
            ("-", "-", "the first failure counts at once"),
            ("??-", "++-", "so does the first that is known"),
            ("+---", "+++-", "a failure counts when it has lasted"),
            ("-+++", "---+", "so does a recovery"),
            ("+-+-+-+-", "++++++++", "flapping changes nothing"),
            ("-+-+-+-+", "--------", "in neither state"),
            ("+--+---", "++++++-", "a break begins anew"),
            ("+--?---", "++++++-", "so does ignorance"),
            ("-????", "-----", "ignorance does not heal"),
        ] {
            let outcomes: Vec<(u64, char)> = found.chars().map(|letter| (600, letter)).collect();
            let told: String =
                run(&outcomes, HOLD_DOWN).into_iter().map(|failed| if failed { '-' } else { '+' }).collect();
            assert_eq!(told, counts, "{what}: {found}");
        }
    }

    #[test]
    fn without_a_hold_down_everything_counts_at_once() {
        assert_eq!(run(&[(0, '+'), (0, '-'), (0, '+')], Duration::ZERO), [false, true, false]);
    }

    fn outcomes() -> impl Strategy<Value = Vec<(u64, char)>> {
        prop::collection::vec((0_u64..1500, prop::sample::select(vec!['+', '-', '?'])), 1..40)
    }

    proptest! {
        /// What counts after each outcome, worked out again from the whole past: the last known outcome that either came
        /// first of all, or stood at the end of a stretch that was all of its kind and lasted.
        #[test]
        fn only_what_was_first_or_has_lasted_counts(outcomes in outcomes()) {
            let told = run(&outcomes, HOLD_DOWN);
            let times: Vec<u64> =
                outcomes.iter().scan(0, |now, (pause, _)| { *now += pause; Some(*now) }).collect();
            for end in 0..outcomes.len() {
                let first = (0..=end).find(|&at| outcomes[at].1 != '?');
                let has_lasted = |at: usize| {
                    let kind = outcomes[at].1;
                    let begin = (0..=at).rev().take_while(|&before| outcomes[before].1 == kind).last();
                    kind != '?' && begin.is_some_and(|begin| times[at] - times[begin] >= 1000)
                };
                let last = (0..=end).rev().find(|&at| Some(at) == first || has_lasted(at));
                let expected = last.is_some_and(|at| outcomes[at].1 == '-');
                prop_assert_eq!(told[end], expected, "after {:?}", &outcomes[..=end]);
            }
        }

        /// The time that is named is when it counts, and not a moment earlier.
        #[test]
        fn a_pending_change_counts_when_it_is_due(outcomes in outcomes(), fails: bool) {
            let (was, found) = if fails { ('+', '-') } else { ('-', '+') };
            let mut standing = Standing::first(outcome(was)).unwrap();
            let mut now = Instant::now();
            for (pause, letter) in outcomes {
                now += Duration::from_millis(pause % 900);
                // Never two of the other kind in a row, hence never long enough.
                standing.update(outcome(letter), now, HOLD_DOWN);
                standing.update(outcome(was), now, HOLD_DOWN);
            }
            prop_assert_eq!(standing.due(HOLD_DOWN), None);
            prop_assert!(!standing.update(outcome(found), now, HOLD_DOWN));
            let due = standing.due(HOLD_DOWN).unwrap();
            prop_assert!(!standing.update(outcome(found), due - Duration::from_nanos(1), HOLD_DOWN));
            prop_assert!(standing.update(outcome(found), due, HOLD_DOWN));
            prop_assert_eq!(standing.reason().is_some(), fails);
            prop_assert_eq!(standing.due(HOLD_DOWN), None);
        }
    }
}
