//! Ports that must be known before anything listens on them.

use std::{
    net::TcpListener,
    sync::atomic::{AtomicU16, Ordering},
};

use anyhow::Result;

/// Ports below those that the system gives to outgoing connections, so that nothing takes one between its choice and its use.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// A port on loopback that nothing listens on; never the same one twice in this process.
///
/// Another process may choose it too before it is used; whoever listens there then says so.
pub fn free_port() -> Result<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let width = PORTS.end - PORTS.start;
    let begin = u16::try_from(std::process::id() % u32::from(width)).unwrap_or(0);
    for _ in 0..width {
        let offset = (u32::from(begin) * 37 + u32::from(NEXT.fetch_add(1, Ordering::Relaxed))) % u32::from(width);
        let port = PORTS.start + u16::try_from(offset).unwrap_or(0);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    anyhow::bail!("no port from {} to {} is free", PORTS.start, PORTS.end)
}
