//! Network namespaces: opening one, telling whether two are the same, and doing one thing inside one.
//!
//! Refuses to know pods and sandboxes; a namespace is a file here. No thread of the caller ever changes namespace.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;

use nix::sched::{CloneFlags, setns};
use nix::sys::statfs::{FsType, fstatfs};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// `NSFS_MAGIC` of the kernel's `linux/magic.h`: a file that is no namespace must not be handed to setns(2).
const NSFS_MAGIC: FsType = FsType(0x6e73_6673);

/// What the kernel tells two namespaces apart by (namespaces(7)). A number is used again once its namespace is gone,
/// so it says "the same" only together with a path that still leads there, or within one boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NetnsId {
    /// `st_dev` of the namespace file.
    pub device: u64,
    /// `st_ino` of the namespace file.
    pub inode: u64,
}

/// An open network namespace. It cannot vanish while this value lives.
#[derive(Debug)]
pub struct Netns {
    path: PathBuf,
    file: File,
    id: NetnsId,
}

/// Why a namespace could not be opened or entered.
#[derive(Debug, Error)]
pub enum NetnsError {
    /// The file cannot be opened; [`NetnsError::is_gone`] tells absence from other reasons.
    #[error("cannot open network namespace {path}")]
    Open {
        /// The namespace file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The path leads to something else, such as the empty file that stays when a namespace is unmounted.
    #[error("{path} is no namespace")]
    NotANamespace {
        /// The file that was opened.
        path: PathBuf,
    },
    /// setns(2) refused.
    #[error("cannot enter network namespace {path}")]
    Enter {
        /// The namespace file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The thread that was to work inside could not be started or died.
    #[error("no thread could work in network namespace {path}")]
    Thread {
        /// The namespace file.
        path: PathBuf,
    },
}

impl NetnsError {
    /// Whether the namespace no longer exists: its file is absent, or present but unmounted.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        match self {
            Self::Open { source, .. } => source.kind() == io::ErrorKind::NotFound,
            Self::NotANamespace { .. } => true,
            Self::Enter { .. } | Self::Thread { .. } => false,
        }
    }
}

impl Netns {
    /// Opens the namespace that `path` leads to, such as `/var/run/netns/cni-…` or `/proc/4711/ns/net`.
    ///
    /// # Errors
    /// [`NetnsError::Open`] and [`NetnsError::NotANamespace`].
    pub fn open(path: &Path) -> Result<Self, NetnsError> {
        let open_error = |source| NetnsError::Open { path: path.to_owned(), source };
        let file = File::open(path).map_err(open_error)?;
        let kind = fstatfs(&file).map_err(|errno| open_error(errno.into()))?.filesystem_type();
        if kind != NSFS_MAGIC {
            return Err(NetnsError::NotANamespace { path: path.to_owned() });
        }
        let metadata = file.metadata().map_err(open_error)?;
        let id = NetnsId { device: metadata.dev(), inode: metadata.ino() };
        Ok(Self { path: path.to_owned(), file, id })
    }

    /// The namespace of the calling thread.
    ///
    /// # Errors
    /// [`NetnsError::Open`] when `/proc` is not mounted.
    pub fn current() -> Result<Self, NetnsError> {
        Self::open(Path::new("/proc/thread-self/ns/net"))
    }

    /// Which namespace this is.
    #[must_use]
    pub fn id(&self) -> NetnsId {
        self.id
    }

    /// The path it was opened by.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs `work` on a thread of its own that has entered this namespace, and waits for it.
    ///
    /// Sockets that `work` opens belong to this namespace for good and may be returned: that is how one thread talks to
    /// two namespaces.
    ///
    /// # Errors
    /// [`NetnsError::Enter`] and [`NetnsError::Thread`].
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, NetnsError> {
        let inside = || {
            setns(&self.file, CloneFlags::CLONE_NEWNET)
                .map_err(|errno| NetnsError::Enter { path: self.path.clone(), source: errno.into() })?;
            Ok(work())
        };
        thread::scope(|scope| {
            let no_thread = || NetnsError::Thread { path: self.path.clone() };
            let worker = thread::Builder::new().spawn_scoped(scope, inside).map_err(|_| no_thread())?;
            worker.join().map_err(|_| no_thread())?
        })
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestNetns;

    #[test]
    fn work_runs_inside_and_the_caller_stays_outside() {
        let sandbox = TestNetns::new();
        let before = Netns::current().unwrap().id();
        let inside = sandbox.netns().enter(|| Netns::current().unwrap().id()).unwrap();
        assert_eq!(inside, sandbox.netns().id());
        assert_ne!(inside, before);
        assert_eq!(Netns::current().unwrap().id(), before);
    }

    #[test]
    fn absent_unmounted_and_foreign_files_are_told_apart_from_trouble() {
        let dir = tempfile::tempdir().unwrap();
        let absent = Netns::open(&dir.path().join("absent")).unwrap_err();
        assert!(absent.is_gone(), "{absent}");
        let plain = dir.path().join("plain");
        std::fs::write(&plain, "").unwrap();
        let unmounted = Netns::open(&plain).unwrap_err();
        assert!(unmounted.is_gone(), "{unmounted}");
        let not_a_net_namespace = Netns::open(Path::new("/proc/self/ns/uts")).unwrap();
        let refused = not_a_net_namespace.enter(|| ()).unwrap_err();
        assert!(!refused.is_gone(), "{refused}");
    }
}
