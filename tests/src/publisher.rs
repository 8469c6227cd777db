//! Publishing with a plain JetStream client: `js.publish`, a message id, and a repeat until it is acknowledged.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use async_nats::{
    Client,
    jetstream::{self, message::PublishMessage, publish::PublishAck},
};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use tokio::time::{Instant, sleep, timeout};

/// How long one publish waits for its acknowledgement before it is repeated.
const ACK_WITHIN: Duration = Duration::from_secs(5);
/// How long a publish is repeated: longer than any outage that a test makes.
pub const RETRY_WITHIN: Duration = Duration::from_secs(90);
/// The pause between two attempts.
const PAUSE: Duration = Duration::from_millis(50);

/// A JetStream publisher on one connection.
#[derive(Debug, Clone)]
pub struct Publisher {
    client: Client,
    jetstream: jetstream::Context,
    ack_within: Duration,
}

impl Publisher {
    /// A publisher on a connection.
    pub fn new(client: Client) -> Self {
        Self::hasty(client, ACK_WITHIN)
    }

    /// A publisher that repeats as soon as an acknowledgement does not come within this time.
    pub fn hasty(client: Client, ack_within: Duration) -> Self {
        let jetstream = jetstream::ContextBuilder::new().timeout(ack_within).build(client.clone());
        Self { client, jetstream, ack_within }
    }

    /// The connection.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Publishes once; an error says that no acknowledgement came, not that nothing was kept.
    pub async fn once(&self, subject: &str, id: &str, payload: impl Into<Bytes>) -> Result<PublishAck> {
        let message = PublishMessage::build().payload(payload.into()).message_id(id);
        let publish = async {
            let ack = self.jetstream.send_publish(subject.to_owned(), message).await?;
            anyhow::Ok(ack.await?)
        };
        timeout(self.ack_within, publish).await.context("no acknowledgement")?
    }

    /// Publishes and repeats with the same id until it is acknowledged.
    pub async fn until_acked(&self, subject: &str, id: &str, payload: impl Into<Bytes>) -> Result<PublishAck> {
        let payload = payload.into();
        let begun = Instant::now();
        loop {
            match self.once(subject, id, payload.clone()).await {
                Ok(ack) => return Ok(ack),
                Err(error) if begun.elapsed() > RETRY_WITHIN => {
                    bail!("event {id} was not acknowledged within {RETRY_WITHIN:?}: {error:#}")
                }
                Err(_) => sleep(PAUSE).await,
            }
        }
    }

    /// Publishes `(subject, id, payload)` with up to `window` of them waiting at once, each until it is acknowledged.
    pub async fn all(&self, window: usize, events: impl IntoIterator<Item = (String, String, String)>) -> Result<()> {
        stream::iter(events)
            .map(|(subject, id, payload)| async move { self.until_acked(&subject, &id, payload).await.map(drop) })
            .buffer_unordered(window)
            .try_for_each(|()| async { Ok(()) })
            .await
    }
}
