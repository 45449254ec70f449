//! Devices: the kernel's uevents, heard by a plain thread.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tracing::{info, warn};

use super::DeviceEvent;
use super::pending::Pending;
use crate::uevent::{UeventError, UeventNotice, UeventSocket};

/// Adds the changes that `socket` hears until `stop` is closed, and opens another when it breaks.
pub(super) fn hear(
    mut socket: Result<UeventSocket, UeventError>,
    open: impl Fn() -> Result<UeventSocket, UeventError>,
    pending: &Pending,
    stop: &UnixStream,
    pause: Duration,
) {
    loop {
        match socket.and_then(|socket| hear_one(&socket, pending, stop)) {
            Ok(()) => return,
            Err(error) => {
                warn!(
                    error = &error as &dyn std::error::Error,
                    ?pause,
                    "no uevents; opening them again after a pause"
                );
            }
        }
        if closes_within(stop, pause) {
            return;
        }
        socket = open();
        if socket.is_ok() {
            info!("uevents are heard again");
            pending.add(DeviceEvent::Overrun);
        }
    }
}

fn hear_one(socket: &UeventSocket, pending: &Pending, stop: &UnixStream) -> Result<(), UeventError> {
    while let Some(notice) = socket.next(stop.as_fd())? {
        match notice {
            UeventNotice::Uevent(uevent) if matters(&uevent.subsystem) => {
                pending.add(DeviceEvent::Device(uevent));
            }
            UeventNotice::Uevent(_) => {}
            UeventNotice::Overrun => pending.add(DeviceEvent::Overrun),
        }
    }
    Ok(())
}

/// Whether devices of this bus or class are what a pod can be given, or tell that it can be: PCI functions and the
/// devices that their drivers make of them.
fn matters(subsystem: &str) -> bool {
    const NAMES: [&str; 6] = ["auxiliary", "net", "pci", "uio", "vdpa", "vhost-vdpa"];
    // `infiniband`, `infiniband_verbs` and the like; `vfio` for groups, `vfio-dev` for devices.
    NAMES.contains(&subsystem) || subsystem.starts_with("infiniband") || subsystem.starts_with("vfio")
}

fn closes_within(stop: &UnixStream, pause: Duration) -> bool {
    let timeout = PollTimeout::try_from(pause).unwrap_or(PollTimeout::MAX);
    poll(&mut [PollFd::new(stop.as_fd(), PollFlags::POLLIN)], timeout).is_ok_and(|ready| ready > 0)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::io;

    use super::*;
    use crate::testing::TestNetns;

    #[test]
    fn a_socket_that_broke_is_opened_again_and_the_gap_is_told() {
        let host = TestNetns::new();
        let (end, stop) = UnixStream::pair().unwrap();
        let pending = Pending::default();
        let broken = || UeventError::Receive { source: io::Error::from(io::ErrorKind::BrokenPipe) };
        let tries = Cell::new(0);
        // The first one broke, the second cannot be opened, the third is told to stop.
        let end = Cell::new(Some(end));
        let open = || {
            tries.set(tries.get() + 1);
            if tries.get() == 1 {
                return Err(broken());
            }
            let socket = host.netns().enter(UeventSocket::open).unwrap();
            end.take();
            socket
        };
        hear(Err(broken()), open, &pending, &stop, Duration::ZERO);
        assert_eq!((pending.drain(), tries.get()), (vec![DeviceEvent::Overrun], 2));
    }

    #[test]
    fn devices_that_a_pod_cannot_be_given_are_passed_over() {
        for (subsystem, expected) in [
            ("pci", true),
            ("infiniband_verbs", true),
            ("vfio-dev", true),
            ("vhost-vdpa", true),
            ("queues", false),
            ("block", false),
            ("netns", false),
        ] {
            assert_eq!(matters(subsystem), expected, "{subsystem}");
        }
    }
}
