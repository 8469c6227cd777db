//! Syslog over UDP, TCP and TLS: each message an event, as it was sent.
//!
//! The token of a binding says which index is meant: a message of RFC 5424 may carry one in its structured data, and
//! `gateway.syslog_token` serves the others. What a message says (time, host, severity, fields) is found where all events are
//! understood.

mod datagrams;
mod frame;
mod messages;
mod streams;
mod token;

use std::{net::SocketAddr, sync::Arc};

use rustls::ServerConfig;
use tokio::net::UdpSocket;
use tokio_util::task::TaskTracker;

use self::messages::Taker;
use crate::{
    api::Door,
    sockets::{ListenError, Listener},
};

/// Opens the listeners that the settings name, and tells where they are; they close when the door stops.
///
/// Their tasks are local ones: this must run on a thread that has such.
pub(crate) async fn open(
    door: &Door,
    token: Option<String>,
    tls: Option<Arc<ServerConfig>>,
    tasks: &TaskTracker,
) -> Result<Vec<SocketAddr>, ListenError> {
    let (config, stop) = (Arc::clone(&door.config), door.stop.clone());
    let taker = Arc::new(Taker::new(door.clone(), token));
    let mut bound = Vec::new();
    if !config.syslog_udp_address.is_empty() {
        let address = &config.syslog_udp_address;
        let socket = UdpSocket::bind(address).await.map_err(ListenError::at(address))?;
        let local = socket.local_addr().map_err(ListenError::at(address))?;
        tracing::info!(what = "syslog-udp", address = %local, "listener is open");
        bound.push(local);
        tasks.spawn_local(datagrams::listen(Arc::clone(&taker), socket));
    }
    let tls = if config.syslog_tls_address.is_empty() {
        None
    } else {
        Some(tls.ok_or(ListenError::NoCertificate("gateway.syslog_tls_address"))?)
    };
    for (what, address, tls) in
        [("syslog-tcp", &config.syslog_tcp_address, None), ("syslog-tls", &config.syslog_tls_address, tls)]
    {
        if address.is_empty() {
            continue;
        }
        let listener = Listener::open(what, address, tls).await?;
        bound.push(listener.bound());
        let taker = Arc::clone(&taker);
        let serve = move |socket, peer| streams::serve(Arc::clone(&taker), socket, peer);
        tasks.spawn_local(listener.run(stop.clone(), tasks.clone(), serve));
    }
    Ok(bound)
}

#[cfg(test)]
mod tests;
