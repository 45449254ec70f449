//! Changes that nobody has taken yet.

use std::collections::VecDeque;
use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::DeviceEvent;

/// More changes than this are told as one [`DeviceEvent::Overrun`]. The VFs of a large PF come with some hundred.
const MOST_PENDING: usize = 256;

/// Each change once, in the order of its first occurrence. Adding never waits.
#[derive(Debug, Default)]
pub(super) struct Pending {
    changes: Mutex<VecDeque<DeviceEvent>>,
    added: Notify,
}

impl Pending {
    pub(super) fn add(&self, change: DeviceEvent) {
        add(&mut self.lock(), change);
        self.added.notify_one();
    }

    pub(super) async fn next(&self) -> DeviceEvent {
        loop {
            if let Some(change) = self.take() {
                return change;
            }
            self.added.notified().await;
        }
    }

    pub(super) fn drain(&self) -> Vec<DeviceEvent> {
        mem::take(&mut *self.lock()).into()
    }

    fn take(&self) -> Option<DeviceEvent> {
        self.lock().pop_front()
    }

    /// A holder that panicked leaves a queue as good as any.
    fn lock(&self) -> MutexGuard<'_, VecDeque<DeviceEvent>> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn add(changes: &mut VecDeque<DeviceEvent>, change: DeviceEvent) {
    // An overrun says all that a later change could.
    if changes.contains(&DeviceEvent::Overrun) || changes.contains(&change) {
        return;
    }
    if change == DeviceEvent::Overrun || changes.len() == MOST_PENDING {
        changes.clear();
        changes.push_back(DeviceEvent::Overrun);
    } else {
        changes.push_back(change);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::uevent::{Uevent, UeventAction};

    fn device(number: usize) -> DeviceEvent {
        DeviceEvent::Device(Uevent {
            action: UeventAction::Add,
            subsystem: "pci".to_owned(),
            devpath: format!("/devices/{number}"),
            driver: None,
            pci: None,
        })
    }

    #[test]
    fn each_change_waits_once() {
        let pending = Pending::default();
        for change in
            [DeviceEvent::Link, device(1), DeviceEvent::Link, DeviceEvent::Route, device(1), device(2)]
        {
            pending.add(change);
        }
        assert_eq!(pending.drain(), [DeviceEvent::Link, device(1), DeviceEvent::Route, device(2)]);
        assert_eq!(pending.drain(), []);
    }

    #[test]
    fn too_many_become_one_and_what_comes_after_it_was_taken_is_told_again() {
        let pending = Pending::default();
        for number in 0..=MOST_PENDING {
            pending.add(device(number));
        }
        pending.add(DeviceEvent::Link);
        assert_eq!(pending.take(), Some(DeviceEvent::Overrun));
        assert_eq!(pending.take(), None);
        pending.add(DeviceEvent::Link);
        assert_eq!(pending.take(), Some(DeviceEvent::Link));
    }
}
