//! Reading a stream in order: an ephemeral consumer that is thrown away and made again whenever it is in doubt.

use std::time::Duration;

use async_nats::{Message, StatusCode, Subscriber};
use bytes::Bytes;
use futures::StreamExt;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{debug, warn};
use wire::header;

use crate::{
    Bus, BusError, headers,
    jetstream::{JETSTREAM_WITHIN, KV_OPERATION, MARKER_REASON, Pick, Stored},
};

/// Messages asked for at once.
const BATCH: usize = 512;
/// Bytes asked for at once: far below the 64 MiB at which the server drops a connection as too slow.
const BATCH_BYTES: usize = 8 << 20;
/// How long a waiting request stays open.
const EXPIRES: Duration = Duration::from_secs(20);
/// How often the server says that a waiting request is alive.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// Silence after which a consumer counts as lost.
const SILENCE_MAX: Duration = Duration::from_millis(2500);
/// How long one consumer may take to be made. JetStream gives it to one server of the stream's at random, and goes on
/// giving it to one that has just died or hangs; the next one, under another name, may land elsewhere. It doubles with
/// each that was not made.
const BEGIN_WITHIN: Duration = Duration::from_millis(1250);
/// How long the server keeps a consumer that nobody asks.
const IDLE_MAX: Duration = Duration::from_secs(30);

/// A position in a stream, restricted to one subject, which may hold wildcards; an empty one restricts nothing.
#[derive(Debug)]
pub(crate) struct Pull {
    bus: Bus,
    stream: String,
    filter: String,
    /// Everything up to here was given out.
    after: u64,
    session: Option<Session>,
    /// When a message alone is larger than a batch may be.
    single: bool,
    /// What the next consumer may take to be made.
    begin_within: Duration,
}

#[derive(Debug)]
struct Session {
    consumer: String,
    messages: Subscriber,
    inbox: String,
    lost_count: u64,
    /// When the server last said anything.
    heard: Instant,
    /// The consumer's own count; a hole in it means that a message was lost on the way.
    delivered: u64,
    request_count: u64,
    /// Messages that the open request may still bring; 0 when none is open.
    open: usize,
    brought: usize,
    /// No message is left on the server after the last one brought.
    drained: bool,
}

/// What [`Pull::next`] found.
#[derive(Debug)]
pub(crate) enum Step {
    Message(Stored),
    /// Nothing more at this instant; only without waiting.
    End,
    /// The consumer is in doubt and will be made again.
    Broken(String),
}

enum Status {
    Again,
    End,
    TooLarge,
    Broken(String),
}

impl Pull {
    pub(crate) fn new(bus: &Bus, stream: &str, filter: &str, after: u64) -> Self {
        let (bus, stream, filter) = (bus.clone(), stream.to_owned(), filter.to_owned());
        Self { bus, stream, filter, after, session: None, single: false, begin_within: BEGIN_WITHIN }
    }

    pub(crate) fn after(&self) -> u64 {
        self.after
    }

    /// Continues elsewhere.
    pub(crate) fn restart(&mut self, after: u64) {
        self.drop_session();
        self.after = after;
    }

    fn drop_session(&mut self) {
        if let Some(session) = self.session.take() {
            self.delete(session.consumer);
        }
    }

    fn delete(&self, consumer: String) {
        let (client, stream) = (self.bus.client().clone(), self.stream.clone());
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            // A courtesy: the server removes idle consumers by itself.
            runtime.spawn(async move {
                let subject = format!("$JS.API.CONSUMER.DELETE.{stream}.{consumer}");
                if let Err(error) = client.publish(subject, Bytes::new()).await {
                    debug!(%error, "js_consumer not deleted");
                }
            });
        }
    }

    /// The next message, in order; with `wait` it waits for one. Cancel safe.
    pub(crate) async fn next(&mut self, wait: bool) -> Step {
        match self.step(wait).await {
            Ok(Some(stored)) => {
                self.after = stored.seq;
                self.single = false;
                Step::Message(stored)
            }
            Ok(None) => Step::End,
            Err(reason) => {
                debug!(stream = %self.stream, %reason, "js_consumer made again");
                self.drop_session();
                Step::Broken(reason)
            }
        }
    }

    async fn step(&mut self, wait: bool) -> Result<Option<Stored>, String> {
        if self.session.is_none() {
            let begun = self.begin().await;
            self.begin_within =
                if begun.is_ok() { BEGIN_WITHIN } else { (self.begin_within * 2).min(JETSTREAM_WITHIN) };
            self.session = Some(begun.map_err(|e| e.to_string())?);
        }
        let Some(session) = &mut self.session else { return Err("no session".to_owned()) };
        loop {
            if session.open == 0 {
                if session.drained && !wait {
                    session.drained = false;
                    return Ok(None);
                }
                session.request(&self.bus, &self.stream, wait, self.single).await?;
            }
            let message = tokio::select! {
                biased;
                message = session.messages.next() => message.ok_or("the subscription ended")?,
                () = self.bus.lost_since(session.lost_count) => return Err("the connection was lost".to_owned()),
                () = sleep_until(session.heard + SILENCE_MAX) => return Err("the server fell silent".to_owned()),
            };
            session.heard = Instant::now();
            match message.status {
                None => return session.take(message, self.after).map(Some),
                Some(status) => match session.on_status(status, &message) {
                    Status::Again => {}
                    Status::TooLarge => self.single = true,
                    Status::End if wait => {}
                    Status::End => return Ok(None),
                    Status::Broken(reason) => return Err(reason),
                },
            }
        }
    }

    async fn begin(&self) -> Result<Session, BusError> {
        #[derive(Deserialize)]
        struct Created {
            #[serde(default)]
            num_pending: u64,
        }
        let consumer = format!("lb_{:016x}", rand::random::<u64>());
        let inbox = self.bus.client().new_inbox();
        let lost_count = self.bus.lost_count();
        let failed = |reason: String| BusError::Unavailable { what: format!("reading {}", self.stream), reason };
        let messages =
            self.bus.client().subscribe(format!("{inbox}.*")).await.map_err(|error| failed(error.to_string()))?;
        let nanos = |d: Duration| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX);
        let mut body = json!({
            "stream_name": self.stream,
            "action": "create",
            "config": {
                "name": consumer,
                "deliver_policy": "by_start_sequence",
                "opt_start_seq": self.after + 1,
                "ack_policy": "none",
                "mem_storage": true,
                "num_replicas": 1,
                "inactive_threshold": nanos(IDLE_MAX),
            },
        });
        let mut operation = format!("CONSUMER.CREATE.{}.{consumer}", self.stream);
        if !self.filter.is_empty() {
            body["config"]["filter_subject"] = json!(self.filter);
            operation = format!("{operation}.{}", self.filter);
        }
        let created = self.bus.api_within::<Created>(&operation, &body, self.begin_within).await;
        // It may be made yet, when nobody waits for it any more.
        let created = created.inspect_err(|_| self.delete(consumer.clone()))?;
        let created = created.map_err(|error| failed(error.to_string()))?;
        Ok(Session {
            consumer,
            messages,
            inbox,
            lost_count,
            heard: Instant::now(),
            delivered: 0,
            request_count: 0,
            open: 0,
            brought: 0,
            drained: created.num_pending == 0,
        })
    }

    /// Reads what is there, up to a number of bytes but at least one message; empty only at the stream's end.
    ///
    /// The end is the leader's: a consumer may live beside a replica that is behind.
    pub(crate) async fn read(&mut self, bytes_max: usize) -> Result<Vec<Stored>, BusError> {
        let mut found = Vec::new();
        let mut bytes = 0;
        let mut until = Instant::now() + JETSTREAM_WITHIN;
        loop {
            let stored = match self.next(false).await {
                Step::Message(stored) => stored,
                Step::End => {
                    let Some(stored) = self.beyond().await? else { return Ok(found) };
                    stored
                }
                Step::Broken(reason) if Instant::now() >= until => {
                    return Err(BusError::Unavailable { what: format!("reading {}", self.stream), reason });
                }
                Step::Broken(_) => {
                    sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            until = Instant::now() + JETSTREAM_WITHIN;
            bytes += stored.payload.len().max(1);
            found.push(stored);
            if bytes >= bytes_max {
                return Ok(found);
            }
        }
    }

    /// What the stream's leader has beyond the end that the consumer saw.
    async fn beyond(&mut self) -> Result<Option<Stored>, BusError> {
        let next = self.bus.stored(&self.stream, Pick::Next(self.after + 1, &self.filter)).await?;
        if let Some(stored) = &next {
            // The consumer would give it again.
            self.restart(stored.seq);
        }
        Ok(next)
    }
}

impl Drop for Pull {
    fn drop(&mut self) {
        self.drop_session();
    }
}

impl Session {
    async fn request(&mut self, bus: &Bus, stream: &str, wait: bool, single: bool) -> Result<(), String> {
        let batch = if single { 1 } else { BATCH };
        let mut body = json!({ "batch": batch });
        if !single {
            body["max_bytes"] = json!(BATCH_BYTES);
        }
        if wait {
            body["expires"] = json!(u64::try_from(EXPIRES.as_nanos()).unwrap_or(u64::MAX));
            body["idle_heartbeat"] = json!(u64::try_from(HEARTBEAT.as_nanos()).unwrap_or(u64::MAX));
        } else {
            body["no_wait"] = Value::Bool(true);
        }
        self.request_count += 1;
        let reply = format!("{}.{}", self.inbox, self.request_count);
        let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{}", self.consumer);
        (self.open, self.brought, self.drained) = (batch, 0, false);
        self.heard = Instant::now();
        bus.client().publish_with_reply(subject, reply, body.to_string().into()).await.map_err(|e| e.to_string())
    }

    fn take(&mut self, message: Message, after: u64) -> Result<Stored, String> {
        let place = message.reply.as_ref().and_then(|r| Place::parse(r)).ok_or("a message without its place")?;
        if place.delivered != self.delivered + 1 || place.seq <= after {
            return Err(format!(
                "message {} came after {}, {} messages are missing",
                place.seq, after, place.delivered
            ));
        }
        self.delivered = place.delivered;
        self.open = self.open.saturating_sub(1);
        self.brought += 1;
        if place.pending == 0 {
            self.drained = true;
        }
        let get = |name| headers::get(message.headers.as_ref(), name);
        Ok(Stored {
            subject: message.subject.to_string(),
            seq: place.seq,
            id: get(header::MSG_ID).map(str::to_owned),
            removed: matches!(get(KV_OPERATION), Some("DEL" | "PURGE")) || get(MARKER_REASON).is_some(),
            payload: message.payload,
        })
    }

    fn on_status(&mut self, status: StatusCode, message: &Message) -> Status {
        let text = message.description.as_deref().unwrap_or_default();
        if status == StatusCode::IDLE_HEARTBEAT {
            return Status::Again;
        }
        // What is said about an earlier request concerns nobody any more.
        let number = message.subject.rsplit('.').next().and_then(|n| n.parse::<u64>().ok());
        if number != Some(self.request_count) && status != StatusCode::NO_RESPONDERS {
            return Status::Again;
        }
        match status {
            StatusCode::NOT_FOUND | StatusCode::TIMEOUT => {
                self.open = 0;
                Status::End
            }
            StatusCode::REQUEST_TERMINATED if text.contains("MaxBytes") || text.contains("Batch Completed") => {
                self.open = 0;
                if self.brought == 0 { Status::TooLarge } else { Status::Again }
            }
            _ => {
                if status != StatusCode::REQUEST_TERMINATED && status != StatusCode::NO_RESPONDERS {
                    warn!(%status, text, "js_consumer answered with an unknown status");
                }
                Status::Broken(format!("{status} {text}"))
            }
        }
    }
}

/// What the reply subject of a delivered message says.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    seq: u64,
    delivered: u64,
    pending: u64,
}

impl Place {
    /// `$JS.ACK.<stream>.<consumer>.<times>.<seq>.<delivered>.<time>.<pending>`, newer with domain and account before
    /// the stream and a token at the end.
    fn parse(reply: &str) -> Option<Self> {
        let tokens: Vec<&str> = reply.split('.').collect();
        let at = match tokens.len() {
            9 => 5,
            11.. => 7,
            _ => return None,
        };
        let number = |i: usize| tokens.get(i)?.parse().ok();
        Some(Self { seq: number(at)?, delivered: number(at + 1)?, pending: number(at + 3)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_a_place_are_read() {
        let place = Some(Place { seq: 42, delivered: 7, pending: 3 });
        assert_eq!(Place::parse("$JS.ACK.S.C.1.42.7.1700000000.3"), place);
        assert_eq!(Place::parse("$JS.ACK._.hash.S.C.1.42.7.1700000000.3.tok"), place);
        assert_eq!(Place::parse("$JS.ACK.S.C.1"), None);
        assert_eq!(Place::parse("_INBOX.a"), None);
    }
}
