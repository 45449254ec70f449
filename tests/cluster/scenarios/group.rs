//! Scenarios in groups, each with a cluster of its own, and what is shown when one fails.

use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use libtest_mimic::{Failed, Trial};
use zerobridge_cluster::{Cluster, ClusterOptions};
use zerobridge_lab::{Progress, checkout};
use zerobridge_proto::chain;

/// What a scenario returns.
pub(crate) type Outcome = Result<(), Box<dyn Error>>;

/// A scenario: its name and what it does with the cluster.
pub(crate) type Scenario = (&'static str, fn(&mut Cluster) -> Outcome);

/// VFs on each node's two cards.
pub(crate) const VFS: [u8; 2] = [7, 4];

/// Scenarios that go on from each other.
#[derive(Clone, Copy)]
pub(crate) struct Group {
    /// What precedes `::` in their names.
    pub(crate) name: &'static str,
    /// The cluster that they run in; groups that name the same one, and follow each other, share it.
    pub(crate) cluster: &'static str,
    /// Whether nodes have Multus and a default network from the start.
    pub(crate) multus: bool,
    /// In the order in which they run.
    pub(crate) scenarios: &'static [Scenario],
}

/// A cluster, or why there is none.
enum Place {
    /// It has not been started.
    Empty,
    Running(&'static str, Box<Cluster>),
    /// One of its scenarios failed.
    Spoiled(&'static str),
}

/// The one cluster there is at a time.
#[derive(Clone)]
pub(crate) struct Bench(Arc<Mutex<Place>>);

impl Default for Bench {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Place::Empty)))
    }
}

impl Group {
    /// Its scenarios as test results.
    pub(crate) fn trials(&self, bench: &Bench) -> Vec<Trial> {
        let group = *self;
        let trial = |(name, scenario): &Scenario| {
            let (bench, scenario) = (bench.clone(), *scenario);
            Trial::test(format!("{}::{name}", group.name), move || bench.run(&group, scenario))
        };
        self.scenarios.iter().map(trial).collect()
    }
}

impl Bench {
    /// Ends the cluster.
    pub(crate) fn clear(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Place::Empty;
    }

    fn run(&self, group: &Group, scenario: fn(&mut Cluster) -> Outcome) -> Result<(), Failed> {
        let mut place = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut cluster = match std::mem::replace(&mut *place, Place::Empty) {
            Place::Running(name, cluster) if name == group.cluster => cluster,
            Place::Spoiled(name) if name == group.cluster => {
                *place = Place::Spoiled(name);
                return Err("an earlier scenario in this cluster failed".into());
            }
            other => {
                // Before another takes its processors.
                drop(other);
                let cluster = start(group);
                Box::new(cluster.map_err(|error| {
                    *place = Place::Spoiled(group.cluster);
                    Failed::from(chain(error.as_ref()))
                })?)
            }
        };
        let started = Instant::now();
        match scenario(&mut cluster) {
            Ok(()) => {
                say(&format!("  {:.1} s", started.elapsed().as_secs_f32()));
                *place = Place::Running(group.cluster, cluster);
                Ok(())
            }
            Err(error) => {
                *place = Place::Spoiled(group.cluster);
                Err(format!("{}\n\n{}", chain(error.as_ref()), cluster.report()).into())
            }
        }
    }
}

/// One line for whoever watches.
pub(crate) fn say(line: &str) {
    Progress::to(io::stderr()).say(line);
}

/// The archive of the image under test: `make image` makes it, `$ZEROBRIDGE_IMAGE` is another.
fn image() -> PathBuf {
    let usual = || checkout().join("target/image/zerobridge.tar");
    std::env::var_os("ZEROBRIDGE_IMAGE").map_or_else(usual, PathBuf::from)
}

fn start(group: &Group) -> Result<Cluster, Box<dyn Error>> {
    say(&format!("\n{}: a cluster", group.cluster));
    let image = image();
    if !image.exists() {
        return Err(format!("there is no image {}: make image", image.display()).into());
    }
    let options = ClusterOptions {
        multus: group.multus,
        vfs: VFS.to_vec(),
        images: vec![image],
        ..ClusterOptions::default()
    };
    Ok(Cluster::start(&options, &Progress::to(io::stderr()))?)
}
