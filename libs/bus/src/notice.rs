//! Notices: told once, heard by whoever listens at that moment.

use std::{fmt, marker::PhantomData};

use async_nats::Subscriber;
use bytes::Bytes;
use futures::StreamExt;
use tracing::warn;
use wire::{Event, filter_of, subject_of_event};

use crate::{Bus, BusError};

impl Bus {
    /// Tells a notice, at most once; whoever misses it reads the truth elsewhere.
    pub async fn tell<E: Event>(&self, key: &E::Key, body: &E::Body) {
        let subject = subject_of_event::<E>(key);
        if let Err(error) = self.client().publish(subject.clone(), wire::encode(body).into()).await {
            warn!(%subject, %error, "notice not told");
        }
    }

    /// Listens to every notice of a kind, of every key.
    pub async fn listen<E: Event>(&self) -> Result<Notices<E>, BusError> {
        self.only_inside("a notice")?;
        Ok(Notices { messages: self.subscribe(&filter_of(E::PATTERN)).await?, kind: PhantomData })
    }

    /// Listens to a subject as it is: for tools and tests.
    ///
    /// Bounds: 65,536 messages wait for the reader; beyond, the oldest stay and new ones are dropped.
    pub async fn subscribe_raw(&self, subject: &str) -> Result<RawMessages, BusError> {
        Ok(RawMessages { messages: self.subscribe(subject).await? })
    }

    /// Subscribes and makes sure that the server knows before this returns.
    pub(crate) async fn subscribe(&self, subject: &str) -> Result<Subscriber, BusError> {
        let failed = |reason: String| BusError::Unavailable { what: format!("subscription to {subject}"), reason };
        let messages = self.client().subscribe(subject.to_owned()).await.map_err(|e| failed(e.to_string()))?;
        self.round_trip().await;
        Ok(messages)
    }
}

/// A subscription to one kind of notice; ends by being dropped.
pub struct Notices<E> {
    messages: Subscriber,
    kind: PhantomData<fn() -> E>,
}

impl<E> fmt::Debug for Notices<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Notices")
    }
}

impl<E: Event> Notices<E> {
    /// The next notice; `None` when the bus is closed. Notices that cannot be read are skipped.
    pub async fn next(&mut self) -> Option<E::Body> {
        loop {
            let message = self.messages.next().await?;
            match wire::decode(&message.payload) {
                Ok(body) => return Some(body),
                Err(problem) => warn!(subject = %message.subject, %problem, "notice skipped"),
            }
        }
    }
}

/// One message as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawMessage {
    /// Where it was published.
    pub subject: String,
    /// Where an answer is awaited.
    pub reply: Option<String>,
    /// The body.
    pub payload: Bytes,
}

/// A plain subscription; ends by being dropped.
#[derive(Debug)]
pub struct RawMessages {
    messages: Subscriber,
}

impl RawMessages {
    /// The next message; `None` when the bus is closed.
    pub async fn next(&mut self) -> Option<RawMessage> {
        let message = self.messages.next().await?;
        Some(RawMessage {
            subject: message.subject.to_string(),
            reply: message.reply.map(|r| r.to_string()),
            payload: message.payload,
        })
    }
}
