//! What can go wrong on the way to an API server.

use std::path::PathBuf;

/// Why a call to the API server failed.
#[derive(Debug, thiserror::Error)]
pub enum KubernetesError {
    /// Nothing tells how to reach the API server. Not applied.
    #[error("no API server is known: {0}; in a pod mount the token of its ServiceAccount, elsewhere name a kubeconfig")]
    NotConfigured(String),
    /// The file is not a kubeconfig that can be used. Not applied.
    #[error("kubeconfig {path}: {reason}")]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The object was changed by somebody else meanwhile. Not applied; read it again.
    #[error("{0} was changed meanwhile")]
    Changed(String),
    /// The ServiceAccount may not do it. Not applied.
    #[error("the API server does not allow it: {0}; compare the Role of the ServiceAccount with k8s/")]
    Forbidden(String),
    /// The API server refused it. Not applied.
    #[error("the API server refused it: {0}")]
    Refused(String),
    /// There was no answer, or one that cannot be understood. Unknown; every call of this crate may be repeated.
    #[error("the API server did not answer: {0}")]
    Unavailable(String),
}

impl KubernetesError {
    pub(crate) fn of(error: kube::Error, what: &str) -> Self {
        match error {
            kube::Error::Api(status) if status.code == 409 => Self::Changed(what.to_owned()),
            kube::Error::Api(status) if status.is_forbidden() => Self::Forbidden(status.message.clone()),
            kube::Error::Api(status) if status.code < 500 && status.code != 429 => {
                Self::Refused(status.message.clone())
            }
            kube::Error::Api(status) => Self::Unavailable(status.message.clone()),
            other => Self::Unavailable(format!("{what}: {other}")),
        }
    }
}
