//! The API server's way to the nodes: each is alone on its management network, so that the host reaches one by a port of its
//! own, and the API server by asking here for the node's address.
//!
//! A proxy of the least kind: HTTP CONNECT on a Unix socket, to known targets. Refuses to know what passes through.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpStream, UnixListener, UnixStream};

/// Longer than any request of an API server, which is two lines.
const LONGEST: usize = 4096;
const ACCEPTED: &[u8] = b"HTTP/1.1 200 OK\r\n\r\n";
const REFUSED: &[u8] = b"HTTP/1.1 502 Bad Gateway\r\n\r\n";

/// What the API server asks for (`ADDRESS:PORT`), and the port of the host's loopback that leads there.
pub(super) type Targets = BTreeMap<String, u16>;

/// Serves until the runtime ends that this is called in.
pub(super) fn serve(socket: &Path, targets: Targets) -> io::Result<()> {
    let listener = UnixListener::bind(socket)?;
    let targets = Arc::new(targets);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // Whoever asked sees its connection end; there is nobody else to tell.
            tokio::spawn(pass(stream, Arc::clone(&targets)));
        }
    });
    Ok(())
}

async fn pass(mut client: UnixStream, targets: Arc<Targets>) -> io::Result<()> {
    let request = read_head(&mut client).await?;
    let port = target_of(&request).and_then(|target| targets.get(target));
    let Some(port) = port else { return client.write_all(REFUSED).await };
    let Ok(mut node) = TcpStream::connect(("127.0.0.1", *port)).await else {
        return client.write_all(REFUSED).await;
    };
    client.write_all(ACCEPTED).await?;
    copy_bidirectional(&mut client, &mut node).await.map(drop)
}

/// Byte by byte, so that nothing is taken that belongs to the node.
async fn read_head(client: &mut UnixStream) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() == LONGEST {
            return Err(io::ErrorKind::InvalidData.into());
        }
        head.push(client.read_u8().await?);
    }
    String::from_utf8(head).map_err(io::Error::other)
}

/// The target of a CONNECT request (RFC 9110, section 9.3.6).
fn target_of(request: &str) -> Option<&str> {
    let mut words = request.lines().next()?.split(' ');
    (words.next() == Some("CONNECT")).then(|| words.next()).flatten()
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    async fn ask(socket: &Path, request: &str) -> (UnixStream, String) {
        let mut stream = UnixStream::connect(socket).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let head = read_head(&mut stream).await.unwrap();
        (stream, head)
    }

    #[tokio::test]
    async fn a_known_node_is_reached_and_nobody_else() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("socket");
        let node = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = node.local_addr().unwrap().port();
        serve(&socket, Targets::from([("10.0.2.11:10250".to_owned(), port)])).unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = node.accept().await.unwrap();
            let mut word = [0; 4];
            stream.read_exact(&mut word).await.unwrap();
            stream.write_all(&word).await.unwrap();
        });
        let (mut stream, head) =
            ask(&socket, "CONNECT 10.0.2.11:10250 HTTP/1.1\r\nHost: h\r\n\r\necho").await;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"echo");
        for foreign in ["CONNECT 10.0.2.12:10250 HTTP/1.1\r\n\r\n", "GET 10.0.2.11:10250 HTTP/1.1\r\n\r\n"] {
            let (_, head) = ask(&socket, foreign).await;
            assert!(head.starts_with("HTTP/1.1 502"), "{head}");
        }
    }
}
