//! What the kernel tells of devices that come, go and change drivers: uevents, as they are sent to the host's udev.
//!
//! Refuses to know which of them matter, and what udev made of them: its own messages go to another group.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use netlink_sys::protocols::NETLINK_KOBJECT_UEVENT;
use netlink_sys::{Socket, SocketAddr};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use thiserror::Error;
use zerobridge_proto::PciAddress;

/// The multicast group that the kernel sends to; udev sends what it made of it to group 2 (`enum udev_monitor_group`
/// of systemd's `libudev-monitor.c`).
const KERNEL_GROUP: u32 = 1;

/// Something happened to a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uevent {
    /// What happened.
    pub action: UeventAction,
    /// The bus or class of the device, such as `pci` or `net`.
    pub subsystem: String,
    /// The device's folder below the mount of sysfs, with a leading `/`.
    pub devpath: String,
    /// The driver that the device is bound to.
    pub driver: Option<String>,
    /// The PCI function that the device is or belongs to: the last one in its path.
    pub pci: Option<PciAddress>,
}

/// What happened to a device (`kobject_actions` in the kernel's `lib/kobject_uevent.c`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UeventAction {
    /// It came.
    Add,
    /// It went.
    Remove,
    /// Something about it changed.
    Change,
    /// It has another name, or is in another place.
    Move,
    /// It was put to use again.
    Online,
    /// It was taken out of use.
    Offline,
    /// A driver took it.
    Bind,
    /// Its driver left it.
    Unbind,
}

/// What a socket received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UeventNotice {
    /// A uevent.
    Uevent(Uevent),
    /// The kernel sent more than the socket had room for. Anything may have happened.
    Overrun,
}

/// A subscription to the kernel's uevents: those of the devices that every namespace shares, and those of the network
/// interfaces in the namespace that the thread was in when it subscribed.
#[derive(Debug)]
pub struct UeventSocket {
    socket: Socket,
}

/// Why uevents are not heard.
#[derive(Debug, Error)]
pub enum UeventError {
    /// No subscription.
    #[error("cannot subscribe to uevents")]
    Open {
        /// Why.
        source: io::Error,
    },
    /// The subscription broke.
    #[error("cannot receive uevents")]
    Receive {
        /// Why.
        source: io::Error,
    },
}

impl UeventSocket {
    /// Subscribes. What happens from now on is received, up to the size of the socket's buffer.
    ///
    /// # Errors
    /// [`UeventError::Open`].
    pub fn open() -> Result<Self, UeventError> {
        let open = || {
            let mut socket = Socket::new(NETLINK_KOBJECT_UEVENT)?;
            socket.set_non_blocking(true)?;
            socket.bind(&SocketAddr::new(0, KERNEL_GROUP))?;
            Ok(socket)
        };
        open().map(|socket| Self { socket }).map_err(|source| UeventError::Open { source })
    }

    /// Waits for the next notice. `None` when `stop` became readable or its other end was closed.
    ///
    /// # Errors
    /// [`UeventError::Receive`].
    pub fn next(&self, stop: BorrowedFd<'_>) -> Result<Option<UeventNotice>, UeventError> {
        let receive_error = |source| UeventError::Receive { source };
        loop {
            let mut descriptors =
                [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN), PollFd::new(stop, PollFlags::POLLIN)];
            match poll(&mut descriptors, PollTimeout::NONE) {
                Ok(_) => {}
                Err(Errno::EINTR) => continue,
                Err(errno) => return Err(receive_error(errno.into())),
            }
            if descriptors[1].any() != Some(false) {
                return Ok(None);
            }
            if let Some(notice) = self.receive().map_err(receive_error)? {
                return Ok(Some(notice));
            }
        }
    }

    /// The notice that waits in the socket. `None` when nothing waits, or what waits is no uevent of the kernel.
    fn receive(&self) -> io::Result<Option<UeventNotice>> {
        match self.socket.recv_from_full() {
            // A process may send to the group too; port 0 is the kernel.
            Ok((_, sender)) if sender.port_number() != 0 => Ok(None),
            Ok((datagram, _)) => Ok(parse(&datagram).map(UeventNotice::Uevent)),
            Err(error) if error.raw_os_error() == Some(nix::libc::ENOBUFS) => Ok(Some(UeventNotice::Overrun)),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// Reads a message as `lib/kobject_uevent.c` writes it: `action@devpath`, then variables, each ended by a zero byte.
/// `None` for anything else.
pub(crate) fn parse(datagram: &[u8]) -> Option<Uevent> {
    // A netdev's name may be any bytes.
    let text = String::from_utf8_lossy(datagram);
    let mut lines = text.split_terminator('\0');
    let (action, devpath) = lines.next()?.split_once('@')?;
    let (mut subsystem, mut driver) = (None, None);
    for line in lines {
        match line.split_once('=')? {
            ("SUBSYSTEM", value) => subsystem = Some(value.to_owned()),
            ("DRIVER", value) => driver = Some(value.to_owned()),
            _ => {}
        }
    }
    Some(Uevent {
        action: action_of(action)?,
        subsystem: subsystem?,
        devpath: devpath.to_owned(),
        driver,
        pci: devpath.rsplit('/').find_map(|folder| folder.parse().ok()),
    })
}

fn action_of(word: &str) -> Option<UeventAction> {
    Some(match word {
        "add" => UeventAction::Add,
        "remove" => UeventAction::Remove,
        "change" => UeventAction::Change,
        "move" => UeventAction::Move,
        "online" => UeventAction::Online,
        "offline" => UeventAction::Offline,
        "bind" => UeventAction::Bind,
        "unbind" => UeventAction::Unbind,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::testing::TestNetns;

    /// As the kernel sent it when `change` was written to a function's `uevent` file, Linux 6.18.
    const PCI_CHANGE: &[u8] = b"change@/devices/pci0000:00/0000:00:01.0\0ACTION=change\0\
        DEVPATH=/devices/pci0000:00/0000:00:01.0\0SUBSYSTEM=pci\0SYNTH_UUID=0\0DRIVER=virtio-pci\0PCI_CLASS=FFFF00\0\
        PCI_ID=1AF4:1045\0PCI_SUBSYS_ID=1AF4:1045\0PCI_SLOT_NAME=0000:00:01.0\0\
        MODALIAS=pci:v00001AF4d00001045sv00001AF4sd00001045bcFFscFFi00\0SEQNUM=16026\0";

    #[test]
    fn a_recorded_message_is_read() {
        let expected = Uevent {
            action: UeventAction::Change,
            subsystem: "pci".to_owned(),
            devpath: "/devices/pci0000:00/0000:00:01.0".to_owned(),
            driver: Some("virtio-pci".to_owned()),
            pci: Some("0000:00:01.0".parse().unwrap()),
        };
        assert_eq!(parse(PCI_CHANGE), Some(expected));
    }

    #[test]
    fn a_device_belongs_to_the_last_function_in_its_path() {
        for (devpath, pci) in [
            ("/devices/pci0000:00/0000:00:02.0/0000:01:10.0/net/ens1v0", Some("0000:01:10.0")),
            ("/devices/pci10000:e0/10000:e0:06.0/10000:e1:00.1/mlx5_core.sf.4", Some("10000:e1:00.1")),
            ("/devices/virtual/net/lo", None),
        ] {
            let message = format!("add@{devpath}\0ACTION=add\0SUBSYSTEM=x\0");
            let found = parse(message.as_bytes()).unwrap();
            assert_eq!(found.pci.map(|pci| pci.to_string()).as_deref(), pci, "{devpath}");
        }
    }

    #[test]
    fn what_is_no_uevent_of_the_kernel_is_nothing() {
        let udev: &[u8] =
            b"libudev\0\xfe\xed\xca\xfe\x28\0\0\0\x28\0\0\0\x9c\0\0\0ACTION=add\0SUBSYSTEM=pci\0";
        for bytes in [
            b"".as_slice(),
            b"\0",
            b"add",
            b"add@/devices/x\0",
            b"add@/devices/x\0SUBSYSTEM",
            b"born@/devices/x\0SUBSYSTEM=pci\0",
            udev,
            &[0xff; 64],
        ] {
            assert_eq!(parse(bytes), None, "{bytes:?}");
        }
        for length in 0..PCI_CHANGE.len() {
            // Cut anywhere, it is read or it is not, and never a panic.
            let _ = parse(&PCI_CHANGE[..length]);
        }
    }

    #[test]
    fn a_new_interface_is_heard_in_its_namespace() {
        let host = TestNetns::new();
        let (_open, stop) = UnixStream::pair().unwrap();
        let socket = host.netns().enter(UeventSocket::open).unwrap().unwrap();
        host.ip("link add v0 type veth peer name v1");
        loop {
            match socket.next(stop.as_fd()).unwrap().unwrap() {
                UeventNotice::Uevent(uevent) if uevent.devpath == "/devices/virtual/net/v0" => {
                    assert_eq!((uevent.action, uevent.subsystem.as_str()), (UeventAction::Add, "net"));
                    break;
                }
                UeventNotice::Uevent(_) => {}
                UeventNotice::Overrun => panic!("a pair of interfaces does not fill the buffer"),
            }
        }
    }

    #[test]
    fn more_than_the_buffer_holds_is_told_as_an_overrun() {
        let host = TestNetns::new();
        let (_open, stop) = UnixStream::pair().unwrap();
        let socket = host.netns().enter(UeventSocket::open).unwrap().unwrap();
        // Each queue is a device of its own.
        for pair in ["a", "b", "c", "d"] {
            let queues = "numtxqueues 256 numrxqueues 256";
            host.ip(&format!("link add {pair}0 {queues} type veth peer name {pair}1 {queues}"));
        }
        let mut notices = std::iter::from_fn(|| socket.next(stop.as_fd()).unwrap());
        assert!(notices.any(|notice| notice == UeventNotice::Overrun));
    }

    #[test]
    fn waiting_ends_when_the_other_end_closes() {
        let (open, stop) = UnixStream::pair().unwrap();
        let host = TestNetns::new();
        let socket = host.netns().enter(UeventSocket::open).unwrap().unwrap();
        drop(open);
        let notice = std::iter::from_fn(|| socket.next(stop.as_fd()).unwrap()).last();
        assert_eq!(notice, None);
    }
}
