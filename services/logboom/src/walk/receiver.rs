//! A webhook receiver on loopback: what a subscriber of alerts would run.

use std::sync::Arc;

use anyhow::Context;
use parking_lot::Mutex;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};

/// Largest body taken: a transition is far below this.
const BODY_BYTES_MAX: usize = 1 << 20;
/// Deliveries kept; the walk expects two.
const DELIVERIES_MAX: usize = 1_000;

/// One delivered notification.
#[derive(Debug, Clone)]
pub(crate) struct Delivery {
    /// The `Idempotency-Key` header.
    pub(crate) key: String,
    /// The body.
    pub(crate) body: serde_json::Value,
}

/// Listens until it is dropped.
#[derive(Debug)]
pub(crate) struct Receiver {
    /// Where to send notifications.
    pub(crate) url: String,
    deliveries: Arc<Mutex<Vec<Delivery>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Receiver {
    /// Listens on a free port.
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("no free port for the webhook receiver")?;
        let url = format!("http://{}/alerts", listener.local_addr()?);
        let deliveries = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&deliveries);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let kept = Arc::clone(&kept);
                tokio::spawn(async move {
                    if let Err(error) = answer(stream, &kept).await {
                        tracing::debug!(?error, "webhook request not understood");
                    }
                });
            }
        });
        Ok(Self { url, deliveries, task })
    }

    /// What came so far.
    pub(crate) fn deliveries(&self) -> Vec<Delivery> {
        self.deliveries.lock().clone()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(stream: TcpStream, kept: &Mutex<Vec<Delivery>>) -> anyhow::Result<()> {
    let mut stream = BufReader::new(stream);
    let (mut key, mut length) = (String::new(), 0usize);
    let mut line = String::new();
    loop {
        line.clear();
        if stream.read_line(&mut line).await? == 0 {
            anyhow::bail!("closed within its head");
        }
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
    anyhow::ensure!(length <= BODY_BYTES_MAX, "a body of {length} bytes is too large");
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    let body = serde_json::from_slice(&body).unwrap_or(serde_json::Value::Null);
    {
        let mut kept = kept.lock();
        anyhow::ensure!(kept.len() < DELIVERIES_MAX, "more than {DELIVERIES_MAX} deliveries");
        kept.push(Delivery { key, body });
    }
    stream.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").await?;
    stream.flush().await?;
    Ok(())
}
