//! Whether the inventory still looks at the machine.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use thiserror::Error;

/// How many rescans may be missed. A look that fails is a look: what is wrong then does not go away with a restart.
const MISSED: u32 = 3;

/// How long a look may take at least, whatever the rescans are: a driver that resets its card keeps sysfs waiting.
const GRACE: Duration = Duration::from_secs(30);

/// The time of the last look at the machine. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Heartbeat {
    last: Arc<Mutex<Instant>>,
    limit: Duration,
}

/// The machine has not been looked at for too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the devices were last looked at {} seconds ago; the limit is {} seconds", .ago.as_secs(), .limit.as_secs())]
pub(crate) struct Stalled {
    /// Time since the last look.
    pub ago: Duration,
    /// The longest that is right.
    pub limit: Duration,
}

impl Heartbeat {
    /// A heart that beats first at `now`, and then after each look, of which there is one every `rescan` or more.
    #[must_use]
    pub(crate) fn new(rescan: Duration, now: Instant) -> Self {
        Self { last: Arc::new(Mutex::new(now)), limit: rescan.saturating_mul(MISSED).saturating_add(GRACE) }
    }

    /// A look is over.
    pub(crate) fn beat(&self, now: Instant) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }

    /// Whether the looks go on.
    ///
    /// # Errors
    ///
    /// [`Stalled`] if the last one is more than three rescans and 30 seconds ago.
    pub(crate) fn check(&self, now: Instant) -> Result<(), Stalled> {
        let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let ago = now.saturating_duration_since(last);
        if ago > self.limit { Err(Stalled { ago, limit: self.limit }) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_well_until_looks_are_missing_and_after_the_next_one() {
        let start = Instant::now();
        let heart = Heartbeat::new(Duration::from_secs(60), start);
        let limit = Duration::from_secs(210);
        assert_eq!(heart.check(start), Ok(()));
        assert_eq!(heart.check(start + limit), Ok(()));
        let later = start + limit + Duration::from_secs(1);
        let stalled = heart.check(later).unwrap_err();
        assert_eq!(stalled, Stalled { ago: limit + Duration::from_secs(1), limit });
        assert!(stalled.to_string().contains("211 seconds ago; the limit is 210"), "{stalled}");
        heart.beat(later);
        assert_eq!(heart.check(later + limit), Ok(()));
    }
}
