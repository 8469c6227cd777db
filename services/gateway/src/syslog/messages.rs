//! Messages on their way from a listener to durable events.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};

use actix_web::ResponseError;
use bus::{Origin, with_origin};
use bytes::Bytes;
use tokio::time::{Instant, sleep};
use types::RoutingKey;
use uuid::Uuid;
use wire::{Code, Problem};

use super::token::{ELEMENT, Token};
use crate::{
    api::Door,
    auth::Principal,
    error::HttpError,
    ingest_lines::{Entry, Line},
    metrics::{INGEST_BYTES, SYSLOG},
};

/// Messages that are stored at once.
pub(super) const BATCH_MAX: usize = 1_000;
/// Bytes of them, as far as they do not come with the last message.
pub(super) const BATCH_BYTES_MAX: usize = 256 << 10;
/// How long one attempt to store may take.
const ATTEMPT_WITHIN: Duration = Duration::from_secs(30);
/// The pause before the second attempt; it doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Where messages come from: those from one address keep their order.
pub(super) type Peer = Arc<RoutingKey>;

/// The key of all messages from an address.
pub(super) fn peer(address: IpAddr) -> Option<Peer> {
    RoutingKey::new(&address.to_canonical().to_string()).ok().map(Arc::new)
}

/// Numbers messages, so that one which is stored again because an answer was lost is recognised.
pub(super) struct Numbers(u128);

impl Numbers {
    pub(super) fn new() -> Self {
        Self(Uuid::new_v4().as_u128())
    }

    fn next(&mut self) -> u128 {
        self.0 = self.0.wrapping_add(1).max(1);
        self.0
    }
}

/// A message without its token.
#[derive(Debug, Clone)]
pub(super) struct Message {
    id: u128,
    peer: Option<Peer>,
    payload: Bytes,
}

/// Messages that go one way: those that say the same about their token.
pub(super) struct Group {
    pub(super) token: Token,
    pub(super) messages: Vec<Message>,
}

/// What was read and is to be stored, in order.
#[derive(Default)]
pub(super) struct Batch {
    groups: BTreeMap<Token, Vec<Message>>,
    count: usize,
    bytes: usize,
}

impl Batch {
    /// Adds a message without its token; an empty one is none.
    pub(super) fn push(&mut self, (payload, token): (Bytes, Token), peer: Option<&Peer>, numbers: &mut Numbers) {
        if payload.is_empty() {
            return;
        }
        self.count += 1;
        self.bytes += payload.len();
        let message = Message { id: numbers.next(), peer: peer.cloned(), payload };
        self.groups.entry(token).or_default().push(message);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(super) fn is_full(&self) -> bool {
        self.count >= BATCH_MAX || self.bytes >= BATCH_BYTES_MAX
    }

    pub(super) fn groups(self) -> impl Iterator<Item = Group> {
        self.groups.into_iter().map(|(token, messages)| Group { token, messages })
    }
}

/// Why messages are not stored.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unstored {
    /// They never will be.
    #[error("refused: {0}")]
    Refused(HttpError),
    /// They might be another time, which is not waited for any longer.
    #[error("given up: {0}")]
    GivenUp(HttpError),
}

/// How long it is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    /// Until the door stops: whoever sends is made to wait.
    Endless,
    /// For so long, and not at all where a quota is exhausted: whoever sends does not wait.
    For(Duration),
}

/// Stores what listeners take.
pub(super) struct Taker {
    pub(super) door: Door,
    /// For messages that carry none.
    token: Option<String>,
}

impl Taker {
    pub(super) fn new(door: Door, token: Option<String>) -> Self {
        Self { door, token }
    }

    /// Stores messages: all of them are durable when this returns without an error.
    pub(super) async fn keep_storing(&self, group: Group, patience: Patience) -> Result<(), Unstored> {
        let count = u64::try_from(group.messages.len()).unwrap_or(u64::MAX);
        INGEST_BYTES.add(group.messages.iter().map(|message| u64::try_from(message.payload.len()).unwrap_or(0)).sum());
        let (begun, mut pause) = (Instant::now(), PAUSE_MIN);
        let ended = loop {
            let Err(error) = self.store(&group).await else { break Ok(()) };
            if !may_pass(&error) {
                break Err(Unstored::Refused(error));
            }
            let over = match patience {
                Patience::Endless => false,
                Patience::For(time) => begun.elapsed() + pause > time || error.problem().kind.starts_with("Quota"),
            };
            if over || self.door.stop.run_until_cancelled(sleep(pause)).await.is_none() {
                break Err(Unstored::GivenUp(error));
            }
            if pause == PAUSE_MIN {
                tracing::debug!(%error, count, "syslog messages wait to be stored");
            }
            pause = (pause * 2).min(PAUSE_MAX);
        };
        SYSLOG.with(outcome(&ended)).add(count);
        ended
    }

    async fn store(&self, group: &Group) -> Result<(), HttpError> {
        let origin = Origin {
            caller: self.door.caller.clone(),
            deadline: self.door.clock.now() + ATTEMPT_WITHIN,
            request_id: Uuid::new_v4().simple().to_string(),
            traceparent: None,
        };
        with_origin(origin, self.store_once(group)).await
    }

    async fn store_once(&self, group: &Group) -> Result<(), HttpError> {
        let none = || HttpError::unauthorized("the message carries no token, and gateway.syslog_token is not set");
        let unreadable = || {
            let message = format!(
                "write the element of the token as [{ELEMENT} token=\"TOKEN\"], once and with nothing else in it"
            );
            HttpError::unauthorized(&message)
        };
        let token = match &group.token {
            Token::Given(token) => token,
            Token::None => self.token.as_ref().ok_or_else(none)?,
            Token::Unreadable => return Err(unreadable()),
        };
        let principal = self.door.auth.check(token).await?;
        let Principal::Bound(grant) = &principal else {
            let message = "the admin token names no log index: use the token of a binding";
            return Err(Problem::new(Code::Forbidden, "RoleTooWeak", message).into());
        };
        let index = grant.index.clone();
        let entry = Entry::new(&self.door, principal, Some(&index))?;
        let stream = entry.stream(&self.door, &index).await?;
        let line = |message: &Message| {
            let hash = stream.hash(message.peer.as_deref());
            Line { id: message.id, hash, payload: message.payload.clone() }
        };
        let lines: Vec<Line> = group.messages.iter().map(line).collect();
        entry.store(&self.door, &stream, lines, true).await
    }
}

/// Whether the same may be stored another time.
fn may_pass(error: &HttpError) -> bool {
    let status = error.status_code();
    status.is_server_error() || matches!(status.as_u16(), 412 | 429)
}

fn outcome(ended: &Result<(), Unstored>) -> &'static str {
    match ended {
        Ok(()) => "stored",
        Err(Unstored::Refused(_)) => "refused",
        Err(Unstored::GivenUp(_)) => "given_up",
    }
}
