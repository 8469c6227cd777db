//! The API server of a Kubernetes cluster, as this house uses it.
//!
//! Owns our two custom resources ([`LogIndex`], [`LogBinding`]) with their definitions, and the few calls that are made: objects are
//! watched and reconciled ([`Cluster::reconcile_indexes`], [`Cluster::reconcile_bindings`]), finalizers and status are written, a
//! [`Secret`] is kept that has an owner, and the [`Size`] of a StatefulSet is read and set. It is the only crate that names `kube`.
//! Deliberately does not know: what a plan gives, what credentials mean, who leads, when something should be larger.
//!
//! ```
//! // The manifests of the custom resources come from the types.
//! let definitions = kubernetes::definitions();
//! assert!(definitions.iter().any(|d| d.name == "logindexes.logboom.io" && d.yaml.contains("kind: LogIndex")));
//! ```

mod cluster;
mod error;
mod objects;
mod reconcile;
#[allow(clippy::duplicated_attributes, reason = "each column has its own `printcolumn`")]
mod resources;
mod scale;
mod secret;
mod yaml;

pub use cluster::Cluster;
pub use error::KubernetesError;
pub use objects::{Custom, Notice, ObjectName};
pub use reconcile::CONCURRENCY;
pub use resources::{
    Applied, Bound, Condition, Definition, GROUP, IndexRef, LogBinding, LogBindingSpec, LogBindingStatus, LogIndex,
    LogIndexSpec, LogIndexStatus, OperationRef, Role, definitions,
};
pub use scale::Size;
pub use secret::{Secret, SecretOwner};
