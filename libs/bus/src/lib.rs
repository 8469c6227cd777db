//! NATS at arm's length: calls, doors, journals, container logs, buckets, leases, lanes and keys.
#![allow(missing_docs, unused, clippy::all)]
use std::{future::Future, marker::PhantomData, time::Duration};
use bytes::Bytes;
use types::{Clock, ContainerId, IndexName, LaneId, ReplicaId, RoutingKey, Timestamp};
use wire::{Call, Event, Problem, Service, segment_store::OwnerRecord};

#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;
impl Clock for SystemClock { fn now(&self) -> Timestamp { Timestamp::from_nanos(0) } }

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BusError {
    #[error("NATS at {url}: {reason}")]
    Connect { url: String, reason: String },
    #[error("{what}: {reason}")]
    Unavailable { what: String, reason: String },
    #[error("{what} refused: {reason}")]
    Refused { what: String, reason: String },
    #[error("{what} is not understood: {reason}")]
    Malformed { what: String, reason: String },
    #[error("key is not valid: {0}")]
    Key(String),
}
fn nope<T>() -> Result<T, BusError> { Err(BusError::Connect { url: String::new(), reason: "under construction".into() }) }
fn nop<T>() -> Result<T, Problem> { Err(Problem::internal("under construction")) }
impl From<BusError> for Problem { fn from(e: BusError) -> Self { Problem::unavailable("Bus", e) } }

/// How long a call may take in all, unless the caller says otherwise.
pub const CALL_DEADLINE: Duration = Duration::from_secs(5);
/// Requests that one door holds at once.
pub const DOOR_IN_FLIGHT_MAX: usize = 256;

#[derive(Debug, Clone, Default)]
pub struct BusOptions { pub url: String, pub creds: Option<String>, pub name: String, pub inbox_prefix: Option<String> }
#[derive(Debug, Clone)]
pub struct Bus { c: () }
impl Bus {
    pub async fn connect(options: BusOptions) -> Result<Bus, BusError> { nope() }
    pub fn name(&self) -> &str { "" }
    pub fn is_connected(&self) -> bool { false }
    pub async fn flush(&self) {}
    pub async fn close(self) {}
    pub async fn call<C: Call>(&self, key: &C::Key, request: &C::Request) -> Result<C::Reply, Problem> { nop() }
    pub async fn call_within<C: Call>(&self, key: &C::Key, request: &C::Request, within: Duration) -> Result<C::Reply, Problem> { nop() }
    pub async fn tell<E: Event>(&self, key: &E::Key, body: &E::Body) {}
    pub async fn listen<E: Event>(&self) -> Result<Notices<E>, BusError> { nope() }
    pub async fn bucket(&self, name: &str, ttl: Option<Duration>, replicas: u8) -> Result<Bucket, BusError> { nope() }
    pub async fn journal(&self, service: Service, replicas: u8) -> Result<Journal, BusError> { nope() }
    pub async fn container_log(&self, container: ContainerId, options: LogOptions) -> Result<ContainerLog, BusError> { nope() }
    pub async fn lane(&self, lane: LaneId) -> Result<Lane, BusError> { nope() }
    pub async fn ensure_alerts(&self, replicas: u8) -> Result<(), BusError> { nope() }
    pub async fn publish_record(&self, subject: &str, message_id: &str, payload: Bytes) -> Result<u64, Problem> { nop() }
    pub async fn subscribe_raw(&self, subject: &str) -> Result<RawMessages, BusError> { nope() }
    pub async fn push_account_claims(&self, jwt: &str) -> Result<(), BusError> { nope() }
    pub async fn ack(&self, reply: &str, stream: &str, seq: u64, duplicate: bool) {}
    pub async fn refuse(&self, reply: &str, code: u16, err_code: u32, description: &str) {}
}
pub struct Notices<E>(PhantomData<E>);
impl<E: Event> Notices<E> { pub async fn next(&mut self) -> Option<E::Body> { None } }
#[derive(Debug, Clone)]
pub struct RawMessage { pub subject: String, pub reply: Option<String>, pub payload: Bytes }
pub struct RawMessages(());
impl RawMessages { pub async fn next(&mut self) -> Option<RawMessage> { None } }

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin { pub caller: String, pub deadline: Timestamp, pub request_id: String, pub traceparent: Option<String> }
/// Runs a future in which calls carry the origin's ids and deadline onwards.
pub fn with_origin<F: Future>(origin: Origin, future: F) -> impl Future<Output = F::Output> { future }
/// The origin of the request that is being handled, if any.
pub fn origin() -> Option<Origin> { None }
#[derive(Debug, Clone)]
pub struct Incoming<C: Call> { pub request: C::Request, pub origin: Origin }
impl<C: Call> actix::Message for Incoming<C> { type Result = Result<C::Reply, Problem>; }
#[derive(Clone)]
pub struct Doors(());
impl Doors {
    pub fn new(bus: &Bus, service: Service, replica: &ReplicaId) -> Doors { Doors(()) }
    pub async fn open<C: Call>(&self, key: Option<&C::Key>, to: actix::Recipient<Incoming<C>>) -> Result<Door, BusError> { nope() }
    pub async fn serve<C, F, Fut>(&self, key: Option<&C::Key>, handler: F) -> Result<Door, BusError>
    where C: Call, F: Fn(Incoming<C>) -> Fut + Send + Sync + 'static, Fut: Future<Output = Result<C::Reply, Problem>> + Send + 'static { nope() }
    pub async fn close_all(&self) {}
}
#[must_use = "a door that is dropped is closed"]
pub struct Door(());
impl Door { pub async fn close(self) {} }

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    #[error("fenced: the last sequence is {last}")]
    Fenced { last: u64 },
    #[error("may have happened: {0}")]
    Unknown(String),
    #[error("the log is full")]
    Full,
    #[error("refused: {0}")]
    Refused(String),
}
impl From<AppendError> for Problem { fn from(e: AppendError) -> Self { Problem::unavailable("Append", e) } }
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalRecord { pub seq: u64, pub payload: Bytes, pub id: String }
#[derive(Debug, Clone)]
pub struct Journal(());
impl Journal {
    pub async fn append(&self, expected_last: u64, id: &str, payload: Vec<u8>) -> Result<u64, AppendError> { Err(AppendError::Full) }
    pub async fn read(&self, after: u64, bytes_max: usize) -> Result<Vec<JournalRecord>, BusError> { nope() }
    pub async fn first_seq(&self) -> Result<u64, BusError> { nope() }
    pub async fn last_seq(&self) -> Result<u64, BusError> { nope() }
    pub fn follow(&self, after: u64) -> Follower { Follower(()) }
    pub async fn purge_below(&self, seq: u64) -> Result<(), BusError> { nope() }
}
pub struct Follower(());
impl Follower { pub async fn next(&mut self) -> Result<JournalRecord, BusError> { nope() } }

#[derive(Debug, Clone, Copy)]
pub struct LogOptions { pub replicas: u8, pub bytes_max: u64 }
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RecordKind { Frame, Operation }
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRecord { pub seq: u64, pub kind: RecordKind, pub payload: Bytes }
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClaimError {
    #[error("superseded by {} of generation {}", .0.replica, .0.generation)]
    Superseded(OwnerRecord),
    #[error("unknown: {0}")]
    Unavailable(String),
}
#[derive(Debug, Clone)]
pub struct ContainerLog(());
impl ContainerLog {
    pub async fn owner(&self) -> Result<Option<(u64, OwnerRecord)>, BusError> { nope() }
    pub async fn claim(&self, record: &OwnerRecord) -> Result<u64, ClaimError> { Err(ClaimError::Unavailable(String::new())) }
    pub async fn append(&self, owner_seq: u64, kind: RecordKind, id: &str, payload: Bytes) -> Result<u64, AppendError> { Err(AppendError::Full) }
    pub async fn read(&self, after: u64, bytes_max: usize) -> Result<Vec<LogRecord>, BusError> { nope() }
    pub async fn last_seq(&self) -> Result<u64, BusError> { nope() }
    pub async fn purge_below(&self, seq: u64) -> Result<(), BusError> { nope() }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry { pub revision: u64, pub value: Bytes }
#[derive(Debug, thiserror::Error)]
pub enum BucketError {
    #[error("key {0} exists")]
    Exists(String),
    #[error("key {key} changed")]
    Conflict { key: String },
    #[error(transparent)]
    Bus(#[from] BusError),
}
impl From<BucketError> for Problem { fn from(e: BucketError) -> Self { Problem::unavailable("Bucket", e) } }
#[derive(Debug, Clone)]
pub struct Bucket(());
impl Bucket {
    pub async fn get(&self, key: &str) -> Result<Option<Entry>, BucketError> { Ok(None) }
    pub async fn put(&self, key: &str, value: impl Into<Bytes>) -> Result<u64, BucketError> { Ok(0) }
    pub async fn create(&self, key: &str, value: impl Into<Bytes>) -> Result<u64, BucketError> { Ok(0) }
    pub async fn update(&self, key: &str, value: impl Into<Bytes>, revision: u64) -> Result<u64, BucketError> { Ok(0) }
    pub async fn delete(&self, key: &str) -> Result<(), BucketError> { Ok(()) }
    pub async fn delete_at(&self, key: &str, revision: u64) -> Result<(), BucketError> { Ok(()) }
    pub async fn list(&self, prefix: &str) -> Result<Vec<(String, Entry)>, BucketError> { Ok(vec![]) }
    pub fn watch(&self, prefix: &str) -> Watch { Watch(()) }
}
/// What a watch tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A key has this entry now; `None` when it was deleted or expired.
    Key { key: String, entry: Option<Entry> },
    /// Every value that was there at the beginning has been told; said once.
    Ready,
}
pub struct Watch(());
impl Watch { pub async fn next(&mut self) -> Change { std::future::pending().await } }
pub struct Lease(());
impl Lease {
    pub fn new(bucket: Bucket, key: &str, holder: ReplicaId, ttl: Duration) -> Lease { Lease(()) }
    pub async fn try_acquire(&mut self) -> Result<bool, BucketError> { Ok(false) }
    pub async fn renew(&mut self) -> Result<bool, BucketError> { Ok(false) }
    pub async fn release(&mut self) -> Result<(), BucketError> { Ok(()) }
    pub async fn holder_of(bucket: &Bucket, key: &str) -> Result<Option<ReplicaId>, BucketError> { Ok(None) }
}
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneMessage { pub index: IndexName, pub routing_key: Option<RoutingKey>, pub reply: Option<String>, pub message_id: Option<String>, pub payload: Bytes }
pub struct Lane(());
impl Lane { pub async fn next(&mut self) -> Option<LaneMessage> { None } }

pub mod keys {
    //! Operator-mode keys and tokens.
    use super::*;
    /// An ed25519 key pair in NATS' text form.
    #[derive(Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
    pub struct KeyPair { pub seed: String, pub public: String }
    /// The keys of an installation; the same ring always gives the same server configuration.
    #[derive(Clone, serde::Serialize, serde::Deserialize)]
    pub struct Keyring { pub operator_seed: String, pub system_seed: String, pub platform_seed: String, pub tenants_seed: String, pub created: Timestamp }
    impl Keyring {
        pub fn generate(now: Timestamp) -> Result<Keyring, BusError> { nope() }
    }
    /// The public key of a seed.
    pub fn public_key(seed: &str) -> Result<String, BusError> { nope() }
    /// Derives a user key: the same secret and info always give the same key.
    pub fn derive_user(secret: &[u8], info: &str) -> Result<KeyPair, BusError> { nope() }
    /// A fresh user key.
    pub fn generate_user() -> Result<KeyPair, BusError> { nope() }
    #[derive(Debug, Clone, Default)]
    pub struct AccountSpec { pub name: String, pub public_key: String, pub jetstream: bool, pub mappings: Vec<(String, String)>, pub revocations: Vec<(String, Timestamp)> }
    impl AccountSpec {
        pub fn system(public_key: String) -> Self { Self::default() }
        pub fn platform(public_key: String) -> Self { Self::default() }
        /// The tenants' account with its lane mappings and revoked users (public key, instant of revocation).
        pub fn tenants(public_key: String, lane_count: u16, revocations: Vec<(String, Timestamp)>) -> Self { Self::default() }
    }
    /// Signs an account; of two versions the server keeps the one issued later.
    pub fn account_jwt(spec: &AccountSpec, operator_seed: &str, issued: Timestamp) -> Result<String, BusError> { nope() }
    /// Empty lists mean no restriction.
    #[derive(Debug, Clone, Default)]
    pub struct UserSpec { pub name: String, pub public_key: String, pub pub_allow: Vec<String>, pub sub_allow: Vec<String>, pub expires: Option<Timestamp> }
    impl UserSpec {
        pub fn platform(name: &str, public_key: String) -> Self { Self::default() }
        pub fn system(name: &str, public_key: String) -> Self { Self::default() }
        pub fn front_door(name: &str, public_key: String) -> Self { Self::default() }
        pub fn binding(index: &IndexName, binding: &types::BindingId, role: wire::views::Role, public_key: String) -> Self { Self::default() }
    }
    pub fn user_jwt(spec: &UserSpec, account_seed: &str, issued: Timestamp) -> Result<String, BusError> { nope() }
    /// The text of a `.creds` file.
    pub fn creds_file(jwt: &str, seed: &str) -> String { String::new() }
    /// Makes a fresh user of the spec and gives its `.creds` text; `make` receives the public key.
    pub fn issue_creds(make: impl FnOnce(String) -> UserSpec, account_seed: &str, issued: Timestamp) -> Result<String, BusError> { nope() }
    /// What a server needs to know.
    #[derive(Debug, Clone)]
    pub struct ServerSpec { pub name: String, pub address: String, /** 0 lets the server choose; see `ports_dir`. */ pub port: u16, /** JetStream files. */ pub store_dir: String, pub resolver_dir: String, /** `always` or a NATS duration such as `2m`. */ pub sync_interval: String, pub max_payload: u64, pub lane_count: u16, /** Where the server writes the ports it chose. */ pub ports_dir: Option<String> }
    /// The text of nats.conf: operator mode, three accounts, JetStream.
    pub fn server_config(keyring: &Keyring, spec: &ServerSpec) -> Result<String, BusError> { nope() }
}
