//! When to make a socket, and when to register it: one pure decision over the facts of a moment.
//!
//! An open device stream is the registration. Kubelets without kubernetes#135437 look an ended stream up by resource
//! name, so that a second registration with a living kubelet is torn down by the end of the first (kubernetes#127803):
//! with a stream open nothing is registered, whatever else happens.
//!
//! The same kubelets tear down our registration when the one of another instance ends, as in every rolling update. No
//! device of the pool can be allocated from then until we have registered again, so the waits here are as short as they
//! may be, and grow only while nothing comes of them.

use std::time::Duration;

use tokio::time::Instant;

use super::kubelet_dir::FileId;

/// How long a kubelet may take to answer `Register`. It dials back and asks for the options meanwhile, which takes
/// milliseconds; the 10 seconds that it allows itself are for a socket on which nobody answers.
pub(super) const ANSWER_LIMIT: Duration = Duration::from_secs(3);

/// After a registration the kubelet opens its stream at once, over a connection that it already has.
const STREAM_LIMIT: Duration = Duration::from_secs(2);

/// After the end of a stream a living kubelet is left this long to forget it: it marks the resource as stopped after it
/// has closed the connection, and would do so to a registration that came in between.
const SETTLE: Duration = Duration::from_millis(50);

/// First wait after a failed registration, doubled each time.
const FIRST_RETRY: Duration = Duration::from_millis(50);

/// Longest wait between two attempts: a kubelet that recovers is not kept waiting for longer.
const LAST_RETRY: Duration = Duration::from_secs(3);

/// A stream that was open for so long has worked: its end is no repetition of an earlier one.
const PROVEN: Duration = Duration::from_secs(10);

/// How things are now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    /// Whether the folder of sockets is there.
    pub(crate) folder: bool,
    /// Whether our socket is there, and is the one we listen on.
    pub(crate) own_socket: bool,
    /// The kubelet's socket.
    pub(crate) kubelet: Option<FileId>,
    /// Number of open device streams.
    pub(crate) streams: usize,
    /// The time.
    pub(crate) now: Instant,
}

/// What is to be done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing, until something changes or the time comes.
    Wait(Waiting, Option<Instant>),
    /// Make our socket.
    Listen,
    /// Register with the kubelet behind this socket, in place of an attempt that may be under way.
    Register(FileId),
}

/// What is being waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waiting {
    /// For the folder of sockets to be made.
    Folder,
    /// For the kubelet's socket.
    Kubelet,
    /// For the kubelet's answer.
    Answer,
    /// For nothing: a stream is open.
    Registered,
    /// For the stream that follows a registration.
    Stream,
    /// For the next attempt.
    Retry,
}

/// What is remembered between decisions.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory {
    phase: Phase,
    /// Attempts that failed in a row, with one kubelet.
    failures: u32,
    /// Streams that ended in a row and soon, with one kubelet.
    hang_ups: u32,
    opened: Option<Instant>,
}

/// Each belongs to one kubelet. A new one is not made to pay for what its predecessor did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Idle,
    Asked {
        kubelet: FileId,
        at: Instant,
    },
    Accepted {
        kubelet: FileId,
        at: Instant,
    },
    Resting {
        kubelet: FileId,
        until: Instant,
    },
}

impl Memory {
    /// What to do now.
    #[must_use]
    pub(crate) fn decide(&self, facts: &Facts) -> Step {
        if !facts.folder {
            return Step::Wait(Waiting::Folder, None);
        }
        if !facts.own_socket {
            return Step::Listen;
        }
        if facts.streams > 0 {
            return Step::Wait(Waiting::Registered, None);
        }
        let Some(kubelet) = facts.kubelet else {
            return Step::Wait(Waiting::Kubelet, None);
        };
        if self.phase.kubelet() != Some(kubelet) {
            return Step::Register(kubelet);
        }
        match self.phase {
            // Whoever asks limits how long.
            Phase::Asked { .. } => Step::Wait(Waiting::Answer, None),
            Phase::Accepted { at, .. } if facts.now < at + STREAM_LIMIT => {
                Step::Wait(Waiting::Stream, Some(at + STREAM_LIMIT))
            }
            Phase::Resting { until, .. } if facts.now < until => Step::Wait(Waiting::Retry, Some(until)),
            Phase::Idle | Phase::Accepted { .. } | Phase::Resting { .. } => Step::Register(kubelet),
        }
    }

    /// A registration is under way.
    pub(crate) fn asked(&mut self, kubelet: FileId, now: Instant) {
        if self.phase.kubelet() != Some(kubelet) {
            *self = Self::default();
        }
        self.phase = Phase::Asked { kubelet, at: now };
    }

    /// The registration that was under way succeeded.
    pub(crate) fn accepted(&mut self, now: Instant) {
        if let Phase::Asked { kubelet, .. } = self.phase {
            self.failures = 0;
            self.phase = Phase::Accepted { kubelet, at: now };
        }
    }

    /// The registration that was under way failed. The wait until the next counts from its beginning.
    pub(crate) fn failed(&mut self, now: Instant) {
        if let Phase::Asked { kubelet, at } = self.phase {
            let wait = doubled(FIRST_RETRY, self.failures);
            self.failures = self.failures.saturating_add(1);
            self.phase = Phase::Resting { kubelet, until: (at + wait).max(now + FIRST_RETRY) };
        }
    }

    /// A stream is open that was not.
    pub(crate) fn stream_opened(&mut self, now: Instant) {
        self.opened = Some(now);
    }

    /// The last open stream ended while this was the kubelet's socket.
    pub(crate) fn stream_ended(&mut self, kubelet: Option<FileId>, now: Instant) {
        let proven = self.opened.take().is_none_or(|opened| now.duration_since(opened) >= PROVEN);
        let same = kubelet.is_some() && self.phase.kubelet() == kubelet;
        let hang_ups = if same && !proven { self.hang_ups } else { 0 };
        let rest = |kubelet| Phase::Resting { kubelet, until: now + doubled(SETTLE, hang_ups) };
        let phase = kubelet.map_or(Phase::Idle, rest);
        *self = Self { phase, hang_ups: hang_ups.saturating_add(1), ..Self::default() };
    }
}

impl Phase {
    fn kubelet(&self) -> Option<FileId> {
        match *self {
            Self::Idle => None,
            Self::Asked { kubelet, .. } | Self::Accepted { kubelet, .. } | Self::Resting { kubelet, .. } => {
                Some(kubelet)
            }
        }
    }
}

fn doubled(first: Duration, times: u32) -> Duration {
    first.saturating_mul(1 << times.min(16)).min(LAST_RETRY)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kubelets() -> (FileId, FileId) {
        let folder = tempfile::tempdir().unwrap();
        let id = |name: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, "").unwrap();
            FileId::of(&path).unwrap()
        };
        (id("old"), id("new"))
    }

    fn facts(kubelet: FileId) -> Facts {
        Facts { folder: true, own_socket: true, kubelet: Some(kubelet), streams: 0, now: Instant::now() }
    }

    /// For how long the next attempt is put off.
    fn rest(memory: &Memory, facts: &Facts) -> Duration {
        let Step::Wait(Waiting::Retry, Some(until)) = memory.decide(facts) else { panic!("no wait") };
        assert_eq!(
            memory.decide(&Facts { now: until, ..*facts }),
            Step::Register(facts.kubelet.unwrap()),
            "the wait ends"
        );
        until - facts.now
    }

    #[test]
    fn the_order_is_folder_socket_kubelet_registration() {
        let (kubelet, _) = kubelets();
        let ready = facts(kubelet);
        let memory = Memory::default();
        let nothing = Facts { folder: false, own_socket: false, kubelet: None, ..ready };
        assert_eq!(memory.decide(&nothing), Step::Wait(Waiting::Folder, None));
        assert_eq!(memory.decide(&Facts { folder: true, ..nothing }), Step::Listen);
        assert_eq!(memory.decide(&Facts { own_socket: false, ..ready }), Step::Listen);
        assert_eq!(memory.decide(&Facts { kubelet: None, ..ready }), Step::Wait(Waiting::Kubelet, None));
        assert_eq!(memory.decide(&ready), Step::Register(kubelet));
    }

    #[test]
    fn nothing_is_registered_while_a_stream_is_open() {
        let (old, new) = kubelets();
        let now = Instant::now();
        let idle = Memory::default();
        let (mut asked, mut accepted, mut failed) = (idle.clone(), idle.clone(), idle.clone());
        for memory in [&mut asked, &mut accepted, &mut failed] {
            memory.asked(old, now);
        }
        accepted.accepted(now);
        failed.failed(now);
        for memory in [idle, asked, accepted, failed] {
            for kubelet in [Some(old), Some(new), None] {
                for later in [0, 9, 11, 3600] {
                    let now = now + Duration::from_secs(later);
                    let facts = Facts { streams: 1, kubelet, now, ..facts(old) };
                    assert_eq!(memory.decide(&facts), Step::Wait(Waiting::Registered, None));
                }
            }
            let deleted = Facts { streams: 1, own_socket: false, ..facts(old) };
            assert_eq!(
                memory.decide(&deleted),
                Step::Listen,
                "a deleted socket is made again without registering"
            );
        }
    }

    #[test]
    fn one_attempt_at_a_time_and_a_new_kubelet_ends_that_with_the_old() {
        let (old, new) = kubelets();
        let mut memory = Memory::default();
        memory.asked(old, Instant::now());
        assert_eq!(memory.decide(&facts(old)), Step::Wait(Waiting::Answer, None));
        assert_eq!(
            memory.decide(&Facts { own_socket: false, ..facts(old) }),
            Step::Listen,
            "so that the kubelet can dial back"
        );
        assert_eq!(memory.decide(&facts(new)), Step::Register(new));
    }

    #[test]
    fn a_registration_waits_for_its_stream_and_not_for_ever() {
        let (kubelet, other) = kubelets();
        let mut memory = Memory::default();
        let ready = facts(kubelet);
        memory.asked(kubelet, ready.now);
        memory.accepted(ready.now);
        let due = ready.now + STREAM_LIMIT;
        assert_eq!(memory.decide(&ready), Step::Wait(Waiting::Stream, Some(due)));
        assert_eq!(memory.decide(&Facts { now: due, ..ready }), Step::Register(kubelet));
        assert_eq!(memory.decide(&Facts { kubelet: Some(other), ..ready }), Step::Register(other));
    }

    #[test]
    fn failures_wait_longer_and_longer_up_to_a_limit_and_a_new_kubelet_not_at_all() {
        let (kubelet, other) = kubelets();
        let mut memory = Memory::default();
        let ready = facts(kubelet);
        let mut waits = Vec::new();
        for _ in 0..40 {
            memory.asked(kubelet, ready.now);
            memory.failed(ready.now);
            waits.push(rest(&memory, &ready));
            assert_eq!(memory.decide(&Facts { kubelet: Some(other), ..ready }), Step::Register(other));
        }
        assert_eq!(waits[..3], [FIRST_RETRY, FIRST_RETRY * 2, FIRST_RETRY * 4]);
        assert_eq!(waits.last(), Some(&LAST_RETRY));
        assert!(waits.is_sorted());

        // An attempt that took long in itself is followed by another soon.
        let silent = Facts { now: ready.now + ANSWER_LIMIT, ..ready };
        memory.asked(kubelet, ready.now);
        memory.failed(silent.now);
        assert_eq!(rest(&memory, &silent), FIRST_RETRY);

        memory.asked(other, ready.now);
        memory.failed(ready.now);
        assert_eq!(rest(&memory, &Facts { kubelet: Some(other), ..ready }), FIRST_RETRY);
    }

    #[test]
    fn the_end_of_a_stream_is_followed_by_a_pause_with_the_same_kubelet_only() {
        let (old, new) = kubelets();
        let mut memory = Memory::default();
        let ready = facts(old);
        memory.asked(old, ready.now);
        memory.accepted(ready.now);
        memory.stream_opened(ready.now);
        memory.stream_ended(Some(old), ready.now);
        assert_eq!(rest(&memory, &ready), SETTLE);
        assert_eq!(memory.decide(&Facts { kubelet: Some(new), ..ready }), Step::Register(new));
    }

    #[test]
    fn a_kubelet_that_hangs_up_again_and_again_is_asked_less_often() {
        let (kubelet, _) = kubelets();
        let mut memory = Memory::default();
        let mut facts = facts(kubelet);
        let mut hang_up = |after: Duration| {
            memory.asked(kubelet, facts.now);
            memory.accepted(facts.now);
            memory.stream_opened(facts.now);
            facts.now += after;
            memory.stream_ended(Some(kubelet), facts.now);
            rest(&memory, &facts)
        };
        let pauses: Vec<_> = (0..20).map(|_| hang_up(Duration::from_millis(1))).collect();
        assert_eq!(pauses[..3], [SETTLE, SETTLE * 2, SETTLE * 4]);
        assert_eq!(pauses.last(), Some(&LAST_RETRY));
        assert_eq!(hang_up(PROVEN), SETTLE, "one that lasted is another matter");
        assert_eq!(hang_up(Duration::from_millis(1)), SETTLE * 2);
    }
}
