//! Wake-ups for a process that watches the machine's devices: what kind of thing changed, never what it is now.
//!
//! Two sources become one stream: uevents in a thread of their own, and the multicast groups of rtnetlink in a task.
//! Refuses to read anything anew, and to hold anybody up: a listener that is slow finds each change once, or one word that
//! it must look at everything.

mod pending;
mod rtnetlink;
mod uevents;

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use crate::uevent::{Uevent, UeventSocket};
use pending::Pending;

/// How long a source waits after it broke. What happens meanwhile is covered by [`DeviceEvent::Overrun`] afterwards.
const REOPEN_PAUSE: Duration = Duration::from_secs(5);

/// A kind of change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceEvent {
    /// A device came, went, or changed its driver.
    Device(Uevent),
    /// A link came, went, or changed its name, master, carrier, or another property.
    Link,
    /// An address of a link came or went.
    Address,
    /// A route came, went, or changed.
    Route,
    /// Changes may have gone by unseen: anything may be different.
    Overrun,
}

/// The changes since the watch began. Dropping it ends the watch.
#[derive(Debug)]
pub struct DeviceEvents {
    pending: Arc<Pending>,
    /// The thread holds the other end, and ends when this one is closed.
    _thread: UnixStream,
    task: AbortHandle,
}

/// Watches the devices, links, addresses and routes of the calling thread's network namespace. What happens after it
/// returned is told. `runtime` must have I/O and time.
///
/// A source that cannot be opened or breaks is opened anew every five seconds, with a line in the log, and
/// [`DeviceEvent::Overrun`] follows once it is open.
///
/// # Errors
/// When the thread cannot be started.
pub fn watch_devices(runtime: &Handle) -> io::Result<DeviceEvents> {
    let pending = Arc::new(Pending::default());
    let (thread_end, stop) = UnixStream::pair()?;
    let uevents = UeventSocket::open();
    let for_thread = Arc::clone(&pending);
    thread::Builder::new().name("uevents".to_owned()).spawn(move || {
        uevents::hear(uevents, UeventSocket::open, &for_thread, &stop, REOPEN_PAUSE);
    })?;
    let for_task = Arc::clone(&pending);
    let subscribe = move || rtnetlink::subscribe(Arc::clone(&for_task));
    let subscription = {
        let _inside = runtime.enter();
        subscribe()
    };
    let task = runtime.spawn(rtnetlink::hear(subscription, subscribe, Arc::clone(&pending), REOPEN_PAUSE));
    Ok(DeviceEvents { pending, _thread: thread_end, task: task.abort_handle() })
}

impl DeviceEvents {
    /// Waits for the next change. Giving up waiting loses nothing.
    pub async fn next(&mut self) -> DeviceEvent {
        self.pending.next().await
    }

    /// Takes the changes that are there already.
    pub fn drain(&mut self) -> Vec<DeviceEvent> {
        self.pending.drain()
    }
}

impl Drop for DeviceEvents {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[cfg(test)]
mod tests {
    use tokio::runtime::{Builder, Runtime};

    use super::*;
    use crate::testing::TestNetns;
    use crate::uevent::UeventAction;

    /// Watches a namespace from a thread inside, and runs `work` there. A change that never comes makes the test hang,
    /// which is how it fails.
    fn watching(netns: &TestNetns, work: impl FnOnce(&Runtime, &mut DeviceEvents) + Send) {
        let inside = || {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            let mut events = watch_devices(runtime.handle()).unwrap();
            work(&runtime, &mut events);
        };
        netns.netns().enter(inside).unwrap();
    }

    fn wait_for(runtime: &Runtime, events: &mut DeviceEvents, wanted: impl Fn(&DeviceEvent) -> bool) {
        while !wanted(&runtime.block_on(events.next())) {}
    }

    #[test]
    fn each_kind_of_change_is_told() {
        let (host, elsewhere) = (TestNetns::new(), TestNetns::new());
        watching(&host, |runtime, events| {
            host.ip("link add v0 type veth peer name v1");
            wait_for(runtime, events, |event| *event == DeviceEvent::Link);
            host.ip("link add w0 type veth peer name w1");
            wait_for(runtime, events, |event| {
                matches!(event, DeviceEvent::Device(uevent)
                    if uevent.action == UeventAction::Add && uevent.devpath.ends_with("/net/w0"))
            });
            host.ip(&format!("link set v1 netns {}", elsewhere.name()));
            host.ip("link set v0 up");
            host.ip("addr add 10.1.0.2/24 dev v0");
            wait_for(runtime, events, |event| *event == DeviceEvent::Address);
            events.drain();
            // The carrier of v0 is all that changes here now.
            elsewhere.ip("link set v1 up");
            wait_for(runtime, events, |event| *event == DeviceEvent::Link);
            host.ip("route add 192.0.2.0/24 via 10.1.0.1");
            wait_for(runtime, events, |event| *event == DeviceEvent::Route);
        });
    }

    #[test]
    fn the_thread_and_the_task_end_with_the_watch() {
        let host = TestNetns::new();
        let mut left = None;
        watching(&host, |runtime, events| {
            left = Some(Arc::downgrade(&events.pending));
            host.ip("link add v0 type veth peer name v1");
            wait_for(runtime, events, |_| true);
        });
        // The runtime dropped the task; the thread needs a moment.
        while left.as_ref().unwrap().strong_count() > 0 {
            thread::yield_now();
        }
    }
}
