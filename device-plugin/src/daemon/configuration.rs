//! The configuration in force: what the file says to this node, kept current while the daemon runs.
//!
//! A changed file that is faulty leaves the earlier configuration in force, and says so wherever somebody may look.
//! Refuses to know what the pools are good for.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use thiserror::Error;
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{info, warn};
use zerobridge_proto::chain;

use crate::cdi::{NodeMethod, node_method};
use crate::cluster::{ApiAccess, ApiServer, Event, EventSink, NodeFacts, Subject};
use crate::config::{Config, ConfigError, ConfigFile, ConfigWatch, NodeIdentity};
use crate::operations::{ConfigInfo, Metrics, Outcome};

/// How often the node is asked for at the API server: labels hardly change, and nobody waits for it.
const NODE_PERIOD: Duration = Duration::from_secs(300);

/// How often while it has not answered yet.
const NODE_RETRY: Duration = Duration::from_secs(5);

/// Why there is no configuration to begin with.
#[derive(Debug, Error)]
pub enum ConfigurationError {
    /// The file.
    #[error("the configuration {} cannot be used", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: ConfigError,
    },
    /// The file cannot be watched.
    #[error("cannot watch the configuration {}", path.display())]
    Watch {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// The node, as far as the API server has to say.
#[derive(Clone, Debug)]
pub(super) struct Node {
    /// Its name; without one, nobody can be asked about it.
    pub(super) name: Option<String>,
    /// Who is asked.
    pub(super) server: Arc<ApiServer>,
    /// Whether asking again is in vain.
    pub(super) refused: bool,
}

impl Node {
    fn can_be_asked(&self) -> bool {
        self.name.is_some() && *self.server.access() != ApiAccess::None
    }
}

/// Keeps the configuration in force.
#[derive(Debug)]
pub(super) struct Configuration {
    path: PathBuf,
    resource_prefix: Option<String>,
    node: Node,
    facts: Option<NodeFacts>,
    file: ConfigFile,
    loaded: ConfigWatch,
    configs: watch::Sender<Arc<Config>>,
    methods: watch::Sender<NodeMethod>,
    metrics: Metrics,
    cluster: EventSink,
}

impl Configuration {
    /// Reads the file, and asks the API server about the node if the file wants to know.
    ///
    /// # Errors
    /// [`ConfigurationError`].
    pub(super) async fn open(
        path: &Path,
        resource_prefix: Option<String>,
        node: Node,
        metrics: Metrics,
        cluster: EventSink,
    ) -> Result<Self, ConfigurationError> {
        let file_error = |source| ConfigurationError::File { path: path.to_owned(), source };
        let read = |source| ConfigError::Read { path: path.to_owned(), source };
        let text = fs::read_to_string(path).map_err(read).map_err(file_error)?;
        let file = ConfigFile::parse(&text, resource_prefix.as_deref()).map_err(file_error)?;
        let loaded = ConfigWatch::new(path, text)
            .map_err(|source| ConfigurationError::Watch { path: path.to_owned(), source })?;
        let mut configuration = Self {
            path: path.to_owned(),
            resource_prefix,
            node,
            facts: None,
            file,
            loaded,
            configs: watch::Sender::default(),
            methods: watch::Sender::new(NodeMethod::Plain),
            metrics,
            cluster,
        };
        configuration.tell_notices();
        configuration.learn_about_node().await;
        configuration.metrics.config_loaded(SystemTime::now());
        configuration.put_in_force();
        Ok(configuration)
    }

    /// The configuration in force.
    pub(super) fn configs(&self) -> watch::Receiver<Arc<Config>> {
        self.configs.subscribe()
    }

    /// How device nodes reach containers.
    pub(super) fn methods(&self) -> watch::Receiver<NodeMethod> {
        self.methods.subscribe()
    }

    /// Follows the file, and the node. Never returns.
    pub(super) async fn run(mut self) {
        loop {
            let pause = if self.facts.is_some() { NODE_PERIOD } else { NODE_RETRY };
            tokio::select! {
                content = self.loaded.changed() => {
                    match content.and_then(|text| ConfigFile::parse(&text, self.resource_prefix.as_deref())) {
                        Ok(file) => self.accept(file),
                        Err(error) => self.reject(&error),
                    }
                }
                () = sleep(pause), if self.node.can_be_asked() => {
                    if self.ask_about_node().await {
                        self.put_in_force();
                    }
                }
            }
        }
    }

    fn accept(&mut self, file: ConfigFile) {
        self.file = file;
        self.metrics.config_reloaded(Outcome::Success);
        self.metrics.config_loaded(SystemTime::now());
        self.tell_notices();
        self.put_in_force();
        let pools = self.configs.borrow().pools.len();
        info!(file = %self.path.display(), pools, "the changed configuration is in force");
        self.cluster.send(Subject::Node, Event::ConfigurationReloaded { pools });
    }

    fn reject(&self, error: &ConfigError) {
        let problem = chain(error);
        warn!(file = %self.path.display(), error = problem, "the changed configuration is refused, the earlier one stays");
        self.metrics.config_reloaded(Outcome::Failure);
        self.cluster.send(Subject::Node, Event::ConfigurationRejected { problem });
    }

    fn tell_notices(&self) {
        for notice in &self.file.notices {
            info!(file = %self.path.display(), place = notice.place, effect = notice.effect, "read otherwise than its author may expect");
        }
    }

    /// What the file says to this node, published if it differs.
    fn put_in_force(&self) {
        let chosen = self.file.for_node(&self.identity());
        for section in &chosen.undecided {
            warn!(section, "passed over: it asks for labels of the node, which nobody could read");
        }
        let section = chosen.section;
        let facts = self.facts.as_ref();
        let kubelet = facts.map(|facts| facts.kubelet_version.as_str());
        let runtime = facts.map(|facts| facts.container_runtime.as_str());
        let method = node_method(chosen.config.cdi, kubelet, runtime);
        self.methods.send_if_modified(|present| std::mem::replace(present, method) != method);
        self.configs.send_if_modified(|present| {
            let news = **present != chosen.config;
            if news {
                let pools = chosen.config.pools.len();
                info!(section, pools, format = self.file.format.name(), ?method, "configured");
                *present = Arc::new(chosen.config);
            }
            news
        });
        let info = ConfigInfo {
            path: self.path.display().to_string(),
            format: self.file.format.name().to_owned(),
            section,
        };
        self.metrics.config_in_force(&info);
    }

    fn identity(&self) -> NodeIdentity {
        let labels = self.facts.as_ref().map(|facts| facts.labels.clone());
        NodeIdentity { name: self.node.name.clone().unwrap_or_default(), labels }
    }

    /// Before the first pool is offered: pools of another node's section would be worse than none for a while, so the API
    /// server is waited for if the file asks for labels, unless it refuses.
    async fn learn_about_node(&mut self) {
        if !self.node.can_be_asked() {
            return;
        }
        loop {
            let asked = self.ask_about_node().await;
            let undecided = !self.file.for_node(&self.identity()).undecided.is_empty();
            if asked || !undecided || self.node.refused {
                return;
            }
            info!("waiting for the API server: the configuration asks for labels of the node");
            sleep(NODE_RETRY).await;
        }
    }

    async fn ask_about_node(&mut self) -> bool {
        let Some(name) = &self.node.name else { return false };
        match self.node.server.node(name).await {
            Ok(facts) => self.facts = Some(facts),
            Err(error) => {
                if self.facts.is_none() {
                    info!(node = name, error = chain(&error), "the API server does not describe this node");
                }
                self.node.refused = !error.is_transient();
                return false;
            }
        }
        true
    }
}
