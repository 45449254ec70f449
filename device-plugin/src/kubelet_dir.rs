//! The kubelet's folder of device plugin sockets: what is in it, and when that changes.
//!
//! The kubelet deletes every socket in the folder when it starts, ours included, and then makes its own, in an order
//! that nobody may rely on. So this module tells that something happened, and the facts as they are now; it never tells
//! what happened.

use std::fs;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, SystemTime};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::{debug, info, warn};
use zerobridge_proto::deviceplugin::{DIRECTORY, KUBELET_SOCKET};

/// Every socket of this program begins so, whichever process made it.
const PREFIX: &str = "zerobridge-";

/// Every socket of this program ends so.
const SUFFIX: &str = ".sock";

/// How often, in milliseconds, the folder is looked at even though no event came.
const POLL: u16 = 2000;

/// A process that lives answers a connection attempt at once, even when it is busy.
const CONNECT_LIMIT: Duration = Duration::from_secs(1);

/// What may happen to a folder that concerns its sockets, or the folder itself.
const EVENTS: AddWatchFlags = AddWatchFlags::IN_CREATE
    .union(AddWatchFlags::IN_MOVED_TO)
    .union(AddWatchFlags::IN_MOVED_FROM)
    .union(AddWatchFlags::IN_DELETE)
    .union(AddWatchFlags::IN_DELETE_SELF)
    .union(AddWatchFlags::IN_MOVE_SELF)
    .union(AddWatchFlags::IN_ONLYDIR);

/// After one of these the watch is on a folder that is no longer the one at the path.
const LOST: AddWatchFlags = AddWatchFlags::IN_DELETE_SELF
    .union(AddWatchFlags::IN_MOVE_SELF)
    .union(AddWatchFlags::IN_UNMOUNT)
    .union(AddWatchFlags::IN_IGNORED);

/// The folder `device-plugins` of a kubelet.
#[derive(Clone, Debug)]
pub(crate) struct KubeletDir {
    path: PathBuf,
}

/// Which file a path leads to. Inode numbers are used again, so the time of birth is part of it where the file system
/// keeps one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileId {
    device: u64,
    inode: u64,
    born: Option<SystemTime>,
}

impl FileId {
    /// The file at a path; `None` if there is none.
    #[must_use]
    pub(crate) fn of(path: &Path) -> Option<Self> {
        let metadata = fs::symlink_metadata(path).ok()?;
        Some(Self { device: metadata.dev(), inode: metadata.ino(), born: metadata.created().ok() })
    }
}

impl KubeletDir {
    /// The folder of the kubelet whose root directory is `kubelet_root` (`/var/lib/kubelet`).
    #[must_use]
    pub(crate) fn new(kubelet_root: &Path) -> Self {
        Self { path: kubelet_root.join(DIRECTORY) }
    }

    /// Where it is.
    #[must_use]
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the folder is there. The kubelet makes it, or whoever mounts it into the daemon's container.
    #[must_use]
    pub(crate) fn exists(&self) -> bool {
        self.path.is_dir()
    }

    /// Path of the kubelet's socket.
    #[must_use]
    pub(crate) fn kubelet_socket(&self) -> PathBuf {
        self.path.join(KUBELET_SOCKET)
    }

    /// Path of a socket of ours.
    #[must_use]
    pub(crate) fn socket(&self, file_name: &str) -> PathBuf {
        self.path.join(file_name)
    }

    /// Removes the sockets that earlier processes of this program left behind. A socket that anybody still listens on
    /// stays: during a rolling update that is the other instance.
    pub(crate) async fn remove_stale_sockets(&self) {
        let Ok(entries) = fs::read_dir(&self.path) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let ours = name.to_str().is_some_and(|name| name.starts_with(PREFIX) && name.ends_with(SUFFIX));
            let socket = entry.file_type().is_ok_and(|kind| kind.is_socket());
            if !(ours && socket && is_abandoned(&entry.path()).await) {
                continue;
            }
            match fs::remove_file(entry.path()) {
                Ok(()) => info!(socket = %entry.path().display(), "removed a socket that nobody listens on"),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => warn!(socket = %entry.path().display(), %error, "cannot remove an old socket"),
            }
        }
    }

    /// A value that changes whenever something may have changed in the folder, and now and then without a cause.
    ///
    /// # Errors
    ///
    /// No thread could be started for it.
    pub(crate) fn watch(&self) -> io::Result<watch::Receiver<u64>> {
        let (sender, receiver) = watch::channel(0);
        let folder = self.path.clone();
        thread::Builder::new()
            .name("kubelet-folder".to_owned())
            .spawn(move || watch_folder(&folder, POLL.into(), &sender))?;
        Ok(receiver)
    }
}

/// The file name of the socket of one pool of one process. `start` keeps processes apart that have the same `pid`, as
/// all have in containers. The resource's name is only there for people, and cut short: a path to a socket has at most
/// 107 bytes (`sun_path` in unix(7)), of which the folder takes 32.
#[must_use]
pub(crate) fn socket_name(resource: &str, position: usize, pid: u32, start: SystemTime) -> String {
    let start = start.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
    let resource: String = resource.chars().take(20).collect();
    format!("{PREFIX}{resource}-{position}-{pid}-{start:x}{SUFFIX}")
}

async fn is_abandoned(socket: &Path) -> bool {
    let refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    timeout(CONNECT_LIMIT, UnixStream::connect(socket))
        .await
        .is_ok_and(|connected| connected.is_err_and(refused))
}

/// Runs in a thread of its own until nobody listens any more: waiting for a file descriptor that tokio does not know
/// needs unsafe code in tokio, and none here.
fn watch_folder(folder: &Path, poll: PollTimeout, sender: &watch::Sender<u64>) {
    let mut inotify = None;
    while !sender.is_closed() {
        if inotify.is_none() {
            inotify = open(folder)
                .inspect_err(|error| debug!(folder = %folder.display(), %error, "cannot watch, polling"))
                .ok();
        }
        // Told after the watch is set: what happens in between is in one of the two.
        sender.send_modify(|count| *count = count.wrapping_add(1));
        if wait(inotify.as_ref(), poll).is_err() {
            inotify = None;
        }
    }
}

fn open(folder: &Path) -> Result<Inotify, Errno> {
    let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
    inotify.add_watch(folder, EVENTS)?;
    Ok(inotify)
}

/// Waits for events or the end of the time. Fails if the watch no longer shows the folder.
fn wait(inotify: Option<&Inotify>, time: PollTimeout) -> Result<(), Errno> {
    let mut descriptors: Vec<PollFd<'_>> =
        inotify.iter().map(|inotify| PollFd::new(inotify.as_fd(), PollFlags::POLLIN)).collect();
    let ready = match nix::poll::poll(&mut descriptors, time) {
        Ok(ready) => ready,
        Err(Errno::EINTR) => return Ok(()),
        Err(errno) => return Err(errno),
    };
    match inotify {
        Some(inotify) if ready > 0 => {
            let lost = inotify.read_events()?.iter().any(|event| event.mask.intersects(LOST));
            if lost { Err(Errno::ENOENT) } else { Ok(()) }
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    fn folder() -> (tempfile::TempDir, KubeletDir) {
        let root = tempfile::tempdir().unwrap();
        let dir = KubeletDir::new(root.path());
        fs::create_dir(dir.path()).unwrap();
        (root, dir)
    }

    #[test]
    fn a_socket_name_differs_by_pool_process_and_start_and_is_short() {
        let start = SystemTime::UNIX_EPOCH + Duration::from_millis(0x18f_0000_0000);
        let name = socket_name("vf", 0, 7, start);
        assert_eq!(name, "zerobridge-vf-0-7-18f00000000.sock");
        for other in [
            socket_name("vf", 1, 7, start),
            socket_name("vf", 0, 8, start),
            socket_name("vf", 0, 7, start + Duration::from_millis(1)),
        ] {
            assert_ne!(name, other);
        }
        let longest = socket_name(&"n".repeat(63), 999, 4_194_304, start);
        assert!("/var/lib/kubelet/device-plugins/".len() + longest.len() <= 107, "{longest}");
    }

    #[tokio::test]
    async fn only_our_own_abandoned_sockets_are_removed() {
        let (_root, dir) = folder();
        let living = UnixListener::bind(dir.socket("zerobridge-vf-0-1-1.sock")).unwrap();
        drop(UnixListener::bind(dir.socket("zerobridge-vf-0-1-2.sock")).unwrap());
        drop(UnixListener::bind(dir.socket("nvidia.sock")).unwrap());
        drop(UnixListener::bind(dir.kubelet_socket()).unwrap());
        fs::write(dir.socket("zerobridge-notes.sock"), "no socket").unwrap();

        dir.remove_stale_sockets().await;
        let mut left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(
            left,
            ["kubelet.sock", "nvidia.sock", "zerobridge-notes.sock", "zerobridge-vf-0-1-1.sock"]
        );
        drop(living);
    }

    #[test]
    fn a_path_that_leads_to_another_file_is_seen() {
        let (_root, dir) = folder();
        assert_eq!(FileId::of(&dir.kubelet_socket()), None);
        let first = UnixListener::bind(dir.kubelet_socket()).unwrap();
        let id = FileId::of(&dir.kubelet_socket()).unwrap();
        assert_eq!(FileId::of(&dir.kubelet_socket()), Some(id));
        fs::rename(dir.kubelet_socket(), dir.socket("old")).unwrap();
        let second = UnixListener::bind(dir.kubelet_socket()).unwrap();
        assert_ne!(FileId::of(&dir.kubelet_socket()), Some(id));
        drop((first, second));
    }

    fn watched(dir: &KubeletDir, poll: PollTimeout) -> watch::Receiver<u64> {
        let (sender, receiver) = watch::channel(0);
        let folder = dir.path().to_owned();
        thread::spawn(move || watch_folder(&folder, poll, &sender));
        receiver
    }

    /// The next change. A test that waits for one in vain fails, and does not hang.
    async fn change(changes: &mut watch::Receiver<u64>) {
        timeout(Duration::from_secs(60), changes.changed()).await.unwrap().unwrap();
    }

    /// Without polling, so that only the events can move the value.
    #[tokio::test]
    async fn what_happens_to_sockets_is_noticed() {
        let (_root, dir) = folder();
        let mut changes = watched(&dir, PollTimeout::NONE);
        change(&mut changes).await;
        let listener = UnixListener::bind(dir.kubelet_socket()).unwrap();
        change(&mut changes).await;
        fs::rename(dir.kubelet_socket(), dir.socket("a")).unwrap();
        change(&mut changes).await;
        fs::remove_file(dir.socket("a")).unwrap();
        change(&mut changes).await;
        drop(listener);
    }

    #[tokio::test]
    async fn a_folder_that_is_replaced_is_watched_again() {
        let (_root, dir) = folder();
        let mut changes = watched(&dir, PollTimeout::from(10u8));
        fs::remove_dir(dir.path()).unwrap();
        fs::create_dir(dir.path()).unwrap();
        let before = *changes.borrow_and_update();
        while *changes.borrow_and_update() < before + 3 {
            change(&mut changes).await;
        }
    }

    #[test]
    fn a_watch_that_is_lost_says_so() {
        let (_root, dir) = folder();
        let inotify = open(dir.path()).unwrap();
        assert_eq!(wait(Some(&inotify), PollTimeout::ZERO), Ok(()));
        fs::write(dir.socket("a"), "").unwrap();
        assert_eq!(wait(Some(&inotify), PollTimeout::NONE), Ok(()));
        fs::remove_file(dir.socket("a")).unwrap();
        fs::remove_dir(dir.path()).unwrap();
        assert_eq!(wait(Some(&inotify), PollTimeout::NONE), Err(Errno::ENOENT));
        assert!(open(dir.path()).is_err());
    }
}
