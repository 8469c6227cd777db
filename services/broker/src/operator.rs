//! The operator: `LogIndex` and `LogBinding` objects of a cluster become service instances and service bindings of this broker.
//!
//! It asks the broker's own desk in the words of the Open Service Broker API, with the uid of an object as id and that of its
//! namespace as space. So there is one truth, the broker's; an object's status only remembers what was asked. What to do next for an
//! object is decided by `index` and `binding`, which are pure; `run` does it.

mod ask;
mod binding;
mod condition;
mod index;
mod run;
mod step;

pub(crate) use run::Operator;

/// What keeps an object until the broker has forgotten it.
const FINALIZER: &str = "logboom.io/broker";
