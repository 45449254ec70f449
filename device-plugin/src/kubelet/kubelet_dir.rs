//! The kubelet's folder of device plugin sockets: what is in it, and when that changes.
//!
//! The kubelet deletes every socket in the folder when it starts, ours included, and then makes its own, in an order
//! that nobody may rely on. So this module tells that something happened, and the facts as they are now; it never tells
//! what happened.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::{info, warn};
use zerobridge_proto::deviceplugin::{DIRECTORY, KUBELET_SOCKET};

use crate::folder_watch::watch_folder;
use crate::resource::ResourceName;

/// Every socket of this program begins so, whichever process made it.
const PREFIX: &str = "zerobridge-";

/// Every socket of this program ends so.
const SUFFIX: &str = ".sock";

/// How often the folder is looked at even though no event came.
const POLL: Duration = Duration::from_secs(2);

/// A process that lives answers a connection attempt at once, even when it is busy.
const CONNECT_LIMIT: Duration = Duration::from_secs(1);

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

    /// Whether any process of this program serves the kubelet.
    pub(crate) async fn has_any_server(&self) -> bool {
        let Ok(entries) = fs::read_dir(&self.path) else { return false };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let ours = name.to_str().is_some_and(|name| name.starts_with(PREFIX) && name.ends_with(SUFFIX));
            if ours && !is_abandoned(&entry.path()).await {
                return true;
            }
        }
        false
    }

    /// Whether another process serves this pool too, as the next instance does during a rolling update.
    pub(crate) async fn has_other_server(&self, pool: &ResourceName, own_socket: &str) -> bool {
        let beginning = beginning(pool);
        let Ok(entries) = fs::read_dir(&self.path) else { return false };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let is_other =
                |name: &str| name.starts_with(&beginning) && name.ends_with(SUFFIX) && name != own_socket;
            if name.to_str().is_some_and(is_other) && !is_abandoned(&entry.path()).await {
                return true;
            }
        }
        false
    }

    /// A value that changes whenever something may have changed in the folder, and now and then without a cause.
    ///
    /// # Errors
    ///
    /// No thread could be started for it.
    pub(crate) fn watch(&self) -> io::Result<watch::Receiver<u64>> {
        watch_folder(&self.path, "kubelet-folder", Some(POLL))
    }
}

/// The file name of the socket of one pool of one process. `start` keeps processes apart that have the same `pid`, as
/// all have in containers.
#[must_use]
pub(crate) fn socket_name(pool: &ResourceName, pid: u32, start: SystemTime) -> String {
    let start = start.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
    format!("{}{pid}-{start:x}{SUFFIX}", beginning(pool))
}

/// How the sockets of one pool begin, in every process and every version of this program. The name is there for people,
/// and cut short: a path to a socket has at most 107 bytes (`sun_path` in unix(7)), of which the folder takes 32. What is
/// cut off is in the number.
fn beginning(pool: &ResourceName) -> String {
    let short: String = pool.name().chars().take(20).collect();
    format!("{PREFIX}{short}-{:08x}-", fingerprint(&pool.to_string()))
}

/// FNV-1a with 32 bits (RFC 9923): the standard library's hashes may differ between versions of this program.
fn fingerprint(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// Whether a daemon of this program serves the kubelet whose root directory is `kubelet_root`. Removes the sockets of those
/// that have died. For programs that must not work beside a daemon.
pub async fn is_served(kubelet_root: &Path) -> bool {
    let dir = KubeletDir::new(kubelet_root);
    dir.remove_stale_sockets().await;
    dir.has_any_server().await
}

async fn is_abandoned(socket: &Path) -> bool {
    let refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    timeout(CONNECT_LIMIT, UnixStream::connect(socket))
        .await
        .is_ok_and(|connected| connected.is_err_and(refused))
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

    #[tokio::test]
    async fn a_daemon_is_noticed_and_a_dead_ones_socket_is_removed() {
        let (root, dir) = folder();
        assert!(!is_served(root.path()).await);
        let [dead, living] = ["zerobridge-a.sock", "zerobridge-b.sock"].map(|name| dir.socket(name));
        drop(UnixListener::bind(&dead).unwrap());
        let _kubelet = UnixListener::bind(dir.kubelet_socket()).unwrap();
        assert!(!is_served(root.path()).await);
        assert!(!dead.exists());
        let _living = UnixListener::bind(&living).unwrap();
        assert!(is_served(root.path()).await);
    }

    fn pool(prefix: &str, name: &str) -> ResourceName {
        ResourceName::new(prefix, name).unwrap()
    }

    #[test]
    fn a_socket_name_differs_by_pool_process_and_start_and_is_short() {
        let start = SystemTime::UNIX_EPOCH + Duration::from_millis(0x18f_0000_0000);
        let name = socket_name(&pool("zerobridge.io", "vf"), 7, start);
        assert_eq!(name, "zerobridge-vf-11ce8195-7-18f00000000.sock");
        for other in [
            socket_name(&pool("example.com", "vf"), 7, start),
            socket_name(&pool("zerobridge.io", "vf"), 8, start),
            socket_name(&pool("zerobridge.io", "vf"), 7, start + Duration::from_millis(1)),
        ] {
            assert_ne!(name, other);
        }
        let longest = socket_name(&pool("zerobridge.io", &"n".repeat(63)), 4_194_304, start);
        assert!("/var/lib/kubelet/device-plugins/".len() + longest.len() <= 107, "{longest}");
    }

    #[test]
    fn the_fingerprint_is_that_of_the_specification() {
        for (text, expected) in [("", 0x811c_9dc5), ("a", 0xe40c_292c), ("foobar", 0xbf9c_f968)] {
            assert_eq!(fingerprint(text), expected, "{text}");
        }
    }

    #[tokio::test]
    async fn another_server_of_the_same_pool_is_seen_while_it_listens() {
        let (_root, dir) = folder();
        let (vf, start) = (pool("zerobridge.io", "vf"), SystemTime::UNIX_EPOCH);
        let own = socket_name(&vf, 1, start);
        let _own = UnixListener::bind(dir.socket(&own)).unwrap();
        let _foreign =
            UnixListener::bind(dir.socket(&socket_name(&pool("example.com", "vf"), 2, start))).unwrap();
        assert!(!dir.has_other_server(&vf, &own).await);
        let other = UnixListener::bind(dir.socket(&socket_name(&vf, 2, start))).unwrap();
        assert!(dir.has_other_server(&vf, &own).await);
        drop(other);
        assert!(!dir.has_other_server(&vf, &own).await, "a socket that nobody listens on serves nothing");
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

    /// The next change. A test that waits for one in vain fails, and does not hang.
    async fn change(changes: &mut watch::Receiver<u64>) {
        timeout(Duration::from_secs(60), changes.changed()).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn what_happens_to_sockets_is_noticed() {
        let (_root, dir) = folder();
        let mut changes = dir.watch().unwrap();
        change(&mut changes).await;
        let listener = UnixListener::bind(dir.kubelet_socket()).unwrap();
        change(&mut changes).await;
        fs::rename(dir.kubelet_socket(), dir.socket("a")).unwrap();
        change(&mut changes).await;
        fs::remove_file(dir.socket("a")).unwrap();
        change(&mut changes).await;
        drop(listener);
    }
}
