//! The connection to an API server.

use std::{path::Path, time::Duration};

use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
    runtime::events::{Recorder, Reporter},
};

use crate::KubernetesError;

/// How long a connection may take.
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// An API server, as one of our services reaches it. Clones share their connections.
#[derive(Clone)]
pub struct Cluster {
    pub(crate) client: Client,
    pub(crate) recorder: Recorder,
    namespace: String,
}

impl Cluster {
    /// The API server that a kubeconfig names, or without one that of the pod's own ServiceAccount. Nothing is sent yet.
    ///
    /// `controller` and `replica` name the service in events. Must be called where tokio runs.
    pub async fn connect(kubeconfig: Option<&Path>, controller: &str, replica: &str) -> Result<Self, KubernetesError> {
        let mut config = match kubeconfig {
            None => Config::incluster().map_err(|error| KubernetesError::NotConfigured(error.to_string()))?,
            Some(path) => {
                let wrong = |reason: String| KubernetesError::Kubeconfig { path: path.to_owned(), reason };
                let read = Kubeconfig::read_from(path).map_err(|error| wrong(error.to_string()))?;
                let chosen = KubeConfigOptions::default();
                Config::from_custom_kubeconfig(read, &chosen).await.map_err(|error| wrong(error.to_string()))?
            }
        };
        config.connect_timeout = Some(CONNECT_MAX);
        let namespace = config.default_namespace.clone();
        let client = Client::try_from(config).map_err(|error| KubernetesError::NotConfigured(error.to_string()))?;
        let reporter = Reporter { controller: controller.to_owned(), instance: Some(replica.to_owned()) };
        Ok(Self { recorder: Recorder::new(client.clone(), reporter), client, namespace })
    }

    /// The namespace of the pod, or the one that the kubeconfig prefers.
    pub fn own_namespace(&self) -> &str {
        &self.namespace
    }
}
