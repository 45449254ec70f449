//! The processes.

use std::fs::{self, File};
use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
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
use zerobridge_lab::{Cache, CacheError, PrepareError, Progress, control_plane};

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
    /// A file or process.
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

/// A running control plane; ends when it is dropped.
#[derive(Debug)]
pub struct ControlPlane {
    programs: PathBuf,
    folder: tempfile::TempDir,
    etcd: Child,
    etcd_port: u16,
    api_server: Option<Child>,
    port: u16,
}

impl ControlPlane {
    /// Starts etcd and an API server that knows the definitions of Zerobridge.
    ///
    /// # Errors
    /// [`ControlPlaneError`].
    pub async fn start() -> Result<Self, ControlPlaneError> {
        let programs = control_plane(&Cache::from_environment()?, &Progress::to(io::stderr()))?;
        let folder = tempfile::tempdir().map_err(io_error("make a folder"))?;
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
        let etcd = spawn(&programs.join("etcd"), folder.path(), &arguments, &["--unsafe-no-fsync"])?;
        let tokens = format!("{TOKEN},test,test,system:masters\n{DAEMON_TOKEN},{DAEMON},daemon\n");
        fs::write(folder.path().join("tokens"), tokens).map_err(io_error("write the token file"))?;
        let mut new = Self { programs, folder, etcd, etcd_port, api_server: None, port };
        new.start_api_server().await?;
        new.define().await?;
        Ok(new)
    }

    /// Starts the API server again, at the same address.
    ///
    /// # Errors
    /// [`ControlPlaneError`].
    pub async fn start_api_server(&mut self) -> Result<(), ControlPlaneError> {
        let certificates = self.folder.path().join("certificates");
        // The pair that it makes for itself at the first start also signs the tokens that nobody here uses.
        let key = certificates.join("apiserver.key").display().to_string();
        let arguments = [
            ("--etcd-servers", format!("http://127.0.0.1:{}", self.etcd_port)),
            ("--bind-address", "127.0.0.1".to_owned()),
            ("--secure-port", self.port.to_string()),
            ("--cert-dir", certificates.display().to_string()),
            ("--token-auth-file", self.folder.path().join("tokens").display().to_string()),
            ("--authorization-mode", "RBAC".to_owned()),
            ("--service-account-issuer", "https://zerobridge.test".to_owned()),
            ("--service-account-key-file", key.clone()),
            ("--service-account-signing-key-file", key),
            ("--service-cluster-ip-range", "10.96.0.0/24".to_owned()),
            ("--endpoint-reconciler-type", "none".to_owned()),
            ("--disable-admission-plugins", "ServiceAccount".to_owned()),
        ];
        let program = self.programs.join("kube-apiserver");
        self.api_server = Some(spawn(&program, self.folder.path(), &arguments, &[])?);
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

    /// Ends the API server; etcd stays.
    pub fn stop_api_server(&mut self) {
        if let Some(mut process) = self.api_server.take() {
            end(&mut process);
        }
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

    fn kubeconfig_with(&self, name: &str, token: &str) -> Result<PathBuf, ControlPlaneError> {
        let path = self.folder.path().join(name);
        let authority = self.folder.path().join("certificates/apiserver.crt");
        let text = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": {
                "server": format!("https://127.0.0.1:{}", self.port), "certificate-authority": authority,
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
        let text = fs::read_to_string(self.folder.path().join(format!("{program}.log"))).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        self.stop_api_server();
        end(&mut self.etcd);
    }
}

fn faulty(reason: impl ToString) -> ControlPlaneError {
    ControlPlaneError::Rbac { reason: reason.to_string() }
}

fn end(process: &mut Child) {
    // One that has ended by itself has ended.
    let _ = process.kill();
    let _ = process.wait();
}

fn spawn(
    program: &Path,
    folder: &Path,
    arguments: &[(&str, String)],
    flags: &[&str],
) -> Result<Child, ControlPlaneError> {
    let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let log = File::options().create(true).append(true).open(folder.join(format!("{name}.log")));
    let log = log.map_err(io_error("open a log"))?;
    let mut command = Command::new(program);
    command.args(flags).args(arguments.iter().map(|(key, value)| format!("{key}={value}")));
    let output = log.try_clone().map_err(io_error("open a log"))?;
    command.stdin(Stdio::null()).stdout(output).stderr(log).spawn().map_err(io_error("start a program"))
}

/// A port that was free just now; programs that cannot choose one by themselves leave no better way.
fn free_port() -> Result<u16, ControlPlaneError> {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(io_error("find a port"))?;
    listener.local_addr().map(|address| address.port()).map_err(io_error("find a port"))
}

fn io_error(action: &'static str) -> impl FnOnce(io::Error) -> ControlPlaneError {
    move |source| ControlPlaneError::Io { action, source }
}

fn refused(error: kube::Error) -> ControlPlaneError {
    ControlPlaneError::Refused(Box::new(error))
}
