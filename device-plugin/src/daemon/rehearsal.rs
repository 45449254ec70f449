//! What the daemon would do, without doing it: the configuration it would have, and the pools it would offer.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::Instant;

use super::configuration::{Configuration, Node};
use super::report::Report;
use super::{DaemonError, Settings};
use crate::cluster::{ApiServer, EventSink};
use crate::config::Config;
use crate::health::DirtyVfs;
use crate::inventory::Inventory;
use crate::observer::{Needs, Observer};
use crate::operations::Metrics;
use crate::pod_resources::PodResourcesClient;

/// The configuration that would be in force on this node.
///
/// # Errors
/// [`DaemonError::Configuration`].
pub async fn node_config(settings: &Settings) -> Result<Config, DaemonError> {
    let configuration = configuration(settings).await?;
    let config = Config::clone(&configuration.configs().borrow());
    Ok(config)
}

async fn configuration(settings: &Settings) -> Result<Configuration, DaemonError> {
    let server = Arc::new(ApiServer::new(settings.api.clone()));
    let node = Node { name: settings.node_name.clone(), server, refused: false };
    let prefix = settings.resource_prefix.clone();
    let opened = Configuration::open(&settings.config, prefix, node, Metrics::new(), EventSink::none());
    Ok(opened.await?)
}

/// The document that would be at `/devices` after the first look.
///
/// # Errors
/// [`DaemonError::Configuration`], [`DaemonError::Observe`].
pub async fn dry_run(settings: &Settings) -> Result<serde_json::Value, DaemonError> {
    let configuration = configuration(settings).await?;
    let Config { pools, legs, .. } = Config::clone(&configuration.configs().borrow());
    let method = *configuration.methods().borrow();
    let held = PodResourcesClient::new(settings.kubelet_root.clone()).ask().await.map(Arc::new);
    let around = Observer::open(&settings.roots)?.look(Needs::of(&pools), true)?.with_legs(&legs);
    let mut inventory = Inventory::default();
    inventory.configure(pools);
    inventory.update(&around, held.as_deref(), &DirtyVfs::new(), Instant::now());
    let looks = watch::Sender::new(Arc::new(inventory.look(around, method)));
    let (held, legs) = (watch::Sender::new(held), watch::Sender::default());
    Ok(Report::new(looks.subscribe(), held.subscribe(), legs.subscribe(), false).devices())
}
