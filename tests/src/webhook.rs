//! A webhook receiver on loopback: what a subscriber of alerts would run.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    sync::Notify,
    time::{Instant, timeout},
};

/// Largest body taken: a transition is far below this.
const BODY_BYTES_MAX: usize = 1 << 20;
/// Deliveries kept; what comes beyond is refused, which a test would notice.
const DELIVERIES_MAX: usize = 100_000;

/// One delivered notification.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// The `Idempotency-Key` header.
    pub key: String,
    /// The body.
    pub body: Value,
    /// When it came.
    pub at: Instant,
}

#[derive(Debug, Default)]
struct Shared {
    deliveries: Mutex<Vec<Delivery>>,
    changed: Notify,
}

/// Listens until it is dropped.
#[derive(Debug)]
pub struct Webhook {
    /// Where to send notifications.
    pub url: String,
    shared: Arc<Shared>,
    task: tokio::task::JoinHandle<()>,
}

impl Webhook {
    /// Listens on a free port.
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("no free port for the webhook receiver")?;
        let url = format!("http://{}/alerts", listener.local_addr()?);
        let shared = Arc::new(Shared::default());
        let kept = Arc::clone(&shared);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let kept = Arc::clone(&kept);
                // A request that is cut off is repeated by its sender.
                tokio::spawn(async move { answer(stream, &kept).await.is_ok() });
            }
        });
        Ok(Self { url, shared, task })
    }

    /// What came so far, repeats included, in order of arrival.
    pub fn deliveries(&self) -> Vec<Delivery> {
        self.shared.deliveries.lock().clone()
    }

    /// Waits for the first delivery of a state for a label value.
    pub async fn wait_for(&self, state: &str, label: &str, value: &str, within: Duration) -> Result<Delivery> {
        let find = || {
            let wanted = |d: &&Delivery| d.body["state"] == state && d.body["labels"][label] == value;
            self.shared.deliveries.lock().iter().find(wanted).cloned()
        };
        let search = async {
            loop {
                let changed = self.shared.changed.notified();
                if let Some(found) = find() {
                    return found;
                }
                changed.await;
            }
        };
        timeout(within, search).await.with_context(|| format!("no alert {state} for {label}={value} within {within:?}"))
    }
}

impl Drop for Webhook {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(stream: TcpStream, kept: &Shared) -> Result<()> {
    let mut stream = BufReader::new(stream);
    let (mut key, mut length) = (String::new(), 0usize);
    let mut line = String::new();
    loop {
        line.clear();
        ensure!(stream.read_line(&mut line).await? > 0, "closed within its head");
        let text = line.trim();
        if text.is_empty() {
            break;
        }
        match text.split_once(':') {
            Some((name, value)) if name.eq_ignore_ascii_case("idempotency-key") => key = value.trim().to_owned(),
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => length = value.trim().parse()?,
            _ => {}
        }
    }
    ensure!(length <= BODY_BYTES_MAX, "a body of {length} bytes is too large");
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
    {
        let mut kept = kept.deliveries.lock();
        ensure!(kept.len() < DELIVERIES_MAX, "more than {DELIVERIES_MAX} deliveries");
        kept.push(Delivery { key, body, at: Instant::now() });
    }
    kept.changed.notify_waiters();
    stream.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").await?;
    stream.flush().await?;
    Ok(())
}
