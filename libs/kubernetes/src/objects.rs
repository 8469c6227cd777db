//! Custom resources and namespaces, one at a time.

use std::{
    fmt::{self, Debug},
    time::Duration,
};

use k8s_openapi::api::core::v1::{Namespace, ObjectReference};
use kube::{
    Api, Resource, ResourceExt,
    api::{Patch, PatchParams, PostParams},
    core::NamespaceResourceScope,
    runtime::events::{Event, EventType},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;
use tokio::time::timeout;

use crate::{Cluster, KubernetesError, LogBinding, LogIndex};

/// How long one call may take.
const CALL_MAX: Duration = Duration::from_secs(10);
/// The longest text of an event that Kubernetes takes.
const NOTE_BYTES_MAX: usize = 1_000;

/// One of our custom resources.
pub trait Custom:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + Debug
    + Serialize
    + DeserializeOwned
    + Send
    + Sync
    + 'static
{
}

impl Custom for LogIndex {}
impl Custom for LogBinding {}

/// What an object is called, and which of its wishes it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What tells it from another one of that name.
    pub uid: String,
    /// Counts the changes of its `spec`.
    pub generation: Option<i64>,
    /// Whether it only waits for its finalizers.
    pub is_deleted: bool,
}

impl ObjectName {
    /// The name of an object.
    pub fn of<K: Custom>(object: &K) -> Self {
        Self {
            namespace: object.namespace().unwrap_or_default(),
            name: object.name_any(),
            uid: object.uid().unwrap_or_default(),
            generation: object.meta().generation,
            is_deleted: object.meta().deletion_timestamp.is_some(),
        }
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// What `kubectl describe` shows below an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice<'a> {
    /// Whether somebody should look.
    pub is_warning: bool,
    /// One word.
    pub reason: &'a str,
    /// For people.
    pub message: &'a str,
}

/// The end of a call that may take [`CALL_MAX`].
pub(crate) async fn within<T>(
    what: &str,
    call: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, KubernetesError> {
    match timeout(CALL_MAX, call).await {
        Ok(result) => result.map_err(|error| KubernetesError::of(error, what)),
        Err(_) => Err(KubernetesError::Unavailable(format!("{what}: nothing within {CALL_MAX:?}"))),
    }
}

impl Cluster {
    /// An object, if it is there.
    pub async fn get<K: Custom>(&self, namespace: &str, name: &str) -> Result<Option<K>, KubernetesError> {
        within(name, Api::<K>::namespaced(self.client.clone(), namespace).get_opt(name)).await
    }

    /// Puts a finalizer on an object, or takes it off; answers with the object as it is then.
    ///
    /// Errors: `Changed` if the object is no longer as it was read.
    pub async fn finalize<K: Custom>(&self, object: &K, finalizer: &str, wanted: bool) -> Result<K, KubernetesError> {
        let mut all: Vec<_> = object.finalizers().iter().filter(|known| *known != finalizer).cloned().collect();
        if wanted {
            all.push(finalizer.to_owned());
        }
        let patch = json!({ "metadata": { "resourceVersion": object.resource_version(), "finalizers": all } });
        let name = object.name_any();
        let (params, patch) = (PatchParams::default(), Patch::Merge(&patch));
        within(&name, self.api_of(object).patch(&name, &params, &patch)).await
    }

    /// Writes the status that an object carries; answers with the object as it is then.
    ///
    /// Errors: `Changed` if the object is no longer as it was read.
    pub async fn put_status<K: Custom>(&self, object: &K) -> Result<K, KubernetesError> {
        let name = object.name_any();
        within(&name, self.api_of(object).replace_status(&name, &PostParams::default(), object)).await
    }

    /// Writes an event on an object; one that is not taken is only logged.
    pub async fn notify<K: Custom>(&self, object: &K, notice: &Notice<'_>) {
        let mut note = notice.message.to_owned();
        note.truncate(note.floor_char_boundary(NOTE_BYTES_MAX));
        let event = Event {
            type_: if notice.is_warning { EventType::Warning } else { EventType::Normal },
            reason: notice.reason.to_owned(),
            note: Some(note),
            action: "Reconcile".to_owned(),
            secondary: None,
        };
        let reference: ObjectReference = object.object_ref(&());
        if let Err(error) = within("event", self.recorder.publish(&event, &reference)).await {
            tracing::info!(%error, object = %object.name_any(), reason = notice.reason, "event not written");
        }
    }

    /// The uid of a namespace, if it is there.
    pub async fn namespace_uid(&self, name: &str) -> Result<Option<String>, KubernetesError> {
        let namespace = within(name, Api::<Namespace>::all(self.client.clone()).get_opt(name)).await?;
        Ok(namespace.and_then(|namespace| namespace.metadata.uid))
    }

    fn api_of<K: Custom>(&self, object: &K) -> Api<K> {
        Api::namespaced(self.client.clone(), &object.namespace().unwrap_or_default())
    }
}
