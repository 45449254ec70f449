//! The processes.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ListParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::Request;
use kube::{Api, Client, Config, CustomResourceExt as _};
use serde_json::{Value, json};
use thiserror::Error;
use zerobridge_blocks::{IPBlock, IPClaim, IPPool, IPPoolSpec};
use zerobridge_lab::{
    Cache, CacheError, HOST_ADDRESS, Place, PlaceError, PrepareError, Progress, control_plane,
};

use crate::process::{Process, ProcessError, end_of_log, free_port};

/// What the names of the folders begin with.
pub(crate) const PREFIX: &str = "zerobridge-cluster-";
/// What those of the token file know who may do anything.
const TOKEN: &str = "zerobridge-test";
/// What the daemons know, whose user is the service account of `manifests/base/rbac.yaml`.
const DAEMON_TOKEN: &str = "zerobridge-daemon";
const DAEMON: &str = "system:serviceaccount:kube-system:zerobridge";
/// What that account may do.
const RBAC: &str = include_str!("../../../manifests/base/rbac.yaml");
/// The API server takes some seconds with a processor of its own.
const PATIENCE: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(100);

/// Why there is no control plane.
#[derive(Debug, Error)]
pub enum ControlPlaneError {
    /// No cache.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// The programs could not be built.
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    /// There is no folder for its files.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// A program does not run.
    #[error("a program of the control plane")]
    Process(#[from] ProcessError),
    /// A file.
    #[error("cannot {action}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The API server does not answer.
    #[error("the API server did not answer within {} s; its log:\n{log}", PATIENCE.as_secs())]
    Silent {
        /// The end of its log.
        log: String,
    },
    /// The API server refused something.
    #[error("the API server refused a request")]
    Refused(#[source] Box<kube::Error>),
    /// `manifests/base/rbac.yaml` cannot be read.
    #[error("manifests/base/rbac.yaml: {reason}")]
    Rbac {
        /// Why.
        reason: String,
    },
    /// The kubeconfig that was just written is of no use.
    #[error("the kubeconfig cannot be used")]
    Kubeconfig(#[source] Box<kube::config::KubeconfigError>),
}

/// What an API server must know that serves nodes.
#[derive(Clone, Debug)]
pub(crate) struct ForNodes {
    /// Lines of the token file: token, user, number, groups.
    pub(crate) tokens: String,
    /// How it reaches the nodes: the path of an `EgressSelectorConfiguration`.
    pub(crate) egress: PathBuf,
}

/// A running control plane; ends when it is dropped.
#[derive(Debug)]
pub struct ControlPlane {
    programs: PathBuf,
    // Fields drop in this order: whoever uses a thing before it.
    api_server: Option<Process>,
    _etcd: Process,
    etcd_port: u16,
    port: u16,
    for_nodes: Option<ForNodes>,
    folder: Place,
}

impl ControlPlane {
    /// Starts etcd and an API server that knows the definitions of Zerobridge.
    ///
    /// # Errors
    /// [`ControlPlaneError`].
    pub async fn start() -> Result<Self, ControlPlaneError> {
        let new = Self::start_in(Place::make(PREFIX)?, None).await?;
        new.define().await?;
        Ok(new)
    }

    /// Starts etcd and an API server that knows nothing of Zerobridge and serves nodes: they are authorized as nodes are,
    /// pods get the tokens of their accounts, and its certificate holds for whatever name nodes and pods call it by.
    ///
    /// # Errors
    /// [`ControlPlaneError`].
    pub(crate) async fn start_for_nodes(
        folder: Place,
        for_nodes: ForNodes,
    ) -> Result<Self, ControlPlaneError> {
        Self::start_in(folder, Some(for_nodes)).await
    }

    async fn start_in(folder: Place, for_nodes: Option<ForNodes>) -> Result<Self, ControlPlaneError> {
        let programs = control_plane(&Cache::from_environment()?, &Progress::to(io::stderr()))?;
        let (etcd_port, peer_port, port) = (free_port()?, free_port()?, free_port()?);
        let [client, peer] = [etcd_port, peer_port].map(|port| format!("http://127.0.0.1:{port}"));
        let data = folder.path().join("etcd");
        let arguments = [
            ("--data-dir", data.display().to_string()),
            ("--listen-client-urls", client.clone()),
            ("--advertise-client-urls", client),
            ("--listen-peer-urls", peer.clone()),
            ("--initial-advertise-peer-urls", peer.clone()),
            ("--initial-cluster", format!("default={peer}")),
            ("--log-level", "warn".to_owned()),
        ];
        let etcd = Process::start(&programs.join("etcd"), folder.path(), &arguments, &["--unsafe-no-fsync"])?;
        let mut tokens = format!("{TOKEN},test,test,system:masters\n{DAEMON_TOKEN},{DAEMON},daemon\n");
        tokens.extend(for_nodes.iter().map(|nodes| nodes.tokens.as_str()));
        fs::write(folder.path().join("tokens"), tokens).map_err(io_error("write the token file"))?;
        let mut new = Self { programs, api_server: None, _etcd: etcd, etcd_port, port, for_nodes, folder };
        new.start_api_server().await?;
        Ok(new)
    }

    /// Starts the API server again, at the same address.
    ///
    /// # Errors
    /// [`ControlPlaneError`].
    pub async fn start_api_server(&mut self) -> Result<(), ControlPlaneError> {
        let program = self.programs.join("kube-apiserver");
        self.api_server = Some(Process::start(&program, self.folder.path(), &self.arguments(), &[])?);
        let started = Instant::now();
        loop {
            if self.is_ready().await {
                return Ok(());
            }
            if started.elapsed() > PATIENCE {
                return Err(ControlPlaneError::Silent { log: self.log("kube-apiserver") });
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn arguments(&self) -> Vec<(&'static str, String)> {
        let key = self.signing_key().display().to_string();
        let mut arguments = vec![
            ("--etcd-servers", format!("http://127.0.0.1:{}", self.etcd_port)),
            ("--bind-address", "127.0.0.1".to_owned()),
            ("--secure-port", self.port.to_string()),
            ("--cert-dir", self.certificates().display().to_string()),
            ("--token-auth-file", self.folder.path().join("tokens").display().to_string()),
            ("--service-account-issuer", "https://zerobridge.test".to_owned()),
            ("--service-account-key-file", key.clone()),
            ("--service-account-signing-key-file", key),
            ("--service-cluster-ip-range", "10.96.0.0/24".to_owned()),
        ];
        match &self.for_nodes {
            None => arguments.extend([
                ("--authorization-mode", "RBAC".to_owned()),
                ("--endpoint-reconciler-type", "none".to_owned()),
                ("--disable-admission-plugins", "ServiceAccount".to_owned()),
            ]),
            Some(nodes) => arguments.extend([
                ("--authorization-mode", "Node,RBAC".to_owned()),
                ("--enable-admission-plugins", "NodeRestriction".to_owned()),
                ("--allow-privileged", "true".to_owned()),
                // Beside that of the Service and that of --bind-address this is a name in the certificate that it makes
                // for itself, and it is where the Service leads.
                ("--advertise-address", HOST_ADDRESS.to_string()),
                ("--kubelet-preferred-address-types", "InternalIP".to_owned()),
                ("--egress-selector-config-file", nodes.egress.display().to_string()),
            ]),
        }
        arguments
    }

    /// Ends the API server; etcd stays.
    pub fn stop_api_server(&mut self) {
        self.api_server.take();
    }

    /// The folder of everything that it writes.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Its port on the host's loopback.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    fn certificates(&self) -> PathBuf {
        self.folder.path().join("certificates")
    }

    /// The certificate that it has made for itself, and that of the authority that it has made for that.
    pub(crate) fn authority(&self) -> PathBuf {
        self.certificates().join("apiserver.crt")
    }

    /// The key with which tokens of service accounts are signed: that of its certificate, which it makes at the first start.
    pub(crate) fn signing_key(&self) -> PathBuf {
        self.certificates().join("apiserver.key")
    }

    /// How a client reaches it, as a file.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn kubeconfig(&self) -> Result<PathBuf, ControlPlaneError> {
        self.kubeconfig_with("kubeconfig", TOKEN)
    }

    /// As [`kubeconfig`](Self::kubeconfig), for one who may do what `manifests/base/rbac.yaml` says and nothing else.
    ///
    /// # Errors
    /// As [`kubeconfig`](Self::kubeconfig).
    pub fn daemon_kubeconfig(&self) -> Result<PathBuf, ControlPlaneError> {
        self.kubeconfig_with("daemon-kubeconfig", DAEMON_TOKEN)
    }

    /// As [`kubeconfig`](Self::kubeconfig), for whoever has this token.
    pub(crate) fn kubeconfig_with(&self, name: &str, token: &str) -> Result<PathBuf, ControlPlaneError> {
        let path = self.folder.path().join(name);
        let text = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": {
                "server": format!("https://127.0.0.1:{}", self.port), "certificate-authority": self.authority(),
            }}],
            "users": [{"name": "u", "user": {"token": token}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}]
        });
        fs::write(&path, text.to_string()).map_err(io_error("write the kubeconfig"))?;
        Ok(path)
    }

    /// A client with all rights.
    ///
    /// # Errors
    /// [`ControlPlaneError::Kubeconfig`].
    pub async fn client(&self) -> Result<Client, ControlPlaneError> {
        let faulty = |error| ControlPlaneError::Kubeconfig(Box::new(error));
        let file = Kubeconfig::read_from(self.kubeconfig()?).map_err(faulty)?;
        let mut config =
            Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.map_err(faulty)?;
        config.default_retry = false;
        Client::try_from(config).map_err(refused)
    }

    /// Makes an IPPool.
    ///
    /// # Errors
    /// [`ControlPlaneError::Refused`].
    pub async fn make_pool(&self, name: &str, spec: IPPoolSpec) -> Result<(), ControlPlaneError> {
        let pools = Api::<IPPool>::all(self.client().await?);
        pools.create(&PostParams::default(), &IPPool::new(name, spec)).await.map(drop).map_err(refused)
    }

    /// The IPBlocks of a pool.
    ///
    /// # Errors
    /// [`ControlPlaneError::Refused`].
    pub async fn blocks(&self, pool: &str) -> Result<Vec<IPBlock>, ControlPlaneError> {
        let parameters = ListParams::default().fields(&format!("spec.pool={pool}"));
        let list = Api::<IPBlock>::all(self.client().await?).list(&parameters).await.map_err(refused)?;
        Ok(list.items)
    }

    /// How many requests for objects of Zerobridge the API server has answered, as it counts them, by verb. A watch is
    /// counted when it ends.
    ///
    /// # Errors
    /// [`ControlPlaneError::Refused`].
    pub async fn requests(&self) -> Result<Vec<(String, u64)>, ControlPlaneError> {
        let request = Request::new("/metrics").list(&ListParams::default());
        let request = request.map_err(|error| refused(kube::Error::BuildRequest(error)))?;
        let text = self.client().await?.request_text(request).await.map_err(refused)?;
        let lines = text.lines().filter(|line| {
            line.starts_with("apiserver_request_total{") && line.contains("group=\"zerobridge.io\"")
        });
        let mut counts = std::collections::BTreeMap::<String, u64>::new();
        for line in lines {
            let verb =
                line.split("verb=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or_default();
            let count: u64 = line.rsplit(' ').next().and_then(|count| count.parse().ok()).unwrap_or_default();
            *counts.entry(verb.to_owned()).or_default() += count;
        }
        Ok(counts.into_iter().collect())
    }

    async fn define(&self) -> Result<(), ControlPlaneError> {
        let client = self.client().await?;
        let definitions = Api::<CustomResourceDefinition>::all(client.clone());
        for definition in [IPPool::crd(), IPBlock::crd(), IPClaim::crd()] {
            definitions.create(&PostParams::default(), &definition).await.map_err(refused)?;
        }
        for document in serde_saphyr::from_multiple::<Value>(RBAC).map_err(faulty)? {
            let kind = document["kind"].as_str().unwrap_or_default().to_owned();
            let parameters = PostParams::default();
            match kind.as_str() {
                // An account is a name to the API server: the binding holds without it.
                "ServiceAccount" => {}
                "ClusterRole" => {
                    let role: ClusterRole = serde_json::from_value(document).map_err(faulty)?;
                    Api::all(client.clone()).create(&parameters, &role).await.map_err(refused)?;
                }
                "ClusterRoleBinding" => {
                    let binding: ClusterRoleBinding = serde_json::from_value(document).map_err(faulty)?;
                    Api::all(client.clone()).create(&parameters, &binding).await.map_err(refused)?;
                }
                _ => return Err(faulty(format!("a {kind}, which nobody expects there"))),
            }
        }
        let started = Instant::now();
        let (pools, blocks) = (Api::<IPPool>::all(client.clone()), Api::<IPBlock>::all(client.clone()));
        let (claims, one) = (Api::<IPClaim>::all(client), ListParams::default().limit(1));
        while pools.list(&one).await.is_err()
            || blocks.list(&one).await.is_err()
            || claims.list(&one).await.is_err()
        {
            if started.elapsed() > PATIENCE {
                return Err(ControlPlaneError::Silent { log: self.log("kube-apiserver") });
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }

    async fn is_ready(&self) -> bool {
        let Ok(client) = self.client().await else { return false };
        let Ok(request) = Request::new("/readyz").list(&ListParams::default()) else { return false };
        client.request_text(request).await.is_ok_and(|text| text == "ok")
    }

    fn log(&self, program: &str) -> String {
        end_of_log(self.folder.path(), program)
    }
}

fn faulty(reason: impl ToString) -> ControlPlaneError {
    ControlPlaneError::Rbac { reason: reason.to_string() }
}

fn io_error(action: &'static str) -> impl FnOnce(io::Error) -> ControlPlaneError {
    move |source| ControlPlaneError::Io { action, source }
}

fn refused(error: kube::Error) -> ControlPlaneError {
    ControlPlaneError::Refused(Box::new(error))
}
