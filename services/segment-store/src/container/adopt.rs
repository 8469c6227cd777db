//! What restore and repair ask of an owner: segments made of chunks that are there, and objects put aside that nothing names.
//!
//! Why nothing is put aside that anybody may still name. The owner looks at what its state names, commits an entry, which
//! succeeds only if its own owner record is still the last one, and looks again; only then it moves. An object whose key
//! carries an older generation was put by somebody whose frames are all before that commit, so what the state does not
//! name now it will never name. Objects of the present generation are left to the storage writer, which may be about to
//! name them. Objects of a restore carry no generation; only an adoption names them, and that waits for its turn here.

use std::{
    collections::HashSet,
    ops::Bound::{Excluded, Unbounded},
    sync::Arc,
};

use futures::{StreamExt, TryStreamExt, stream};
use host::Host;
use tokio::sync::Mutex;
use tracing::{info, warn};
use types::{Generation, SegmentId, Timestamp};
use wire::segment_store::{Adoption, ChunkMeta, GarbageOf, GarbagePage, Quarantine, Quarantined, SegmentInfo};

use crate::{
    container::{
        BLOCK_BYTES_MAX, Container,
        frame::Entry,
        state::{State, end_of},
        tier2::{Tier2, failed, folder, parse_key},
    },
    error::Error,
};

/// Chunks of which a segment can be made.
pub const ADOPTED_MAX: usize = 10_000;
/// Objects put aside in one call, and keys of one page of garbage.
const KEYS_MAX: usize = 1_000;
/// Objects looked at at the same time.
const LOOKS_AT_ONCE: usize = 16;
/// Where objects go that nothing names; they stay there until a person removes them.
const ASIDE: &str = "quarantine/";

/// Answers restore and repair for one container; clones share their turn.
#[derive(Clone)]
pub(crate) struct Keeper {
    tier2: Tier2,
    /// One adoption or move at a time, so that neither acts on what the other changes.
    turn: Arc<Mutex<()>>,
}

impl Keeper {
    pub(crate) fn new(container: Container, host: Host) -> Self {
        Self { tier2: Tier2::new(container, host), turn: Arc::default() }
    }

    /// Makes a segment of chunks that are in its folder; one that was made of them already is fine.
    ///
    /// Bounds: [`ADOPTED_MAX`] chunks. Errors: `SegmentDiffers`, `SegmentDeleted`, `BadAdoption`, `ChunkMissing` not applied.
    pub(crate) async fn adopt(&self, adoption: Adoption, deadline: Timestamp) -> Result<SegmentInfo, Error> {
        let _turn = self.turn.lock().await;
        let (container, segment) = (&self.tier2.container, adoption.segment);
        if let Some(known) = container.serving()?.state.segments.get(&segment) {
            let same = known.is_made_of(&adoption);
            return if same { Ok(known.brief(segment)) } else { Err(Error::SegmentDiffers(segment)) };
        }
        check(&adoption)?;
        // What is still to be swept may lose its objects at any time, also behind a look at them.
        if container.serving()?.state.deleted.contains_key(&segment) {
            return Err(Error::SegmentDeleted(segment));
        }
        let looks = stream::iter(adoption.chunks.clone()).map(|chunk| self.look_for(chunk));
        looks.buffer_unordered(LOOKS_AT_ONCE).try_collect::<()>().await?;
        let count = adoption.chunks.len();
        // Nothing can be answered of it before it is there again, and what was before it was deleted is no longer right.
        container.answers.forget();
        container.submit(Entry::Adopt(Box::new(adoption)), deadline, None).await?;
        info!(container = %container.id, %segment, chunks = count, "segment made of chunks");
        container.readable()?.state.segment(segment).map(|known| known.brief(segment))
    }

    async fn look_for(&self, chunk: ChunkMeta) -> Result<(), Error> {
        let found = self.tier2.objects.head(&chunk.key).await.map_err(failed)?;
        let why = match found {
            Some(bytes) if bytes == chunk.bytes => return Ok(()),
            Some(bytes) => format!("has {bytes} bytes instead of {}", chunk.bytes),
            None => "is not in object storage".to_owned(),
        };
        Err(Error::ChunkMissing { key: chunk.key, why })
    }

    /// Moves objects of a segment that nothing names, nor ever will, below `quarantine/`; the others stay.
    pub(crate) async fn quarantine(&self, request: Quarantine, deadline: Timestamp) -> Result<Quarantined, Error> {
        let _turn = self.turn.lock().await;
        let container = &self.tier2.container;
        let Quarantine { segment, mut keys } = request;
        keys.truncate(KEYS_MAX);
        let keys = self.nameless(segment, keys)?;
        let mut moved = Vec::new();
        if keys.is_empty() {
            return Ok(Quarantined { moved });
        }
        // Only an owner gets past it.
        let fence = Entry::Collected { keys: Vec::new(), at: container.clock.now() };
        container.submit(fence, deadline, None).await?;
        for key in self.nameless(segment, keys)? {
            if self.put_aside(&key).await? {
                moved.push(key);
            }
        }
        warn!(container = %container.id, %segment, objects = moved.len(), "objects that nothing names put aside");
        Ok(Quarantined { moved })
    }

    fn nameless(&self, segment: SegmentId, keys: Vec<String>) -> Result<Vec<String>, Error> {
        let books = self.tier2.container.serving()?;
        nameless(&books.state, segment, self.tier2.container.generation, keys)
    }

    /// Copies first and deletes then; says whether the object was there.
    async fn put_aside(&self, key: &str) -> Result<bool, Error> {
        // What is sealed stays so, also where its key is gone.
        let lying = Tier2 { objects: self.tier2.objects.as_they_lie(), ..self.tier2.clone() };
        let Some(bytes) = lying.get(key).await? else { return Ok(false) };
        let aside = format!("{ASIDE}{key}");
        lying.put(&aside, bytes.clone()).await?;
        if lying.get(&aside).await?.as_ref() != Some(&bytes) {
            return Err(Error::Objects(format!("{aside} is taken by another object: move that one first")));
        }
        self.tier2.delete(key).await?;
        Ok(true)
    }
}

/// Those of the keys that the state does not name and that nobody is about to name.
fn nameless(state: &State, segment: SegmentId, own: Generation, keys: Vec<String>) -> Result<Vec<String>, Error> {
    let known = state.segment(segment)?;
    let folder = folder(&known.index, segment);
    let named: HashSet<&str> = known.chunks.iter().map(|chunk| chunk.key.as_str()).collect();
    let lost = |key: &String| {
        key.starts_with(&folder)
            && !named.contains(key.as_str())
            && !state.garbage.contains_key(key)
            && parse_key(key).is_none_or(|(_, generation)| generation < own)
    };
    Ok(keys.into_iter().filter(lost).collect())
}

fn check(adoption: &Adoption) -> Result<(), Error> {
    let refuse = |why: String| Err(Error::BadAdoption(why));
    let (segment, count) = (adoption.segment, adoption.chunks.len());
    let folder = folder(&adoption.index, segment);
    if count > ADOPTED_MAX {
        return refuse(format!("segment {segment} would have {count} chunks; at most {ADOPTED_MAX} are possible"));
    }
    if let Some(stranger) = adoption.chunks.iter().find(|chunk| !chunk.key.starts_with(&folder)) {
        return refuse(format!("chunk {} is not in {folder}", stranger.key));
    }
    if Entry::Adopt(Box::new(adoption.clone())).raw_bytes() > BLOCK_BYTES_MAX {
        return refuse(format!("segment {segment} does not fit a frame of its container's log"));
    }
    end_of(adoption).map(drop)
}

impl Container {
    /// Where a segment belongs, for the footers of its chunks.
    pub(crate) fn origin(&self, segment: SegmentId) -> Option<chunk::Origin> {
        let books = self.books.read();
        let known = books.state.segments.get(&segment)?;
        let origin = known.origin.clone()?;
        Some(chunk::Origin { index: known.index.clone(), scope: origin.scope, range: origin.range })
    }

    /// Lists what waits for its removal.
    ///
    /// Bounds: 1 to 1 000 keys at a time.
    pub(crate) fn garbage(&self, page: &GarbageOf) -> Result<GarbagePage, Error> {
        let books = self.readable()?;
        let limit = usize::try_from(page.limit).unwrap_or(KEYS_MAX).clamp(1, KEYS_MAX);
        let after = page.after.as_deref().map_or(Unbounded, Excluded);
        let mut rest = books.state.garbage.range::<str, _>((after, Unbounded));
        let keys = rest.by_ref().take(limit).map(|(key, _)| key.clone()).collect();
        let first = page.after.is_none();
        let deleted = if first { books.state.deleted.keys().copied().collect() } else { Vec::new() };
        Ok(GarbagePage { keys, more: rest.next().is_some(), deleted })
    }
}

#[cfg(test)]
mod tests {
    use types::ContainerId;

    use super::*;
    use crate::container::{frame::Frame, state::Garbage};

    #[test]
    fn only_what_nobody_can_name_any_more_is_put_aside() {
        let segment = SegmentId { stream: 7, epoch: 0, number: 0 };
        let (container, generation) = (ContainerId(0), Generation(5));
        let mut state = State::new(container);
        let entries = vec![Entry::create(segment, "shop".parse().unwrap())];
        state.apply(1, &Frame { container, generation, number: 1, previous: 0, entries }, 0).unwrap();
        let key = |name: &str| format!("chunks/shop/7-0-0/{name}");
        let named = ChunkMeta {
            key: key("0-G1-named.parquet"),
            from: 0,
            to: 1,
            bytes: 1,
            time_min: Timestamp::MIN,
            time_max: Timestamp::MIN,
        };
        state.segments.get_mut(&segment).unwrap().chunks.push(named);
        state.garbage.insert(key("0-G1-garbage.parquet"), Garbage { segment, since: Timestamp::MIN });
        for (name, goes, why) in [
            ("0-G1-named.parquet", false, "a chunk"),
            ("0-G1-garbage.parquet", false, "the owner removes it"),
            ("0-G4-old.parquet", true, "of an owner before"),
            ("0-G5-own.parquet", false, "the storage writer may be about to name it"),
            ("0-G6-later.parquet", false, "of an owner after"),
            ("0-R-0000002a.parquet", true, "left by a restore"),
            ("readme.txt", true, "foreign"),
        ] {
            let lost = nameless(&state, segment, generation, vec![key(name)]).unwrap();
            assert_eq!(!lost.is_empty(), goes, "{why}");
        }
        let elsewhere = vec!["chunks/shop/7-0-1/0-G1-old.parquet".to_owned(), "snap/x".to_owned()];
        assert!(nameless(&state, segment, generation, elsewhere).unwrap().is_empty());
        let unknown = SegmentId { number: 9, ..segment };
        assert!(nameless(&state, unknown, generation, vec![key("0-G1-x.parquet")]).is_err());
    }
}
