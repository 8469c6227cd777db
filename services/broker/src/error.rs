//! What the broker refuses, in the house's terms; `osb::answer` says it in the Open Service Broker's.

use types::{BindingId, IndexName, InstanceId};
use wire::{Code, Problem};

/// The kind of a problem that the platform must see as `ConcurrencyError`.
pub const CONCURRENCY: &str = "ConcurrencyError";

/// The kind of a problem that names a binding which is not there, or not any more.
pub(crate) const UNKNOWN_BINDING: &str = "UnknownBinding";

/// Why a command is refused; nothing of it was applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BrokerError {
    /// The instance exists with other attributes.
    #[error("service instance {0} exists with a different service, plan, parameters, organization or space")]
    InstanceDiffers(InstanceId),
    /// The binding exists with other attributes.
    #[error("service binding {0} exists with a different instance, service, plan or parameters")]
    BindingDiffers(BindingId),
    /// Not there.
    #[error("there is no service instance {0}")]
    UnknownInstance(InstanceId),
    /// Something else is being done to it.
    #[error("another operation on {0} is in progress")]
    Busy(String),
    /// The plan of the request is not the instance's.
    #[error("the plan does not match the one of service instance {0}")]
    PlanMismatch(InstanceId),
    /// What is to be rotated must be live.
    #[error("predecessor_binding_id: {0} is no live binding of this service instance")]
    PredecessorUnusable(BindingId),
    /// Another instance has the name.
    #[error("/index: the name {0} is taken by another service instance; choose another one")]
    IndexNameTaken(IndexName),
    /// Nothing can be retried.
    #[error("nothing is under way on service instance {0} or its bindings")]
    NothingPending(InstanceId),
    /// Forgetting it would take it from somebody.
    #[error("service instance {0} can be used; deprovision it by its platform, or force it")]
    InUse(InstanceId),
    /// The named limit.
    #[error("there are {0} service instances already, which is the limit of an installation")]
    TooManyInstances(usize),
    /// The named limit.
    #[error("there are {0} service bindings already, which is the limit of an installation")]
    TooManyBindings(usize),
}

impl From<BrokerError> for Problem {
    fn from(error: BrokerError) -> Self {
        match &error {
            BrokerError::InstanceDiffers(_) => Self::conflict("InstanceDiffers", &error),
            BrokerError::BindingDiffers(_) => Self::conflict("BindingDiffers", &error),
            BrokerError::UnknownInstance(_) => Self::not_found("UnknownInstance", &error),
            BrokerError::Busy(_) => Self::conflict(CONCURRENCY, &error),
            BrokerError::PlanMismatch(_) => Self::bad_request("PlanMismatch", &error),
            BrokerError::PredecessorUnusable(_) => Self::not_found(UNKNOWN_BINDING, &error),
            BrokerError::IndexNameTaken(_) => Self::bad_request("IndexNameTaken", &error),
            BrokerError::NothingPending(_) => Self::conflict("NothingPending", &error),
            BrokerError::InUse(_) => Self::conflict("InstanceInUse", &error),
            BrokerError::TooManyInstances(_) => Self::new(Code::Throttled, "TooManyInstances", &error),
            BrokerError::TooManyBindings(_) => Self::new(Code::Throttled, "TooManyBindings", &error),
        }
    }
}
