//! The alerter: rules, the transitions they go through, and notifications that arrive.
//!
//! Owns rules and the state of each of their label sets, decides when one begins or ceases to fire, and delivers every
//! transition to `alerts.<index>.<rule>` and to the rule's webhook. All of it is journaled: the journal is the outbox.
//! Deliberately does not know: how a query is run (the job manager does that, one job per rule), logs, or segments.
//!
//! Doors, state, bounds and what happens when it fails stand in `README.md`.
//!
//! ```
//! use wire::alerter::Rule;
//!
//! let rule = Rule {
//!     rule: "errors".parse()?,
//!     index: "shop".parse()?,
//!     query: "SELECT service, count(*) AS n FROM tumble(shop, INTERVAL '10 seconds') \
//!             WHERE severity = 'error' GROUP BY service, window_start".into(),
//!     condition: "n > 20".into(),
//!     webhook: None,
//!     summary: "many errors".into(),
//! };
//! assert!(alerter::check(&rule).is_ok());
//! # Ok::<(), types::Invalid>(())
//! ```

mod actor;
mod condition;
mod config;
mod error;
mod jobs;
mod lead;
mod metrics;
mod notify;
mod state;
mod webhook;

use actix::Actor;
use host::{Host, Ledger, Running, StartError};
use wire::alerter::Rule;

pub use config::Config;
pub use error::Error;
pub use state::{Change, Command, Event, INSTANCES_MAX, Notification, OUTBOX_MAX, RULES_MAX, RuleState, State, Target};

/// The service.
#[derive(Debug, Clone, Copy)]
pub struct Alerter;

impl host::Service for Alerter {
    const NAME: wire::Service = wire::Service::Alerter;
    type Config = Config;

    async fn start(config: Config, host: Host) -> Result<Running, StartError> {
        metrics::register_all();
        let tenants = host.tenants().await?;
        tenants.ensure_alerts(host.common.journal_replicas).await?;
        let tls = webhook::trust(&host, &config.webhook_ca)?;
        let webhooks = webhook::Webhooks::new(&tls, config.webhook_timeout.0).map_err(StartError::other)?;
        let notifier = notify::Notifier::new(tenants, webhooks);
        let ledger = Ledger::<State>::start(&host).await?;
        let jobs = jobs::Jobs { bus: host.bus.clone(), ledger: ledger.clone() };
        let desk = actor::Desk { ledger: ledger.clone(), jobs: jobs.clone() }.start();
        let leader = lead::Leader { host: host.clone(), config, ledger: ledger.clone(), jobs, notifier, desk };
        host.spawn("leading", async move { host::while_leading(&ledger, |token| leader.clone().lead(token)).await });
        Ok(Running::idle())
    }
}

/// Checks a rule without creating it.
///
/// Errors: whatever creating it would be refused for.
pub fn check(rule: &Rule) -> Result<(), Error> {
    condition::Condition::of(rule).map(drop)
}

#[cfg(test)]
mod golden_tests;
