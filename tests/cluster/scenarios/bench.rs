//! The one cluster that scenarios share: when it comes up, and what is shown when a scenario fails.

use std::error::Error;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use libtest_mimic::{Failed, Trial};
use zerobridge_cluster::{Cluster, ClusterOptions};
use zerobridge_lab::Progress;
use zerobridge_proto::chain;

/// What a scenario returns.
pub(crate) type Outcome = Result<(), Box<dyn Error>>;

/// A scenario: its name and what it does with the cluster.
pub(crate) type Scenario = (&'static str, fn(&mut Cluster) -> Outcome);

/// Scenarios about one thing.
#[derive(Clone, Copy)]
pub(crate) struct Group {
    /// What precedes `::` in their names.
    pub(crate) name: &'static str,
    /// In the order in which they run.
    pub(crate) scenarios: &'static [Scenario],
}

/// The cluster, once there is one.
#[derive(Clone, Default)]
pub(crate) struct Bench(Arc<Mutex<Option<Cluster>>>);

impl Group {
    /// Its scenarios as test results.
    pub(crate) fn trials(&self, bench: &Bench) -> Vec<Trial> {
        let group = self.name;
        let trial = |(name, scenario): &Scenario| {
            let (bench, scenario) = (bench.clone(), *scenario);
            Trial::test(format!("{group}::{name}"), move || bench.run(scenario))
        };
        self.scenarios.iter().map(trial).collect()
    }
}

impl Bench {
    /// Ends the cluster.
    pub(crate) fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    fn run(&self, scenario: fn(&mut Cluster) -> Outcome) -> Result<(), Failed> {
        let mut place = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let progress = Progress::to(io::stderr());
        let mut cluster = match place.take() {
            Some(cluster) => cluster,
            None => Cluster::start(&ClusterOptions::default(), &progress)
                .map_err(|error| Failed::from(chain(&error)))?,
        };
        let started = Instant::now();
        match scenario(&mut cluster) {
            Ok(()) => {
                progress.say(&format!("  {:.1} s", started.elapsed().as_secs_f32()));
                *place = Some(cluster);
                Ok(())
            }
            // Not put back: whatever state it is in, the next scenario must not inherit it.
            Err(error) => Err(format!("{}\n\n{}", chain(error.as_ref()), cluster.report()).into()),
        }
    }
}
