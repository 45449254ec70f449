//! How long to wait for more after something happened: pure arithmetic over times.
//!
//! Creating VFs, or binding a driver, is a burst of events, and between them the machine is in states that nobody should
//! hear of. Refuses to know what happened.

use std::time::Duration;

use tokio::time::Instant;

/// A burst is over when nothing has happened for this long.
const QUIET: Duration = Duration::from_millis(50);

/// A burst that does not end is looked at after this long.
const LONGEST: Duration = Duration::from_millis(200);

/// A burst of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Burst {
    first: Instant,
    last: Instant,
}

impl Burst {
    /// A burst that begins now.
    pub(crate) fn at(now: Instant) -> Self {
        Self { first: now, last: now }
    }

    /// One more event.
    pub(crate) fn again(&mut self, now: Instant) {
        self.last = now;
    }

    /// When to look.
    pub(crate) fn due(self) -> Instant {
        (self.last + QUIET).min(self.first + LONGEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_event_waits_for_quiet() {
        let now = Instant::now();
        assert_eq!(Burst::at(now).due(), now + QUIET);
    }

    #[test]
    fn more_events_wait_longer_but_not_for_ever() {
        let now = Instant::now();
        let mut burst = Burst::at(now);
        burst.again(now + QUIET / 2);
        assert_eq!(burst.due(), now + QUIET / 2 + QUIET);
        for step in 1..100 {
            burst.again(now + QUIET / 2 * step);
        }
        assert_eq!(burst.due(), now + LONGEST);
    }
}
