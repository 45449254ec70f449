//! What happens to a node in a chaotic hour, step by step, from a number: the same steps for the same number. Pure.
//!
//! A step is about a pod and a VF by their numbers, whatever state they are in: what it comes to depends on what came
//! before. Refuses to know what should come of it.

/// One thing, or several at once, that happen to the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The runtime calls the plugin, about different pods at the same time.
    Calls(Vec<PluginCall>),
    /// A pod's network namespace disappears, and nobody tells the plugin.
    NamespaceGone {
        /// The pod.
        pod: usize,
    },
    /// Somebody changes a pod's VF behind the plugin's back, wherever it is.
    Disturbed {
        /// The pod.
        pod: usize,
        /// How.
        how: Disturbance,
    },
}

/// One call of the plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PluginCall {
    /// Its command.
    pub verb: Verb,
    /// The pod that it is about.
    pub pod: usize,
    /// Killed after so many milliseconds, if it runs that long.
    pub killed_after: Option<u64>,
}

/// What the runtime asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// ADD of a VF with one of the [`FLAVOURS`]; a pod whose namespace is gone comes back as another one of its name.
    Add {
        /// Which VF.
        vf: usize,
        /// Which settings.
        flavour: usize,
    },
    /// DEL.
    Del,
    /// DEL of the pod that had this one's name before.
    LateDel,
    /// CHECK.
    Check,
    /// GC in which the runtime knows the pods whose bits are set.
    Gc {
        /// Bit N for pod N.
        known: u64,
    },
}

/// What is done to a VF by hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disturbance {
    /// `ip link set down`.
    Down,
    /// Another MTU.
    Mtu,
    /// Another MAC, which a driver may refuse.
    Mac,
    /// No address any more.
    AddressesFlushed,
    /// No route any more.
    RoutesFlushed,
    /// Another name.
    Renamed,
    /// One more name.
    AltName,
    /// Another VLAN, through the PF.
    Vlan,
    /// Spoof check and trust the other way round, through the PF.
    SpoofCheckAndTrust,
    /// A limit to its rate, through the PF.
    Rate,
}

/// How many kinds of settings [`Verb::Add`] chooses from.
pub const FLAVOURS: usize = 3;

const DISTURBANCES: [Disturbance; 10] = [
    Disturbance::Down,
    Disturbance::Mtu,
    Disturbance::Mac,
    Disturbance::AddressesFlushed,
    Disturbance::RoutesFlushed,
    Disturbance::Renamed,
    Disturbance::AltName,
    Disturbance::Vlan,
    Disturbance::SpoofCheckAndTrust,
    Disturbance::Rate,
];

/// Longer than a call takes on an emulated machine, so that some of those that are to be killed end before.
const LONGEST_LIFE: u64 = 600;

/// An endless row of steps.
#[derive(Clone, Debug)]
pub struct Chaos {
    state: u64,
    pods: usize,
    vfs: usize,
}

impl Chaos {
    /// The steps of `seed` for a node with that many pods and VFs, at least one of each.
    #[must_use]
    pub fn new(seed: u64, pods: usize, vfs: usize) -> Self {
        Self { state: seed, pods: pods.max(1), vfs: vfs.max(1) }
    }

    /// SplitMix64 (Steele, Lea and Flood, 2014): any state is a good one, the seeds 0, 1, 2 … included.
    fn number(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        let limit = u64::try_from(limit).unwrap_or(u64::MAX).max(1);
        usize::try_from(self.number() % limit).unwrap_or_default()
    }

    fn percent(&mut self, share: usize) -> bool {
        self.below(100) < share
    }

    fn verb(&mut self, pod: usize) -> Verb {
        match self.below(100) {
            0..55 => {
                // Mostly each its own, or hardly any ADD would find a VF that is free.
                let vf = if self.percent(60) { pod % self.vfs } else { self.below(self.vfs) };
                Verb::Add { vf, flavour: self.below(FLAVOURS) }
            }
            55..75 => Verb::Del,
            75..82 => Verb::LateDel,
            _ => Verb::Check,
        }
    }

    fn call(&mut self, pod: usize) -> PluginCall {
        let verb = self.verb(pod);
        let killed_after = self.percent(30).then(|| self.number() % LONGEST_LIFE);
        PluginCall { verb, pod, killed_after }
    }

    /// Calls about different pods: a runtime never makes two about one pod at a time (CNI specification 1.1, section 2,
    /// "Runtime"), but two pods may well be after one VF.
    fn calls_at_once(&mut self) -> Step {
        let first = self.below(self.pods);
        let count = (2 + self.below(4)).min(self.pods);
        Step::Calls((first..first + count).map(|pod| self.call(pod % self.pods)).collect())
    }
}

impl Iterator for Chaos {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        let pod = self.below(self.pods);
        Some(match self.below(100) {
            0..45 => Step::Calls(vec![self.call(pod)]),
            // Never beside another call: the runtime sees to that, too.
            45..50 => {
                let verb = Verb::Gc { known: self.number() };
                let killed_after = self.percent(30).then(|| self.number() % LONGEST_LIFE);
                Step::Calls(vec![PluginCall { verb, pod, killed_after }])
            }
            50..70 => self.calls_at_once(),
            70..80 => Step::NamespaceGone { pod },
            _ => Step::Disturbed { pod, how: DISTURBANCES[self.below(DISTURBANCES.len())] },
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_same_number_brings_the_same_steps_and_another_brings_others() {
        let steps = |seed| Chaos::new(seed, 7, 7).take(200).collect::<Vec<_>>();
        assert_eq!(steps(5), steps(5));
        assert_ne!(steps(5), steps(6));
    }

    #[test]
    fn everything_happens_to_every_pod() {
        let mut seen = BTreeSet::new();
        let mut pods = BTreeSet::new();
        for step in Chaos::new(1, 7, 7).take(2000) {
            match step {
                Step::Calls(calls) => {
                    let about: BTreeSet<usize> = calls.iter().map(|call| call.pod).collect();
                    assert_eq!(about.len(), calls.len(), "two calls about one pod: {calls:?}");
                    for call in &calls {
                        let verb = format!("{:?}", call.verb);
                        let verb = verb.split(' ').next().unwrap_or_default();
                        seen.insert(format!("{verb} killed {}", call.killed_after.is_some()));
                    }
                    seen.insert(format!("at once {}", calls.len()));
                    pods.extend(about);
                }
                Step::NamespaceGone { .. } => {
                    seen.insert("namespace".to_owned());
                }
                Step::Disturbed { how, .. } => {
                    seen.insert(format!("{how:?}"));
                }
            }
        }
        // Five verbs killed and not, one to five at once, the namespace, the disturbances.
        assert_eq!(seen.len(), 10 + 5 + 1 + DISTURBANCES.len(), "{seen:?}");
        assert_eq!(pods, (0..7).collect());
    }
}
