//! The coordinator: which streams there are, of which segments they consist, and who owns which container.
//!
//! Owns scopes; streams and their numbers; the segments of every epoch with their key ranges, which followed which, and where a
//! stream begins; transactions and reader groups as far as they outlive a writer or reader; and the placement of segment containers
//! on replicas of segment-store, each assignment fenced by a generation. All of it is journaled; the views in key-value buckets
//! are copies that a leader rewrites when it takes over. The keys of encrypted streams are in a bucket and nowhere else.
//! Deliberately does not know: events, offsets, chunks, users, bindings, or why an index was wanted.
//!
//! Doors, state, bounds and what happens when it fails stand in `README.md`.
//!
//! ```
//! use coordinator::{Placed, Store};
//! use types::Timestamp;
//!
//! let store = |name: &str| Store { replica: name.parse().unwrap(), started: Timestamp::from_nanos(1) };
//! let mut placed = Placed::default();
//! let changes = placed.plan(8, &[store("a")], true);
//! placed.apply(&changes, Timestamp::from_nanos(2));
//! // A second store takes half of the containers and not one more.
//! assert_eq!(placed.plan(8, &[store("a"), store("b")], true).placed.len(), 4);
//! ```

mod actor;
mod api;
pub mod autoscale;
mod commit;
mod config;
mod delegation;
mod error;
pub mod groups;
mod lead;
pub mod library;
mod metrics;
mod page;
mod placement;
mod rest;
pub mod retention;
mod sighting;
mod state;
mod stores;
mod streams;
pub mod transactions;
mod views;

use actix::Actor;
use bus::Gatekeeper;
use host::{Host, Ledger, Running, StartError};
use wire::views::{GROUPS, INDEX_KEYS, MEMBERS, QUOTAS, SYNCHRONIZERS, TABLES, VIEWS};

pub use config::Config;
pub use error::CoordinatorError;
pub use placement::{Changes, Owner, Placed, Placing, Store};
pub use rest::{PasswordError, password_line};
pub use state::{
    Changed, Command, Event, Phase, SCOPES_MAX, SEGMENTS_MAX, STREAMS_MAX, ScopePhase, State, Stream, TAGS_MAX,
    Truncation, graph,
};

/// The service.
#[derive(Debug, Clone, Copy)]
pub struct Coordinator;

impl host::Service for Coordinator {
    const NAME: wire::Service = wire::Service::Coordinator;
    type Config = Config;

    async fn start(config: Config, host: Host) -> Result<Running, StartError> {
        metrics::register_all();
        let replicas = host.common.journal_replicas;
        let views = views::Views::new(host.bus.bucket(VIEWS, None, replicas).await?);
        let members = host.bus.bucket(MEMBERS, Some(host.common.lease_ttl.0), replicas).await?;
        let ledger = Ledger::<State>::start(&host).await?;
        let synchronizers = host.bus.bucket(SYNCHRONIZERS, None, replicas).await?;
        let documents = [synchronizers, host.bus.bucket(TABLES, None, replicas).await?];
        let quotas = host.bus.bucket(QUOTAS, None, replicas).await?;
        // Everybody else takes the bucket as it is.
        host.bus.bucket(INDEX_KEYS, None, replicas).await?;
        let streams = streams::Streams::new(&host, ledger.clone(), views.clone(), documents, quotas);
        let rooms = lead::Rooms::new(&host, &ledger, &streams);
        let held = host.bus.bucket(GROUPS, None, replicas).await?;
        let rest = rest::serve(&config, &host, &ledger, members.clone(), held.clone()).await?;
        let readers = groups::doors::Readers::new(host.bus.clone(), ledger.clone(), held);
        let commits = rooms.commits.clone();
        let keeper = Gatekeeper::open(&host.bus, &host.tenants().await?, replicas).await?;
        let grants = delegation::Grants::begin(&host, config.delegation_lifetime.0).await?;
        let desk = actor::Desk { ledger: ledger.clone(), streams: streams.clone(), commits, readers, grants }.start();
        let (beside, of_leader) = (host.clone(), ledger.clone());
        let leader =
            lead::Leader { host: beside, config, ledger: of_leader, streams, views, members, desk, keeper, rooms };
        host.spawn_local("leading", async move {
            Box::pin(host::while_leading(&ledger, |token| leader.clone().lead(token))).await
        });
        Ok(Running::new(async move {
            if let Some(rest) = rest {
                rest.stop(true).await;
            }
        }))
    }
}

#[cfg(test)]
mod golden_tests;
