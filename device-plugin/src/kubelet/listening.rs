//! A socket of ours in the kubelet's folder, for as long as it is there.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tracing::{debug, warn};

use super::kubelet_dir::FileId;

/// Pause when connections cannot be accepted, which means that the process has no file descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A socket that is listened on. Dropping it closes it, and removes the file if it is still this one.
#[derive(Debug)]
pub(super) struct Listening {
    path: PathBuf,
    file: Option<FileId>,
    acceptor: JoinHandle<()>,
}

impl Listening {
    /// Makes the socket and hands on what connects to it. A connection outlives the socket.
    ///
    /// # Errors
    ///
    /// The socket cannot be made.
    pub(super) fn open(path: &Path, connections: mpsc::Sender<UnixStream>) -> io::Result<Self> {
        let listener = UnixListener::bind(path)?;
        let acceptor = tokio::spawn(accept(listener, connections));
        Ok(Self { path: path.to_owned(), file: FileId::of(path), acceptor })
    }

    /// Whether the file at the path is the socket that is listened on.
    pub(super) fn is_in_place(&self) -> bool {
        self.file.is_some() && FileId::of(&self.path) == self.file
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.acceptor.abort();
        if self.is_in_place()
            && let Err(error) = fs::remove_file(&self.path)
        {
            debug!(socket = %self.path.display(), %error, "cannot remove the socket");
        }
    }
}

async fn accept(listener: UnixListener, connections: mpsc::Sender<UnixStream>) {
    loop {
        match listener.accept().await {
            Ok((connection, _)) => {
                if connections.send(connection).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                warn!(%error, "cannot accept a connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn dropping_it_removes_its_own_file_and_nobody_elses() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        let (connections, mut incoming) = mpsc::channel(1);
        let listening = Listening::open(&path, connections.clone()).unwrap();
        assert!(listening.is_in_place());
        let _client = UnixStream::connect(&path).await.unwrap();
        assert!(incoming.recv().await.is_some());
        assert!(Listening::open(&path, connections.clone()).is_err(), "the name is taken");
        drop(listening);
        assert!(!path.exists());

        let listening = Listening::open(&path, connections).unwrap();
        fs::rename(&path, folder.path().join("b.sock")).unwrap();
        fs::write(&path, "another").unwrap();
        assert!(!listening.is_in_place());
        drop(listening);
        assert!(path.exists());
    }
}
