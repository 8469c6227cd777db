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

/// Attempts to replace a view while somebody else writes it; another leader is a matter of moments.
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

    /// Shows a stream, unless something newer is shown already.
    pub(crate) async fn show(&self, stream: &StreamDescription) -> Result<(), Problem> {
        let key = stream_key(&stream.index);
        for _ in 0..PUT_ATTEMPTS {
            let written = match self.bucket.get(&key).await.map_err(problem)? {
                None => self.bucket.create(&key, encode(stream)).await,
                Some(entry) => {
                    let value = encode(stream);
                    let stale = |shown: &StreamDescription| is_newer(shown, stream);
                    if entry.value == value || decode(&entry.value).is_ok_and(|shown| stale(&shown)) {
                        return Ok(());
                    }
                    self.bucket.update(&key, value, entry.revision).await
                }
            };
            match written {
                Ok(_) => return Ok(()),
                Err(BucketError::Exists { .. } | BucketError::Conflict { .. }) => {}
                Err(error) => return Err(problem(error)),
            }
        }
        Err(contended("the view of a stream"))
    }

    /// Hides a stream, but not a later one of the same name; hiding what is not shown succeeds.
    pub(crate) async fn hide(&self, index: &IndexName, stream: u32) -> Result<(), Problem> {
        let key = stream_key(index);
        for _ in 0..PUT_ATTEMPTS {
            let Some(entry) = self.bucket.get(&key).await.map_err(problem)? else { return Ok(()) };
            if decode::<StreamDescription>(&entry.value).is_ok_and(|shown| shown.stream > stream) {
                return Ok(());
            }
            match self.bucket.delete_at(&key, entry.revision).await {
                Ok(()) => return Ok(()),
                Err(BucketError::Exists { .. } | BucketError::Conflict { .. }) => {}
                Err(error) => return Err(problem(error)),
            }
        }
        Err(contended("the view of a stream"))
    }

    /// Makes the stream views equal to the truth: adds, corrects and removes.
    pub(crate) async fn rewrite(&self, live: &[StreamDescription]) -> Result<(), Problem> {
        let shown = self.bucket.list("stream.").await.map_err(problem)?;
        let keys: BTreeSet<String> = live.iter().map(|s| stream_key(&s.index)).collect();
        let newest = live.iter().map(|s| s.stream).max();
        for (key, entry) in shown.iter().filter(|(key, _)| !keys.contains(key)) {
            // A stream that is younger than all that are known here was made by a leader after this one.
            let younger = |s: StreamDescription| newest.is_none_or(|newest| s.stream > newest);
            if decode::<StreamDescription>(&entry.value).is_ok_and(younger) {
                continue;
            }
            match self.bucket.delete_at(key, entry.revision).await {
                // What was changed meanwhile is somebody else's business.
                Ok(()) | Err(BucketError::Exists { .. } | BucketError::Conflict { .. }) => {}
                Err(error) => return Err(problem(error)),
            }
        }
        for stream in live {
            let (key, value) = (stream_key(&stream.index), encode(stream));
            if !shown.iter().any(|(k, entry)| *k == key && entry.value == value) {
                self.show(stream).await?;
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
        Err(contended("the view of the placement"))
    }
}

/// Whether what is shown cannot be older than a description: a leader that was deposed must not turn a view back.
fn is_newer(shown: &StreamDescription, stream: &StreamDescription) -> bool {
    let epoch = (shown.stream, shown.epoch) > (stream.stream, stream.epoch);
    let same = (shown.stream, shown.epoch) == (stream.stream, stream.epoch);
    epoch || (same && (shown.sealed && !stream.sealed || further(shown, stream)))
}

/// Whether one head is further than the other: of the segments that only one of them names, the first belongs to the one behind.
fn further(shown: &StreamDescription, stream: &StreamDescription) -> bool {
    let (shown, ours) = (&shown.head, &stream.head);
    if shown.0.is_empty() || ours.0.is_empty() {
        return ours.0.is_empty() && !shown.0.is_empty();
    }
    let (there, here): (BTreeSet<_>, BTreeSet<_>) = (shown.0.keys().collect(), ours.0.keys().collect());
    match there.symmetric_difference(&here).next() {
        Some(first) => here.contains(*first),
        None => shown.0.iter().any(|(segment, offset)| *offset > ours.offset(*segment)),
    }
}

fn contended(what: &str) -> Problem {
    Problem::unavailable("ViewContended", format_args!("{what} is being written by another replica; try again"))
}

fn problem(error: BucketError) -> Problem {
    Problem::unavailable("ViewUnavailable", format_args!("the bucket of views does not answer: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::{SegmentId, StreamCut, Timestamp};

    fn described(stream: u32, epoch: u32, sealed: bool, head: &[(u32, u32, u64)]) -> StreamDescription {
        let (scope, index) = ("team".parse().unwrap(), "shop".parse().unwrap());
        let new = StreamDescription::new((stream, Timestamp::from_nanos(1)), scope, index, Vec::new());
        let head = head.iter().map(|(epoch, number, at)| (SegmentId { stream, epoch: *epoch, number: *number }, *at));
        StreamDescription { epoch, sealed, head: StreamCut(head.collect()), ..new }
    }

    #[test]
    fn what_is_shown_is_never_turned_back() {
        let (start, merged) = ([(0, 0, 0), (0, 1, 4)], [(1, 2, 0)]);
        let ascending = [
            described(1, 9, true, &merged),
            described(2, 0, false, &[]),
            described(2, 1, false, &[]),
            described(2, 1, false, &start),
            described(2, 1, false, &[(0, 0, 1), (0, 1, 4)]),
            described(2, 1, false, &merged),
            described(2, 1, false, &[(1, 2, 7)]),
            described(2, 2, false, &[(1, 2, 7)]),
            described(2, 2, true, &[(1, 2, 7)]),
        ];
        for (i, shown) in ascending.iter().enumerate() {
            for (j, ours) in ascending.iter().enumerate() {
                assert_eq!(is_newer(shown, ours), i > j, "{i} against {j}");
            }
        }
    }
}
