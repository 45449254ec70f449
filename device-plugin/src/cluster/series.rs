//! How often the same event may be told: repetitions are counted in one event, and new ones are rationed.
//!
//! Pure bookkeeping with the time passed in. Refuses to know how an event is written.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::event::Subject;

/// How long after its last occurrence an event still counts as the same.
pub(super) const WINDOW: Duration = Duration::from_secs(5 * 60);

/// How many kinds of event are remembered.
const MEMORY: usize = 64;

/// How many new events may be written at once.
const BURST: u32 = 25;

/// How long it takes until one more may be.
const REFILL: Duration = Duration::from_secs(5);

/// What makes two occurrences the same event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) subject: Subject,
    pub(super) reason: &'static str,
    pub(super) note: String,
}

/// Occurrences of one event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Occurrences {
    pub(super) key: Key,
    /// Name of the object that was written for the first.
    pub(super) name: String,
    /// How many there were, the first included.
    pub(super) count: i32,
    /// When the last one was.
    pub(super) last: SystemTime,
    seen: Instant,
    counted: i32,
}

/// The events of the last minutes.
#[derive(Debug, Default)]
pub(super) struct Series {
    occurrences: Vec<Occurrences>,
}

/// How many new events may still be written.
#[derive(Debug)]
pub(super) struct Ration {
    left: u32,
    since: Instant,
}

impl Series {
    /// Counts one more occurrence of an event; false if it is new.
    pub(super) fn counts(&mut self, key: &Key, now: Instant, at: SystemTime) -> bool {
        self.occurrences.retain(|known| now.duration_since(known.seen) < WINDOW || known.is_news());
        let Some(known) = self.occurrences.iter_mut().find(|known| known.key == *key) else { return false };
        known.count = known.count.saturating_add(1);
        known.last = at;
        known.seen = now;
        true
    }

    /// Remembers an event that was written under `name`. The one that was seen least lately makes room.
    pub(super) fn remember(&mut self, key: Key, name: String, now: Instant, at: SystemTime) {
        if self.occurrences.len() >= MEMORY
            && let Some(oldest) =
                (0..self.occurrences.len()).min_by_key(|&index| self.occurrences[index].seen)
        {
            self.occurrences.swap_remove(oldest);
        }
        self.occurrences.push(Occurrences { key, name, count: 1, last: at, seen: now, counted: 1 });
    }

    /// Whether some event occurred more often than was told.
    pub(super) fn has_news(&self) -> bool {
        self.occurrences.iter().any(Occurrences::is_news)
    }

    /// The events that occurred more often than was told. From now on this has been told.
    pub(super) fn news(&mut self) -> Vec<Occurrences> {
        let news = self.occurrences.iter_mut().filter(|known| known.is_news());
        news.map(|known| {
            known.counted = known.count;
            known.clone()
        })
        .collect()
    }

    /// Forgets an event, so that its next occurrence is a new one.
    pub(super) fn forget(&mut self, key: &Key) {
        self.occurrences.retain(|known| known.key != *key);
    }
}

impl Occurrences {
    fn is_news(&self) -> bool {
        self.count > self.counted
    }
}

impl Ration {
    pub(super) fn new(now: Instant) -> Self {
        Self { left: BURST, since: now }
    }

    /// Takes one; false if there is none left.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        while self.left < BURST && now.duration_since(self.since) >= REFILL {
            self.left += 1;
            self.since += REFILL;
        }
        if self.left == BURST {
            self.since = now;
        }
        self.left.checked_sub(1).map(|left| self.left = left).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(note: &str) -> Key {
        Key { subject: Subject::Node, reason: "DeviceUnhealthy", note: note.to_owned() }
    }

    #[test]
    fn repetitions_within_the_window_are_one_event() {
        let (start, at) = (Instant::now(), SystemTime::UNIX_EPOCH);
        let mut series = Series::default();
        assert!(!series.counts(&key("a"), start, at));
        series.remember(key("a"), "n.1".to_owned(), start, at);
        assert!(!series.has_news());
        let later = at + Duration::from_secs(9);
        assert!(series.counts(&key("a"), start + WINDOW / 2, at));
        assert!(series.counts(&key("a"), start + WINDOW, later), "the window begins with the last one");
        assert!(!series.counts(&key("b"), start + WINDOW, later));

        let [news] = &series.news()[..] else { panic!("one") };
        assert_eq!((news.name.as_str(), news.count, news.last), ("n.1", 3, later));
        assert!(series.news().is_empty(), "told once");
        assert!(!series.counts(&key("a"), start + WINDOW * 2, at), "after the window it is a new one");
    }

    #[test]
    fn what_was_not_told_yet_outlasts_the_window() {
        let (start, at) = (Instant::now(), SystemTime::UNIX_EPOCH);
        let mut series = Series::default();
        series.remember(key("a"), "n.1".to_owned(), start, at);
        series.counts(&key("a"), start, at);
        series.counts(&key("b"), start + WINDOW * 2, at);
        assert_eq!(series.news().len(), 1);
    }

    #[test]
    fn memory_is_bounded() {
        let (start, at) = (Instant::now(), SystemTime::UNIX_EPOCH);
        let mut series = Series::default();
        for number in 0..=MEMORY {
            let now = start + Duration::from_millis(u64::try_from(number).unwrap());
            series.remember(key(&number.to_string()), number.to_string(), now, at);
        }
        assert_eq!(series.occurrences.len(), MEMORY);
        assert!(!series.counts(&key("0"), start, at) && series.counts(&key("1"), start, at));
    }

    #[test]
    fn new_events_are_rationed() {
        let start = Instant::now();
        let mut ration = Ration::new(start);
        let taken = |ration: &mut Ration, now| (0..100).filter(|_| ration.take(now)).count();
        assert_eq!(taken(&mut ration, start), 25);
        assert_eq!(taken(&mut ration, start + REFILL - Duration::from_millis(1)), 0);
        assert_eq!(taken(&mut ration, start + REFILL * 3), 3);
        assert_eq!(taken(&mut ration, start + REFILL * 1000), 25);
    }
}
