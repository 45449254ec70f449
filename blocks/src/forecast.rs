//! When a pool will be exhausted, if it goes on like this.

use std::collections::VecDeque;
use std::time::Duration;

/// How far back is looked.
const WINDOW: Duration = Duration::from_secs(3600);
/// Below this, a slope is chance.
const SHORTEST: Duration = Duration::from_secs(300);

/// How many blocks were claimed, over the last hour.
#[derive(Clone, Debug, Default)]
pub struct Forecast {
    samples: VecDeque<(Duration, u32)>,
}

impl Forecast {
    /// So many blocks are claimed at `now`.
    pub fn sample(&mut self, now: Duration, claimed: u32) {
        self.samples.push_back((now, claimed));
        while self.samples.front().is_some_and(|(at, _)| now.saturating_sub(*at) > WINDOW) {
            self.samples.pop_front();
        }
    }

    /// In how long `free` more will be claimed; `None` while it does not grow, or too little is known. By the slope
    /// between the first and the last sample: a pool is filled in bursts, and what matters is the whole.
    #[must_use]
    pub fn exhausted_in(&self, free: u32) -> Option<Duration> {
        let ((first, before), (last, after)) = (self.samples.front()?, self.samples.back()?);
        let (time, grown) = (last.saturating_sub(*first), after.saturating_sub(*before));
        if time < SHORTEST || grown == 0 {
            return None;
        }
        Some(Duration::from_secs(time.as_secs().saturating_mul(free.into()) / u64::from(grown)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_goes_on_as_in_the_last_hour() {
        let minutes = |minutes: u64| Duration::from_secs(minutes * 60);
        let mut forecast = Forecast::default();
        for minute in 0..4 {
            forecast.sample(minutes(minute), 10 + u32::try_from(minute).unwrap());
        }
        assert_eq!(forecast.exhausted_in(100), None, "too little is known");
        forecast.sample(minutes(10), 20);
        assert_eq!(forecast.exhausted_in(100), Some(minutes(100)));
        forecast.sample(minutes(100), 20);
        assert_eq!(forecast.exhausted_in(100), None, "it has stopped");
    }
}
