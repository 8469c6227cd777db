//! The index provisioner: gives a service instance its log index, and a binding its credentials.
//!
//! Owns which instance has which index, the bindings with their credentials, and the revoked users of the tenants account. A secret
//! is derived from one key and the instant of issue where that is possible, and sealed where it is not; none is journaled.
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
//! for command in [Command::BeginDeletion("i".parse().unwrap(), 0), Command::BeginRevocation("b".parse().unwrap())] {
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
mod sealed;
mod state;
mod work;

use std::{collections::BTreeMap, sync::Arc};

use actix::Actor;
use bus::keys::{CLAIMS_UPDATES, creds_may_subscribe};
use host::{Host, Ledger, Running, StartError};
use settings::Secret;
use wire::views::{ARCHIVES, QUOTAS, TOKENS};

use self::backend::own::{Archives, Own, View};

pub use backend::{Backend, Found};
pub use config::{Config, S3Config, SplunkConfig};
pub use error::ProvisionerError;
pub use state::{
    BACKEND_OPTION_CHARS_MAX, BACKEND_OPTIONS_MAX, Binding, BindingPhase, Command, Event, INDEXES_MAX, Index, KEYS_MAX,
    OWN, Phase, SEGMENTS_MAX, State, TTL_SECONDS_MAX,
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
        if !creds_may_subscribe(&system_creds, CLAIMS_UPDATES) {
            tracing::error!(
                "index_provisioner.system_creds may not subscribe to {CLAIMS_UPDATES}, so an old list of revocations that somebody \
                 else pushes stays for up to a minute; `logboom keys init` makes system.creds again"
            );
        }
        let system = host.connect_as(system_creds).await?;
        let replicas = host.common.journal_replicas;
        let tokens = host.bus.bucket(TOKENS, None, replicas).await?;
        let quotas = host.bus.bucket(QUOTAS, None, replicas).await?;
        let archives = host.bus.bucket(ARCHIVES, None, replicas).await?;
        let sealed = sealed(&config, &host).await?;
        let ledger = Ledger::<State>::start(&host).await?;
        let accounts = accounts::Accounts {
            ledger: ledger.clone(),
            system,
            operator_seed: operator_seed.into(),
            account: bus::keys::public_key(&account_seed)?,
            lane_count: u16::try_from(host.common.container_count).unwrap_or(u16::MAX),
            clock: host.clock.clone(),
            turn: Arc::default(),
            pushed: Arc::default(),
        };
        let view = |bucket| View { bucket, ledger: ledger.clone() };
        let (tokens, quotas) = (view(tokens), view(quotas));
        let archives = Archives { view: view(archives), s3: config.s3.clone() };
        let own = Own { bus: host.bus.clone(), tokens, quotas, archives, mint: mint.clone(), accounts };
        let mut backends: BTreeMap<&'static str, Arc<dyn Backend>> =
            BTreeMap::from([(OWN, Arc::new(own.clone()) as _)]);
        if !config.splunk.url.is_empty() {
            let splunk = backend::splunk::Splunk::open(&config.splunk, &host, mint.clone())?;
            backends.insert(backend::splunk::NAME, Arc::new(splunk));
        }
        if !config.s3.region.is_empty() {
            let keys = StartError::other("index_provisioner.sealing_keys is not set; it is needed by the back-end s3");
            let s3 = backend::s3::S3::open(&config.s3, &host, sealed.clone().ok_or(keys)?)?;
            backends.insert(backend::s3::NAME, Arc::new(s3));
        }
        let work = work::Work::new(ledger.clone(), backends, mint, host.clock.clone(), config.default_segments);
        let desk = actor::Desk { ledger: ledger.clone(), work: work.clone() }.start();
        let leader = lead::Leader { host: host.clone(), ledger: ledger.clone(), own, sealed, work, desk };
        host.spawn_local(
            "leading",
            async move { host::while_leading(&ledger, |token| leader.clone().lead(token)).await },
        );
        Ok(Running::idle())
    }
}

/// Where secrets are kept that cannot be derived; `None` without keys.
async fn sealed(config: &Config, host: &Host) -> Result<Option<sealed::Sealed>, StartError> {
    let Some(text) = host.secret(&config.sealing_keys)?.filter(|text| !text.is_empty()) else { return Ok(None) };
    let wrong = |error| StartError::other(format_args!("index_provisioner.sealing_keys: {error}"));
    let keys = sealed::SealingKeys::parse(&text).map_err(wrong)?;
    let bucket = host.bus.bucket(sealed::SEALED, None, host.common.journal_replicas).await?;
    Ok(Some(sealed::Sealed::new(bucket, keys)))
}

#[cfg(test)]
mod golden_tests;
