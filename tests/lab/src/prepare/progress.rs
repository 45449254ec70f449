//! What a waiting person sees: one line per step, and a sign of life while a step takes long.

use std::io::Write;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often a running step shows that it still runs.
const SIGN_OF_LIFE: Duration = Duration::from_secs(15);

/// Where the lines go.
pub struct Progress {
    out: Mutex<Box<dyn Write + Send>>,
    interval: Duration,
}

impl Progress {
    /// Lines go to `out`, such as standard output for a command and standard error for tests.
    #[must_use]
    pub fn to(out: impl Write + Send + 'static) -> Self {
        Self { out: Mutex::new(Box::new(out)), interval: SIGN_OF_LIFE }
    }

    /// One line.
    pub fn say(&self, line: &str) {
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        // A closed terminal is no reason to stop building.
        let _ = writeln!(out, "{line}").and_then(|()| out.flush());
    }

    /// Runs `work` and says how long it took, and what `outcome` says of its result (such as "cached").
    ///
    /// # Errors
    /// Those of `work`.
    pub fn step<T, E>(
        &self,
        name: &str,
        work: impl FnOnce() -> Result<T, E>,
        outcome: impl FnOnce(&T) -> String,
    ) -> Result<T, E> {
        let begun = Instant::now();
        let (done, wait) = channel::<()>();
        let result = std::thread::scope(|scope| {
            scope.spawn(move || {
                while wait.recv_timeout(self.interval) == Err(RecvTimeoutError::Timeout) {
                    self.say(&line(name, &format!("… {} s", begun.elapsed().as_secs())));
                }
            });
            let result = work();
            drop(done);
            result
        });
        let text = match &result {
            Ok(value) => outcome(value),
            Err(_) => "failed".into(),
        };
        self.say(&line(name, &format!("{text}, {:.1} s", begun.elapsed().as_secs_f64())));
        result
    }
}

fn line(name: &str, text: &str) -> String {
    format!("  {name:<34} {text}")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[derive(Clone, Default)]
    struct Screen(Arc<Mutex<Vec<u8>>>);

    impl Write for Screen {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_long_step_shows_that_it_lives_and_then_its_outcome() {
        let screen = Screen::default();
        let progress =
            Progress { out: Mutex::new(Box::new(screen.clone())), interval: Duration::from_millis(1) };
        let lived = || {
            while screen.0.lock().unwrap().is_empty() {
                std::thread::yield_now();
            }
            Ok::<_, ()>(5)
        };
        assert_eq!(progress.step("kernel", lived, |value| format!("{value} files")), Ok(5));
        let text = String::from_utf8(screen.0.lock().unwrap().clone()).unwrap();
        assert!(text.lines().next().unwrap().contains('…'), "{text}");
        assert!(text.lines().last().unwrap().contains("5 files, "), "{text}");
    }

    #[test]
    fn a_failed_step_says_so_and_passes_the_error_on() {
        let screen = Screen::default();
        let progress = Progress::to(screen.clone());
        assert_eq!(
            progress.step("kernel", || Err::<(), _>("no mirror"), |()| "built".into()),
            Err("no mirror")
        );
        assert!(String::from_utf8(screen.0.lock().unwrap().clone()).unwrap().contains("failed"));
    }
}
