//! How long an object has not changed, by the listener's own clock: what others write of their time is not believed.

use std::collections::BTreeMap;
use std::time::Duration;

/// Since when each object has the version that it has.
#[derive(Clone, Debug, Default)]
pub struct Silence {
    since: BTreeMap<String, (String, Duration)>,
}

impl Silence {
    /// At `now`, objects have these versions (name and version). Objects that are not named any more are forgotten.
    pub fn heard<'a>(&mut self, objects: impl IntoIterator<Item = (&'a str, &'a str)>, now: Duration) {
        let before = std::mem::take(&mut self.since);
        for (name, version) in objects {
            let known = before.get(name).filter(|(known, _)| known == version);
            let since = known.map_or(now, |(_, since)| *since);
            self.since.insert(name.to_owned(), (version.to_owned(), since));
        }
    }

    /// How long the object has had its version.
    #[must_use]
    pub fn of(&self, name: &str, now: Duration) -> Duration {
        self.since.get(name).map_or(Duration::ZERO, |(_, since)| now.saturating_sub(*since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_ends_the_silence() {
        let at = Duration::from_secs;
        let mut silence = Silence::default();
        silence.heard([("a", "1"), ("b", "1")], at(10));
        silence.heard([("a", "1"), ("b", "2")], at(20));
        assert_eq!((silence.of("a", at(30)), silence.of("b", at(30))), (at(20), at(10)));
        silence.heard([("b", "2")], at(40));
        assert_eq!((silence.of("a", at(50)), silence.of("b", at(50))), (at(0), at(30)));
    }
}
