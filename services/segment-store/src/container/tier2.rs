//! Tier 2 of one container, as its storage writer uses it: objects are put, named by the log, and deleted.
//!
//! One task at a time works here: whatever it has put is named or deleted before it looks at anything else, so that an
//! object of this owner that nothing names will never be named. See [`crate::container::garbage`].

use std::{future::Future, time::Duration};

use bytes::Bytes;
use host::Host;
use store::{Objects, Put, SEALED, StoreError};
use types::{Generation, IndexName, Offset, SegmentId, Timestamp};

use crate::{
    container::{
        Container,
        frame::Entry,
        recovery::jittered,
        state::{Segment, State},
    },
    error::Error,
};

/// Tries of one step before it is given up and begun again later.
const TRIES_MAX: u32 = 3;
/// The pause after the first of them; it doubles.
const PAUSE: Duration = Duration::from_millis(200);

/// How the chunks of a segment are put.
#[derive(Debug, Clone)]
pub(crate) struct Home {
    /// The index.
    index: IndexName,
    /// Whether they are sealed with a key of its stream.
    encrypted: bool,
}

impl Home {
    /// Asked together with what is to be put: of a segment that is gone nobody knows any more that it is encrypted.
    pub(crate) fn of(segment: &Segment) -> Self {
        let encrypted = segment.origin.as_ref().is_some_and(|origin| origin.encrypted);
        Self { index: segment.index.clone(), encrypted }
    }
}

/// The objects of one container; cheap to clone.
#[derive(Clone)]
pub(crate) struct Tier2 {
    pub(crate) container: Container,
    pub(crate) host: Host,
    pub(crate) objects: Objects,
}

impl Tier2 {
    pub(crate) fn new(container: Container, host: Host) -> Self {
        let objects = host.objects.clone();
        Self { container, host, objects }
    }

    /// A key that nobody ever used.
    pub(crate) fn fresh_key(&self, home: &Home, segment: SegmentId, from: Offset) -> String {
        let (generation, unique) = (self.container.generation, uuid::Uuid::new_v4());
        let sealed = if home.encrypted { SEALED } else { "" };
        format!("{}{from:020}-G{generation}-{unique}.parquet{sealed}", folder(&home.index, segment))
    }

    /// Stores an object under a fresh key.
    pub(crate) async fn put(&self, key: &str, bytes: Bytes) -> Result<(), Error> {
        // The key holds a fresh uuid: what exists is this very object, stored by a try whose answer was lost.
        let (Put::Stored | Put::Exists) = insist(|| self.objects.put_if_absent(key, bytes.clone())).await?;
        Ok(())
    }

    /// The whole object; `None` if it is not there.
    pub(crate) async fn get(&self, key: &str) -> Result<Option<Bytes>, Error> {
        let look = || async {
            match self.objects.get(key).await {
                Err(error) if error.is_not_found() => Ok(None),
                found => found.map(Some),
            }
        };
        insist(look).await
    }

    /// Deletes an object; one that is gone is fine.
    pub(crate) async fn delete(&self, key: &str) -> Result<(), Error> {
        insist(|| self.objects.delete(key)).await
    }

    /// Commits an entry until it is certain whether the segment names the object of this key, and answers that.
    ///
    /// An object that never was named is deleted. One that was, if only for a moment, is left to the garbage: somebody may
    /// have been told of it.
    pub(crate) async fn commit(&self, segment: SegmentId, key: &str, entry: &Entry) -> Result<bool, Error> {
        self.settle(entry).await?;
        let fate = fate(&self.container.books.read().state, segment, key);
        if fate == Fate::NeverNamed {
            self.delete(key).await?;
        }
        Ok(fate == Fate::Named)
    }

    /// Commits an entry until its outcome is certain.
    async fn settle(&self, entry: &Entry) -> Result<(), Error> {
        loop {
            match self.container.submit(entry.clone(), Timestamp::MAX, None).await {
                // A refusal may be the answer to a repeat of what is in the log: the state knows.
                Ok(_)
                | Err(
                    Error::ChunkOutOfPlace { .. }
                    | Error::ChunksDiffer { .. }
                    | Error::GarbageFull(_)
                    | Error::NotHere(_),
                ) => return Ok(()),
                // Its outcome is decided by the log, which the owner reads again before it takes the next entry.
                Err(Error::AppendUnknown(_) | Error::Throttled { .. }) => tokio::time::sleep(jittered(PAUSE)).await,
                Err(other) => return Err(other),
            }
        }
    }
}

/// What a state says of an object that was just put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// Its segment has it as a chunk.
    Named,
    /// It was named and is no more: it waits among the garbage, or in the folder of a deleted segment.
    Waits,
    /// Its commit was refused.
    NeverNamed,
}

fn fate(state: &State, segment: SegmentId, key: &str) -> Fate {
    match state.segments.get(&segment) {
        // Whatever lies in its folder is swept after a while.
        None => Fate::Waits,
        Some(known) if known.chunks.iter().any(|chunk| chunk.key == key) => Fate::Named,
        Some(_) if state.garbage.contains_key(key) => Fate::Waits,
        Some(_) => Fate::NeverNamed,
    }
}

/// Where the chunks of a segment are.
pub(crate) fn folder(index: &IndexName, segment: SegmentId) -> String {
    format!("chunks/{index}/{segment}/")
}

/// What the key of a chunk says: its first offset, and the generation of the owner that put it.
pub(crate) fn parse_key(key: &str) -> Option<(Offset, Generation)> {
    let name = key.rsplit('/').next()?;
    let name = name.strip_suffix(SEALED).unwrap_or(name).strip_suffix(".parquet")?;
    let (from, rest) = name.split_once("-G")?;
    let (generation, _) = rest.split_once('-')?;
    Some((from.parse().ok()?, Generation(generation.parse().ok()?)))
}

async fn insist<T, Fut>(attempt: impl Fn() -> Fut) -> Result<T, Error>
where
    Fut: Future<Output = Result<T, StoreError>>,
{
    let mut pause = PAUSE;
    for _ in 1..TRIES_MAX {
        if let Ok(done) = attempt().await {
            return Ok(done);
        }
        tokio::time::sleep(jittered(pause)).await;
        pause *= 2;
    }
    attempt().await.map_err(failed)
}

/// A failure of object storage, as the callers of this service are told.
pub(crate) fn failed(error: StoreError) -> Error {
    match error {
        StoreError::Key { .. } | StoreError::Sealed { .. } => Error::Sealed(error.to_string()),
        _ => Error::Objects(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use wire::segment_store::ChunkMeta;

    use super::*;

    #[test]
    fn only_what_never_was_named_goes_at_once() {
        use crate::container::state::Garbage;
        let segment = SegmentId { stream: 7, epoch: 1, number: 2 };
        let mut state = State::new(types::ContainerId(0));
        assert_eq!(fate(&state, segment, "k"), Fate::Waits, "its segment was deleted");
        let frame = crate::container::frame::Frame {
            container: types::ContainerId(0),
            generation: Generation(1),
            number: 1,
            previous: 0,
            entries: vec![Entry::create(segment, "shop".parse().unwrap())],
        };
        state.apply(1, &frame, 0).unwrap();
        assert_eq!(fate(&state, segment, "k"), Fate::NeverNamed);
        state.garbage.insert("k".into(), Garbage { segment, since: Timestamp::MIN });
        assert_eq!(fate(&state, segment, "k"), Fate::Waits, "it was truncated in the same moment");
        let time = Timestamp::MIN;
        let meta = ChunkMeta { key: "n".into(), from: 0, to: 1, bytes: 1, time_min: time, time_max: time };
        state.segments.get_mut(&segment).unwrap().chunks.push(meta);
        assert_eq!(fate(&state, segment, "n"), Fate::Named);
    }

    #[test]
    fn a_key_says_offset_and_generation() {
        let segment = SegmentId { stream: 7, epoch: 1, number: 2 };
        let folder = folder(&"shop".parse().unwrap(), segment);
        let key = format!("{folder}{:020}-G12-0b0e-11-x.parquet", 345);
        assert_eq!(parse_key(&key), Some((345, Generation(12))));
        assert_eq!(parse_key(&(key + SEALED)), Some((345, Generation(12))));
        for foreign in ["", "chunks/shop/7-1-2/readme", "x/00-Gx-y.parquet", "x/1-G2.parquet", "x/1-G2-u.tmp"] {
            assert_eq!(parse_key(foreign), None, "{foreign}");
        }
    }
}
