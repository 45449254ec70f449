//! The sysfs of another network namespace.
//!
//! A sysfs shows the netdevs and the RDMA devices of the namespace that it was mounted from, so a pod's need a mount of their
//! own. It is attached nowhere: only whoever holds the value sees it, and it ends with the value.

use std::io;
use std::ops::Deref;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;

use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};
use thiserror::Error;

use super::Sysfs;
use crate::netns::{Netns, NetnsError};

/// A sysfs that is mounted for as long as this value lives.
#[derive(Debug)]
pub struct MountedSysfs {
    sysfs: Sysfs,
    _mount: OwnedFd,
}

/// Why a namespace's sysfs could not be mounted.
#[derive(Debug, Error)]
pub enum MountSysfsError {
    /// The namespace could not be entered.
    #[error("cannot mount a sysfs in another namespace")]
    Namespace {
        /// Why.
        source: NetnsError,
    },
    /// The kernel refused.
    #[error("cannot mount a sysfs in network namespace {path}")]
    Mount {
        /// The namespace file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl MountedSysfs {
    /// Mounts the sysfs of `netns`, to be read only.
    ///
    /// # Errors
    /// [`MountSysfsError`].
    pub fn of(netns: &Netns) -> Result<Self, MountSysfsError> {
        let mount = || {
            let context = fsopen("sysfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
            fsconfig_create(&context)?;
            let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
                | MountAttrFlags::MOUNT_ATTR_NOSUID
                | MountAttrFlags::MOUNT_ATTR_NODEV
                | MountAttrFlags::MOUNT_ATTR_NOEXEC;
            fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
        };
        let mounted = netns.enter(mount).map_err(|source| MountSysfsError::Namespace { source })?;
        let mount = mounted.map_err(|errno| MountSysfsError::Mount {
            path: netns.path().to_owned(),
            source: errno.into(),
        })?;
        let sysfs = Sysfs::new(format!("/proc/self/fd/{}", mount.as_raw_fd()));
        Ok(Self { sysfs, _mount: mount })
    }
}

impl Deref for MountedSysfs {
    type Target = Sysfs;

    fn deref(&self) -> &Sysfs {
        &self.sysfs
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::testing::TestNetns;

    #[test]
    fn it_shows_the_netdevs_of_its_namespace_and_ends_with_the_value() {
        let netns = TestNetns::new();
        netns.ip("link add left type veth peer name right");
        let mounted = MountedSysfs::of(netns.netns()).unwrap();
        let root = mounted.root().to_owned();
        let mut names: Vec<_> = fs::read_dir(root.join("class/net"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| matches!(name.as_str(), "left" | "right" | "eth0"))
            .collect();
        names.sort();
        assert_eq!(names, ["left", "right"]);
        drop(mounted);
        assert!(!root.join("class/net").exists());
    }
}
