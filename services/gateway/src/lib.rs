//! The HTTP front door: ingest, SQL, live tail, jobs, rules and the console.
//!
//! Owns: the HTTP API under `/api/v1`, who may call what of it, and the console page at `/`.
//! Deliberately does not know: where events are kept, how jobs run, what a rule means. It keeps no state: any number of
//! replicas may stand behind one address, and a restart loses nothing but open connections.
//!
//! Doors: HTTP on `gateway.address`; none on the bus. Bounds, failures and how to look inside: see `README.md`.
//!
//! ```no_run
//! let settings = settings::Settings::load(settings::Layers::default())?;
//! host::run::<gateway::Gateway>(settings, None)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod api;
mod auth;
mod config;
mod console;
mod error;
mod histogram;
mod indexes;
mod ingest_lines;
mod jobs;
mod metrics;
mod places;
mod platform;
mod quota;
mod request;
mod rules;
mod sql;
mod table;
mod tail;

use std::sync::Arc;

use actix_web::HttpServer;
use host::{Host, Quotas, Running, StartError};

pub use config::Config;

use crate::{api::Door, auth::Auth, platform::Remote};

/// Threads that take connections; bodies are decoded and queries run elsewhere.
const HTTP_THREADS: usize = 2;

/// Connections of one of them; others wait to be accepted. Each costs little until it has sent a request.
const CONNECTIONS_MAX: usize = 4_096;

/// How long a drain waits for requests in flight; below the host's own bound.
const DRAIN_SECONDS: u64 = 8;

/// The service.
#[derive(Debug)]
pub struct Gateway;

impl host::Service for Gateway {
    const NAME: wire::Service = wire::Service::Gateway;
    type Config = Config;

    async fn start(config: Config, host: Host) -> Result<Running, StartError> {
        metrics::register_all();
        let admin = host.secret(&config.admin_token)?;
        let tokens = host.bus.bucket(wire::views::TOKENS, None, host.common.journal_replicas).await?;
        let auth = Auth::new(admin.as_deref(), Arc::new(tokens), Arc::clone(&host.clock));
        let runtime = sql::runtime()
            .map_err(|source| StartError::Io { what: "threads for queries cannot be started".to_owned(), source })?;
        let threads = QueryThreads(Some(runtime));
        let platform = Arc::new(Remote::new(&host).await?);
        let quotas = Quotas::open(&host).await?;
        let door = Door::new(config.clone(), (auth, quotas), platform, &host, threads.handle()?);
        let server = HttpServer::new(move || api::app(door.clone()))
            .workers(HTTP_THREADS)
            .max_connections(CONNECTIONS_MAX)
            .shutdown_timeout(DRAIN_SECONDS)
            .disable_signals();
        let server = match host.https() {
            Some(tls) => server.bind_rustls_0_23(&config.address, tls),
            None => server.bind(&config.address),
        };
        let server = server.map_err(|source| StartError::Address { address: config.address.clone(), source })?;
        for bound in server.addrs() {
            host.listens("gateway", bound);
        }
        let server = server.run();
        let handle = server.handle();
        drop(actix_rt::spawn(server));
        Ok(Running::new(async move {
            handle.stop(true).await;
            // In-flight queries have been answered or cut off.
            drop(threads);
        }))
    }
}

/// The threads that run queries. They end without being waited for: a runtime must not block the thread that drops it,
/// neither after a drain nor when a start goes wrong.
struct QueryThreads(Option<tokio::runtime::Runtime>);

impl QueryThreads {
    fn handle(&self) -> Result<tokio::runtime::Handle, StartError> {
        let runtime = self.0.as_ref().ok_or_else(|| StartError::other("the threads for queries have ended"))?;
        Ok(runtime.handle().clone())
    }
}

impl Drop for QueryThreads {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
mod fake;
