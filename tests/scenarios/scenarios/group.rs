//! Scenarios in groups: which share a VM, when it boots, and what is shown when one fails.

use std::error::Error;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use libtest_mimic::{Failed, Trial};
use zerobridge_lab::{Cache, Lab, Progress, prepare, report};
use zerobridge_proto::chain;

/// What a scenario returns.
pub(crate) type Outcome = Result<(), Box<dyn Error>>;

/// A scenario: its name and what it does with the lab.
pub(crate) type Scenario = (&'static str, fn(&mut Lab) -> Outcome);

/// Scenarios about one thing.
#[derive(Clone, Copy)]
pub(crate) struct Group {
    /// What precedes `::` in their names.
    pub(crate) name: &'static str,
    /// The VM that they run in; groups that name the same one, and follow each other, share it.
    pub(crate) vm: &'static str,
    /// In the order in which they run.
    pub(crate) scenarios: &'static [Scenario],
}

/// The one VM there is at a time, and whose it is.
#[derive(Clone, Default)]
pub(crate) struct Bench(Arc<Mutex<Option<(&'static str, Lab)>>>);

impl Group {
    /// Its scenarios as test results.
    pub(crate) fn trials(&self, bench: &Bench) -> Vec<Trial> {
        let (group, vm) = (self.name, self.vm);
        let trial = |(name, scenario): &Scenario| {
            let (bench, scenario) = (bench.clone(), *scenario);
            Trial::test(format!("{group}::{name}"), move || bench.run(vm, scenario))
        };
        self.scenarios.iter().map(trial).collect()
    }
}

impl Bench {
    /// Ends the VM.
    pub(crate) fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    fn run(&self, vm: &'static str, scenario: fn(&mut Lab) -> Outcome) -> Result<(), Failed> {
        let mut place = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if place.as_ref().is_some_and(|(owner, _)| *owner != vm) {
            place.take();
        }
        let mut lab = match place.take() {
            Some((_, lab)) => lab,
            None => boot(vm).map_err(|error| Failed::from(chain(error.as_ref())))?,
        };
        let started = Instant::now();
        match scenario(&mut lab) {
            Ok(()) => {
                say(&format!("  {:.1} s", started.elapsed().as_secs_f32()));
                *place = Some((vm, lab));
                Ok(())
            }
            // Not put back: whatever state it is in, the next scenario must not inherit it.
            Err(error) => Err(format!("{}\n\n{}", chain(error.as_ref()), report(&mut lab.vm)).into()),
        }
    }
}

/// One line for whoever watches.
pub(crate) fn say(line: &str) {
    Progress::to(io::stderr()).say(line);
}

fn boot(vm: &str) -> Result<Lab, Box<dyn Error>> {
    let progress = Progress::to(io::stderr());
    progress.say(&format!("\n{vm}: a VM"));
    let prepared = prepare(&Cache::from_environment()?, &progress)?;
    Ok(progress.step("boot, two cards, eight VFs", || Lab::boot(&prepared), |_| "up".into())?)
}
