//! What the API server knows about this node.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Node;
use kube::Api;

use super::ApiServer;
use super::api::ApiError;

/// A node as the API server describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NodeFacts {
    /// Its labels.
    pub(crate) labels: BTreeMap<String, String>,
    /// Version of its kubelet, such as `v1.34.2`; empty if it has not said yet.
    pub(crate) kubelet_version: String,
    /// Name and version of its container runtime, such as `containerd://2.1.4`; empty if it has not said yet.
    pub(crate) container_runtime: String,
}

impl ApiServer {
    /// What is known about a node.
    ///
    /// # Errors
    ///
    /// [`ApiError`]. The daemon needs `get` on `nodes`.
    pub(crate) async fn node(&self, name: &str) -> Result<NodeFacts, ApiError> {
        let object = || format!("node {name}; is --node-name the name that `kubectl get nodes` shows?");
        let ask = async |client| Api::<Node>::all(client).get(name).await;
        self.ask("get the node", object, ask).await.map(NodeFacts::from)
    }
}

impl From<Node> for NodeFacts {
    fn from(node: Node) -> Self {
        let info = node.status.and_then(|status| status.node_info).unwrap_or_default();
        Self {
            labels: node.metadata.labels.unwrap_or_default(),
            kubelet_version: info.kubelet_version,
            container_runtime: info.container_runtime_version,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use zerobridge_proto::chain;

    use super::*;
    use crate::cluster::ApiAccess;
    use crate::cluster::testing::FakeApi;

    #[tokio::test]
    async fn labels_and_versions_are_read() {
        let api = FakeApi::start().await;
        api.answer(200, json!({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": "n1", "labels": {"rack": "r7", "zerobridge.io/nic": "e810"}},
            "status": {"nodeInfo": {
                "architecture": "amd64", "bootID": "b", "containerRuntimeVersion": "containerd://2.1.4",
                "kernelVersion": "6.12", "kubeProxyVersion": "", "kubeletVersion": "v1.34.2", "machineID": "m",
                "operatingSystem": "linux", "osImage": "o", "systemUUID": "s"
            }}
        }));
        let facts = api.server().node("n1").await.unwrap();
        assert_eq!(facts.labels["rack"], "r7");
        assert_eq!(facts.kubelet_version, "v1.34.2");
        assert_eq!(facts.container_runtime, "containerd://2.1.4");
        let [request] = &api.requests()[..] else { panic!("one request") };
        assert_eq!((request.method.as_str(), request.path.as_str()), ("GET", "/api/v1/nodes/n1"));
    }

    #[tokio::test]
    async fn a_node_that_has_said_nothing_yet_has_empty_facts() {
        let api = FakeApi::start().await;
        api.answer(200, json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}}));
        assert_eq!(api.server().node("n1").await.unwrap(), NodeFacts::default());
    }

    #[tokio::test]
    async fn what_the_server_refuses_says_what_to_do() {
        let api = FakeApi::start().await;
        api.refuse(403, "nodes \"n1\" is forbidden");
        let error = api.server().node("n1").await.unwrap_err();
        assert!(!error.is_transient());
        let told = chain(&error);
        assert!(
            told.contains("does not allow") && told.contains("ClusterRole") && told.contains("is forbidden"),
            "{told}"
        );

        api.refuse(404, "nodes \"n1\" not found");
        let told = api.server().node("n1").await.unwrap_err().to_string();
        assert!(told.contains("node n1") && told.contains("--node-name"), "{told}");

        api.refuse(503, "etcd is away");
        assert!(api.server().node("n1").await.unwrap_err().is_transient());
    }

    #[tokio::test]
    async fn a_server_that_is_away_is_no_server_for_now() {
        let api = FakeApi::start().await;
        let server = api.server();
        let _kubeconfig = api.stop().await;
        let error = server.node("n1").await.unwrap_err();
        assert!(error.is_transient() && chain(&error).contains("refused"), "{}", chain(&error));
    }

    /// The client library logs each failed request as an error, and the log would be full of them while a server is away.
    #[tokio::test]
    async fn only_who_asked_says_that_it_failed() {
        let log = tempfile::NamedTempFile::new().unwrap();
        let writer = log.reopen().unwrap();
        let subscriber = tracing_subscriber::fmt().with_writer(std::sync::Mutex::new(writer)).finish();
        let _guard = tracing::subscriber::set_default(subscriber);
        tracing::info!("the log works");

        let api = FakeApi::start().await;
        let server = api.server();
        api.refuse(503, "etcd is away");
        server.node("n1").await.unwrap_err();
        let _kubeconfig = api.stop().await;
        server.node("n1").await.unwrap_err();
        let text = std::fs::read_to_string(log.path()).unwrap();
        assert!(text.contains("the log works") && !text.contains("ERROR"), "{text}");
    }

    #[tokio::test]
    async fn without_access_nothing_is_asked() {
        let error = ApiServer::new(ApiAccess::None).node("n1").await.unwrap_err();
        assert!(matches!(error, ApiError::NoAccess));
    }

    #[tokio::test]
    async fn a_kubeconfig_that_appears_later_is_read_then() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kubeconfig");
        let server = ApiServer::new(ApiAccess::Kubeconfig(path.clone()));
        let told = chain(&server.node("n1").await.unwrap_err());
        assert!(told.contains(path.to_str().unwrap()), "{told}");

        let api = FakeApi::start().await;
        api.answer(
            200,
            json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1", "labels": {"a": "b"}}}),
        );
        std::fs::write(&path, api.kubeconfig()).unwrap();
        assert_eq!(server.node("n1").await.unwrap().labels["a"], "b");
    }
}
