//! The one call that a device plugin makes: `Register` at the kubelet's socket.

use std::path::{Path, PathBuf};

use thiserror::Error;
use tokio::time::timeout;
use tonic::Status;
use tonic::transport::{self, Endpoint};
use zerobridge_proto::deviceplugin::{
    DevicePluginOptions, KUBELET_SOCKET, RegisterRequest, RegistrationClient, VERSION,
};

use super::registration::ANSWER_LIMIT;
use crate::resource::ResourceName;

/// A registration that failed.
#[derive(Debug, Error)]
pub(super) enum RegisterError {
    /// Nobody listens, or not there.
    #[error("cannot connect to {}", path.display())]
    Connect {
        /// The kubelet's socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: transport::Error,
    },
    /// The kubelet answered with an error.
    #[error("the kubelet refused: {}", .0.message())]
    Refused(Status),
    /// No answer came.
    #[error("the kubelet did not answer within {} seconds", ANSWER_LIMIT.as_secs())]
    Silent,
}

/// Registers a pool whose socket is the file `socket_name` next to the kubelet's.
///
/// The kubelet dials that socket and calls `GetDevicePluginOptions` before it answers, so the server has to run on
/// another task than this.
///
/// # Errors
///
/// [`RegisterError`].
pub(super) async fn register(
    kubelet: &Path,
    pool: &ResourceName,
    socket_name: &str,
    options: DevicePluginOptions,
) -> Result<(), RegisterError> {
    let request = RegisterRequest {
        version: VERSION.to_owned(),
        endpoint: socket_name.to_owned(),
        resource_name: pool.to_string(),
        options: Some(options),
    };
    let call = async {
        let connect = |source| RegisterError::Connect { path: kubelet.to_owned(), source };
        let endpoint = Endpoint::from_shared(format!("unix://{}", kubelet.display())).map_err(connect)?;
        let channel = endpoint.connect().await.map_err(connect)?;
        RegistrationClient::new(channel).register(request).await.map_err(RegisterError::Refused)?;
        Ok(())
    };
    timeout(ANSWER_LIMIT, call).await.unwrap_or(Err(RegisterError::Silent))
}

/// Makes the kubelet forget that this pool's stream is the one of its resource, so that its end takes nothing away from
/// another process that has registered the pool since.
///
/// Kubelets without kubernetes#135437, the newest of them 1.36, keep one client for each resource name. When a stream ends
/// they disconnect whatever client has that name by then (kubernetes#127803), and every device of the resource is
/// unhealthy until the other process has registered once more. A registration that fails removes the client of that name
/// and touches neither devices nor streams (`connectClient` in `pkg/kubelet/cm/devicemanager/plugin/v1beta1/handler.go`),
/// so one is made that has to fail: the kubelet's own socket is no device plugin, and says so at once. To newer kubelets it
/// means nothing.
///
/// # Errors
///
/// [`RegisterError`] if the kubelet was not reached. That it refuses is what is wanted.
pub(super) async fn withdraw_name(kubelet: &Path, pool: &ResourceName) -> Result<(), RegisterError> {
    match register(kubelet, pool, KUBELET_SOCKET, DevicePluginOptions::default()).await {
        Ok(()) | Err(RegisterError::Refused(_)) => Ok(()),
        Err(error) => Err(error),
    }
}
