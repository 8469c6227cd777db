//! The index provisioner: gives a service instance its log index, and a binding its credentials.
//!
//! Owns which instance has which index, the bindings with their NATS users and HTTP tokens, and the revoked users of the tenants
//! account. Every secret is derived from one key and the instant of issue, so none is stored or journaled.
//! Deliberately does not know: the Open Service Broker API, plans, catalogs, or how events are kept; a back-end does.
//!
//! Doors, state, bounds and what happens when it fails stand in `README.md`.
//!
//! ```
//! use host::ControlState;
//! use index_provisioner::{Command, Event, State};
//! use types::Timestamp;
//!
//! // Deleting or revoking what is not there succeeds and changes nothing.
//! let state = State::default();
//! for command in [Command::BeginDeletion("i".parse().unwrap()), Command::BeginRevocation("b".parse().unwrap())] {
//!     assert_eq!(state.decide(command, Timestamp::from_nanos(1)), Ok(vec![]));
//! }
//! ```

mod accounts;
mod actor;
mod api;
mod backend;
mod config;
mod error;
mod lead;
mod metrics;
mod mint;
mod state;
mod work;

use std::{collections::BTreeMap, sync::Arc};

use actix::Actor;
use bus::{Bus, BusOptions};
use host::{Host, Ledger, Running, StartError};
use wire::views::TOKENS;

pub use backend::{Backend, Found};
pub use config::Config;
pub use error::ProvisionerError;
pub use state::{
    Binding, BindingPhase, Command, Event, INDEXES_MAX, Index, KEYS_MAX, OWN, Phase, SEGMENTS_MAX, State,
    TTL_SECONDS_MAX,
};

/// The service.
#[derive(Debug, Clone, Copy)]
pub struct IndexProvisioner;
