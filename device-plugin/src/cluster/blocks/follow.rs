//! Follows objects at the API server: a list, then what changes, and a list again when the thread is lost.

use std::fmt::Debug;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use kube::Api;
use kube::api::{ListParams, WatchEvent, WatchParams};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc::Sender;
use tokio::time::{sleep, timeout};
use tokio_stream::StreamExt as _;
use tracing::{debug, warn};
use zerobridge_proto::chain;

use crate::cluster::api::{ApiError, ApiServer};

/// How long the API server may keep a watch open; it must be below 295 s, after which the client gives up reading.
const WATCH_SECONDS: u32 = 240;
/// A watch that says nothing for longer than the API server keeps it is dead.
const DEAD: Duration = Duration::from_secs(270);
/// The pauses before a list that failed is tried again.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// What was heard.
#[derive(Debug)]
pub(super) enum News<K> {
    /// All objects, as they are.
    All(Vec<K>),
    /// One was made or changed.
    Changed(K),
    /// One was deleted.
    Deleted(K),
    /// The API server has no such kind.
    Undefined,
}

/// Tells `listener` of the objects that `fields` selects, until nobody listens.
pub(super) async fn follow<K>(server: Arc<ApiServer>, fields: String, listener: Sender<News<K>>)
where
    K: kube::Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let (mut pause, mut told) = (PAUSES.0, false);
    let kind = K::kind(&());
    while !listener.is_closed() {
        let parameters = ListParams::default().fields(&fields);
        let list = async |client| Api::<K>::all(client).list(&parameters).await;
        let missing = || format!("{kind}; are the definitions of manifests/crds/ applied?");
        match server.ask("list objects", missing, list).await {
            Ok(list) => {
                (pause, told) = (PAUSES.0, false);
                let version = list.metadata.resource_version.clone().unwrap_or_default();
                if listener.send(News::All(list.items)).await.is_err() {
                    return;
                }
                listen(&server, &fields, version, &listener).await;
            }
            Err(error) if told => debug!(%kind, error = chain(&error), "still cannot list"),
            Err(error) => {
                told = true;
                if matches!(error, ApiError::NotFound { .. }) && listener.send(News::Undefined).await.is_err()
                {
                    return;
                }
                warn!(%kind, error = chain(&error), "cannot list; going on with what is in the ledger");
            }
        }
        sleep(pause).await;
        pause = (pause * 2).min(PAUSES.1);
    }
}

/// Follows changes from `version` on, until the thread is lost.
async fn listen<K>(server: &ApiServer, fields: &str, mut version: String, listener: &Sender<News<K>>)
where
    K: kube::Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    loop {
        let parameters = WatchParams::default().fields(fields).timeout(WATCH_SECONDS);
        let from = version.clone();
        let watch = async |client| Api::<K>::all(client).watch(&parameters, &from).await.map(Box::pin);
        let Ok(stream) = server.ask("watch objects", || K::kind(&()).into_owned(), watch).await else {
            return;
        };
        let mut stream = pin!(stream);
        loop {
            let event = match timeout(DEAD, stream.next()).await {
                Ok(Some(Ok(event))) => event,
                Ok(None) => break,
                Ok(Some(Err(_))) | Err(_) => return,
            };
            let news = match event {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => News::Changed(object),
                WatchEvent::Deleted(object) => News::Deleted(object),
                WatchEvent::Bookmark(bookmark) => {
                    version = bookmark.metadata.resource_version;
                    continue;
                }
                // Gone: too long ago.
                WatchEvent::Error(_) => return,
            };
            if let News::Changed(object) | News::Deleted(object) = &news
                && let Some(seen) = &object.meta().resource_version
            {
                version.clone_from(seen);
            }
            if listener.send(news).await.is_err() {
                return;
            }
        }
    }
}
