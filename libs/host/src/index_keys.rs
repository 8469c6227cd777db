//! The keys of encrypted indexes: in a bucket, wrapped by master keys of the settings, and nowhere else.
//!
//! The coordinator's leader makes, rotates, wraps anew and destroys them; whoever reads or writes objects asks for them here.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use bus::{Bucket, BucketError, Bus, Entry};
use encryption::{DataKey, Error, KEY_BYTES, MasterKeys, NONCE_BYTES};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use ring::rand::{SecureRandom, SystemRandom};
use settings::Secret;
use store::{KeyError, ObjectKeys};
use tokio::sync::OnceCell;
use types::{SegmentId, Timestamp};
use wire::{
    Problem,
    views::{INDEX_KEYS, IndexKey, IndexKeys},
};

use crate::{named_keys, secret};

/// Versions of one key: the bucket's entry has about 30 KiB then.
pub const INDEX_KEYS_MAX: usize = 256;
/// How long keys are used without asking whether they are still there.
const FRESH: Duration = Duration::from_secs(30);
/// Streams whose keys are in memory; beyond it all are asked for again.
const STREAMS_MAX: usize = 10_000;

/// The keys of encrypted indexes; clones share what they know.
#[derive(Clone)]
pub struct IndexKeyring(Arc<Inner>);

struct Inner {
    bus: Bus,
    replicas: u8,
    masters: Secret,
    bucket: OnceCell<Bucket>,
    known: Mutex<HashMap<u32, Known>>,
}

#[derive(Clone)]
struct Known {
    asked: Instant,
    opened: Opened,
}

/// By version; what cannot be unwrapped says why.
type Opened = Arc<BTreeMap<u32, Result<Arc<DataKey>, KeyError>>>;

/// What became of the keys that another master key than the first had wrapped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rewrapped {
    /// Streams whose keys the first one wraps now.
    pub streams: usize,
    /// Streams whose keys changed meanwhile: they are to be looked at again.
    pub missed: usize,
    /// Streams of which a key cannot be unwrapped; they are as they were.
    pub unopened: usize,
}

impl std::fmt::Debug for IndexKeyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IndexKeyring").finish_non_exhaustive()
    }
}

impl IndexKeyring {
    pub(crate) fn new(bus: Bus, replicas: u8, masters: Secret) -> Self {
        let (bucket, known) = (OnceCell::new(), Mutex::default());
        Self(Arc::new(Inner { bus, replicas, masters, bucket, known }))
    }

    /// The name of the master key that wraps; `None` if there is none. Errors: `EncryptionOff` for a text that gives no keys.
    pub fn master(&self) -> Result<Option<String>, Problem> {
        let masters = self.masters().map_err(|why| Problem::bad_request("EncryptionOff", why))?;
        Ok(masters.first().map(str::to_owned))
    }

    /// Makes a key for a stream that has none; one that comes back after its keys were destroyed gets one behind them.
    ///
    /// Errors: `EncryptionOff` without a master key.
    pub async fn create(&self, stream: u32, now: Timestamp) -> Result<(), Problem> {
        let (before, revision) = self.read(stream).await?.unwrap_or_default();
        if !before.keys.is_empty() {
            return Ok(());
        }
        let keys = IndexKeys { keys: vec![self.fresh(stream, before.destroyed + 1, now)?], ..before };
        self.write(stream, &keys, revision).await
    }

    /// The wrapped keys of a stream. Errors: `NotEncrypted` for one that never had any; `IndexKeyDestroyed`.
    pub async fn list(&self, stream: u32) -> Result<IndexKeys, Problem> {
        self.entry(stream).await.map(|(keys, _)| keys)
    }

    /// Adds a version, with which everything is sealed within half a minute. Errors: as [`list`](Self::list); `TooManyIndexKeys`.
    pub async fn rotate(&self, stream: u32, now: Timestamp) -> Result<IndexKeys, Problem> {
        let (mut keys, revision) = self.entry(stream).await?;
        if keys.keys.len() >= INDEX_KEYS_MAX {
            let full = format_args!("stream {stream} has {INDEX_KEYS_MAX} versions of its key, which is the most");
            return Err(Problem::throttled("TooManyIndexKeys", full));
        }
        let version = keys.keys.last().map_or(0, |last| last.version) + 1;
        keys.keys.push(self.fresh(stream, version, now)?);
        self.write(stream, &keys, revision).await.map(|()| keys)
    }

    /// Destroys the keys of a stream: nothing that they sealed is ever read again. That there were some is remembered.
    pub async fn destroy(&self, stream: u32) -> Result<(), Problem> {
        let (before, revision) = self.read(stream).await?.unwrap_or_default();
        let destroyed = before.keys.last().map_or(before.destroyed, |last| last.version);
        self.write(stream, &IndexKeys { keys: Vec::new(), destroyed }, revision).await
    }

    async fn write(&self, stream: u32, keys: &IndexKeys, revision: u64) -> Result<(), Problem> {
        let written = self.bucket().await?.update(&stream.to_string(), wire::encode(keys), revision).await;
        self.forget(stream);
        Ok(written.map(drop)?)
    }

    /// Lets the first master key wrap what others have wrapped.
    ///
    /// Bounds: one entry for each encrypted stream that there ever was.
    pub async fn rewrap(&self) -> Result<Rewrapped, Problem> {
        let masters = self.masters().map_err(|why| Problem::bad_request("EncryptionOff", why))?;
        let bucket = self.bucket().await?;
        let mut done = Rewrapped::default();
        for (key, entry) in bucket.list("").await? {
            let Ok(stream) = key.parse::<u32>() else { continue };
            let keys: IndexKeys = wire::decode(&entry.value)?;
            let is_old = |key: &IndexKey| MasterKeys::wrapped_by(&key.wrapped) != masters.first();
            if !keys.keys.iter().any(is_old) {
                continue;
            }
            match wrapped_anew(&masters, stream, &keys) {
                Ok(keys) => {
                    match bucket.update(&key, wire::encode(&keys), entry.revision).await {
                        Ok(_) => done.streams += 1,
                        // Somebody rotated it meanwhile.
                        Err(BucketError::Conflict { .. }) => done.missed += 1,
                        Err(error) => return Err(error.into()),
                    }
                }
                Err(error) => {
                    tracing::error!(stream, %error, "key of an index cannot be unwrapped");
                    done.unopened += 1;
                }
            }
        }
        Ok(done)
    }

    async fn entry(&self, stream: u32) -> Result<(IndexKeys, u64), Problem> {
        match self.read(stream).await? {
            None => Err(Problem::bad_request("NotEncrypted", format_args!("stream {stream} has no key"))),
            Some((keys, _)) if keys.keys.is_empty() => Err(destroyed(stream)),
            Some(found) => Ok(found),
        }
    }

    async fn read(&self, stream: u32) -> Result<Option<(IndexKeys, u64)>, Problem> {
        let Some(Entry { revision, value }) = self.bucket().await?.get(&stream.to_string()).await? else {
            return Ok(None);
        };
        Ok(Some((wire::decode(&value)?, revision)))
    }

    async fn bucket(&self) -> Result<&Bucket, Problem> {
        let open = || async { self.0.bus.join_bucket(INDEX_KEYS, self.0.replicas).await };
        Ok(self.0.bucket.get_or_try_init(open).await?)
    }

    /// The master keys as they are now: read every time, so that what was added counts at once.
    fn masters(&self) -> Result<MasterKeys, String> {
        let text = secret::resolve(&self.0.masters).map_err(|error| error.to_string())?.unwrap_or_default();
        let keys = named_keys(&text).map_err(|error| format!("common.encryption_keys: {error}"))?;
        MasterKeys::new(keys.into_iter().map(|key| (key.id, key.bytes))).map_err(|error| error.to_string())
    }

    fn fresh(&self, stream: u32, version: u32, created: Timestamp) -> Result<IndexKey, Problem> {
        let off = |why: String| Problem::bad_request("EncryptionOff", why);
        let masters = self.masters().map_err(off)?;
        let key = DataKey::new(version, random::<KEY_BYTES>()?);
        let wrapped = masters.wrap(stream, &key, random::<NONCE_BYTES>()?);
        let wrapped = wrapped.map_err(|error| off(format!("{error}: set common.encryption_keys")))?;
        Ok(IndexKey { version, created, wrapped })
    }

    fn forget(&self, stream: u32) {
        self.0.known.lock().remove(&stream);
    }

    /// The keys of a stream, unwrapped; asks again after a while, and goes on with what it knows while nobody answers.
    async fn opened(&self, stream: u32) -> Result<Opened, KeyError> {
        let kept = self.0.known.lock().get(&stream).cloned();
        if let Some(known) = kept.as_ref().filter(|known| known.asked.elapsed() < FRESH) {
            return Ok(known.opened.clone());
        }
        let gone = |why: String| {
            self.forget(stream);
            Err(KeyError::Gone(why))
        };
        match (self.read(stream).await, kept) {
            (Ok(None), _) => gone(format!("stream {stream} never had one, or the bucket {INDEX_KEYS} was lost")),
            (Ok(Some((keys, _))), _) if keys.keys.is_empty() => gone(format!("that of stream {stream} was destroyed")),
            (Ok(Some((keys, _))), _) => Ok(self.keep(stream, &keys)),
            (Err(_), Some(known)) => Ok(known.opened),
            (Err(problem), None) => Err(KeyError::Unavailable(problem.to_string())),
        }
    }

    fn keep(&self, stream: u32, keys: &IndexKeys) -> Opened {
        let masters = self.masters();
        let unwrap = |key: &IndexKey| {
            let masters = masters.as_ref().map_err(|why| KeyError::Unavailable(why.clone()))?;
            let opened = masters.unwrap(stream, key.version, &key.wrapped);
            opened.map(Arc::new).map_err(|error| KeyError::Unavailable(format!("{error} (common.encryption_keys)")))
        };
        let opened: Opened = Arc::new(keys.keys.iter().map(|key| (key.version, unwrap(key))).collect());
        let mut known = self.0.known.lock();
        if known.len() >= STREAMS_MAX {
            known.clear();
        }
        // What could not be unwrapped is looked at again the next time.
        if opened.values().all(Result::is_ok) {
            known.insert(stream, Known { asked: Instant::now(), opened: opened.clone() });
        }
        opened
    }
}

impl ObjectKeys for IndexKeyring {
    fn key<'a>(&'a self, object: &'a str, version: Option<u32>) -> BoxFuture<'a, Result<Arc<DataKey>, KeyError>> {
        Box::pin(async move {
            let of_none = || KeyError::Gone("it lies where no object of an index does".to_owned());
            let stream = stream_of(object).ok_or_else(of_none)?;
            let opened = self.opened(stream).await?;
            let found = |opened: &Opened| match version {
                None => opened.last_key_value().map(|(_, key)| key.clone()),
                Some(version) => opened.get(&version).cloned(),
            };
            if let Some(key) = found(&opened) {
                return key;
            }
            // Somebody rotated it a moment ago.
            self.forget(stream);
            let none = || KeyError::Gone(format!("stream {stream} has no version {}", version.unwrap_or(0)));
            found(&self.opened(stream).await?).ok_or_else(none)?
        })
    }
}

/// The stream that an object belongs to, by its key: `chunks/<index>/<segment>/…`, also where a repair has put it aside.
fn stream_of(object: &str) -> Option<u32> {
    let mut parts = object.split('/').skip_while(|part| *part != "chunks").skip(2);
    parts.next()?.parse::<SegmentId>().ok().map(|segment| segment.stream)
}

fn wrapped_anew(masters: &MasterKeys, stream: u32, keys: &IndexKeys) -> Result<IndexKeys, Error> {
    let anew = |key: &IndexKey| {
        let opened = masters.unwrap(stream, key.version, &key.wrapped)?;
        let nonce = random::<NONCE_BYTES>().map_err(|_| Error::Cipher)?;
        Ok(IndexKey { wrapped: masters.wrap(stream, &opened, nonce)?, ..key.clone() })
    };
    Ok(IndexKeys { keys: keys.keys.iter().map(anew).collect::<Result<_, Error>>()?, ..keys.clone() })
}

fn random<const N: usize>() -> Result<[u8; N], Problem> {
    let mut bytes = [0; N];
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.map_err(|_| Problem::internal("the system gave no random bytes")).map(|()| bytes)
}

fn destroyed(stream: u32) -> Problem {
    Problem::not_found("IndexKeyDestroyed", format_args!("the key of stream {stream} was destroyed"))
}

#[cfg(test)]
#[path = "index_keys_tests.rs"]
mod tests;
