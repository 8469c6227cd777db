//! Lanes: where producers' plain publishes arrive, already spread so that a key always meets the same lane.

use async_nats::{Message, Subscriber};
use bytes::Bytes;
use futures::StreamExt;
use serde_json::json;
use tracing::debug;
use types::{IndexName, LaneId, RoutingKey};
use wire::{header, subjects};

use crate::{Bus, BusError, headers};

/// JetStream's number for a malformed request; what clients see for a name that is not allowed.
const BAD_REQUEST: u32 = 10003;

/// One published event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneMessage {
    /// The log index.
    pub index: IndexName,
    /// The routing key: from the header `Lb-Routing-Key`, else from the subject.
    pub routing_key: Option<RoutingKey>,
    /// Where the producer waits for its PubAck: an inbox; `None` is at most once.
    pub reply: Option<String>,
    /// The producer's `Nats-Msg-Id`.
    pub message_id: Option<String>,
    /// The event.
    pub payload: Bytes,
}

/// The subscription of one lane's owner; ends by being dropped.
///
/// Bounds: 65,536 events wait for the reader. Beyond that new ones are dropped without a PubAck, so that a producer
/// that waits for PubAcks sends them again.
#[derive(Debug)]
pub struct Lane {
    bus: Bus,
    messages: Subscriber,
}

impl Bus {
    /// Begins to receive a lane's events; for a connection in the tenants' account.
    pub async fn lane(&self, lane: LaneId) -> Result<Lane, BusError> {
        Ok(Lane { bus: self.clone(), messages: self.subscribe(&subjects::lane_filter(lane)).await? })
    }

    /// Answers a producer with a JetStream PubAck.
    pub async fn ack(&self, reply: &str, stream: &str, seq: u64, duplicate: bool) {
        let mut body = json!({ "stream": stream, "seq": seq });
        if duplicate {
            body["duplicate"] = json!(true);
        }
        self.answer(reply, body.to_string()).await;
    }

    /// Answers a producer with a JetStream error PubAck.
    pub async fn refuse(&self, reply: &str, code: u16, err_code: u32, description: &str) {
        let body = json!({
            "error": { "code": code, "err_code": err_code, "description": description },
            "stream": "",
            "seq": 0,
        });
        self.answer(reply, body.to_string()).await;
    }

    async fn answer(&self, reply: &str, body: String) {
        if let Err(error) = self.client().publish(reply.to_owned(), body.into()).await {
            debug!(reply, %error, "producer not answered");
        }
    }
}

impl Lane {
    /// The next event; `None` when the bus is closed. Cancel safe.
    ///
    /// Names that break a rule are answered with an error PubAck and skipped.
    pub async fn next(&mut self) -> Option<LaneMessage> {
        loop {
            let message = self.messages.next().await?;
            match understand(&message) {
                Ok(event) => return Some(event),
                Err(reason) => {
                    debug!(subject = %message.subject, %reason, "published event refused");
                    if let Some(reply) = inbox(&message) {
                        self.bus.refuse(&reply, 400, BAD_REQUEST, &reason).await;
                    }
                }
            }
        }
    }
}

/// Where an answer may go.
///
/// The server does not check reply subjects. An acknowledgement to anything but an inbox would be published with our rights, which
/// are more than the producer's: to the API of JetStream, or to somebody's alerts.
fn inbox(message: &Message) -> Option<String> {
    message.reply.as_ref().filter(|reply| reply.starts_with("_INBOX.")).map(ToString::to_string)
}

fn understand(message: &Message) -> Result<LaneMessage, String> {
    let mut tokens = message.subject.splitn(4, '.').skip(2);
    let index = tokens.next().unwrap_or_default().parse::<IndexName>().map_err(|e| e.to_string())?;
    let routing_key = headers::get(message.headers.as_ref(), header::ROUTING_KEY)
        .or(tokens.next())
        .map(RoutingKey::new)
        .transpose()
        .map_err(|e| e.to_string())?;
    Ok(LaneMessage {
        index,
        routing_key,
        reply: inbox(message),
        message_id: headers::get(message.headers.as_ref(), header::MSG_ID).map(str::to_owned),
        payload: message.payload.clone(),
    })
}

#[cfg(test)]
mod tests {
    use async_nats::HeaderMap;

    use super::*;

    fn message(subject: &str, key: Option<&str>) -> Message {
        let mut map = HeaderMap::new();
        if let Some(key) = key {
            headers::set(&mut map, header::ROUTING_KEY, key);
        }
        Message {
            subject: subject.into(),
            reply: None,
            payload: Bytes::from_static(b"x"),
            headers: Some(map),
            status: None,
            description: None,
            length: 0,
        }
    }

    #[test]
    fn the_header_wins_over_the_subject() {
        for (subject, header, key) in [
            ("lane.3.shop", None, None),
            ("lane.3.shop.cart", None, Some("cart")),
            ("lane.3.shop.cart", Some("ä b"), Some("ä b")),
            ("lane.3.shop", Some("k"), Some("k")),
        ] {
            let event = understand(&message(subject, header)).unwrap();
            assert_eq!(event.index.as_str(), "shop");
            assert_eq!(event.routing_key.as_ref().map(RoutingKey::as_str), key, "{subject}");
        }
    }

    #[test]
    fn acknowledgements_go_to_inboxes_only() {
        for (reply, answered) in [
            (Some("_INBOX.b1.x"), true),
            (None, false),
            (Some("$JS.API.STREAM.PURGE.ALERTS"), false),
            (Some("alerts.bank.fire"), false),
            (Some("lane.0.bank"), false),
        ] {
            let message = Message { reply: reply.map(Into::into), ..message("lane.3.shop", None) };
            assert_eq!(understand(&message).unwrap().reply.is_some(), answered, "{reply:?}");
        }
    }

    #[test]
    fn names_that_break_a_rule_are_refused() {
        assert!(understand(&message("lane.3.Shop", None)).is_err());
        assert!(understand(&message("lane.3.shop", Some(&"k".repeat(513)))).is_err());
        assert!(understand(&message("lane.3", None)).is_err());
    }
}
