//! JetStream's own interface: requests, acknowledged publishes, single reads from the stream's leader.
//!
//! Written on plain requests, so that every error number is seen here and decided once.

use std::{fmt, time::Duration};

use async_nats::{HeaderMap, Message, jetstream::stream};
use bytes::Bytes;
use data_encoding::BASE64;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use wire::header;

use crate::{Bus, BusError, connect::AskError, headers};

/// How long one operation is tried: the election of a stream's leader takes 5 to 10 s.
pub(crate) const JETSTREAM_WITHIN: Duration = Duration::from_secs(10);
/// How long one attempt waits for its answer.
const ATTEMPT_WITHIN: Duration = Duration::from_millis(2500);
/// The longest pause between two attempts.
const PAUSE_MAX: Duration = Duration::from_millis(400);
/// The window in which a stream recognises a message id; repeats end long before.
pub(crate) const ID_WINDOW: Duration = Duration::from_secs(120);

pub(crate) const EXPECTED_LAST_SUBJECT_SEQUENCE: &str = "Nats-Expected-Last-Subject-Sequence";
pub(crate) const EXPECTED_LAST_SUBJECT_SEQUENCE_SUBJECT: &str = "Nats-Expected-Last-Subject-Sequence-Subject";
pub(crate) const KV_OPERATION: &str = "KV-Operation";
pub(crate) const MARKER_REASON: &str = "Nats-Marker-Reason";

/// The server's answer to a condition that does not hold.
pub(crate) const WRONG_LAST_SEQUENCE: u32 = 10071;
/// The store failed; also said when a stream that discards new messages is full.
pub(crate) const STORE_FAILED: u32 = 10077;
const NOT_READY: u32 = 10008;
const STREAM_NAME_IN_USE: u32 = 10058;
/// JetStream's number for a stream that is not there.
const STREAM_NOT_FOUND: u32 = 10059;
const NO_MESSAGE: u32 = 10037;
const DUPLICATE_IN_PROCESS: u32 = 10158;
const CONDITION_IN_PROCESS: u32 = 10164;
const RESOURCES: [u32; 4] = [10002, 10023, 10028, 10047];
/// The account's limit, or the server's storage, is reserved by other streams.
const RESERVATION: [u32; 2] = [10002, 10047];
/// A cluster found no servers for the replicas of a stream; it says why in words.
const NO_PEERS: u32 = 10005;

/// What the server says when it says no.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct ApiError {
    #[serde(default)]
    pub(crate) code: u16,
    #[serde(default)]
    pub(crate) err_code: u32,
    #[serde(default)]
    pub(crate) description: String,
}

impl ApiError {
    /// Whether a store is at its limit, rather than broken.
    pub(crate) fn is_full(&self) -> bool {
        (self.err_code == STORE_FAILED && self.description.contains("maximum")) || RESOURCES.contains(&self.err_code)
    }

    /// Whether a stream is refused because its bytes cannot be reserved.
    fn is_no_room(&self) -> bool {
        RESERVATION.contains(&self.err_code) || (self.err_code == NO_PEERS && self.description.contains("storage"))
    }

    fn is_passing(&self) -> bool {
        matches!(self.err_code, NOT_READY | DUPLICATE_IN_PROCESS | CONDITION_IN_PROCESS)
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (JetStream error {})", self.description, self.err_code)
    }
}

/// Where a publish went.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Published {
    pub(crate) seq: u64,
}

/// Why a publish was not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PublishError {
    /// The server refused; `repeated` says that an earlier attempt of the same message may have been stored.
    Rejected { error: ApiError, repeated: bool },
    /// It may have been stored.
    Unknown(String),
    /// It was not stored.
    NotStored(String),
}

impl PublishError {
    pub(crate) fn into_bus_error(self, what: impl fmt::Display) -> BusError {
        let what = what.to_string();
        match self {
            Self::Rejected { error, repeated: true } => BusError::Unknown { what, reason: error.to_string() },
            Self::Rejected { error, repeated: false } => BusError::Refused { what, reason: error.to_string() },
            Self::Unknown(reason) => BusError::Unknown { what, reason },
            Self::NotStored(reason) => BusError::Unavailable { what, reason },
        }
    }
}

/// A message of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) subject: String,
    pub(crate) seq: u64,
    pub(crate) id: Option<String>,
    /// A deletion or expiry marker of a bucket.
    pub(crate) removed: bool,
    pub(crate) payload: Bytes,
}

/// The ends of a stream, as its leader knows them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(crate) struct Ends {
    pub(crate) first_seq: u64,
    pub(crate) last_seq: u64,
    pub(crate) bytes: u64,
}

/// Which message to read.
pub(crate) enum Pick<'a> {
    Seq(u64),
    Last(&'a str),
    /// The first one at or after a sequence on a subject, which may hold wildcards.
    Next(u64, &'a str),
}

impl Bus {
    /// Asks JetStream; every question asked through here may be repeated.
    pub(crate) async fn api<T: DeserializeOwned>(
        &self,
        operation: &str,
        body: &Value,
    ) -> Result<Result<T, ApiError>, BusError> {
        self.api_within(operation, body, JETSTREAM_WITHIN).await
    }

    /// As [`Bus::api`], and gives up earlier.
    pub(crate) async fn api_within<T: DeserializeOwned>(
        &self,
        operation: &str,
        body: &Value,
        within: Duration,
    ) -> Result<Result<T, ApiError>, BusError> {
        let subject = format!("$JS.API.{operation}");
        let payload = Bytes::from(body.to_string());
        let end = Instant::now() + within;
        let mut pause = Duration::from_millis(20);
        loop {
            let until = end.min(Instant::now() + ATTEMPT_WITHIN);
            let reason = match self.ask(&subject, None, payload.clone(), until).await {
                Ok(message) => match split(&message)? {
                    Err(error) if error.is_passing() => error.to_string(),
                    answer => return Ok(answer),
                },
                Err(AskError::Refused(reason)) => return Err(BusError::Refused { what: subject, reason }),
                Err(error) => error.to_string(),
            };
            if Instant::now() + pause >= end {
                return Err(BusError::Unavailable { what: subject, reason });
            }
            sleep(pause).await;
            pause = next_pause(pause);
        }
    }

    /// Creates the stream, or brings an existing one to this configuration.
    ///
    /// Answers the `max_bytes` that it has then. An existing one keeps what it had
    /// - if it holds more than is wanted: else it would take nothing at all, not even what leads to its purge, and some
    ///   releases of the server would drop its oldest messages;
    /// - if the server refuses to change it for want of room: where more is reserved than there is, it refuses even to
    ///   reserve less.
    pub(crate) async fn ensure_stream(&self, config: &stream::Config) -> Result<i64, BusError> {
        // Asked for first: a server whose disk is nearly full refuses to create even what is there already.
        let there = match self.stream_of(config).await? {
            None if self.create_stream(config).await? => return Ok(config.max_bytes),
            None => self.stream_of(config).await?,
            there => there,
        };
        let had = there.as_ref().and_then(|there| there.config["max_bytes"].as_i64());
        let holds_more = there.as_ref().is_some_and(|there| config.max_bytes > 0 && there.bytes > config.max_bytes);
        let wanted = had.filter(|_| holds_more).unwrap_or(config.max_bytes);
        match self.update_stream(config, there.as_ref(), wanted).await {
            Err(BusError::NoRoom { .. }) => self.update_stream(config, there.as_ref(), had.unwrap_or(wanted)).await,
            updated => updated,
        }
    }

    /// Brings an existing stream to a configuration with this limit, unless it is so already.
    async fn update_stream(
        &self,
        config: &stream::Config,
        there: Option<&There>,
        max_bytes: i64,
    ) -> Result<i64, BusError> {
        let config = stream::Config { max_bytes, ..config.clone() };
        let body = body_of(&config)?;
        if there.is_some_and(|there| is_same(&there.config, &body)) {
            return Ok(max_bytes);
        }
        match self.api::<Value>(&format!("STREAM.UPDATE.{}", config.name), &body).await? {
            Ok(_) => Ok(max_bytes),
            Err(error) => Err(self.refused_stream(&config, &error).await),
        }
    }

    /// Creates a stream where it is absent, and leaves it as it is where it is not.
    pub(crate) async fn join_stream(&self, config: &stream::Config) -> Result<(), BusError> {
        match self.stream_of(config).await? {
            Some(_) => Ok(()),
            None => self.create_stream(config).await.map(drop),
        }
    }

    /// The stream of this name as it is; `None` if there is none.
    async fn stream_of(&self, config: &stream::Config) -> Result<Option<There>, BusError> {
        match self.api::<Value>(&format!("STREAM.INFO.{}", config.name), &json!({})).await? {
            Ok(mut info) => {
                let bytes = info["state"]["bytes"].as_i64().unwrap_or_default();
                Ok(Some(There { config: info["config"].take(), bytes }))
            }
            Err(error) if error.err_code == STREAM_NOT_FOUND => Ok(None),
            Err(error) => Err(self.refused_stream(config, &error).await),
        }
    }

    /// The server's refusal of a stream; where it is for want of room, with what is known of the room.
    async fn refused_stream(&self, config: &stream::Config, error: &ApiError) -> BusError {
        let stream = format!("stream {}", config.name);
        if !error.is_no_room() {
            return BusError::Refused { what: stream, reason: error.to_string() };
        }
        // What the server says of itself is for its operator only; the account knows what its own streams take.
        let account = self.api::<Value>("INFO", &json!({})).await;
        let reserved = account.ok().and_then(Result::ok).and_then(|info| info["reserved_storage"].as_u64());
        let asked = u64::try_from(config.max_bytes).unwrap_or_default();
        BusError::NoRoom { stream, asked, reserved, reason: error.to_string() }
    }

    /// Whether the stream is as wanted; false if there is one of this name in another shape.
    async fn create_stream(&self, config: &stream::Config) -> Result<bool, BusError> {
        match self.api::<Value>(&format!("STREAM.CREATE.{}", config.name), &body_of(config)?).await? {
            Ok(_) => Ok(true),
            Err(error) if error.err_code == STREAM_NAME_IN_USE => Ok(false),
            Err(error) => Err(self.refused_stream(config, &error).await),
        }
    }

    /// The ends of a stream.
    pub(crate) async fn ends(&self, stream: &str) -> Result<Ends, BusError> {
        #[derive(Deserialize)]
        struct Info {
            state: Ends,
        }
        let answer = self.api::<Info>(&format!("STREAM.INFO.{stream}"), &json!({})).await?;
        answer
            .map(|info| info.state)
            .map_err(|error| BusError::Refused { what: format!("stream {stream}"), reason: error.to_string() })
    }

    /// Removes the messages of a subject below a sequence; without a subject all of them, and what is next has at least this one.
    pub(crate) async fn purge(&self, stream: &str, subject: Option<&str>, below: u64) -> Result<(), BusError> {
        let body = match subject {
            Some(subject) => json!({ "filter": subject, "seq": below }),
            None => json!({ "seq": below }),
        };
        let answer = self.api::<Value>(&format!("STREAM.PURGE.{stream}"), &body).await?;
        answer
            .map(|_| ())
            .map_err(|error| BusError::Refused { what: format!("purge of {stream}"), reason: error.to_string() })
    }

    /// Reads one message from the stream's leader.
    pub(crate) async fn stored(&self, stream: &str, pick: Pick<'_>) -> Result<Option<Stored>, BusError> {
        #[derive(Deserialize)]
        struct Answer {
            message: RawStored,
        }
        let body = match pick {
            Pick::Seq(seq) => json!({ "seq": seq }),
            Pick::Last(subject) => json!({ "last_by_subj": subject }),
            Pick::Next(seq, subject) => json!({ "seq": seq, "next_by_subj": subject }),
        };
        match self.api::<Answer>(&format!("STREAM.MSG.GET.{stream}"), &body).await? {
            Ok(answer) => answer.message.decode(stream).map(Some),
            Err(error) if error.err_code == NO_MESSAGE => Ok(None),
            Err(error) => Err(BusError::Refused { what: format!("read of {stream}"), reason: error.to_string() }),
        }
    }

    /// Publishes into a stream until it is acknowledged; the message id makes the repeats harmless.
    ///
    /// Bounds: one message in flight per call; repeats for `within`, which is far below [`ID_WINDOW`].
    pub(crate) async fn publish_stored(
        &self,
        subject: &str,
        headers: &HeaderMap,
        payload: &Bytes,
        within: Duration,
    ) -> Result<Published, PublishError> {
        debug_assert!(headers.get(header::MSG_ID).is_some(), "a publish without an id cannot be repeated");
        let end = Instant::now() + within;
        let mut pause = Duration::from_millis(20);
        let mut repeated = false;
        loop {
            let until = end.min(Instant::now() + ATTEMPT_WITHIN);
            let reason = match self.ask(subject, Some(headers.clone()), payload.clone(), until).await {
                Ok(message) => match split::<Published>(&message) {
                    Ok(Ok(published)) => return Ok(published),
                    Ok(Err(error)) if error.is_passing() => error.to_string(),
                    Ok(Err(error)) => return Err(PublishError::Rejected { error, repeated }),
                    Err(error) => return Err(PublishError::Unknown(error.to_string())),
                },
                Err(AskError::Refused(reason)) => return Err(PublishError::NotStored(reason)),
                Err(error @ (AskError::TimedOut | AskError::Lost)) => {
                    repeated = true;
                    error.to_string()
                }
                Err(error @ (AskError::NotSent(_) | AskError::NoResponders)) => error.to_string(),
            };
            if Instant::now() + pause >= end {
                return Err(if repeated { PublishError::Unknown(reason) } else { PublishError::NotStored(reason) });
            }
            sleep(pause).await;
            pause = next_pause(pause);
        }
    }
}

fn next_pause(pause: Duration) -> Duration {
    (pause * 2).min(PAUSE_MAX).mul_f64(rand::random_range(0.8..1.2))
}

/// Splits an answer into what was asked for and the server's refusal.
fn split<T: DeserializeOwned>(message: &Message) -> Result<Result<T, ApiError>, BusError> {
    let malformed = |e: serde_json::Error| BusError::Malformed {
        what: "answer of JetStream".to_owned(),
        reason: format!("{e}: {}", String::from_utf8_lossy(&message.payload).chars().take(200).collect::<String>()),
    };
    #[derive(Deserialize)]
    struct Refusal {
        error: Option<ApiError>,
    }
    if let Some(error) = serde_json::from_slice::<Refusal>(&message.payload).map_err(malformed)?.error {
        return Ok(Err(error));
    }
    serde_json::from_slice(&message.payload).map(Ok).map_err(malformed)
}

#[derive(Deserialize)]
struct RawStored {
    subject: String,
    seq: u64,
    #[serde(default)]
    data: String,
    #[serde(default)]
    hdrs: Option<String>,
}

impl RawStored {
    fn decode(self, stream: &str) -> Result<Stored, BusError> {
        let seq = self.seq;
        let malformed = |e: data_encoding::DecodeError| BusError::Malformed {
            what: format!("{stream}, sequence {seq}"),
            reason: e.to_string(),
        };
        let payload = BASE64.decode(self.data.as_bytes()).map_err(malformed)?;
        let head = self.hdrs.map(|h| BASE64.decode(h.as_bytes())).transpose().map_err(malformed)?.unwrap_or_default();
        let head = String::from_utf8_lossy(&head);
        let removed = matches!(headers::find(&head, KV_OPERATION).as_deref(), Some("DEL" | "PURGE"))
            || headers::find(&head, MARKER_REASON).is_some();
        Ok(Stored {
            subject: self.subject,
            seq,
            id: headers::find(&head, header::MSG_ID),
            removed,
            payload: payload.into(),
        })
    }
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(all) => all.is_empty(),
        Value::Object(all) => all.is_empty(),
        Value::Bool(true) => false,
    }
}

fn body_of(config: &stream::Config) -> Result<Value, BusError> {
    let malformed = |e: serde_json::Error| BusError::Malformed {
        what: format!("configuration of {}", config.name),
        reason: e.to_string(),
    };
    serde_json::to_value(config).map_err(malformed)
}

/// A stream as the server knows it.
struct There {
    config: Value,
    bytes: i64,
}

/// Whether a stream has everything that is wanted of it.
fn is_same(there: &Value, wanted: &Value) -> bool {
    let same = |(key, value): (&String, &Value)| {
        // What one side leaves out the other may call nothing.
        let found = there.get(key).unwrap_or(&Value::Null);
        found == value || (is_nothing(found) && is_nothing(value))
    };
    wanted.as_object().is_some_and(|all| all.iter().all(same))
}

/// What every stream of ours has in common: file storage, reads through the leader, no single deletes.
pub(crate) fn stream_config(name: String, subjects: Vec<String>, replicas: u8) -> stream::Config {
    stream::Config {
        name,
        subjects,
        max_bytes: -1,
        max_messages: -1,
        max_messages_per_subject: -1,
        max_consumers: -1,
        max_message_size: -1,
        discard: stream::DiscardPolicy::New,
        storage: stream::StorageType::File,
        num_replicas: usize::from(replicas.max(1)),
        duplicate_window: ID_WINDOW,
        deny_delete: true,
        // A follower may answer a direct read with something old.
        allow_direct: false,
        ..stream::Config::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_is_told_from_broken() {
        let error = |err_code, description: &str| ApiError { code: 503, err_code, description: description.to_owned() };
        for (e, full) in [
            (error(STORE_FAILED, "maximum bytes exceeded"), true),
            (error(STORE_FAILED, "store is closed"), false),
            (error(10047, "insufficient storage resources available"), true),
            (error(WRONG_LAST_SEQUENCE, "wrong last sequence: 3"), false),
        ] {
            assert_eq!(e.is_full(), full, "{e}");
        }
    }

    #[test]
    fn no_room_is_told_from_no_servers() {
        let error = |err_code, description: &str| ApiError { code: 400, err_code, description: description.to_owned() };
        for (e, no_room) in [
            (error(10047, "insufficient storage resources available"), true),
            (error(10005, "no suitable peers for placement, insufficient storage"), true),
            (error(10005, "no suitable peers for placement, peer offline"), false),
            (error(10074, "replicas > 1 not supported in non-clustered mode"), false),
        ] {
            assert_eq!(e.is_no_room(), no_room, "{e}");
        }
    }

    #[test]
    fn a_stored_message_is_read_with_its_headers() {
        let raw = RawStored {
            subject: "$KV.b.k".to_owned(),
            seq: 7,
            data: BASE64.encode(b"v"),
            hdrs: Some(BASE64.encode(b"NATS/1.0\r\nNats-Msg-Id: x\r\nNats-Marker-Reason: MaxAge\r\n\r\n")),
        };
        let stored = raw.decode("KV_b").unwrap();
        assert_eq!((stored.seq, stored.id.as_deref(), stored.removed), (7, Some("x"), true));
    }
}
