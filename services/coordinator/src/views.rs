//! The views that others read instead of asking: one per stream, and the placement.

use std::collections::BTreeSet;

use bus::{Bucket, BucketError, Watch};
use types::IndexName;
use wire::{
    Problem,
    coordinator::StreamDescription,
    decode, encode,
    views::{PLACEMENT_KEY, Placement, stream_key},
};

/// What the keys of stream views begin with.
const STREAMS: &str = "stream.";

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

    /// Tells every stream view, and then what is changed, by whomever.
    pub(crate) fn watch(&self) -> Watch {
        self.bucket.watch(STREAMS)
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

/// Whose view a key is.
pub(crate) fn index_of(key: &str) -> Option<IndexName> {
    key.strip_prefix(STREAMS)?.parse().ok()
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
    fn keys_are_read_as_they_are_written() {
        let index: IndexName = "shop".parse().unwrap();
        assert_eq!(index_of(&stream_key(&index)), Some(index));
        assert_eq!((index_of(PLACEMENT_KEY), index_of("stream.")), (None, None));
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
