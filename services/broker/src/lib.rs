//! The service broker: what a platform asks of Logboom, in the words of the Open Service Broker API 2.17.
//!
//! Owns the catalog, service instances and service bindings with their operations, and who asked for them. Intent is journaled before
//! anything is done, so an operation survives a crash at any step and is ended by whoever leads next.
//! Deliberately does not know: how an index is made, what credentials consist of, or any secret; the index-provisioner does.
//!
//! Doors, state, bounds and what happens when it fails stand in `README.md`.
//!
//! ```
//! use broker::{BUILT_IN, Catalog, Version};
//!
//! let catalog = Catalog::parse(BUILT_IN)?;
//! let shown = catalog.shown(Version { minor: 17 });
//! assert_eq!(shown["services"][0]["name"], "log-index");
//! # Ok::<(), broker::CatalogError>(())
//! ```

mod alerts;
mod api;
mod audit;
mod catalog;
mod config;
mod desk;
mod effects;
mod error;
mod forward;
mod metrics;
mod operator;
mod osb;
mod provisioned;
mod reconciler;
mod reload;
mod seal;
mod state;
mod tools;
mod wanted;

use std::sync::Arc;

use bus::Doors;
use host::{Host, Ledger, Running, StartError};

pub use alerts::{ALERTS_MAX, Alert, DefaultRule, When, default_rules};
pub use catalog::{BUILT_IN, Catalog, CatalogError, Chosen, Offering, Plan};
pub use config::Config;
pub use error::{BrokerError, CONCURRENCY};
pub use osb::{Identity, Version};
pub use state::{
    BINDINGS_MAX, Binding, BindingRequest, Change, Command, Ended, Event, Failure, INSTANCES_MAX, Instance,
    InstanceRequest, Kind, NewBind, NewInstance, Operation, Phase, SWEEP_MAX, State, TOMBSTONE_AGE, TOMBSTONES_MAX,
    Terms, Tombstones, Wanted,
};
pub use wanted::{Defaults, SETTING_CHARS_MAX, SETTINGS_MAX, Shape, Unfit, wanted};

/// The service.
#[derive(Debug, Clone, Copy)]
pub struct Broker;

impl host::Service for Broker {
    const NAME: wire::Service = wire::Service::Broker;
    type Config = Config;

    async fn start(config: Config, host: Host) -> Result<Running, StartError> {
        metrics::register_all();
        let files = reload::Files::open(&config, &host)?;
        let ledger = Ledger::<State>::start(&host).await?;
        let audit = audit::Audit::new(&host);
        let (keeper, stop) = (audit.clone(), host.stop.clone());
        let (age, bytes, copies) = (config.audit_retention.0, config.audit_bytes_max.0, host.common.journal_replicas);
        host.spawn("audit", async move {
            stop.run_until_cancelled(keeper.ensure(age, bytes, copies)).await;
        });
        let desk = desk::Desk {
            audit: audit.clone(),
            catalog: files.shelf.clone(),
            keys: files.keys.clone(),
            ledger: ledger.clone(),
            bus: host.bus.clone(),
            clock: host.clock.clone(),
            gateway_url: config.gateway_url.trim_end_matches('/').into(),
            grpc_address: config.grpc_public_address.as_str().into(),
            nats_url: config.nats_public_url.as_str().into(),
            handover: desk::Handover::default(),
        };
        let front = api::Front { desk: desk.clone(), admission: files.admission.clone() };
        host.spawn("files", files.follow(config.reload_interval.0));
        let (server, handle) = front
            .serve(&host, &config.address)
            .map_err(|source| StartError::Address { address: config.address.clone(), source })?;
        let gone = host.clone();
        host.spawn_local("http", async move {
            if let Err(source) = server.await {
                gone.fail(StartError::Io { what: "the Open Service Broker API ended".to_owned(), source });
            }
        });
        let operator = operator::Operator::new(&config, &host, &desk).await?;
        let leader = Leader { host: host.clone(), desk, operator, reconcile_interval: config.reconcile_interval.0 };
        host.spawn_local("leading", async move {
            host::while_leading(&ledger, |token| Box::pin(leader.clone().lead(token))).await
        });
        Ok(Running::new(async move {
            handle.stop(true).await;
            audit.drained().await;
        }))
    }
}

/// What a leading broker does besides answering its own HTTP requests.
#[derive(Clone)]
struct Leader {
    host: Host,
    desk: desk::Desk,
    operator: Option<Arc<operator::Operator>>,
    reconcile_interval: std::time::Duration,
}

impl Leader {
    async fn lead(self, token: tokio_util::sync::CancellationToken) {
        let doors = Doors::new(&self.host.bus, wire::Service::Broker, &self.host.replica);
        let desk = self.desk.clone();
        let door = doors.serve::<forward::ForwardRequest, _, _>(None, move |incoming| {
            let desk = desk.clone();
            async move { api::forwarded(&desk, incoming.request).await }
        });
        let door = match door.await {
            Ok(door) => Some(door),
            Err(error) => {
                tracing::error!(%error, "requests of other replicas cannot be served");
                None
            }
        };
        let problems = tools::Problems::default();
        let tools = tools::Tools { desk: self.desk.clone(), problems: problems.clone() };
        let _tools =
            tools.open(&doors).await.inspect_err(|error| tracing::error!(%error, "operators' tools cannot be served"));
        tracing::info!("broker leads");
        let turns = host::Turns::default();
        let effects = effects::Effects {
            bus: self.host.bus.clone(),
            ledger: self.desk.ledger.clone(),
            audit: self.desk.audit.clone(),
            handover: self.desk.handover.clone(),
        };
        let reconciler = reconciler::Reconciler {
            ledger: self.desk.ledger.clone(),
            bus: self.host.bus.clone(),
            clock: self.host.clock.clone(),
            audit: self.desk.audit.clone(),
            turns: turns.clone(),
            every: self.reconcile_interval,
        };
        let reconciling = reconciler.run(token.clone());
        let run = |effect: String, work| {
            let (effects, problems) = (effects.clone(), problems.clone());
            async move {
                let done = effects.run(work).await;
                problems.note(&effect, &done);
                done
            }
        };
        let operator = self.operator.clone();
        let operating = async {
            match operator {
                Some(operator) => operator.run().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = host::run_effects(&self.desk.ledger, token, &turns, effects::look, run) => {}
            () = reconciling => {}
            () = operating => {}
        }
        if let Some(door) = door {
            door.close().await;
        }
    }
}

#[cfg(test)]
mod golden_tests;
