//! Tells that something may have happened in a folder: inotify, and a look now and then in case it missed something.
//!
//! Never tells what happened: whoever listens looks at the facts as they are now.

use std::io;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::sync::watch;
use tracing::debug;

/// How long to wait before a folder that cannot be watched is tried again, where no shorter time is asked for.
const RETRY: Duration = Duration::from_secs(2);

/// What may happen to the names and contents in a folder, or to the folder itself.
const EVENTS: AddWatchFlags = AddWatchFlags::IN_CREATE
    .union(AddWatchFlags::IN_CLOSE_WRITE)
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

/// A value that changes once at the start, whenever something may have changed in the folder, and after each `poll`
/// without an event. `name` is that of the thread that waits, which ends when nobody listens any more.
///
/// A thread, because waiting for a file descriptor that tokio does not know needs unsafe code in tokio, and none here.
///
/// # Errors
///
/// No thread could be started.
pub(crate) fn watch_folder(
    folder: &Path,
    name: &str,
    poll: Option<Duration>,
) -> io::Result<watch::Receiver<u64>> {
    let (sender, receiver) = watch::channel(0);
    let folder = folder.to_owned();
    thread::Builder::new().name(name.to_owned()).spawn(move || run(&folder, poll, &sender))?;
    Ok(receiver)
}

fn run(folder: &Path, poll: Option<Duration>, sender: &watch::Sender<u64>) {
    let mut inotify = None;
    while !sender.is_closed() {
        if inotify.is_none() {
            inotify = open(folder)
                .inspect_err(|error| debug!(folder = %folder.display(), %error, "cannot watch, polling"))
                .ok();
        }
        // Told after the watch is set: what happens in between is in one of the two.
        sender.send_modify(|count| *count = count.wrapping_add(1));
        let time = if inotify.is_some() { poll } else { Some(poll.unwrap_or(RETRY).min(RETRY)) };
        if wait(inotify.as_ref(), timeout(time)).is_err() {
            inotify = None;
        }
    }
}

fn timeout(time: Option<Duration>) -> PollTimeout {
    time.map_or(PollTimeout::NONE, |time| PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX))
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
    use std::fs;

    use super::*;

    /// The next change. A test that waits for one in vain fails, and does not hang.
    async fn change(changes: &mut watch::Receiver<u64>) {
        tokio::time::timeout(Duration::from_secs(60), changes.changed()).await.unwrap().unwrap();
    }

    /// Without polling, so that only the events can move the value.
    #[tokio::test]
    async fn what_happens_to_files_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (folder.path().join("one"), folder.path().join("two"));
        let mut changes = watch_folder(folder.path(), "test", None).unwrap();
        change(&mut changes).await;
        fs::write(&one, "").unwrap();
        change(&mut changes).await;
        fs::rename(&one, &two).unwrap();
        change(&mut changes).await;
        fs::remove_file(&two).unwrap();
        change(&mut changes).await;
    }

    #[tokio::test]
    async fn a_folder_that_is_replaced_is_watched_again() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("folder");
        fs::create_dir(&folder).unwrap();
        let mut changes = watch_folder(&folder, "test", Some(Duration::from_millis(10))).unwrap();
        fs::remove_dir(&folder).unwrap();
        fs::create_dir(&folder).unwrap();
        let before = *changes.borrow_and_update();
        while *changes.borrow_and_update() < before + 3 {
            change(&mut changes).await;
        }
    }

    #[test]
    fn a_watch_that_is_lost_says_so() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("folder");
        fs::create_dir(&folder).unwrap();
        let inotify = open(&folder).unwrap();
        assert_eq!(wait(Some(&inotify), PollTimeout::ZERO), Ok(()));
        fs::write(folder.join("a"), "").unwrap();
        assert_eq!(wait(Some(&inotify), PollTimeout::NONE), Ok(()));
        fs::remove_file(folder.join("a")).unwrap();
        fs::remove_dir(&folder).unwrap();
        assert_eq!(wait(Some(&inotify), PollTimeout::NONE), Err(Errno::ENOENT));
        assert!(open(&folder).is_err());
    }
}
