//! What can go wrong when sysfs is asked.

use std::io;
use std::path::{Path, PathBuf};

use nix::libc;
use thiserror::Error;
use zerobridge_proto::PciAddress;

/// A question that sysfs did not answer.
#[derive(Debug, Error)]
pub enum SysfsError {
    /// No PCI function has this address.
    #[error("no PCI function {address} in {}", path.display())]
    NoSuchFunction {
        /// The address asked for.
        address: PciAddress,
        /// Where it would be.
        path: PathBuf,
    },
    /// No auxiliary device has this name, or it is none that can be given away.
    #[error("no scalable function \"{name}\" in {}", path.display())]
    NoSuchAuxiliary {
        /// The name asked for.
        name: String,
        /// Where it would be.
        path: PathBuf,
    },
    /// A PF has no netdev in the namespace of this sysfs mount: it has no driver, or was moved away.
    #[error("PF {pf} has no network interface in this network namespace; its VFs cannot be administered")]
    NoPfNetdev {
        /// The PF asked for.
        pf: PciAddress,
    },
    /// A VF names its PF, but the PF does not list it: the kernel is just making or removing it.
    #[error("VF {vf} belongs to PF {pf}, which does not list it; it is being created or removed")]
    Unlinked {
        /// The VF.
        vf: PciAddress,
        /// The PF it names.
        pf: PciAddress,
    },
    /// A file, link or folder could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// What was read.
        path: PathBuf,
        /// What the kernel answered.
        #[source]
        source: io::Error,
    },
    /// The kernel or a driver did not take what was written.
    #[error("{} does not take \"{text}\"", path.display())]
    Write {
        /// What was written to.
        path: PathBuf,
        /// What was written.
        text: String,
        /// What the kernel answered.
        #[source]
        source: io::Error,
    },
    /// A file or link has content that it should not have.
    #[error("{} holds \"{text}\", not {expected}", path.display())]
    Malformed {
        /// What was read.
        path: PathBuf,
        /// What it holds.
        text: String,
        /// What was expected.
        expected: &'static str,
    },
}

impl SysfsError {
    pub(super) fn read(path: &Path, source: io::Error) -> Self {
        Self::Read { path: path.to_owned(), source }
    }

    pub(super) fn absent(path: &Path) -> Self {
        Self::read(path, io::Error::from(io::ErrorKind::NotFound))
    }

    pub(super) fn malformed(path: &Path, text: &str, expected: &'static str) -> Self {
        Self::Malformed { path: path.to_owned(), text: text.to_owned(), expected }
    }

    /// Whether the kernel refused the question itself.
    pub(super) fn is_invalid(&self) -> bool {
        matches!(self, Self::Read { source, .. } if source.raw_os_error() == Some(libc::EINVAL))
    }
}
