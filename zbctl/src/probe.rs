//! Asks one instance of the daemon, at its socket file, whether it is ready or healthy: what the kubelet runs in the
//! daemon's container, since an address of the node is answered by another instance during an update.

use std::io::{self, Read as _, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

use crate::cli::{ProbeArguments, ProbeKind};
use crate::{Failure, Finding};

/// The kubelet's own limit for a probe is a second, unless the pod says otherwise.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why the daemon could not be asked.
#[derive(Debug, Error)]
pub(crate) enum ProbeError {
    /// There is nobody, or nobody answers.
    #[error("the daemon does not answer at {}; it does with --http-socket {}", path.display(), path.display())]
    Silent {
        /// The socket file.
        path: PathBuf,
        /// What the kernel says.
        #[source]
        source: io::Error,
    },
    /// Somebody else than the daemon answers.
    #[error("what answers at {} is not the daemon: {answer:?}", path.display())]
    Foreign {
        /// The socket file.
        path: PathBuf,
        /// Its first line.
        answer: String,
    },
}

/// Writes why not, if it is not.
pub(crate) fn run(arguments: &ProbeArguments, out: &mut impl Write) -> Result<Finding, Failure> {
    let resource = match arguments.kind {
        ProbeKind::Ready => "/readyz",
        ProbeKind::Healthy => "/healthz",
    };
    let answer = ask(arguments, resource)
        .map_err(|source| ProbeError::Silent { path: arguments.socket.clone(), source })?;
    match verdict(&answer) {
        Some((200, _)) => Ok(Finding::Fine),
        Some((_, reason)) => {
            write!(out, "{reason}")?;
            Ok(Finding::Problem)
        }
        None => {
            let answer = answer.lines().next().unwrap_or_default().to_owned();
            Err(ProbeError::Foreign { path: arguments.socket.clone(), answer }.into())
        }
    }
}

fn ask(arguments: &ProbeArguments, resource: &str) -> io::Result<String> {
    let mut stream = UnixStream::connect(&arguments.socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    // In one piece: who reads once has read it all.
    let request = format!("GET {resource} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Status and body of an answer of HTTP/1.1 (RFC 9112, section 4).
fn verdict(answer: &str) -> Option<(u16, &str)> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.1 ")?.get(..3)?;
    Some((status.parse().ok()?, body))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::path::Path;
    use std::thread;

    use super::*;

    fn probe(socket: &Path, answer: &'static str) -> (Result<Finding, Failure>, String, String) {
        let listener = UnixListener::bind(socket).unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            let length = stream.read(&mut request).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
            String::from_utf8_lossy(&request[..length]).into_owned()
        });
        let mut out = Vec::new();
        let arguments = ProbeArguments { kind: ProbeKind::Ready, socket: socket.to_owned() };
        let outcome = run(&arguments, &mut out);
        (outcome, String::from_utf8(out).unwrap(), server.join().unwrap())
    }

    #[test]
    fn the_status_is_the_finding_and_the_body_the_reason() {
        let folder = tempfile::tempdir().unwrap();
        let (outcome, out, request) =
            probe(&folder.path().join("a"), "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nok\n");
        assert!(matches!(outcome, Ok(Finding::Fine)) && out.is_empty());
        assert!(request.starts_with("GET /readyz HTTP/1.1\r\n"), "{request}");
        let (outcome, out, _) = probe(
            &folder.path().join("b"),
            "HTTP/1.1 503 Service Unavailable\r\n\r\na/b is not registered\n",
        );
        assert!(matches!(outcome, Ok(Finding::Problem)));
        assert_eq!(out, "a/b is not registered\n");
    }

    #[test]
    fn nobody_and_somebody_else_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("nobody");
        let arguments = ProbeArguments { kind: ProbeKind::Healthy, socket };
        let error = run(&arguments, &mut Vec::new()).unwrap_err().to_string();
        assert!(error.contains("does not answer at") && error.contains("nobody"), "{error}");
        let (outcome, ..) = probe(&folder.path().join("other"), "220 mail.example.com\r\n");
        let error = outcome.unwrap_err().to_string();
        assert!(error.contains("not the daemon: \"220 mail.example.com\""), "{error}");
    }
}
