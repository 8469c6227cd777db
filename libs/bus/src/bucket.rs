//! Buckets: small values by key, read from the leader, changed by compare-and-set.

use std::time::Duration;

use async_nats::{HeaderMap, jetstream::stream};
use bytes::Bytes;
use tokio::time::Instant;
use wire::{Problem, header};

use crate::{
    Bus, BusError, Watch, headers,
    jetstream::{
        EXPECTED_LAST_SUBJECT_SEQUENCE, ID_WINDOW, JETSTREAM_WITHIN, KV_OPERATION, Pick, PublishError, Stored,
        WRONG_LAST_SEQUENCE, stream_config,
    },
    origin::fresh_id,
    pull::Pull,
};

/// How long a marker of an expired or deleted entry stays, so that watchers notice.
const MARKER_TTL: Duration = Duration::from_secs(60);
/// How much is read at once when a bucket is listed.
const LIST_BYTES: usize = 4 << 20;
/// The longest key.
const KEY_BYTES_MAX: usize = 512;

/// A value and the number of its version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Grows with every change of the bucket.
    pub revision: u64,
    /// The value.
    pub value: Bytes,
}

/// Why a bucket did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BucketError {
    /// `create` found an entry.
    #[error("key {key:?} exists already")]
    Exists {
        /// The key.
        key: String,
    },
    /// The entry has another revision than the one named.
    #[error("key {key:?} was changed by somebody else; read it and decide again")]
    Conflict {
        /// The key.
        key: String,
    },
    /// The bus failed.
    #[error(transparent)]
    Bus(#[from] BusError),
}

impl From<BucketError> for Problem {
    fn from(error: BucketError) -> Self {
        match error {
            BucketError::Exists { .. } => Self::conflict("KeyExists", error),
            BucketError::Conflict { .. } => Self::conflict("KeyChanged", error),
            BucketError::Bus(error) => error.into(),
        }
    }
}

/// A key-value bucket; clones share it.
#[derive(Debug, Clone)]
pub struct Bucket {
    bus: Bus,
    stream: String,
    prefix: String,
}

impl Bus {
    /// Opens a bucket, creating it where it is absent; with `ttl` its entries expire when nobody renews them.
    ///
    /// Reads go to the leader: what was acknowledged is seen by the next reader.
    pub async fn bucket(&self, name: &str, ttl: Option<Duration>, replicas: u8) -> Result<Bucket, BusError> {
        self.only_inside("a bucket")?;
        let (bucket, mut config) = self.unopened_bucket(name, replicas);
        if let Some(ttl) = ttl {
            config.max_age = ttl;
            config.duplicate_window = ttl.min(ID_WINDOW);
            config.allow_message_ttl = true;
            config.subject_delete_marker_ttl = Some(MARKER_TTL);
        }
        self.ensure_stream(&config).await?;
        Ok(bucket)
    }

    /// Opens a bucket as it is; only where it is absent it is created, with so many replicas.
    ///
    /// For those who do not run the installation: they must not change what its services have set.
    pub async fn join_bucket(&self, name: &str, replicas: u8) -> Result<Bucket, BusError> {
        self.only_inside("a bucket")?;
        let (bucket, config) = self.unopened_bucket(name, replicas);
        self.join_stream(&config).await?;
        Ok(bucket)
    }

    /// A bucket, and how its stream is made.
    fn unopened_bucket(&self, name: &str, replicas: u8) -> (Bucket, stream::Config) {
        let bucket = Bucket { bus: self.clone(), stream: format!("KV_{name}"), prefix: format!("$KV.{name}.") };
        let mut config = stream_config(bucket.stream.clone(), vec![format!("{}>", bucket.prefix)], replicas);
        config.max_messages_per_subject = 1;
        config.allow_rollup = true;
        (bucket, config)
    }
}

enum Write<'a> {
    Put(&'a Bytes),
    Delete,
}

impl Bucket {
    /// The entry of a key, from the leader.
    pub async fn get(&self, key: &str) -> Result<Option<Entry>, BucketError> {
        Ok(self.last(key).await?.filter(|s| !s.removed).map(|s| Entry { revision: s.seq, value: s.payload }))
    }

    /// The number of a key's last change, also of its removal, and what it holds; 0 if nothing was ever written to it.
    pub async fn version(&self, key: &str) -> Result<(u64, Option<Bytes>), BucketError> {
        let last = self.last(key).await?;
        Ok(last.map_or((0, None), |stored| (stored.seq, (!stored.removed).then_some(stored.payload))))
    }

    /// Sets a key whatever it held and returns the new revision.
    pub async fn put(&self, key: &str, value: impl Into<Bytes>) -> Result<u64, BucketError> {
        self.write(key, Write::Put(&value.into()), None).await
    }

    /// Sets a key that has no entry. Errors: `Exists`.
    pub async fn create(&self, key: &str, value: impl Into<Bytes>) -> Result<u64, BucketError> {
        let value = value.into();
        let exists = || BucketError::Exists { key: key.to_owned() };
        match self.write(key, Write::Put(&value), Some(0)).await {
            Err(BucketError::Conflict { .. }) => {}
            done => return done,
        }
        // What stands there may be the marker of an entry that is gone.
        let revision = match self.last(key).await? {
            Some(stored) if !stored.removed => return Err(exists()),
            Some(stored) => stored.seq,
            None => 0,
        };
        match self.write(key, Write::Put(&value), Some(revision)).await {
            Err(BucketError::Conflict { .. }) => Err(exists()),
            done => done,
        }
    }

    /// Sets a key whose last change has this revision; 0 if there was none, a removal counts as one. Errors: `Conflict`.
    pub async fn update(&self, key: &str, value: impl Into<Bytes>, revision: u64) -> Result<u64, BucketError> {
        self.write(key, Write::Put(&value.into()), Some(revision)).await
    }

    /// Removes a key; removing what is not there succeeds.
    pub async fn delete(&self, key: &str) -> Result<(), BucketError> {
        self.write(key, Write::Delete, None).await.map(|_| ())
    }

    /// Removes a key whose entry has this revision. Errors: `Conflict`.
    pub async fn delete_at(&self, key: &str, revision: u64) -> Result<(), BucketError> {
        self.write(key, Write::Delete, Some(revision)).await.map(|_| ())
    }

    /// Every entry whose key begins with the prefix, by key; "" is all of them.
    pub async fn list(&self, prefix: &str) -> Result<Vec<(String, Entry)>, BucketError> {
        let mut pull = Pull::new(&self.bus, &self.stream, &self.filter(prefix), 0);
        let mut entries = std::collections::BTreeMap::new();
        loop {
            let found = pull.read(LIST_BYTES).await?;
            if found.is_empty() {
                return Ok(entries.into_iter().collect());
            }
            for stored in found {
                let Some(key) = self.key_of(&stored.subject).filter(|k| k.starts_with(prefix)) else { continue };
                if stored.removed {
                    entries.remove(key);
                } else {
                    entries.insert(key.to_owned(), Entry { revision: stored.seq, value: stored.payload });
                }
            }
        }
    }

    /// Watches every key that begins with the prefix: current values first, then changes, for ever.
    pub fn watch(&self, prefix: &str) -> Watch {
        Watch::new(self.clone(), prefix)
    }

    pub(crate) fn pull(&self, prefix: &str) -> Pull {
        Pull::new(&self.bus, &self.stream, &self.filter(prefix), 0)
    }

    /// The server filters by whole tokens; what is left of a prefix is compared here.
    fn filter(&self, prefix: &str) -> String {
        let tokens = prefix.rfind('.').map_or("", |dot| &prefix[..=dot]);
        format!("{}{tokens}>", self.prefix)
    }

    pub(crate) fn key_of<'a>(&self, subject: &'a str) -> Option<&'a str> {
        subject.strip_prefix(&self.prefix)
    }

    async fn last(&self, key: &str) -> Result<Option<Stored>, BucketError> {
        Ok(self.bus.stored(&self.stream, Pick::Last(&self.subject(key)?)).await?)
    }

    fn subject(&self, key: &str) -> Result<String, BusError> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-_=/.".contains(&b);
        let tokens = key.split('.').all(|t| !t.is_empty());
        if key.len() > KEY_BYTES_MAX || !tokens || !key.bytes().all(allowed) {
            return Err(BusError::Key(format!(
                "{key:?} must be 1 to {KEY_BYTES_MAX} of A-Z a-z 0-9 - _ = / and single dots"
            )));
        }
        Ok(format!("{}{key}", self.prefix))
    }

    async fn write(&self, key: &str, write: Write<'_>, expected: Option<u64>) -> Result<u64, BucketError> {
        let subject = self.subject(key)?;
        let id = fresh_id();
        let mut map = HeaderMap::new();
        headers::set(&mut map, header::MSG_ID, &id);
        if let Some(expected) = expected {
            headers::set(&mut map, EXPECTED_LAST_SUBJECT_SEQUENCE, &expected.to_string());
        }
        let payload = match write {
            Write::Put(value) => value.clone(),
            Write::Delete => {
                headers::set(&mut map, KV_OPERATION, "DEL");
                Bytes::new()
            }
        };
        let started = Instant::now();
        match self.bus.publish_stored(&subject, &map, &payload, JETSTREAM_WITHIN).await {
            Ok(published) => Ok(published.seq),
            Err(PublishError::Rejected { error, repeated }) if error.err_code == WRONG_LAST_SEQUENCE => {
                if repeated && let Some(stored) = self.last(key).await?.filter(|s| s.id.as_deref() == Some(&id)) {
                    return Ok(stored.seq);
                }
                tracing::trace!(key, waited = ?started.elapsed(), "bucket condition failed");
                Err(BucketError::Conflict { key: key.to_owned() })
            }
            Err(error) => Err(error.into_bus_error(format_args!("write of {subject}")).into()),
        }
    }
}
