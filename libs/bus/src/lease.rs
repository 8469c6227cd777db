//! Leases: who tries. Who may is decided by the fence of a journal or a container log.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout};
use types::ReplicaId;

use crate::{Bucket, BucketError, BusError, Entry};

/// What stands in the bucket: the token tells two lives of one replica apart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Held {
    holder: ReplicaId,
    token: u64,
}

/// A claim to be the one that tries, for as long as it is renewed.
///
/// A holder that does not renew for one `ttl` is replaced, by the bucket's expiry or by a challenger that saw no
/// renewal for that long on its own clock; no two clocks are ever compared.
#[derive(Debug)]
pub struct Lease {
    bucket: Bucket,
    key: String,
    held: Held,
    ttl: Duration,
    /// The revision that we hold.
    revision: Option<u64>,
    /// The other holder's revision and since when we have seen it.
    observed: Option<(u64, Instant)>,
}

impl Lease {
    /// A lease that is not held yet; give the bucket the same `ttl`.
    pub fn new(bucket: Bucket, key: &str, holder: ReplicaId, ttl: Duration) -> Self {
        let held = Held { holder, token: rand::random() };
        Self { bucket, key: key.to_owned(), held, ttl, revision: None, observed: None }
    }

    /// Takes the lease if it is free or its holder has been silent for a whole `ttl`; says whether it is ours.
    ///
    /// Bounds: answers within one `ttl`.
    pub async fn try_acquire(&mut self) -> Result<bool, BucketError> {
        if self.revision.is_some() {
            return self.renew().await;
        }
        bounded(self.ttl, self.acquire()).await
    }

    async fn acquire(&mut self) -> Result<bool, BucketError> {
        match self.bucket.create(&self.key, self.value()?).await {
            Ok(revision) => return Ok(self.now_ours(revision)),
            Err(BucketError::Exists { .. }) => {}
            Err(error) => return Err(error),
        }
        let Some(entry) = self.bucket.get(&self.key).await? else { return Ok(false) };
        if read(&self.key, &entry)? == self.held {
            return Ok(self.now_ours(entry.revision));
        }
        let since = match self.observed {
            Some((revision, since)) if revision == entry.revision => since,
            _ => {
                self.observed = Some((entry.revision, Instant::now()));
                return Ok(false);
            }
        };
        if since.elapsed() <= self.ttl {
            return Ok(false);
        }
        match self.bucket.update(&self.key, self.value()?, entry.revision).await {
            Ok(revision) => Ok(self.now_ours(revision)),
            Err(BucketError::Conflict { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Renews the lease; `false` says that it is lost.
    ///
    /// Bounds: answers within one `ttl`. Errors: the bus failed; the lease may still be ours, try again until a `ttl`
    /// has passed since the last success, then stop.
    pub async fn renew(&mut self) -> Result<bool, BucketError> {
        bounded(self.ttl, self.prolong()).await
    }

    async fn prolong(&mut self) -> Result<bool, BucketError> {
        let Some(revision) = self.revision else { return Ok(false) };
        match self.bucket.update(&self.key, self.value()?, revision).await {
            Ok(revision) => return Ok(self.now_ours(revision)),
            Err(BucketError::Conflict { .. }) => {}
            Err(error) => return Err(error),
        }
        // A renewal whose answer was lost moved the revision; or the entry expired and nobody has taken it.
        match self.bucket.get(&self.key).await? {
            Some(entry) if read(&self.key, &entry)? == self.held => {
                match self.bucket.update(&self.key, self.value()?, entry.revision).await {
                    Ok(revision) => return Ok(self.now_ours(revision)),
                    Err(BucketError::Conflict { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            _ => {}
        }
        self.revision = None;
        Ok(false)
    }

    /// Gives the lease back, so that another takes it at once.
    pub async fn release(&mut self) -> Result<(), BucketError> {
        let Some(revision) = self.revision.take() else { return Ok(()) };
        match bounded(self.ttl, self.bucket.delete_at(&self.key, revision)).await {
            Err(BucketError::Conflict { .. }) => Ok(()),
            done => done,
        }
    }

    /// Who holds a lease at this instant.
    pub async fn holder_of(bucket: &Bucket, key: &str) -> Result<Option<ReplicaId>, BucketError> {
        let Some(entry) = bucket.get(key).await? else { return Ok(None) };
        Ok(Some(read(key, &entry)?.holder))
    }

    fn now_ours(&mut self, revision: u64) -> bool {
        self.revision = Some(revision);
        self.observed = None;
        true
    }

    fn value(&self) -> Result<Vec<u8>, BusError> {
        serde_json::to_vec(&self.held)
            .map_err(|e| BusError::Malformed { what: "lease".to_owned(), reason: e.to_string() })
    }
}

fn read(key: &str, entry: &Entry) -> Result<Held, BusError> {
    serde_json::from_slice(&entry.value)
        .map_err(|e| BusError::Malformed { what: format!("lease {key}"), reason: e.to_string() })
}

async fn bounded<T>(ttl: Duration, work: impl Future<Output = Result<T, BucketError>>) -> Result<T, BucketError> {
    timeout(ttl, work).await.unwrap_or_else(|_| {
        Err(BusError::Unknown { what: "lease".to_owned(), reason: "no answer within its lifetime".to_owned() }.into())
    })
}
