//! A network namespace that lives as long as a value.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::netns::Netns;

/// A new network namespace under `/run/netns`, deleted when dropped. Needs root and iproute2.
#[derive(Debug)]
pub struct TestNetns {
    name: String,
    netns: Netns,
}

impl Default for TestNetns {
    fn default() -> Self {
        Self::new()
    }
}

impl TestNetns {
    /// Creates one with a name that no other test uses.
    ///
    /// # Panics
    /// When the namespace cannot be created.
    #[must_use]
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("zb-test-{}-{number}", std::process::id());
        run(&["netns", "add", &name]);
        let netns = Netns::open(format!("/run/netns/{name}").as_ref()).unwrap();
        Self { name, netns }
    }

    /// Its name below `/run/netns`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The namespace.
    #[must_use]
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// Runs `ip` with these words inside and returns what it printed.
    ///
    /// # Panics
    /// When `ip` fails.
    pub fn ip(&self, words: &str) -> String {
        let mut all = vec!["-n", &self.name];
        all.extend(words.split_whitespace());
        run(&all)
    }
}

impl Drop for TestNetns {
    fn drop(&mut self) {
        run(&["netns", "delete", &self.name]);
    }
}

fn run(words: &[&str]) -> String {
    let output = Command::new("ip").args(words).output().unwrap();
    assert!(output.status.success(), "ip {words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
