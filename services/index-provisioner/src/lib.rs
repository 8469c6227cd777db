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
use host::{Host, Ledger, Running, StartError};
use settings::Secret;
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

impl host::Service for IndexProvisioner {
    const NAME: wire::Service = wire::Service::IndexProvisioner;
    type Config = Config;

    async fn start(config: Config, host: Host) -> Result<Running, StartError> {
        metrics::register_all();
        let required = |key: &str, secret: &Secret| {
            let missing =
                || StartError::other(format_args!("index_provisioner.{key} is not set; it is needed to start"));
            host.secret(secret)?.filter(|text| !text.is_empty()).ok_or_else(missing)
        };
        let operator_seed = required("operator_seed", &config.operator_seed)?;
        let account_seed = required("account_seed", &config.account_seed)?;
        let system_creds = required("system_creds", &config.system_creds)?;
        let binding_secret = required("binding_secret", &config.binding_secret)?;
        let mint = mint::Mint::new(&account_seed, &binding_secret)
            .map_err(|reason| StartError::other(format_args!("index_provisioner.binding_secret {reason}")))?;
        let system = host.connect_as(system_creds).await?;
        let tokens = host.bus.bucket(TOKENS, None, host.common.journal_replicas).await?;
        let ledger = Ledger::<State>::start(&host).await?;
        let accounts = accounts::Accounts {
            ledger: ledger.clone(),
            system,
            operator_seed: operator_seed.into(),
            account: bus::keys::public_key(&account_seed)?,
            lane_count: u16::try_from(host.common.container_count).unwrap_or(u16::MAX),
            clock: host.clock.clone(),
            turn: Arc::default(),
        };
        let own = backend::own::Own { bus: host.bus.clone(), tokens, mint: mint.clone(), accounts };
        let backends: BTreeMap<&'static str, Arc<dyn Backend>> = BTreeMap::from([(OWN, Arc::new(own.clone()) as _)]);
        let work = work::Work::new(ledger.clone(), backends, mint, host.clock.clone(), config.default_segments);
        let desk = actor::Desk { ledger: ledger.clone(), work: work.clone() }.start();
        let leader = lead::Leader { host: host.clone(), ledger: ledger.clone(), own, work, desk };
        host.spawn_local(
            "leading",
            async move { host::while_leading(&ledger, |token| leader.clone().lead(token)).await },
        );
        Ok(Running::idle())
    }
}
