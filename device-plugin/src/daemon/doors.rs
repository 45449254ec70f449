//! Where the daemon answers HTTP: an address of the node, which two instances share during an update, and a socket file,
//! which is each instance's own, so that a probe of it asks this one and no other.
//!
//! Refuses to know what is answered.

use std::fmt::Debug;
use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::serve::Listener;
use tokio::task::{self, JoinHandle};
use tokio::time::sleep;
use tracing::{info, warn};

use super::DaemonError;
use crate::operations::{Operations, serve};

/// How often an address that somebody else has is tried again.
const LISTEN_PAUSE: Duration = Duration::from_secs(1);

/// What is listened at, before there is anything to answer with: an address that cannot be used ends the daemon at once.
#[derive(Debug)]
pub(super) struct Doors {
    /// `None` behind an address that somebody else has.
    address: Option<(SocketAddr, Option<TcpListener>)>,
    file: Option<(PathBuf, UnixListener)>,
}

impl Doors {
    pub(super) fn open(address: Option<SocketAddr>, file: Option<&Path>) -> Result<Self, DaemonError> {
        let address = address.map(|address| listen(address).map(|listener| (address, listener)));
        let file = file.map(|path| listen_at(path).map(|listener| (path.to_owned(), listener)));
        Ok(Self { address: address.transpose()?, file: file.transpose()? })
    }

    /// Answers at both, until the tasks are aborted.
    pub(super) fn answer(self, operations: &Operations) -> Vec<JoinHandle<()>> {
        let address = self
            .address
            .map(|(address, listener)| task::spawn(answer_at_address(address, listener, operations.clone())));
        let file =
            self.file.map(|(path, listener)| task::spawn(answer_at_file(path, listener, operations.clone())));
        address.into_iter().chain(file).collect()
    }
}

/// `None` while somebody else listens at the address: during a rolling update that is the instance before.
fn listen(address: SocketAddr) -> Result<Option<TcpListener>, DaemonError> {
    match TcpListener::bind(address) {
        Ok(listener) => Ok(Some(listener)),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            warn!(%address, "another process answers there; waiting until it ends");
            Ok(None)
        }
        Err(source) => Err(DaemonError::Http { address, source }),
    }
}

/// The socket file of an instance that was killed is in the way, and is removed; anything else there is not.
fn listen_at(path: &Path) -> Result<UnixListener, DaemonError> {
    let faulty = |source| DaemonError::HttpSocket { path: path.to_owned(), source };
    if fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket()) {
        fs::remove_file(path).map_err(faulty)?;
    }
    UnixListener::bind(path).map_err(faulty)
}

/// Answers as soon as the address is free.
async fn answer_at_address(address: SocketAddr, mut listener: Option<TcpListener>, operations: Operations) {
    let listener = loop {
        match listener.take() {
            Some(listener) => break listener,
            None => {
                sleep(LISTEN_PAUSE).await;
                listener = TcpListener::bind(address).ok();
            }
        }
    };
    if let Ok(address) = listener.local_addr() {
        info!(%address, "answering HTTP");
    }
    let ready = listener.set_nonblocking(true).and_then(|()| tokio::net::TcpListener::from_std(listener));
    answer(&address.to_string(), ready, operations).await;
}

async fn answer_at_file(path: PathBuf, listener: UnixListener, operations: Operations) {
    let ready = listener.set_nonblocking(true).and_then(|()| tokio::net::UnixListener::from_std(listener));
    answer(&path.display().to_string(), ready, operations).await;
}

/// Answers for ever, unless the listener cannot be used.
async fn answer<L: Listener>(place: &str, listener: io::Result<L>, operations: Operations)
where
    L::Addr: Debug,
{
    let outcome = match listener {
        Ok(listener) => serve(listener, operations, std::future::pending()).await,
        Err(error) => Err(error),
    };
    if let Err(error) = outcome {
        warn!(place, %error, "HTTP is answered no more");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_instance_left_is_replaced_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("http.sock");
        drop(listen_at(&path).unwrap());
        assert!(path.exists(), "nobody removed it");
        drop(listen_at(&path).unwrap());
        let file = folder.path().join("a-file");
        fs::write(&file, "of somebody").unwrap();
        let error = listen_at(&file).unwrap_err().to_string();
        assert!(error.contains("a-file") && error.contains("--http-socket"), "{error}");
        assert_eq!(fs::read_to_string(&file).unwrap(), "of somebody");
    }
}
