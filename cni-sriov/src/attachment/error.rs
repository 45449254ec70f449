//! Why a VF cannot be seen or brought to where it should be.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use nix::errno::Errno;
use thiserror::Error;
use zerobridge_kernel::{MountSysfsError, NetlinkError, NetnsError, ProbeError, RtnlError, SysfsError};
use zerobridge_proto::PciAddress;

use super::diff::Operation;

/// What the kernel answers when something is on its way: a driver that is just doing something else (a VF that comes up
/// beside fifteen others), a queue that is full, a link that is being made anew.
const TRANSIENT: [Errno; 6] =
    [Errno::EBUSY, Errno::EAGAIN, Errno::EINTR, Errno::ENOBUFS, Errno::ETIMEDOUT, Errno::ENODEV];

/// Why a VF cannot be seen or brought to where it should be.
#[derive(Debug, Error)]
pub enum AttachmentError {
    /// sysfs was not readable.
    #[error("cannot find out about device {device}")]
    Sysfs {
        /// The device.
        device: PciAddress,
        /// Why.
        source: SysfsError,
    },
    /// The device is something else, such as a bridge or an accelerator.
    #[error(
        "device {device} is no network controller; name the PCI address of a VF or of a whole NIC function"
    )]
    NotANic {
        /// The device.
        device: PciAddress,
    },
    /// A setting that only a PF can make was asked of a device that has none.
    #[error("device {device} is no SR-IOV virtual function, so there is no PF to set it by")]
    NotAVf {
        /// The device.
        device: PciAddress,
    },
    /// The network asks for something that a device of this kind does not have.
    #[error(
        "{key} cannot be set: device {device} {why}; remove {key} from the network's configuration, or use another device"
    )]
    NoSuchSetting {
        /// The device.
        device: PciAddress,
        /// The key of the configuration.
        key: &'static str,
        /// What the device is, as a verb phrase.
        why: String,
    },
    /// A PF that is to be given away as a whole still has VFs, which would lose their PF.
    #[error("PF {device} has {vfs} VFs, so it cannot go into a pod; remove them, or attach one of them")]
    PfHasVfs {
        /// The PF.
        device: PciAddress,
        /// How many.
        vfs: usize,
    },
    /// A function with several netdevs, of which nobody can say which one is meant.
    #[error("device {device} has several network interfaces, {}, and only one can go into a pod", names.join(", "))]
    SeveralNetdevs {
        /// The function.
        device: PciAddress,
        /// Its netdevs.
        names: Vec<String>,
    },
    /// A whole function that the host uses.
    #[error(
        "{link}, the network interface of device {device}, has the host's address {address}, which the host would lose; \
             remove the address, or take the device out of the resource"
    )]
    HostAddress {
        /// The function.
        device: PciAddress,
        /// Its netdev.
        link: String,
        /// One of its addresses.
        address: IpNet,
    },
    /// The PF's driver refused a setting.
    #[error(transparent)]
    SettingRefused(Box<SettingRefusal>),
    /// Somebody bound the device to another kind of driver.
    #[error(
        "device {device} was bound to another kind of driver while it was attached; bind it to the one that it had"
    )]
    DriverChanged {
        /// The device.
        device: PciAddress,
    },
    /// The PF has no link to set the VF by.
    #[error("PF {pf} of VF {device} has no network interface on the host, so the VF cannot be set")]
    PfWithoutLink {
        /// The VF.
        device: PciAddress,
        /// Its PF.
        pf: PciAddress,
    },
    /// The VF has no netdev and cannot get one while its driver is what it is.
    #[error("VF {device} has no network interface: it is bound to {driver}; bind it to its network driver")]
    NoNetdev {
        /// The VF.
        device: PciAddress,
        /// The driver's name, or words for none.
        driver: String,
    },
    /// The VF has a network driver, but its netdev is neither on the host nor in the pod.
    #[error(
        "the network interface of VF {device} is neither on the host nor in the pod: somebody moved it on"
    )]
    LinkLost {
        /// The VF.
        device: PciAddress,
    },
    /// A network namespace could not be opened.
    #[error("cannot work on VF {device}")]
    Netns {
        /// The VF.
        device: PciAddress,
        /// Why.
        source: NetnsError,
    },
    /// The kernel refused or was not heard.
    #[error("cannot work on VF {device}")]
    Rtnl {
        /// The VF.
        device: PciAddress,
        /// Why.
        source: RtnlError,
    },
    /// The RDMA subsystem refused or was not heard.
    #[error("cannot work on the RDMA device of {device}{}", rdma_advice(source))]
    Rdma {
        /// The device.
        device: PciAddress,
        /// Why.
        source: NetlinkError,
    },
    /// The RDMA device went away while it was worked on.
    #[error(
        "the RDMA device of {device} is neither on the host nor in the pod; is its driver being loaded anew?"
    )]
    RdmaLost {
        /// The device.
        device: PciAddress,
    },
    /// The RDMA device cannot be used yet.
    #[error(
        "RDMA device {rdma} of {device} is not ready: its port is {}{}",
        if *active { "active" } else { "not active" },
        unanswered(missing)
    )]
    RdmaNotReady {
        /// The device.
        device: PciAddress,
        /// The RDMA device.
        rdma: String,
        /// Whether its port is active.
        active: bool,
        /// Addresses for which it has no RoCE v2 GID.
        missing: Vec<IpAddr>,
    },
    /// What a network wants of RDMA cannot be had of this device, or on this machine.
    #[error("{key} is \"{value}\", and {why}")]
    RdmaUnavailable {
        /// The device.
        device: PciAddress,
        /// The key of the configuration.
        key: &'static str,
        /// Its value.
        value: String,
        /// What is so, and what to do.
        why: String,
    },
    /// No software RDMA device could be made.
    #[error(
        "cannot make a software RDMA device on {netdev}, the netdev of {device}; is the module rdma_rxe installed?"
    )]
    NoSoftRdma {
        /// The device.
        device: PciAddress,
        /// Its netdev.
        netdev: String,
        /// Why.
        source: NetlinkError,
    },
    /// The pod's view of its devices could not be had.
    #[error("cannot look for the RDMA device of {device} in the pod")]
    SandboxSysfs {
        /// The device.
        device: PciAddress,
        /// Why.
        source: MountSysfsError,
    },
    /// The VF's link could not be asked who has an address.
    #[error("cannot probe for addresses on the link of VF {device}")]
    Probe {
        /// The VF.
        device: PciAddress,
        /// Why.
        source: ProbeError,
    },
    /// The kernel accepted everything, and still the VF is not as wanted.
    #[error("VF {device} is not as wanted after {rounds} rounds; still to do: {}", Listed(.missing))]
    NotConverged {
        /// The VF.
        device: PciAddress,
        /// How often it was tried.
        rounds: u32,
        /// What is missing.
        missing: Vec<Operation>,
        /// The first refusal, when there was one.
        source: Option<Box<AttachmentError>>,
    },
}

/// A setting that the PF's driver refused.
#[derive(Debug, Error)]
#[error("driver {driver} of PF {pf} refuses {key} {value} for VF {device}; {}", advice(source, key))]
pub struct SettingRefusal {
    /// The VF.
    pub device: PciAddress,
    /// Its PF.
    pub pf: PciAddress,
    /// The PF's driver.
    pub driver: String,
    /// The key of the configuration.
    pub key: &'static str,
    /// Its value.
    pub value: String,
    /// The refusal.
    pub source: RtnlError,
}

impl AttachmentError {
    /// Whether the kernel or a driver says that the same request can succeed in a moment.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        let errno = match self {
            Self::Rtnl { source, .. } => source.errno(),
            Self::SettingRefused(refusal) => refusal.source.errno(),
            Self::Probe { source, .. } => source.errno(),
            // The name is taken, and that of a device that is going away: it is nobody else's (`ib_register_device`).
            Self::NoSoftRdma { source, .. } if source.errno() == Some(Errno::ENFILE as i32) => return true,
            Self::Rdma { source, .. } | Self::NoSoftRdma { source, .. } => source.errno(),
            Self::NotConverged { source: Some(source), .. } => return source.is_transient(),
            _ => None,
        };
        errno.is_some_and(|errno| TRANSIENT.contains(&Errno::from_raw(errno)))
    }

    /// A refusal of the kernel while it was asked about `device`.
    pub(super) fn rtnl(device: PciAddress) -> impl Fn(RtnlError) -> Self + Copy {
        move |source| Self::Rtnl { device, source }
    }

    /// A refusal of the RDMA subsystem while it was asked about `device`.
    pub(super) fn rdma(device: PciAddress) -> impl Fn(NetlinkError) -> Self + Copy {
        move |source| Self::Rdma { device, source }
    }

    /// A failure of sysfs while it was asked about `device`.
    pub(super) fn sysfs(device: PciAddress) -> impl Fn(SysfsError) -> Self + Copy {
        move |source| Self::Sysfs { device, source }
    }
}

/// What to do about a refusal.
fn advice(refusal: &RtnlError, key: &str) -> String {
    match refusal.errno().map(Errno::from_raw) {
        Some(Errno::EOPNOTSUPP) => {
            format!("it has no such setting: remove {key} from the network's configuration")
        }
        Some(Errno::EBUSY | Errno::EAGAIN) => "it is busy: try again".to_owned(),
        _ => format!("it does not take this value: change or remove {key} in the network's configuration"),
    }
}

/// What to do about a refusal of the RDMA subsystem, with a leading separator.
fn rdma_advice(refusal: &NetlinkError) -> &'static str {
    match refusal.errno().map(Errno::from_raw) {
        Some(Errno::EOPNOTSUPP) => {
            "; its driver cannot move it between namespaces: set rdma to \"off\", or the system to shared mode"
        }
        Some(Errno::EEXIST) => "; another RDMA device has that name: choose another rdmaDeviceName",
        _ => "",
    }
}

/// The addresses that a table of GIDs lacks, with a leading separator.
fn unanswered(missing: &[IpAddr]) -> String {
    if missing.is_empty() {
        return String::new();
    }
    let missing: Vec<String> = missing.iter().map(IpAddr::to_string).collect();
    format!(", and its table has no RoCE v2 GID of {}", missing.join(", "))
}

struct Listed<'a>(&'a [Operation]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, operation) in self.0.iter().enumerate() {
            let separator = if number > 0 { ", " } else { "" };
            write!(out, "{separator}{operation:?}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    fn refused(errno: Errno) -> AttachmentError {
        let (request, explanation) = ("set VF 3".to_owned(), String::new());
        let source = io::Error::from_raw_os_error(errno as i32);
        AttachmentError::SettingRefused(Box::new(SettingRefusal {
            device: "0000:01:10.6".parse().unwrap(),
            pf: "0000:01:00.0".parse().unwrap(),
            driver: "igb".to_owned(),
            key: "link_state",
            value: "enable".to_owned(),
            source: RtnlError::Refused { request, explanation, source },
        }))
    }

    #[test]
    fn a_refused_setting_is_named_with_its_driver_and_what_to_do() {
        assert_eq!(
            refused(Errno::EOPNOTSUPP).to_string(),
            "driver igb of PF 0000:01:00.0 refuses link_state enable for VF 0000:01:10.6; it has no such setting: remove \
             link_state from the network's configuration"
        );
        assert!(refused(Errno::EINVAL).to_string().contains("change or remove link_state"));
    }

    #[test]
    fn a_name_of_ours_that_is_still_taken_is_transient() {
        let refused = |errno: Errno| AttachmentError::NoSoftRdma {
            device: "0000:01:10.6".parse().unwrap(),
            netdev: "eth0".to_owned(),
            source: NetlinkError::Refused {
                request: "make RDMA device rxe_0000_01_10_6".to_owned(),
                explanation: String::new(),
                source: io::Error::from_raw_os_error(errno as i32),
            },
        };
        assert!(refused(Errno::ENFILE).is_transient());
        assert!(!refused(Errno::EINVAL).is_transient());
    }

    #[test]
    fn only_what_a_moment_can_mend_is_transient() {
        for (errno, transient) in [
            (Errno::EBUSY, true),
            (Errno::EAGAIN, true),
            (Errno::EOPNOTSUPP, false),
            (Errno::EADDRNOTAVAIL, false),
        ] {
            let refusal = refused(errno);
            assert_eq!(refusal.is_transient(), transient, "{errno}");
            let device = "0000:01:10.6".parse().unwrap();
            let source = Some(Box::new(refusal));
            let given_up = AttachmentError::NotConverged { device, rounds: 9, missing: Vec::new(), source };
            assert_eq!(given_up.is_transient(), transient, "{errno}");
        }
    }
}
