//! The HTTP face of the daemon: `/metrics`, `/healthz`, `/readyz` and `/devices`. It only reads.

use std::fmt::Write as _;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::Listener;
use tokio::task;

use super::heartbeat::Heartbeat;
use super::metrics::Metrics;
use super::snapshot::Snapshot;
use crate::kubelet::{Registrations, Standing};

/// The content type of OpenMetrics 1.0 (section "Overall Structure" of the specification).
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

/// Reads something for one answer. Called outside of the async workers: it may ask the kernel.
type Read<T> = Arc<dyn Fn() -> T + Send + Sync>;

/// What there is to be seen. Clones show the same.
#[derive(Clone)]
pub(crate) struct Operations {
    metrics: Metrics,
    registrations: Registrations,
    heartbeat: Heartbeat,
    snapshot: Read<Snapshot>,
    devices: Read<serde_json::Value>,
}

impl Operations {
    /// `snapshot` is taken at every scrape, and `devices` is the document at `/devices`.
    pub(crate) fn new(
        metrics: Metrics,
        registrations: Registrations,
        heartbeat: Heartbeat,
        snapshot: impl Fn() -> Snapshot + Send + Sync + 'static,
        devices: impl Fn() -> serde_json::Value + Send + Sync + 'static,
    ) -> Self {
        let (snapshot, devices) = (Arc::new(snapshot), Arc::new(devices));
        Self { metrics, registrations, heartbeat, snapshot, devices }
    }

    fn scrape(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        self.metrics.write(&mut text)?;
        (self.snapshot)().write(self.registrations.all(), &mut text)?;
        text.write_str("# EOF\n")?;
        Ok(text)
    }

    /// One line for each pool that the kubelet does not know.
    fn unregistered(&self) -> Option<String> {
        let mut lines = String::new();
        for (pool, standing) in self.registrations.all() {
            if let Standing::Unregistered { why } = standing {
                // Writing to a text does not fail.
                let _ = writeln!(lines, "{pool} is not registered: {why}");
            }
        }
        (!lines.is_empty()).then_some(lines)
    }
}

/// Answers on `listener` until `stop` resolves; what is being answered then is finished.
///
/// # Errors
///
/// The listener cannot be used. One connection that fails is no error.
pub(crate) async fn serve<L: Listener>(
    listener: L,
    operations: Operations,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()>
where
    L::Addr: std::fmt::Debug,
{
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/devices", get(devices))
        .with_state(operations);
    axum::serve(listener, router).with_graceful_shutdown(stop).await
}

async fn metrics(State(operations): State<Operations>) -> Response {
    match task::spawn_blocking(move || operations.scrape()).await {
        Ok(Ok(text)) => answer(StatusCode::OK, OPEN_METRICS, text),
        Ok(Err(error)) => answer(StatusCode::INTERNAL_SERVER_ERROR, TEXT, format!("{error}\n")),
        Err(error) => answer(StatusCode::INTERNAL_SERVER_ERROR, TEXT, format!("{error}\n")),
    }
}

/// Whether a restart would help.
async fn healthz(State(operations): State<Operations>) -> Response {
    match operations.heartbeat.check(Instant::now()) {
        Ok(()) => answer(StatusCode::OK, TEXT, "ok\n".to_owned()),
        Err(stalled) => answer(StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("{stalled}\n")),
    }
}

/// Whether the kubelet knows every pool.
async fn readyz(State(operations): State<Operations>) -> Response {
    match operations.unregistered() {
        None => answer(StatusCode::OK, TEXT, "ok\n".to_owned()),
        Some(lines) => answer(StatusCode::SERVICE_UNAVAILABLE, TEXT, lines),
    }
}

async fn devices(State(operations): State<Operations>) -> Response {
    match task::spawn_blocking(move || (operations.devices)().to_string()).await {
        Ok(document) => answer(StatusCode::OK, JSON, document),
        Err(error) => answer(StatusCode::INTERNAL_SERVER_ERROR, TEXT, format!("{error}\n")),
    }
}

fn answer(status: StatusCode, kind: &'static str, body: String) -> Response {
    (status, [(header::CONTENT_TYPE, kind)], body).into_response()
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Duration;

    use serde_json::json;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;
    use tokio::sync::oneshot;
    use tokio::time::timeout;

    use super::*;
    use crate::operations::DeviceCount;
    use crate::resource::ResourceName;

    struct Server {
        address: SocketAddr,
        registrations: Registrations,
        stop: oneshot::Sender<()>,
        task: task::JoinHandle<io::Result<()>>,
    }

    fn server(begin: Instant) -> Server {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        listener.set_nonblocking(true).unwrap();
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        let registrations = Registrations::default();
        let snapshot = || Snapshot {
            devices: vec![DeviceCount { pool: "a/b".to_owned(), healthy_free: 3, ..DeviceCount::default() }],
            ..Snapshot::default()
        };
        let operations = Operations::new(
            Metrics::new(),
            registrations.clone(),
            Heartbeat::new(Duration::from_secs(5), begin),
            snapshot,
            || json!({"devices": []}),
        );
        let (stop, stopped) = oneshot::channel::<()>();
        let stopped = async {
            let _ = stopped.await;
        };
        let task = tokio::spawn(serve(listener, operations, stopped));
        Server { address, registrations, stop, task }
    }

    impl Server {
        /// The status line, the headers and the body.
        async fn ask(&self, method: &str, path: &str) -> (String, String, String) {
            let mut stream = TcpStream::connect(self.address).await.unwrap();
            let request = format!("{method} {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            let reading = timeout(Duration::from_secs(60), stream.read_to_string(&mut answer));
            reading.await.unwrap().unwrap();
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            let (status, headers) = head.split_once("\r\n").unwrap();
            (status.to_owned(), headers.to_lowercase(), body.to_owned())
        }

        async fn get(&self, path: &str) -> (String, String, String) {
            self.ask("GET", path).await
        }
    }

    #[tokio::test]
    async fn metrics_are_open_metrics_with_one_end() {
        let server = server(Instant::now());
        let seat = server.registrations.enter(&ResourceName::new("zerobridge.io", "vf").unwrap());
        let (status, headers, body) = server.get("/metrics").await;
        assert_eq!(status, "HTTP/1.1 200 OK");
        assert!(headers.contains(&format!("content-type: {OPEN_METRICS}")), "{headers}");
        for line in [
            r#"zerobridge_devices{pool="a/b",state="healthy",use="free"} 3"#,
            r#"zerobridge_registered{pool="zerobridge.io/vf"} 0"#,
            "zerobridge_allocate_seconds_count 0",
        ] {
            assert!(body.lines().any(|own| own == line), "{line} is not in:\n{body}");
        }
        assert!(body.ends_with("# EOF\n") && body.matches("# EOF").count() == 1);
        drop(seat);
    }

    #[tokio::test]
    async fn it_is_ready_when_every_pool_is_registered_and_names_those_that_are_not() {
        let server = server(Instant::now());
        let name = |name: &str| ResourceName::new("zerobridge.io", name).unwrap();
        let (a, b) = (server.registrations.enter(&name("a")), server.registrations.enter(&name("b")));
        a.set(Standing::Registered);
        b.set(Standing::Unregistered { why: "the kubelet refused: not now".to_owned() });
        let (status, _, body) = server.get("/readyz").await;
        assert_eq!(status, "HTTP/1.1 503 Service Unavailable");
        assert_eq!(body, "zerobridge.io/b is not registered: the kubelet refused: not now\n");

        b.set(Standing::Registered);
        let (status, _, body) = server.get("/readyz").await;
        assert_eq!((status.as_str(), body.as_str()), ("HTTP/1.1 200 OK", "ok\n"));
        a.set(Standing::Unregistered { why: "the kubelet's socket is not there".to_owned() });
        assert!(server.get("/readyz").await.0.contains("503"), "ready is no state for ever");
    }

    #[tokio::test]
    async fn it_is_healthy_while_the_machine_is_looked_at() {
        let now = Instant::now();
        let (status, _, body) = server(now).get("/healthz").await;
        assert_eq!((status.as_str(), body.as_str()), ("HTTP/1.1 200 OK", "ok\n"));
        let long_ago = now.checked_sub(Duration::from_secs(100)).unwrap();
        let (status, _, body) = server(long_ago).get("/healthz").await;
        assert_eq!(status, "HTTP/1.1 503 Service Unavailable");
        assert!(body.starts_with("the devices were last looked at 10"), "{body}");
    }

    #[tokio::test]
    async fn devices_are_json_and_other_paths_and_methods_are_refused() {
        let server = server(Instant::now());
        let (status, headers, body) = server.get("/devices").await;
        assert_eq!(status, "HTTP/1.1 200 OK");
        assert!(headers.contains("content-type: application/json"), "{headers}");
        assert_eq!(body, r#"{"devices":[]}"#);
        assert_eq!(server.get("/").await.0, "HTTP/1.1 404 Not Found");
        assert_eq!(server.ask("POST", "/devices").await.0, "HTTP/1.1 405 Method Not Allowed");
        assert_eq!(server.ask("HEAD", "/healthz").await.2, "");
    }

    #[tokio::test]
    async fn it_stops_when_asked() {
        let server = server(Instant::now());
        server.get("/healthz").await;
        server.stop.send(()).unwrap();
        timeout(Duration::from_secs(60), server.task).await.unwrap().unwrap().unwrap();
        assert!(TcpStream::connect(server.address).await.is_err());
    }
}
