//! Objects that nothing names any more, and how they go.
//!
//! - **Garbage** is what the state named once: replaced and truncated chunks. It stays for `garbage_delay`, so that
//!   readers who were told of it can finish; then it is deleted, and only then forgotten by a commit. A deletion that
//!   fails leaves it garbage.
//! - **Deleted segments** lose whatever lies in their folder once the same delay is over and no late put can follow: a
//!   truncation deletes whole segments, and their readers were told of chunks as well.
//! - **Orphans** are objects that no state ever named: a process died between put and commit, or a zombie put them.
//!
//! Why no orphan is an object that a commit in flight may name. Let `k` be a key of generation `g` that was listed by the
//! owner of generation `o`, and that its state names neither as a chunk nor as garbage. Then the owner commits an entry
//! (`Collected`), which succeeds only if its own owner record is still the last one; only after that it deletes.
//! - `g > o`: left alone; a later owner put it.
//! - `g < o`, or `g = o` and put by an earlier life of this replica: whoever put it claimed before this owner did. Its
//!   frames from before this claim are applied, and those after it are refused by the log. So nobody will name `k`.
//! - `g = o` and put by this very owner: one task puts and commits, and it is here. Before it came here it knew for
//!   certain what became of each of its commits.
//! - `g = o` and put by a later life of this replica, while this one is a zombie: that life claimed before it put `k`,
//!   and `k` was listed before the commit; so the commit of this one came after the other's claim, and was refused.
//!
//! On top of that a key must have been an orphan for two lease times and `garbage_delay`, its generation must be older
//! than the owner's or its offset below the tail.

use std::{collections::HashMap, ops::Bound, time::Duration};

use futures::{StreamExt, TryStreamExt, stream};
use tracing::{debug, info, warn};
use types::{Generation, IndexName, SegmentId, Timestamp};

use crate::{
    container::{
        frame::Entry,
        state::State,
        tier2::{Tier2, failed, folder, parse_key},
    },
    crash,
    error::Error,
    metrics,
};

/// Objects deleted before that is committed.
const BATCH_MAX: usize = 256;
/// Deletions at the same time.
const DELETES_AT_ONCE: usize = 8;
/// Deleted segments swept in one round.
const SWEEPS_MAX: usize = 16;
/// Orphans watched at the same time; others are seen when these are gone.
const SUSPECTS_MAX: usize = 10_000;

/// Removes the objects of one container that nothing names.
pub(crate) struct Collector {
    tier2: Tier2,
    /// How long garbage stays.
    delay: Duration,
    /// How long an orphan is watched, and the folder of a deleted segment left alone.
    watch: Duration,
    suspects: Suspects,
    /// Where the walk through all segments is.
    at: Option<SegmentId>,
}

impl Collector {
    pub(crate) fn new(tier2: Tier2) -> Self {
        let delay = tier2.container.limits.garbage_delay;
        let watch = tier2.host.common.lease_ttl.0 * 2 + delay;
        Self { tier2, delay, watch, suspects: Suspects::default(), at: None }
    }

    /// Removes a batch of what is due; says whether there may be more.
    pub(crate) async fn tidy(&self) -> Result<bool, Error> {
        let collected = self.collect().await?;
        Ok(self.sweep().await? || collected)
    }

    /// Removes a batch of old garbage; says whether there was any.
    async fn collect(&self) -> Result<bool, Error> {
        let now = self.tier2.container.clock.now();
        let keys = old_garbage(&self.tier2.container.books.read().state, now, self.delay);
        if keys.is_empty() {
            return Ok(false);
        }
        self.delete(&keys).await?;
        crash::point("before_collect");
        let count = keys.len();
        self.commit(keys).await?;
        crash::point("after_collect");
        debug!(container = %self.tier2.container.id, objects = count, "garbage collected");
        Ok(true)
    }

    /// Removes the objects of segments that were deleted long enough ago, committed or not; says whether there may be more.
    async fn sweep(&self) -> Result<bool, Error> {
        let container = &self.tier2.container;
        let due = due_sweeps(&container.books.read().state, container.clock.now(), self.watch);
        for (segment, index) in &due {
            // A listing may be cut off, so that only an empty one proves that nothing is left.
            let keys = self.list(index, *segment).await?;
            if !keys.is_empty() {
                self.delete(&keys).await?;
                continue;
            }
            container.submit(Entry::Swept { segment: *segment }, Timestamp::MAX, None).await?;
            info!(%segment, %index, "deleted segment swept");
        }
        Ok(due.len() == SWEEPS_MAX)
    }

    /// Looks at the objects of one segment, the next one at each call, and removes those that were orphans for long.
    pub(crate) async fn orphans(&mut self) -> Result<(), Error> {
        let container = self.tier2.container.clone();
        let next = {
            let books = container.books.read();
            let after = self.at.map_or(Bound::Unbounded, Bound::Excluded);
            let mut rest = books.state.segments.range((after, Bound::Unbounded)).filter(|(_, s)| !s.transactional);
            rest.next().map(|(segment, known)| (*segment, known.index.clone()))
        };
        self.at = next.as_ref().map(|(segment, _)| *segment);
        let Some((segment, index)) = next else { return Ok(()) };
        let listed = self.list(&index, segment).await?;
        let nameless = nameless(&container.books.read().state, segment, container.generation, listed);
        let (now, watch) = (container.clock.now(), self.watch);
        let mut orphans = self.suspects.watch(&folder(&index, segment), nameless, now, watch);
        if orphans.is_empty() {
            return Ok(());
        }
        // Only an owner gets here: see the proof above.
        self.commit(orphans.clone()).await?;
        {
            let books = container.books.read();
            let known = books.state.segments.get(&segment);
            let named = |key: &String| known.is_some_and(|s| s.chunks.iter().any(|chunk| chunk.key == *key));
            orphans.retain(|key| !named(key));
        }
        warn!(container = %container.id, %segment, objects = orphans.len(), "objects that nothing names removed");
        self.delete(&orphans).await?;
        metrics::ORPHANS.add(u64::try_from(orphans.len()).unwrap_or(u64::MAX));
        self.suspects.forget(&orphans);
        Ok(())
    }

    async fn list(&self, index: &IndexName, segment: SegmentId) -> Result<Vec<String>, Error> {
        let listed = self.tier2.objects.list(&folder(index, segment), store::LIST_MAX).await.map_err(failed)?;
        Ok(listed.into_iter().map(|object| object.key).collect())
    }

    async fn delete(&self, keys: &[String]) -> Result<(), Error> {
        let deletions = stream::iter(keys.to_vec()).map(|key| {
            let tier2 = self.tier2.clone();
            async move { tier2.delete(&key).await }
        });
        deletions.buffer_unordered(DELETES_AT_ONCE).try_collect::<()>().await?;
        metrics::COLLECTED_OBJECTS.add(u64::try_from(keys.len()).unwrap_or(u64::MAX));
        Ok(())
    }

    async fn commit(&self, keys: Vec<String>) -> Result<(), Error> {
        let at = self.tier2.container.clock.now();
        self.tier2.container.submit(Entry::Collected { keys, at }, Timestamp::MAX, None).await.map(drop)
    }
}

/// A batch of what has been garbage for long enough.
fn old_garbage(state: &State, now: Timestamp, delay: Duration) -> Vec<String> {
    let old = state.garbage.iter().filter(|(_, garbage)| now.since(garbage.since) >= delay);
    old.map(|(key, _)| key.clone()).take(BATCH_MAX).collect()
}

/// A batch of the segments that were deleted at least `watch` ago; of one whose time is not known that is long.
fn due_sweeps(state: &State, now: Timestamp, watch: Duration) -> Vec<(SegmentId, IndexName)> {
    let at = |segment| state.tombstones.get(segment).copied().unwrap_or(Timestamp::MIN);
    let due = state.deleted.iter().filter(|(segment, _)| now.since(at(segment)) >= watch);
    due.map(|(segment, index)| (*segment, index.clone())).take(SWEEPS_MAX).collect()
}

/// Those of a segment's objects that no state has named or will name, as far as their keys tell.
fn nameless(state: &State, segment: SegmentId, owner: Generation, listed: Vec<String>) -> Vec<String> {
    let Some(known) = state.segments.get(&segment) else { return Vec::new() };
    let named: std::collections::HashSet<&str> = known.chunks.iter().map(|chunk| chunk.key.as_str()).collect();
    let may_go = |key: &String| {
        let lost = parse_key(key)
            .is_some_and(|(from, generation)| generation < owner || (generation == owner && from < known.tail_from));
        lost && !named.contains(key.as_str()) && !state.garbage.contains_key(key)
    };
    listed.into_iter().filter(may_go).collect()
}

/// Orphans by key, with the time when they were first seen.
#[derive(Debug, Default)]
struct Suspects(HashMap<String, Timestamp>);

impl Suspects {
    /// Takes note of the orphans of a folder, and answers a batch of those that have been orphans for long enough.
    fn watch(&mut self, folder: &str, nameless: Vec<String>, now: Timestamp, long: Duration) -> Vec<String> {
        let still: std::collections::HashSet<&str> = nameless.iter().map(String::as_str).collect();
        self.0.retain(|key, _| !key.starts_with(folder) || still.contains(key.as_str()));
        let mut old = Vec::new();
        for key in nameless {
            match self.0.get(&key) {
                Some(first) if now.since(*first) >= long && old.len() < BATCH_MAX => old.push(key),
                Some(_) => {}
                None if self.0.len() < SUSPECTS_MAX => drop(self.0.insert(key, now)),
                None => {}
            }
        }
        old
    }

    fn forget(&mut self, keys: &[String]) {
        self.0.retain(|key, _| !keys.contains(key));
    }
}

#[cfg(test)]
#[path = "garbage_tests.rs"]
mod tests;
