//! RDMA devices as the RDMA subsystem tells them: which there are in a network namespace, which netdev a port is on, which
//! device node leads to one; and moving, renaming, making and removing them.
//!
//! A conversation is that of one namespace. In the system's shared mode every namespace sees every device, in exclusive mode
//! each sees its own. A device keeps its index while it moves; its name is another's to choose. Refuses to know which
//! device belongs to whom.

mod message;
#[cfg(test)]
mod tests;

use std::os::fd::{AsFd, AsRawFd};
use std::thread;
use std::time::Duration;

use netlink_packet_core::DefaultNla;
use netlink_sys::protocols::NETLINK_RDMA;
use nix::libc;

use crate::netlink::attributes::Attributes;
use crate::netlink::{Conversation, NetlinkError};
use crate::netns::Netns;
use crate::rtnl::IfIndex;
use crate::sysfs::Sysfs;
use message::{RdmaMessage, attribute, command, number, text};

/// `IB_PORT_ACTIVE` of the kernel's `rdma/ib_verbs.h`.
const ACTIVE: u8 = 4;

/// What the kernel answers to a question about a device that is gone (`nldev_set_doit` and others in
/// drivers/infiniband/core/nldev.c), among other things.
const NO_SUCH_DEVICE: i32 = libc::EINVAL;

/// How often a device is looked for that must be there, and how long between: moves take less.
const LISTINGS: u32 = 50;
const BETWEEN_LISTINGS: Duration = Duration::from_millis(5);

/// A conversation with the RDMA subsystem, in one network namespace.
#[derive(Debug)]
pub struct RdmaSocket {
    conversation: Conversation,
}

/// An RDMA device as its namespace sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RdmaLink {
    /// Its number, the same for as long as it exists.
    pub index: RdmaIndex,
    /// Its name.
    pub name: String,
    /// How many ports it has; they are counted from 1.
    pub ports: u32,
    /// Its node GUID, zero for a device that has none yet.
    pub node_guid: u64,
    /// What is spoken on it.
    pub protocol: RdmaProtocol,
}

/// The number of an RDMA device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RdmaIndex(pub u32);

/// What is spoken on an RDMA device (`fill_dev_info` in drivers/infiniband/core/nldev.c).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RdmaProtocol {
    /// RDMA over Ethernet.
    Roce,
    /// InfiniBand or Omni-Path: its netdevs are made by IPoIB, anew in each namespace.
    InfiniBand,
    /// RDMA over TCP.
    Iwarp,
    /// Another one, or an old kernel that does not say.
    Other,
}

/// A port of an RDMA device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RdmaPortLink {
    /// Its number, from 1.
    pub number: u32,
    /// It is in the state `ACTIVE`.
    pub active: bool,
    /// The netdev that it is on, when that is in the namespace of the conversation.
    pub netdev: Option<(IfIndex, String)>,
}

/// Whether namespaces share RDMA devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RdmaNetnsMode {
    /// Every namespace sees every device.
    Shared,
    /// A device is in one namespace.
    Exclusive,
}

/// A device node of an RDMA device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RdmaNode {
    /// Its name below `/dev/infiniband`, such as `uverbs3`.
    pub name: String,
    /// Its major number.
    pub major: u32,
    /// Its minor number.
    pub minor: u32,
}

impl RdmaSocket {
    /// Opens a socket in the calling thread's network namespace. `None` on a kernel that has no RDMA subsystem, or whose
    /// module is not loaded: `sysfs` has no class of RDMA devices then. That is asked first, because asking for a protocol
    /// that is not there makes the kernel run modprobe, each time (`netlink_create` in net/netlink/af_netlink.c).
    ///
    /// # Errors
    /// [`NetlinkError::Open`].
    pub fn open(sysfs: &Sysfs) -> Result<Option<Self>, NetlinkError> {
        if sysfs.has_rdma() { Self::open_here() } else { Ok(None) }
    }

    fn open_here() -> Result<Option<Self>, NetlinkError> {
        match Conversation::open(NETLINK_RDMA, "RDMA") {
            Ok(conversation) => Ok(Some(Self { conversation })),
            Err(NetlinkError::Open { source, .. })
                if source.raw_os_error() == Some(libc::EPROTONOSUPPORT) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Opens a socket in `netns`, on a machine that has the RDMA subsystem.
    ///
    /// # Errors
    /// [`NetlinkError::Namespace`] and as for [`open`](Self::open).
    pub fn open_in(netns: &Netns) -> Result<Option<Self>, NetlinkError> {
        netns.enter(Self::open_here).map_err(|source| NetlinkError::Namespace { source })?
    }

    /// Whether namespaces share devices. A kernel that does not say does not know of namespaces, and shares.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn netns_mode(&mut self) -> Result<RdmaNetnsMode, NetlinkError> {
        let request = || "read the mode of RDMA namespaces".to_owned();
        let answer = self.conversation.get(RdmaMessage::request(command::SYS_GET, &[]), request)?;
        let shared = answer.and_then(|answer| answer.attributes().u8(attribute::NETNS_MODE));
        Ok(if shared == Some(0) { RdmaNetnsMode::Exclusive } else { RdmaNetnsMode::Shared })
    }

    /// The devices that the namespace sees.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn devices(&mut self) -> Result<Vec<RdmaLink>, NetlinkError> {
        let request = || "list the RDMA devices".to_owned();
        self.conversation
            .dump(RdmaMessage::request(command::GET, &[]), request, |answer| device_of(answer.attributes()))
    }

    /// The device of this name; `None` when the namespace sees none.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn device_by_name(&mut self, name: &str) -> Result<Option<RdmaLink>, NetlinkError> {
        Ok(self.devices()?.into_iter().find(|device| device.name == name))
    }

    /// The device of this name, which sysfs shows. A list can lack one while another one moves, so it is asked for again.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn shown_device(&mut self, name: &str) -> Result<Option<RdmaLink>, NetlinkError> {
        for _ in 0..LISTINGS {
            if let Some(device) = self.device_by_name(name)? {
                return Ok(Some(device));
            }
            thread::sleep(BETWEEN_LISTINGS);
        }
        Ok(None)
    }

    /// A device by its number; `None` when the namespace sees none.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn device(&mut self, device: RdmaIndex) -> Result<Option<RdmaLink>, NetlinkError> {
        let request = RdmaMessage::request(command::GET, &[index(device)]);
        let answer = self.conversation.get(request, || format!("look at RDMA device {}", device.0));
        Ok(unless_gone(answer, None)?.and_then(|answer| device_of(answer.attributes())))
    }

    /// The ports of a device; none when it is gone.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn ports(&mut self, device: RdmaIndex) -> Result<Vec<RdmaPortLink>, NetlinkError> {
        let request = RdmaMessage::request(command::PORT_GET, &[index(device)]);
        let found = self.conversation.dump(
            request,
            || format!("list the ports of RDMA device {}", device.0),
            |answer| port_of(answer.attributes()),
        );
        unless_gone(found, Vec::new())
    }

    /// Moves a device into another network namespace. Whatever has it open loses it; its device nodes get other numbers.
    ///
    /// # Errors
    /// The kernel's: in particular `EOPNOTSUPP` in shared mode, and for a driver that cannot part with its users.
    pub fn move_to(&mut self, device: &RdmaLink, netns: &Netns) -> Result<(), NetlinkError> {
        let descriptor = u32::try_from(netns.as_fd().as_raw_fd()).unwrap_or(u32::MAX);
        let attributes = [index(device.index), number(attribute::NET_NS_FD, descriptor)];
        self.change(command::SET, &attributes, || {
            format!("move RDMA device {} into {}", device.name, netns.path().display())
        })
    }

    /// Gives a device another name.
    ///
    /// # Errors
    /// The kernel's: in particular `EEXIST`.
    pub fn rename(&mut self, device: &RdmaLink, name: &str) -> Result<(), NetlinkError> {
        let attributes = [index(device.index), text(attribute::DEV_NAME, name)];
        self.change(command::SET, &attributes, || format!("rename RDMA device {} to {name}", device.name))
    }

    /// Makes a software RDMA device on a netdev of the namespace, with `kind` such as `rxe`. In exclusive mode it appears in
    /// the host's namespace all the same (Linux 7.3).
    ///
    /// # Errors
    /// The kernel's: `EEXIST` for a name that is taken, `EINVAL` for a kind without a module.
    pub fn add_link(&mut self, name: &str, kind: &str, netdev: &str) -> Result<(), NetlinkError> {
        let attributes = [
            text(attribute::DEV_NAME, name),
            text(attribute::LINK_TYPE, kind),
            text(attribute::NDEV_NAME, netdev),
        ];
        self.change(command::NEW_LINK, &attributes, || {
            format!("make RDMA device {name} of kind {kind} on {netdev}")
        })
    }

    /// Removes a software RDMA device. Success when it is gone.
    ///
    /// # Errors
    /// The kernel's.
    pub fn delete_link(&mut self, device: &RdmaLink) -> Result<(), NetlinkError> {
        let request = || format!("remove RDMA device {}", device.name);
        let removed = self.change(command::DEL_LINK, &[index(device.index)], request);
        match removed {
            // The kernel says the same of hardware, which cannot be removed, so it is looked at again.
            Err(error) if error.errno() == Some(NO_SUCH_DEVICE) => {
                if self.device(device.index)?.is_some() {
                    Err(error)
                } else {
                    Ok(())
                }
            }
            other => other,
        }
    }

    /// How many objects of each kind, such as `qp`, are in use on a device; nothing when it is gone.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn resources(&mut self, device: RdmaIndex) -> Result<Vec<(String, u64)>, NetlinkError> {
        let request = RdmaMessage::request(command::RES_GET, &[index(device)]);
        let answer =
            self.conversation.get(request, || format!("count the resources of RDMA device {}", device.0));
        let answer = unless_gone(answer, None)?;
        Ok(answer.map(|answer| resources_of(answer.attributes())).unwrap_or_default())
    }

    /// The device node that leads to a device: of `kind` `uverbs`, or with a port `umad` or `issm`. `None` when it has none,
    /// or its module is not loaded.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn node(
        &mut self,
        device: RdmaIndex,
        port: Option<u32>,
        kind: &str,
    ) -> Result<Option<RdmaNode>, NetlinkError> {
        let mut attributes = vec![text(attribute::CHARDEV_TYPE, kind), index(device)];
        attributes.extend(port.map(|port| number(attribute::PORT_INDEX, port)));
        let request = RdmaMessage::request(command::GET_CHARDEV, &attributes);
        let answer =
            self.conversation.get(request, || format!("find the {kind} node of RDMA device {}", device.0));
        match answer {
            Err(error) if error.errno() == Some(libc::EOPNOTSUPP) => Ok(None),
            answer => Ok(unless_gone(answer, None)?.and_then(|answer| node_of(answer.attributes()))),
        }
    }

    fn change(
        &mut self,
        command: u16,
        attributes: &[DefaultNla],
        request: impl Fn() -> String,
    ) -> Result<(), NetlinkError> {
        self.conversation.change(RdmaMessage::request(command, attributes), 0, request)
    }
}

fn index(device: RdmaIndex) -> DefaultNla {
    number(attribute::DEV_INDEX, device.0)
}

/// An answer, or `absent` when the kernel says that the device is gone.
fn unless_gone<T>(answer: Result<T, NetlinkError>, absent: T) -> Result<T, NetlinkError> {
    match answer {
        Err(error) if error.errno() == Some(NO_SUCH_DEVICE) => Ok(absent),
        other => other,
    }
}

fn device_of(answer: Attributes<'_>) -> Option<RdmaLink> {
    Some(RdmaLink {
        index: RdmaIndex(answer.u32(attribute::DEV_INDEX)?),
        name: answer.text(attribute::DEV_NAME)?.to_owned(),
        ports: answer.u32(attribute::PORT_INDEX).unwrap_or(1),
        node_guid: answer.u64(attribute::NODE_GUID).unwrap_or(0),
        protocol: match answer.text(attribute::DEV_PROTOCOL) {
            Some("roce") => RdmaProtocol::Roce,
            Some("ib" | "opa") => RdmaProtocol::InfiniBand,
            Some("iw") => RdmaProtocol::Iwarp,
            _ => RdmaProtocol::Other,
        },
    })
}

fn port_of(answer: Attributes<'_>) -> Option<RdmaPortLink> {
    let netdev = answer.u32(attribute::NDEV_INDEX).zip(answer.text(attribute::NDEV_NAME));
    Some(RdmaPortLink {
        number: answer.u32(attribute::PORT_INDEX)?,
        active: answer.u8(attribute::PORT_STATE) == Some(ACTIVE),
        netdev: netdev.map(|(index, name)| (IfIndex(index), name.to_owned())),
    })
}

fn resources_of(answer: Attributes<'_>) -> Vec<(String, u64)> {
    let entries = answer
        .nested(attribute::RES_SUMMARY)
        .flat_map(|summary| summary.nested(attribute::RES_SUMMARY_ENTRY));
    entries
        .filter_map(|entry| {
            let name = entry.text(attribute::RES_SUMMARY_ENTRY_NAME)?.to_owned();
            Some((name, entry.u64(attribute::RES_SUMMARY_ENTRY_CURR)?))
        })
        .collect()
}

fn node_of(answer: Attributes<'_>) -> Option<RdmaNode> {
    let device = answer.u64(attribute::CHARDEV)?;
    // `new_encode_dev` of the kernel's `linux/kdev_t.h`: eight low bits of the minor number, twelve bits of the major one,
    // and the rest of the minor one above.
    let part = |bits: u64| u32::try_from(bits).ok();
    Some(RdmaNode {
        name: answer.text(attribute::CHARDEV_NAME)?.to_owned(),
        major: part((device >> 8) & 0xfff)?,
        minor: part((device & 0xff) | ((device >> 12) & 0xfff_ff00))?,
    })
}

/// Reads an answer in every way, for a fuzzer.
#[cfg(any(test, feature = "testing"))]
pub(crate) fn read_all_of(message: &RdmaMessage) {
    let answer = message.attributes();
    std::hint::black_box((device_of(answer), port_of(answer), resources_of(answer), node_of(answer)));
}
