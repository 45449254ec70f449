//! An API server for tests: speaks HTTP on a socket, keeps what it was asked, answers what it was told to.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{Method, StatusCode, Uri};
use axum::response::Response;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::{ApiAccess, ApiServer};

/// A request that was made.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) method: Method,
    pub(super) path: String,
    /// `null` if there was none.
    pub(super) body: Value,
}

/// The server. Without a prepared answer it echoes what it was sent, as an API server does that stored it.
pub(super) struct FakeApi {
    url: String,
    answers: Arc<Mutex<VecDeque<(u16, Value)>>>,
    requests: watch::Receiver<Vec<Request>>,
    folder: tempfile::TempDir,
    task: JoinHandle<()>,
}

impl FakeApi {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let answers = Arc::<Mutex<VecDeque<(u16, Value)>>>::default();
        let (seen, requests) = watch::channel(Vec::new());
        let prepared = Arc::clone(&answers);
        let handler = move |method: Method, uri: Uri, body: Bytes| async move {
            let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
            let (code, answer) = prepared.lock().unwrap().pop_front().unwrap_or_else(|| (201, body.clone()));
            seen.send_modify(|seen: &mut Vec<Request>| {
                seen.push(Request { method, path: uri.path().to_owned(), body });
            });
            let mut response = Response::new(Body::from(answer.to_string()));
            *response.status_mut() = StatusCode::from_u16(code).unwrap();
            response
        };
        let task =
            tokio::spawn(
                async move { axum::serve(listener, Router::new().fallback(handler)).await.unwrap() },
            );
        Self { url, answers, requests, folder: tempfile::tempdir().unwrap(), task }
    }

    /// Prepares the next answer.
    pub(super) fn answer(&self, code: u16, body: Value) {
        self.answers.lock().unwrap().push_back((code, body));
    }

    /// Prepares a refusal as the next answer.
    pub(super) fn refuse(&self, code: u16, message: &str) {
        let status = json!({
            "apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure", "code": code, "message": message
        });
        self.answer(code, status);
    }

    /// What was asked up to now.
    pub(super) fn requests(&self) -> Vec<Request> {
        self.requests.borrow().clone()
    }

    /// Waits until there were so many requests.
    pub(super) async fn asked(&self, count: usize) -> Vec<Request> {
        let mut requests = self.requests.clone();
        requests.wait_for(|requests| requests.len() >= count).await.unwrap().clone()
    }

    /// A kubeconfig that leads here.
    pub(super) fn kubeconfig(&self) -> String {
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": self.url}}],
            "users": [{"name": "u", "user": {}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}]
        })
        .to_string()
    }

    /// A client of it.
    pub(super) fn server(&self) -> ApiServer {
        let path = self.folder.path().join("kubeconfig");
        std::fs::write(&path, self.kubeconfig()).unwrap();
        ApiServer::new(ApiAccess::Kubeconfig(path))
    }

    /// Takes it away: from now on, connections are refused. Gives back the folder of its kubeconfig.
    pub(super) async fn stop(self) -> tempfile::TempDir {
        self.task.abort();
        let _ = self.task.await;
        self.folder
    }
}
