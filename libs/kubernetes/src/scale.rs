//! The size of a StatefulSet.

use k8s_openapi::api::apps::v1::StatefulSet;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::json;

use crate::{Cluster, KubernetesError, objects::within};

/// How large a StatefulSet is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// The replicas that it should have.
    pub wanted: u32,
    /// The replicas that it has.
    pub there: u32,
}

fn count(replicas: Option<i32>) -> u32 {
    replicas.and_then(|replicas| u32::try_from(replicas).ok()).unwrap_or(0)
}

impl Cluster {
    /// The size of a StatefulSet. Needs `get` on its subresource `scale`.
    pub async fn size(&self, namespace: &str, name: &str) -> Result<Size, KubernetesError> {
        let scale = within(name, self.stateful_sets(namespace).get_scale(name)).await?;
        Ok(Size {
            wanted: count(scale.spec.and_then(|spec| spec.replicas)),
            there: count(scale.status.map(|status| status.replicas)),
        })
    }

    /// Changes the size of a StatefulSet. Needs `patch` on its subresource `scale`.
    pub async fn resize(&self, namespace: &str, name: &str, replicas: u32) -> Result<(), KubernetesError> {
        let patch = json!({ "spec": { "replicas": replicas } });
        let (params, patch) = (PatchParams::default(), Patch::Merge(&patch));
        within(name, self.stateful_sets(namespace).patch_scale(name, &params, &patch)).await.map(drop)
    }

    fn stateful_sets(&self, namespace: &str) -> Api<StatefulSet> {
        Api::namespaced(self.client.clone(), namespace)
    }
}
