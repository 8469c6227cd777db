//! Key-value buckets: liveness, leases, and views that a leader writes and others read.
//!
//! Little here is truth: leases and members only say who is alive, views are rebuilt from journals. The keys of encrypted indexes
//! ([`INDEX_KEYS`]) are nowhere else, so that they are gone when they are destroyed.

use std::{fmt, str::FromStr};

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use types::{BindingId, ContainerId, Generation, IndexName, Invalid, ReplicaId, ScopeName, Timestamp};

use crate::Service;

/// Bucket of leader leases; key = service; entries expire.
pub const LEASES: &str = "lb_leases";
/// Bucket of living replicas; key = `<service>.<replica>`; entries expire.
pub const MEMBERS: &str = "lb_members";
/// Bucket of views; keys [`PLACEMENT_KEY`] and `stream.<index>`.
pub const VIEWS: &str = "lb_views";
/// Bucket of HTTP tokens; key = lower-case hex SHA-256 of the token.
pub const TOKENS: &str = "lb_tokens";
/// Bucket of quotas; key = index; an index without one has no limits.
pub const QUOTAS: &str = "lb_quotas";
/// Bucket of where indexes are archived; key = index; the value is an [`ArchivePlace`]. An index without one is not archived.
pub const ARCHIVES: &str = "lb_archives";
/// Bucket of the keys of encrypted streams; key = number of the stream; the value is an [`IndexKeys`].
pub const INDEX_KEYS: &str = "lb_index_keys";
/// Bucket of what was let in of indexes with a quota; key = [`usage_key`]; entries expire after two days.
pub const USAGE: &str = "lb_usage";

/// Bucket of the documents that the readers of a group share; key = `<group>.<generation>`; written by readers, compare-and-set.
pub const GROUPS: &str = "lb_groups";
/// Bucket of users' state synchronizers; key = `<scope>.<name>`.
pub const SYNCHRONIZERS: &str = "lb_synchronizers";
/// Bucket of users' key-value tables; key = `<scope>.<table>.<hex of the primary key>`.
pub const TABLES: &str = "lb_tables";

/// Bucket of writers' times; key = index; written by clients, compare-and-set.
pub const WATERMARKS: &str = "lb_watermarks";

/// Bucket of the public keys with which coordinators sign delegations; key = public key; entries expire.
pub const SIGNERS: &str = "lb_signers";

/// The key of the container placement in [`VIEWS`].
pub const PLACEMENT_KEY: &str = "placement";

/// The key of a stream's description in [`VIEWS`]; the value is a `coordinator::StreamDescription`.
pub fn stream_key(index: &IndexName) -> String {
    format!("stream.{index}")
}

/// The key of a part of what a replica let in, in [`USAGE`]; the value is a [`Usages`].
pub fn usage_key(service: Service, replica: &ReplicaId, part: u8) -> String {
    format!("{service}.{replica}.{part}")
}

/// The keys of an encrypted stream, wrapped by master keys.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexKeys {
    /// By version, ascending; the last one seals. There is none any more when the stream was deleted.
    pub keys: Vec<IndexKey>,
    /// The last version that was destroyed, with all before it; 0 if none was. A stream that a restore brings back goes on behind it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub destroyed: u32,
}

fn is_zero(version: &u32) -> bool {
    *version == 0
}

/// One version of a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexKey {
    /// The version.
    pub version: u32,
    /// When it was made.
    pub created: Timestamp,
    /// The key as a master key wrapped it, `ID:BASE64`.
    pub wrapped: String,
}

/// A living replica.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its service.
    pub service: Service,
    /// Its name.
    pub replica: ReplicaId,
    /// When this process started: tells a restart from a pause.
    pub started: Timestamp,
    /// Address for bulk data (`ip:port`), where it has one.
    #[serde(default)]
    pub exchange_address: Option<String>,
    /// Slots for tasks, where it has some.
    #[serde(default)]
    pub slots: u16,
    /// What keeps it from its work, by name, as its probes say it too; empty where nothing does.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub unready: BTreeMap<String, String>,
}

/// Who owns a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// The container.
    pub container: ContainerId,
    /// The replica of segment-store.
    pub replica: ReplicaId,
    /// The owner's generation.
    pub generation: Generation,
}

/// Where every container is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// Grows with every change.
    pub version: u64,
    /// The number of containers, a power of two.
    pub container_count: u16,
    /// Placed containers; those without a living store are missing.
    pub assignments: Vec<Assignment>,
}

/// What a token's bearer may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Publish events.
    Write,
    /// Search, tail, subscribe to alerts.
    Read,
    /// Both, and jobs and rules of the index.
    Admin,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 3] = [Self::Write, Self::Read, Self::Admin];

    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Write => "write",
            Self::Read => "read",
            Self::Admin => "admin",
        }
    }

    /// Whether the role allows to publish.
    pub fn may_write(self) -> bool {
        matches!(self, Self::Write | Self::Admin)
    }

    /// Whether the role allows to search.
    pub fn may_read(self) -> bool {
        matches!(self, Self::Read | Self::Admin)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Role {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        Self::ALL
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or_else(|| Invalid::new("role", text, "write, read or admin"))
    }
}

/// What stands behind an HTTP token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenGrant {
    /// The index.
    pub index: IndexName,
    /// Its scope.
    pub scope: ScopeName,
    /// The binding that the token belongs to.
    pub binding: BindingId,
    /// What it may do.
    pub role: Role,
    /// When it ends by itself.
    #[serde(default)]
    pub expires: Option<Timestamp>,
}

/// What the users of an index may do, all of them together; `None` sets no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quota {
    /// Payload bytes published in a day of UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_day: Option<u64>,
    /// Events published in a second, on the average; twice as many in one burst.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events_per_second: Option<u32>,
    /// Queries, tails and continuous queries at the same time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queries: Option<u16>,
    /// Streams that the instance brings room for in its scope, its own among them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub streams: Option<u32>,
}

/// Where the chunks of an index are copied to; without credentials, which the copier has of its own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ArchivePlace {
    /// The bucket.
    pub bucket: String,
    /// URL of its server, which is addressed by path; empty is AWS itself.
    pub endpoint: String,
    /// Its region.
    pub region: String,
    /// The tenant whose events may be copied there; without one, nobody's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<ScopeName>,
}

/// What one replica has let in of an index with a quota.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// A day of UTC, counted from 1970.
    pub day: i64,
    /// Payload bytes on that day.
    pub bytes: u64,
    /// Events since the replica began to count: only how they grow means something.
    pub events: u64,
    /// Queries and tails that are open; they count no longer than they are told again and again.
    pub queries: u32,
}

/// What one replica has let in, by index.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usages {
    /// When the process began that tells this; 0 where it does not say. Of one process what it told later has more events.
    #[serde(default, skip_serializing_if = "is_unsaid")]
    pub since: i64,
    /// The indexes of this part of which it let something in.
    pub indexes: BTreeMap<IndexName, Usage>,
}

fn is_unsaid(since: &i64) -> bool {
    *since == 0
}
