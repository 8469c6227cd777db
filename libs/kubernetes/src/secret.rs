//! Secrets that belong to one of our objects.

use std::collections::BTreeMap;

use k8s_openapi::{
    ByteString,
    api::core::v1,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use kube::{
    Api, Resource, ResourceExt,
    api::{DeleteParams, PostParams, Preconditions},
};

use crate::{Cluster, Custom, KubernetesError, objects::within};

/// The label of what the operator keeps.
const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "logboom");

/// The annotation that says whose credentials a Secret holds; written together with them.
const HOLDS: &str = "logboom.io/holds";

/// A Secret that is there, whoever made it.
#[derive(Clone)]
pub struct Secret {
    inner: v1::Secret,
}

/// Whose a Secret is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecretOwner {
    /// The object that was asked about.
    This,
    /// Somebody else.
    Other,
}

impl Secret {
    /// Whether it belongs to an object, by its owner reference.
    pub fn owner<K: Custom>(&self, object: &K) -> SecretOwner {
        let owned = self.inner.owner_references().iter().any(|owner| Some(&owner.uid) == object.meta().uid.as_ref());
        if owned { SecretOwner::This } else { SecretOwner::Other }
    }

    /// Whose credentials it holds, if it says so.
    pub fn holds(&self) -> Option<String> {
        self.inner.annotations().get(HOLDS).cloned()
    }

    /// What it holds.
    pub fn values(&self) -> BTreeMap<String, Vec<u8>> {
        self.inner.data.iter().flatten().map(|(key, value)| (key.clone(), value.0.clone())).collect()
    }
}

impl Cluster {
    /// A Secret, if it is there.
    pub async fn secret(&self, namespace: &str, name: &str) -> Result<Option<Secret>, KubernetesError> {
        let inner = within(name, self.secrets(namespace).get_opt(name)).await?;
        Ok(inner.map(|inner| Secret { inner }))
    }

    /// Makes a Secret that belongs to an object, or exchanges what `there` holds. Labels and annotations of others stay.
    /// `holds` says whose credentials the values are; it is kept beside them.
    ///
    /// Errors: `Changed` if it is no longer as it was read, or was made meanwhile.
    pub async fn put_secret<K: Custom>(
        &self,
        owner: &K,
        name: &str,
        there: Option<&Secret>,
        holds: &str,
        values: &BTreeMap<String, String>,
    ) -> Result<(), KubernetesError> {
        let secrets = self.secrets(&owner.namespace().unwrap_or_default());
        let data = values.iter().map(|(key, value)| (key.clone(), ByteString(value.clone().into_bytes()))).collect();
        let params = PostParams::default();
        match there {
            Some(there) => {
                let mut new = there.inner.clone();
                new.data = Some(data);
                new.annotations_mut().insert(HOLDS.to_owned(), holds.to_owned());
                within(name, secrets.replace(name, &params, &new)).await.map(drop)
            }
            None => {
                let metadata = ObjectMeta {
                    name: Some(name.to_owned()),
                    annotations: Some([(HOLDS.to_owned(), holds.to_owned())].into()),
                    labels: Some([(MANAGED_BY.0.to_owned(), MANAGED_BY.1.to_owned())].into()),
                    owner_references: owner_of(owner).map(|owner| vec![owner]),
                    ..ObjectMeta::default()
                };
                let new = v1::Secret { metadata, data: Some(data), ..v1::Secret::default() };
                within(name, secrets.create(&params, &new)).await.map(drop)
            }
        }
    }

    /// Deletes a Secret as it was read; one that is gone is fine.
    ///
    /// Errors: `Changed` if another one has its name by now.
    pub async fn delete_secret(&self, secret: &Secret) -> Result<(), KubernetesError> {
        let (name, meta) = (secret.inner.name_any(), secret.inner.meta());
        let preconditions = Preconditions { uid: meta.uid.clone(), resource_version: meta.resource_version.clone() };
        let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        let secrets = self.secrets(&secret.inner.namespace().unwrap_or_default());
        let gone = async {
            match secrets.delete(&name, &params).await {
                Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
                other => other.map(drop),
            }
        };
        within(&name, gone).await
    }

    fn secrets(&self, namespace: &str) -> Api<v1::Secret> {
        Api::namespaced(self.client.clone(), namespace)
    }
}

/// With it the garbage collector takes the Secret along, should our finalizer have been taken off by force.
fn owner_of<K: Custom>(owner: &K) -> Option<OwnerReference> {
    Some(OwnerReference { controller: Some(true), ..owner.owner_ref(&())? })
}
