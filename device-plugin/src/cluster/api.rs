//! The connection to the API server: made when it is first used, and not at all without access.

use std::ffi::OsStr;
use std::fmt;
use std::iter::successors;
use std::path::PathBuf;
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use thiserror::Error;
use tokio::sync::OnceCell;
use tokio::time::timeout;
use tracing::instrument::WithSubscriber as _;
use tracing::subscriber::NoSubscriber;

/// How long one request may take. The API server's own limit is a minute; nobody here waits that long for an event.
const PATIENCE: Duration = Duration::from_secs(10);

/// The variable that the kubelet sets in every container (Kubernetes, "Accessing the API from within a Pod").
const SERVICE_HOST: &str = "KUBERNETES_SERVICE_HOST";

/// How the API server is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApiAccess {
    /// With the service account of the daemon's own pod.
    InCluster,
    /// As a kubeconfig file says.
    Kubeconfig(PathBuf),
    /// Not at all.
    None,
}

/// An API server, perhaps one that cannot be reached.
pub(crate) struct ApiServer {
    access: ApiAccess,
    client: OnceCell<Client>,
}

/// Why the API server gave no answer.
#[derive(Debug, Error)]
pub(crate) enum ApiError {
    /// Nobody said how to reach it.
    #[error("there is no access to the API server: the daemon runs in no pod, and no kubeconfig is named")]
    NoAccess,
    /// The service account of the daemon's pod cannot be used.
    #[error("the service account of this pod cannot be used; is automountServiceAccountToken off?")]
    ServiceAccount(#[source] ClientError),
    /// The kubeconfig cannot be used.
    #[error("the kubeconfig {} cannot be used", path.display())]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: ClientError,
    },
    /// The connection could not be prepared, because of a faulty certificate for example.
    #[error("cannot prepare a connection to the API server")]
    Prepare(#[source] ClientError),
    /// The API server does not allow it.
    #[error(
        "the API server does not allow this daemon to {action}; see the ClusterRole in manifests/: {message}"
    )]
    Refused {
        /// What was asked.
        action: &'static str,
        /// What it answered.
        message: String,
    },
    /// What was to be made is there.
    #[error("the API server cannot {action}: that is there already")]
    Exists {
        /// What was asked.
        action: &'static str,
    },
    /// There is no such thing.
    #[error("the API server knows no {object}")]
    NotFound {
        /// What was asked for.
        object: String,
    },
    /// It understood the request, and will never accept it.
    #[error("the API server answered {code} to {action}: {message}")]
    Rejected {
        /// What was asked.
        action: &'static str,
        /// The HTTP status code.
        code: u16,
        /// What it answered.
        message: String,
    },
    /// It cannot be reached, or is not able to answer now.
    #[error("the API server could not {action}")]
    Unavailable {
        /// What was asked.
        action: &'static str,
        /// What happened.
        #[source]
        source: ClientError,
    },
    /// It did not answer.
    #[error("the API server did not {action} within {} s", PATIENCE.as_secs())]
    Late {
        /// What was asked.
        action: &'static str,
    },
}

/// What the client library reported, in one text.
#[derive(Debug, Error)]
#[error("{0}")]
pub(crate) struct ClientError(String);

impl ApiAccess {
    /// The access that a daemon has: the kubeconfig that was named, or else that of its pod, if `environment` (as
    /// [`std::env::var_os`]) says that it runs in one.
    pub fn find<V: AsRef<OsStr>>(
        kubeconfig: Option<PathBuf>,
        environment: impl FnOnce(&'static str) -> Option<V>,
    ) -> Self {
        match kubeconfig {
            Some(path) => Self::Kubeconfig(path),
            None if environment(SERVICE_HOST).is_some_and(|host| !host.as_ref().is_empty()) => {
                Self::InCluster
            }
            None => Self::None,
        }
    }
}

impl fmt::Debug for ApiServer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let connected = self.client.initialized();
        out.debug_struct("ApiServer").field("access", &self.access).field("connected", &connected).finish()
    }
}

impl ApiServer {
    /// An API server that will be reached like this. Nothing is read and nothing is connected yet.
    #[must_use]
    pub(crate) fn new(access: ApiAccess) -> Self {
        Self { access, client: OnceCell::new() }
    }

    /// How it is reached.
    #[must_use]
    pub(crate) fn access(&self) -> &ApiAccess {
        &self.access
    }

    /// Makes one request. A kubeconfig that is not there yet, or faulty, is read again by the next.
    pub(super) async fn ask<T, F>(
        &self,
        action: &'static str,
        object: impl FnOnce() -> String,
        request: impl FnOnce(Client) -> F,
    ) -> Result<T, ApiError>
    where
        F: Future<Output = Result<T, kube::Error>>,
    {
        let client = self.client.get_or_try_init(|| connection(&self.access)).await?.clone();
        // The client logs each failure as an error of its own; here a failure is a value, and whoever gets it says it
        // once.
        let request = request(client).with_subscriber(NoSubscriber::default());
        match timeout(PATIENCE, request).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(judged(action, object, error)),
            Err(_) => Err(ApiError::Late { action }),
        }
    }
}

impl ApiError {
    /// Whether the same request may succeed later without anybody's doing.
    #[must_use]
    pub(crate) fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::Late { .. })
    }
}

impl ClientError {
    /// Some errors of the library contain the text of their source and some do not.
    fn of(error: &dyn std::error::Error) -> Self {
        let mut text = error.to_string();
        for source in successors(error.source(), |source| source.source()).map(ToString::to_string) {
            if !text.contains(&source) {
                text = format!("{text}: {source}");
            }
        }
        Self(text)
    }
}

async fn connection(access: &ApiAccess) -> Result<Client, ApiError> {
    let mut config = match access {
        ApiAccess::None => return Err(ApiError::NoAccess),
        ApiAccess::InCluster => {
            Config::incluster().map_err(|error| ApiError::ServiceAccount(ClientError::of(&error)))?
        }
        ApiAccess::Kubeconfig(path) => from_file(path.clone()).await?,
    };
    // Repeating is up to those who ask: they know how long an answer is of use.
    config.default_retry = false;
    Client::try_from(config).map_err(|error| ApiError::Prepare(ClientError::of(&error)))
}

async fn from_file(path: PathBuf) -> Result<Config, ApiError> {
    let options = KubeConfigOptions::default();
    let faulty = |error| ApiError::Kubeconfig { path: path.clone(), source: ClientError::of(&error) };
    let file = Kubeconfig::read_from(&path).map_err(faulty)?;
    Config::from_custom_kubeconfig(file, &options).await.map_err(faulty)
}

fn judged(action: &'static str, object: impl FnOnce() -> String, error: kube::Error) -> ApiError {
    match error {
        kube::Error::Api(status) => match status.code {
            401 | 403 => ApiError::Refused { action, message: status.message },
            404 => ApiError::NotFound { object: object() },
            409 => ApiError::Exists { action },
            // Too many requests, and whatever the server blames on itself.
            429 | 500.. => ApiError::Unavailable {
                action,
                source: ClientError(format!("{} {}", status.code, status.message)),
            },
            code => ApiError::Rejected { action, code, message: status.message },
        },
        other => ApiError::Unavailable { action, source: ClientError::of(&other) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_kubeconfig_goes_before_the_pods_own_access() {
        let file = || Some(PathBuf::from("/etc/kubeconfig"));
        let in_a_pod = |_: &str| Some("10.96.0.1");
        for (kubeconfig, host, expected) in [
            (file(), Some("10.96.0.1"), ApiAccess::Kubeconfig("/etc/kubeconfig".into())),
            (None, Some("10.96.0.1"), ApiAccess::InCluster),
            (None, Some(""), ApiAccess::None),
            (None, None, ApiAccess::None),
        ] {
            assert_eq!(ApiAccess::find(kubeconfig, |_| host), expected);
        }
        assert_eq!(ApiAccess::find(None, in_a_pod), ApiAccess::InCluster);
    }
}
