//! The job manager: from the text of a continuous query to tasks that run, and that begin again when something breaks.
//!
//! Owns jobs, their job graphs, the placement of tasks in slots, and checkpoints: when one begins, when it is complete, and
//! from which one an attempt begins. All of it is journaled. Also how many task workers there should be, where a cluster gives them.
//! Deliberately does not know: rows, windows' contents, Arrow, or how a worker runs a task.
//!
//! Doors, state, bounds and what happens when it fails stand in `README.md`.
//!
//! ```
//! // Planning is pure: the same text always gives the same graph.
//! let text = "INSERT INTO rates SELECT service, window_start, count(*) AS n \
//!             FROM tumble(shop, INTERVAL '10 seconds') GROUP BY service, window_start";
//! assert_eq!(job_manager::explain(text, 2).unwrap(), job_manager::explain(text, 2).unwrap());
//! ```

mod actor;
mod command;
mod config;
mod driver;
mod error;
mod history;
mod job;
mod lead;
mod manifest;
mod metrics;
mod orders;
mod plan;
mod resources;
mod restart;
mod savepoints;
mod state;
mod workers;

use actix::Actor;
use client::Client;
use host::{Host, Ledger, Running, StartError};
use wire::job_manager::{NewJob, StartAt};

pub use config::{Config, Resources};
pub use error::Error;
pub use history::Failure;
pub use state::{
    CANCELLED_MAX, CHECKPOINTS_RESERVED, Checkpoint, Command, Event, JOBS_MAX, Job, PlannedJob, State, Stop,
};

/// The service.
#[derive(Debug, Clone, Copy)]
pub struct JobManager;

impl host::Service for JobManager {
    const NAME: wire::Service = wire::Service::JobManager;
    type Config = Config;

    async fn start(config: Config, host: Host) -> Result<Running, StartError> {
        metrics::register_all();
        let ledger = Ledger::<State>::start(&host).await?;
        let client = Client::new(host.bus.clone(), host.objects.clone());
        if let Some(manager) = resources::Manager::new(&config, &host, &ledger).await? {
            let ledger = ledger.clone();
            let manage = async move { host::while_leading(&ledger, |token| manager.clone().lead(token)).await };
            host.spawn("resources", manage);
        }
        let drivers = lead::Drivers::default();
        let desk = actor::Desk {
            ledger: ledger.clone(),
            client: client.clone(),
            drivers: drivers.clone(),
            objects: host.objects.clone(),
        }
        .start();
        let leader = lead::Leader { host: host.clone(), config, ledger: ledger.clone(), drivers, desk, client };
        host.spawn("leading", async move { host::while_leading(&ledger, |token| leader.clone().lead(token)).await });
        Ok(Running::idle())
    }
}

/// The job graph of a text as JSON, without running it.
///
/// Errors: whatever submitting the text would be refused for.
pub fn explain(text: &str, parallelism: u16) -> Result<String, Error> {
    let new = NewJob {
        job: "explain".parse().map_err(|e: types::Invalid| Error::InvalidQuery(e.to_string()))?,
        text: text.to_owned(),
        sink: None,
        start: StartAt::Earliest,
        parallelism,
        early: None,
        options: wire::job_manager::JobOptions::default(),
    };
    let plan = plan::plan(&new, parallelism)?;
    serde_json::to_string_pretty(&plan.graph).map_err(|e| Error::InvalidQuery(e.to_string()))
}

#[cfg(test)]
mod golden_tests;
