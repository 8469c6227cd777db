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

mod api;
mod catalog;
mod config;
mod desk;
mod effects;
mod error;
mod forward;
mod metrics;
mod osb;
mod state;

use std::sync::Arc;

use bus::Doors;
use host::{Host, Ledger, Running, StartError};

pub use catalog::{BUILT_IN, Catalog, CatalogError, Chosen, Defaults, Offering, Plan};
pub use config::Config;
pub use error::{BrokerError, CONCURRENCY};
pub use osb::{Identity, Version};
pub use state::{
    BINDINGS_MAX, Binding, BindingRequest, Command, Ended, Event, INSTANCES_MAX, Instance, InstanceRequest, Kind,
    Operation, Phase, State, TOMBSTONE_AGE, TOMBSTONES_MAX, Tombstones, Wanted,
};

/// The service.
#[derive(Debug, Clone, Copy)]
pub struct Broker;

impl host::Service for Broker {
    const NAME: wire::Service = wire::Service::Broker;
    type Config = Config;

    async fn start(config: Config, host: Host) -> Result<Running, StartError> {
        metrics::register_all();
        let catalog = match config.catalog_path.as_str() {
            "" => Catalog::parse(BUILT_IN),
            path => Catalog::parse(&read(path)?),
        };
        let password = host.secret(&config.password)?.filter(|text| !text.is_empty());
        let password =
            password.ok_or_else(|| StartError::other("broker.password is not set; it is needed to start"))?;
        let credential = osb::Credential::new(&config.username, &password).map_err(StartError::other)?;
        let ledger = Ledger::<State>::start(&host).await?;
        let desk = desk::Desk {
            catalog: Arc::new(catalog.map_err(StartError::other)?),
            ledger: ledger.clone(),
            bus: host.bus.clone(),
            gateway_url: config.gateway_url.trim_end_matches('/').into(),
            nats_url: config.nats_public_url.as_str().into(),
        };
        let front = api::Front { desk: desk.clone(), credentials: Arc::new(vec![credential]) };
        let (server, handle) = front
            .serve(&host, &config.address)
            .map_err(|source| StartError::Address { address: config.address.clone(), source })?;
        let gone = host.clone();
        host.spawn_local("http", async move {
            if let Err(source) = server.await {
                gone.fail(StartError::Io { what: "the Open Service Broker API ended".to_owned(), source });
            }
        });
        let leader = Leader { host: host.clone(), desk };
        host.spawn_local(
            "leading",
            async move { host::while_leading(&ledger, |token| leader.clone().lead(token)).await },
        );
        Ok(Running::new(async move { handle.stop(true).await }))
    }
}

fn read(path: &str) -> Result<String, StartError> {
    std::fs::read_to_string(path)
        .map_err(|source| StartError::Io { what: format!("catalog {path} cannot be read"), source })
}

/// What a leading broker does besides answering its own HTTP requests.
#[derive(Clone)]
struct Leader {
    host: Host,
    desk: desk::Desk,
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
        tracing::info!("broker leads");
        let effects = effects::Effects::new(self.host.bus.clone(), self.desk.ledger.clone());
        let run = |_, work| {
            let effects = effects.clone();
            async move { effects.run(work).await }
        };
        host::run_effects(&self.desk.ledger, token, effects::pending, run).await;
        if let Some(door) = door {
            door.close().await;
        }
    }
}
