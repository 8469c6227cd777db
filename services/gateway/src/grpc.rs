//! gRPC on a listener of its own: logs of OpenTelemetry, and Flight SQL.

mod connection;
mod logs;
mod status;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bus::Origin;
use rustls::ServerConfig;
use tokio::runtime::{Handle, Runtime};
use tokio_util::task::TaskTracker;
use tonic::{metadata::MetadataMap, service::Routes};

pub(crate) use self::{
    connection::OpenCall,
    status::{for_agents, for_queries},
};
use crate::{
    api::Door,
    auth::{Principal, token_in},
    error::HttpError,
    flight,
    sockets::{ListenError, Listener},
};

/// Threads on which connections are served. What is unpacked and written there are messages of many MiB, for which nobody else waits.
const THREADS: usize = 2;
/// Stack of each: statements are read there, and those that nest deeply take it.
const STACK_BYTES: usize = 8 << 20;
/// How much longer than its query a call may wait for other services, and a message for its bytes.
const GRACE: Duration = Duration::from_secs(120);

/// The threads of the listener.
pub(crate) fn threads() -> std::io::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .thread_name("grpc")
        .worker_threads(THREADS)
        .thread_stack_size(STACK_BYTES)
        .enable_all()
        .build()
}

/// Opens the listener if the settings name one; it closes when the door stops. Its connections are served on other threads.
pub(crate) async fn open(
    door: &Door,
    tls: Option<Arc<ServerConfig>>,
    tasks: &TaskTracker,
    threads: Handle,
) -> Result<Option<SocketAddr>, ListenError> {
    let address = &door.config.otlp_grpc_address;
    if address.is_empty() {
        return Ok(None);
    }
    let tls = tls.map(|tls| {
        let mut tls = ServerConfig::clone(&tls);
        tls.alpn_protocols = vec![b"h2".to_vec()];
        Arc::new(tls)
    });
    let listener = Listener::open("grpc", address, tls).await?;
    let bound = listener.bound();
    let (services, within) = (services(door), call_within(door));
    let stop = door.stop.clone();
    let serve = move |socket, _| {
        let served = threads.spawn(connection::serve(services.clone(), within, socket, stop.clone()));
        async move {
            if let Err(error) = served.await {
                tracing::error!(%error, "connection of gRPC ended by a defect");
            }
        }
    };
    tasks.spawn_local(listener.run(door.stop.clone(), tasks.clone(), serve));
    Ok(Some(bound))
}

fn services(door: &Door) -> Routes {
    Routes::new(logs::Logs::new(door.clone())).add_service(flight::service(door.clone())).prepare()
}

/// How long a call may take until its answer begins.
fn call_within(door: &Door) -> Duration {
    door.config.query_timeout.0 + GRACE
}

/// Who makes a call. Errors: as [`crate::auth::Auth::check`].
pub(crate) async fn caller(door: &Door, metadata: &MetadataMap) -> Result<Principal, HttpError> {
    let none = || HttpError::unauthorized("send the metadata `authorization: Bearer <token>`");
    door.auth.check(&token(metadata).ok_or_else(none)?).await
}

/// The token of a call, in any of the ways in which one is sent over HTTP.
pub(crate) fn token(metadata: &MetadataMap) -> Option<String> {
    text(metadata, "authorization").and_then(token_in)
}

fn text<'m>(metadata: &'m MetadataMap, name: &str) -> Option<&'m str> {
    metadata.get(name).and_then(|value| value.to_str().ok())
}

/// On whose behalf other services are called.
pub(crate) fn origin(door: &Door, metadata: &MetadataMap) -> Origin {
    let given = text(metadata, "x-request-id").filter(|id| types::Token::new(id).is_ok()).map(str::to_owned);
    Origin {
        caller: door.caller.clone(),
        deadline: door.clock.now() + call_within(door),
        request_id: given.unwrap_or_else(|| uuid::Uuid::new_v4().simple().to_string()),
        traceparent: text(metadata, "traceparent").map(str::to_owned),
    }
}

#[cfg(test)]
mod tests;
