//! When to make a socket, and when to register it: one pure decision over the facts of a moment.
//!
//! An open device stream is the registration. Kubelets without kubernetes#135437 look an ended stream up by resource
//! name, so that a second registration with a living kubelet is torn down by the end of the first (kubernetes#127803):
//! with a stream open nothing is registered, whatever else happens.

use std::time::Duration;

use tokio::time::Instant;

use crate::kubelet_dir::FileId;

/// After a registration the kubelet opens its stream at once, over a connection that it already has.
const STREAM_LIMIT: Duration = Duration::from_secs(10);

/// After the end of a stream the same kubelet is left this long to forget it.
const SETTLE: Duration = Duration::from_millis(250);

/// First wait after a failed registration, doubled each time.
const FIRST_RETRY: Duration = Duration::from_millis(50);

/// Longest wait after a failed registration.
const LAST_RETRY: Duration = Duration::from_secs(10);

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
    /// Register with the kubelet behind this socket.
    Register(FileId),
}

/// What is being waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waiting {
    /// For the folder of sockets to be made.
    Folder,
    /// For the kubelet's socket.
    Kubelet,
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
    registered: Option<(FileId, Instant)>,
    retry: Option<(FileId, Instant)>,
    failures: u32,
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
        // A wait belongs to one kubelet. A new one is not made to pay for what its predecessor did.
        let until = |wait: Option<(FileId, Instant)>| match wait {
            Some((waited_for, until)) if waited_for == kubelet && until > facts.now => Some(until),
            _ => None,
        };
        let stream_due = self.registered.map(|(kubelet, at)| (kubelet, at + STREAM_LIMIT));
        if let Some(until) = until(stream_due) {
            return Step::Wait(Waiting::Stream, Some(until));
        }
        if let Some(until) = until(self.retry) {
            return Step::Wait(Waiting::Retry, Some(until));
        }
        Step::Register(kubelet)
    }

    /// A registration succeeded.
    pub(crate) fn registered(&mut self, kubelet: FileId, now: Instant) {
        *self = Self { registered: Some((kubelet, now)), ..Self::default() };
    }

    /// A registration failed.
    pub(crate) fn failed(&mut self, kubelet: FileId, now: Instant) {
        let same = self.retry.is_some_and(|(failed, _)| failed == kubelet);
        self.failures = if same { self.failures.saturating_add(1) } else { 0 };
        let wait = FIRST_RETRY.saturating_mul(1 << self.failures.min(16)).min(LAST_RETRY);
        self.registered = None;
        self.retry = Some((kubelet, now + wait));
    }

    /// The last open stream ended while this was the kubelet's socket.
    pub(crate) fn stream_ended(&mut self, kubelet: Option<FileId>, now: Instant) {
        *self = Self { retry: kubelet.map(|kubelet| (kubelet, now + SETTLE)), ..Self::default() };
    }
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
        let mut memory = Memory::default();
        memory.registered(old, Instant::now());
        for kubelet in [Some(old), Some(new), None] {
            for later in [0, 9, 11, 3600] {
                let now = Instant::now() + Duration::from_secs(later);
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

    #[test]
    fn a_registration_waits_for_its_stream_and_not_for_ever() {
        let (kubelet, other) = kubelets();
        let mut memory = Memory::default();
        let ready = facts(kubelet);
        memory.registered(kubelet, ready.now);
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
            memory.failed(kubelet, ready.now);
            let Step::Wait(Waiting::Retry, Some(until)) = memory.decide(&ready) else { panic!("no wait") };
            waits.push(until - ready.now);
            assert_eq!(memory.decide(&Facts { kubelet: Some(other), ..ready }), Step::Register(other));
            assert_eq!(memory.decide(&Facts { now: until, ..ready }), Step::Register(kubelet));
        }
        assert_eq!(waits[..3], [FIRST_RETRY, FIRST_RETRY * 2, FIRST_RETRY * 4]);
        assert_eq!(waits.last(), Some(&LAST_RETRY));
        assert!(waits.is_sorted());
    }

    #[test]
    fn the_end_of_a_stream_is_followed_by_a_pause_with_the_same_kubelet_only() {
        let (old, new) = kubelets();
        let mut memory = Memory::default();
        let ready = facts(old);
        memory.registered(old, ready.now);
        memory.stream_ended(Some(old), ready.now);
        let settled = ready.now + SETTLE;
        assert_eq!(memory.decide(&ready), Step::Wait(Waiting::Retry, Some(settled)));
        assert_eq!(memory.decide(&Facts { now: settled, ..ready }), Step::Register(old));
        assert_eq!(memory.decide(&Facts { kubelet: Some(new), ..ready }), Step::Register(new));
    }
}
