//! The views that others read instead of asking: one per stream, and the placement.

use std::collections::BTreeSet;

use bus::{Bucket, BucketError};
use types::IndexName;
use wire::{
    Problem,
    coordinator::StreamDescription,
    decode, encode,
    views::{PLACEMENT_KEY, Placement, stream_key},
};

/// Attempts to replace the placement while somebody else writes it; another leader is a matter of moments.
const PUT_ATTEMPTS: usize = 5;

/// Writes the coordinator's views.
#[derive(Clone)]
pub(crate) struct Views {
    bucket: Bucket,
}

impl Views {
    pub(crate) fn new(bucket: Bucket) -> Self {
        Self { bucket }
    }

    /// Shows a stream.
    pub(crate) async fn show(&self, stream: &StreamDescription) -> Result<(), Problem> {
        self.bucket.put(&stream_key(&stream.index), encode(stream)).await.map_err(problem)?;
        Ok(())
    }

    /// Hides a stream; hiding what is not shown succeeds.
    pub(crate) async fn hide(&self, index: &IndexName) -> Result<(), Problem> {
        self.bucket.delete(&stream_key(index)).await.map_err(problem)
    }

    /// Makes the stream views equal to the truth: adds, corrects and removes.
    pub(crate) async fn rewrite(&self, live: &[StreamDescription]) -> Result<(), Problem> {
        let shown = self.bucket.list("stream.").await.map_err(problem)?;
        let keys: BTreeSet<String> = live.iter().map(|s| stream_key(&s.index)).collect();
        for (key, _) in shown.iter().filter(|(key, _)| !keys.contains(key)) {
            self.bucket.delete(key).await.map_err(problem)?;
        }
        for stream in live {
            let (key, value) = (stream_key(&stream.index), encode(stream));
            if !shown.iter().any(|(k, entry)| *k == key && entry.value == value) {
                self.bucket.put(&key, value).await.map_err(problem)?;
            }
        }
        Ok(())
    }

    /// Shows the placement, unless a newer one is shown already: a leader that was deposed must not turn it back.
    pub(crate) async fn place(&self, placement: &Placement) -> Result<(), Problem> {
        for _ in 0..PUT_ATTEMPTS {
            let written = match self.bucket.get(PLACEMENT_KEY).await.map_err(problem)? {
                None => self.bucket.create(PLACEMENT_KEY, encode(placement)).await,
                Some(entry) => {
                    if decode::<Placement>(&entry.value).is_ok_and(|shown| shown.version >= placement.version) {
                        return Ok(());
                    }
                    self.bucket.update(PLACEMENT_KEY, encode(placement), entry.revision).await
                }
            };
            match written {
                Ok(_) => return Ok(()),
                Err(BucketError::Exists { .. } | BucketError::Conflict { .. }) => {}
                Err(error) => return Err(problem(error)),
            }
        }
        Err(Problem::unavailable("ViewContended", "the placement view is being written by another replica"))
    }
}

fn problem(error: BucketError) -> Problem {
    Problem::unavailable("ViewUnavailable", format_args!("the bucket of views does not answer: {error}"))
}
