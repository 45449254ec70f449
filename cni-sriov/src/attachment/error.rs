//! Why a VF cannot be seen or brought to where it should be.

use std::fmt;

use thiserror::Error;
use zerobridge_kernel::{NetnsError, RtnlError, SysfsError};
use zerobridge_proto::PciAddress;

use super::diff::Operation;

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
    /// The device is something else, such as a PF.
    #[error("device {device} is not an SR-IOV virtual function; name the PCI address of a VF")]
    NotAVf {
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

impl AttachmentError {
    /// A refusal of the kernel while it was asked about `device`.
    pub(super) fn rtnl(device: PciAddress) -> impl Fn(RtnlError) -> Self + Copy {
        move |source| Self::Rtnl { device, source }
    }

    /// A failure of sysfs while it was asked about `device`.
    pub(super) fn sysfs(device: PciAddress) -> impl Fn(SysfsError) -> Self + Copy {
        move |source| Self::Sysfs { device, source }
    }
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
