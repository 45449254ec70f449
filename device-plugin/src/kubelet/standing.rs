//! Which pools the kubelet knows at the moment, as a value that can be read and waited for.

use std::collections::BTreeMap;

use tokio::sync::watch;

use crate::resource::ResourceName;

/// The standing of every pool of the daemon. Clones show the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Registrations(watch::Sender<Entries>);

#[derive(Debug, Default)]
struct Entries {
    next: u64,
    /// By pool, and by number: a pool whose presence is being replaced has two for a moment.
    standings: BTreeMap<(String, u64), Standing>,
}

/// How a pool stands with the kubelet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// The kubelet has a device stream open: it knows the pool's devices.
    Registered,
    /// It has none.
    Unregistered {
        /// What is waited for, or what failed, in a few words.
        why: String,
    },
}

/// The entry of one presence. Dropping it takes the entry away.
#[derive(Debug)]
pub(crate) struct Seat {
    registrations: Registrations,
    key: (String, u64),
}

impl Registrations {
    /// The standing of every pool, in the order of their names.
    #[must_use]
    pub(crate) fn all(&self) -> BTreeMap<String, Standing> {
        let mut all = BTreeMap::new();
        for ((pool, _), standing) in &self.0.borrow().standings {
            if *standing == Standing::Registered || !all.contains_key(pool) {
                all.insert(pool.clone(), standing.clone());
            }
        }
        all
    }

    /// Waits until the standings satisfy a condition, and gives them. They may do so already.
    #[cfg(test)]
    pub(crate) async fn until(
        &self,
        mut condition: impl FnMut(&BTreeMap<String, Standing>) -> bool,
    ) -> BTreeMap<String, Standing> {
        let mut changes = self.0.subscribe();
        loop {
            changes.borrow_and_update();
            let all = self.all();
            if condition(&all) {
                return all;
            }
            // Cannot fail: this value holds the sending side.
            let _ = changes.changed().await;
        }
    }

    /// Enters a pool, at first as one that is unregistered.
    pub(crate) fn enter(&self, pool: &ResourceName) -> Seat {
        let mut key = (pool.to_string(), 0);
        self.0.send_modify(|entries| {
            key.1 = entries.next;
            entries.next += 1;
            let why = "not tried yet".to_owned();
            entries.standings.insert(key.clone(), Standing::Unregistered { why });
        });
        Seat { registrations: self.clone(), key }
    }
}

impl Seat {
    /// Tells how the pool stands now. Nobody is woken if nothing has changed.
    pub(crate) fn set(&self, standing: Standing) {
        self.registrations.0.send_if_modified(|entries| {
            let entry = entries.standings.get_mut(&self.key);
            entry.is_some_and(|entry| {
                let news = *entry != standing;
                *entry = standing;
                news
            })
        });
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.registrations.0.send_modify(|entries| {
            entries.standings.remove(&self.key);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unregistered(why: &str) -> Standing {
        Standing::Unregistered { why: why.to_owned() }
    }

    fn pool(name: &str) -> ResourceName {
        ResourceName::new("zerobridge.io", name).unwrap()
    }

    #[test]
    fn a_pool_is_there_from_its_entry_to_the_end_of_its_seat() {
        let registrations = Registrations::default();
        assert!(registrations.all().is_empty());
        let (a, b) = (registrations.enter(&pool("a")), registrations.enter(&pool("b")));
        a.set(Standing::Registered);
        assert_eq!(
            registrations.all(),
            BTreeMap::from([
                ("zerobridge.io/a".to_owned(), Standing::Registered),
                ("zerobridge.io/b".to_owned(), unregistered("not tried yet")),
            ])
        );
        drop(b);
        assert_eq!(registrations.all().len(), 1);
    }

    #[test]
    fn of_two_presences_of_one_pool_the_registered_one_counts_and_the_other_takes_nothing_with_it() {
        let registrations = Registrations::default();
        let (old, new) = (registrations.enter(&pool("a")), registrations.enter(&pool("a")));
        let standing = || registrations.all()["zerobridge.io/a"].clone();
        old.set(Standing::Registered);
        assert_eq!(standing(), Standing::Registered);
        new.set(Standing::Registered);
        old.set(unregistered("leaving"));
        assert_eq!(standing(), Standing::Registered);
        drop(old);
        assert_eq!(standing(), Standing::Registered);
    }

    #[tokio::test]
    async fn a_change_wakes_and_a_repetition_does_not() {
        let registrations = Registrations::default();
        let seat = registrations.enter(&pool("a"));
        let mut changes = registrations.0.subscribe();
        seat.set(unregistered("not tried yet"));
        assert!(!changes.has_changed().unwrap());
        seat.set(unregistered("refused"));
        assert!(changes.has_changed().unwrap());
        changes.borrow_and_update();

        let waiting = tokio::spawn({
            let registrations = registrations.clone();
            async move { registrations.until(|all| all.values().all(|s| *s == Standing::Registered)).await }
        });
        seat.set(Standing::Registered);
        assert_eq!(waiting.await.unwrap().len(), 1);
    }
}
