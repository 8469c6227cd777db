//! Copies the chunks of archived indexes to the buckets that their tenants have: chunks are in Tier 2 already, and nobody
//! waits for their copies.
//!
//! It keeps nothing. What is to be copied the container's state says, and what is there the names in the archive: at a new
//! owner it looks for the last one of each segment and goes on behind it. An owner that is none any more may copy what it
//! knows for a moment longer; then a part of the events is there twice, and a restore takes them once.
//!
//! A copy is for ever what it is, while small chunks are merged here after a while. So what is less than [`FULL_BYTES`] of a
//! segment is copied at intervals only: a segment with few events makes one copy at each, not one for each flush.
//!
//! Bounds: [`SHELVES_AT_ONCE`] indexes of a container are worked at, [`COPIES_PER_TURN`] chunks of each before another one
//! that waits; a bucket that fails waits up to [`PAUSE_MAX`], one that does not answer is given up after [`REQUEST_MAX`].

mod walk;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use chunk::Encoded;
use futures::{StreamExt, stream::FuturesUnordered};
use host::Host;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{debug, warn};
use types::{IndexName, Offset, SegmentId};
use wire::segment_store::ChunkMeta;

use self::walk::{Step, lag, lost, next};
use crate::{
    archives::{Archives, Place},
    container::{Container, recovery::jittered, state::Segment, tier2::folder},
    metrics,
};

/// Indexes of a container that are copied at the same time.
const SHELVES_AT_ONCE: usize = 4;
/// Chunks of an index that are copied before the others get their turn.
const COPIES_PER_TURN: usize = 16;
/// The longest time between two looks at what is to be copied.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// How long chunks that come together are gathered before they are looked at.
const GATHER: Duration = Duration::from_millis(200);
/// So much of a segment is copied at once.
const FULL_BYTES: u64 = 1 << 20;
/// The first pause after a failure; it doubles.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// The longest such pause.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// One look into a bucket, or one copy.
const REQUEST_MAX: Duration = Duration::from_secs(60);

/// The archive worker of one container.
pub(crate) struct Archivist {
    container: Container,
    host: Host,
    archives: Archives,
    /// How often what is little is copied.
    interval: Duration,
}

/// How far the copies of a segment are.
#[derive(Debug, Clone, Copy, Default)]
struct Reached {
    /// Behind which event they end; `None` where there is none.
    end: Option<Offset>,
    /// When everything was copied for the last time.
    whole: Option<Instant>,
}

/// An index with its bucket.
struct Shelf {
    index: IndexName,
    place: Arc<Place>,
    /// Of each segment that was looked up.
    reached: Mutex<BTreeMap<SegmentId, Reached>>,
    /// Of each segment that was looked at: its first event then, and behind its last one now.
    spans: Mutex<BTreeMap<SegmentId, (Offset, Offset)>>,
}

impl Shelf {
    fn new(index: IndexName, place: Arc<Place>) -> Self {
        Self { index, place, reached: Mutex::default(), spans: Mutex::default() }
    }

    /// Whether a segment is copied there. The name alone does not say it: another tenant may have had the name before, and a
    /// segment of its stream may have been left or restored.
    fn takes(&self, segment: &Segment) -> bool {
        segment.index == self.index && self.place.takes(segment.origin.as_ref().map(|origin| &origin.scope))
    }

    /// Looks at a segment; answers the first event that it had when it was looked at first.
    fn seen(&self, id: SegmentId, segment: &Segment) -> Offset {
        let mut spans = self.spans.lock();
        let span = spans.entry(id).or_insert((segment.start, segment.end));
        span.1 = segment.end;
        span.0
    }

    /// Forgets segments that are gone; answers how many of their events are not known to be in the archive.
    fn forget(&self, is_there: impl Fn(&SegmentId) -> bool) -> u64 {
        let mut reached = self.reached.lock();
        let gone = self.spans.lock().extract_if(.., |id, _| !is_there(id)).collect::<Vec<_>>();
        let lost = gone.iter().map(|(id, (seen, end))| lost(reached.get(id).and_then(|r| r.end), *seen, *end)).sum();
        reached.retain(|id, _| is_there(id));
        lost
    }
}

/// A shelf, and when it gets its next turn.
struct Turn {
    shelf: Arc<Shelf>,
    due: Instant,
    pause: Duration,
    busy: bool,
}

/// Why a chunk was not copied, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Fault {
    /// The bucket failed: it fails for every segment.
    Bucket(String),
    /// The chunk cannot be read: other segments go on.
    Chunk(String),
}

impl Archivist {
    pub(crate) fn new(container: Container, host: Host, archives: Archives) -> Self {
        let interval = container.limits.archive_interval;
        Self { container, host, archives, interval }
    }

    /// Works for ever; what it leaves half done is begun again by whoever comes next.
    pub(crate) async fn run(self) {
        let mut changes = self.archives.changes();
        let mut turns: BTreeMap<IndexName, Turn> = BTreeMap::new();
        let mut refused = BTreeSet::new();
        let mut running = FuturesUnordered::new();
        loop {
            let behind = self.look(&mut turns, &mut refused);
            while running.len() < SHELVES_AT_ONCE
                && let Some(shelf) = choose(&mut turns, &behind)
            {
                running.push(self.turn(shelf));
            }
            let waits = turns.iter().filter(|(index, turn)| !turn.busy && behind.contains(*index));
            let look = Instant::now() + self.interval.clamp(GATHER, LOOK_EVERY);
            let wake = match running.len() {
                SHELVES_AT_ONCE => look,
                _ => waits.map(|(_, turn)| turn.due).min().unwrap_or(look).min(look),
            };
            tokio::select! {
                Some((shelf, done)) = running.next(), if !running.is_empty() => self.done(&mut turns, &shelf, done),
                // Beside the copies that are made, not between them.
                () = async { self.container.chunked.notified().await; sleep(GATHER).await } => {}
                // Its sender lives as long as this does.
                changed = changes.changed() => drop(changed),
                () = sleep_until(wake) => {}
            }
        }
    }

    /// Brings the shelves up to date, and answers of which indexes something is to be copied.
    ///
    /// A segment of another tenant, or of nobody knows whom, is not copied; of each it is told once in `refused`.
    fn look(&self, turns: &mut BTreeMap<IndexName, Turn>, refused: &mut BTreeSet<SegmentId>) -> BTreeSet<IndexName> {
        let mut behind = BTreeSet::new();
        let mut bytes = 0;
        if turns.is_empty() && self.archives.is_empty() {
            return behind;
        }
        // One that is not recovered, or not ours any more, tells nothing.
        let Ok(books) = self.container.readable() else { return behind };
        turns.retain(|index, turn| self.archives.get(index).is_some_and(|p| Arc::ptr_eq(&p, &turn.shelf.place)));
        for turn in turns.values() {
            metrics::ARCHIVE_LOST_EVENTS.add(turn.shelf.forget(|id| books.state.segments.contains_key(id)));
        }
        refused.retain(|id| books.state.segments.contains_key(id));
        for (id, segment) in books.state.segments.iter().filter(|(_, segment)| !segment.chunks.is_empty()) {
            if !turns.contains_key(&segment.index) {
                let Some(place) = self.archives.get(&segment.index) else { continue };
                let shelf = Arc::new(Shelf::new(segment.index.clone(), place));
                let turn = Turn { shelf, due: Instant::now(), pause: PAUSE_MIN, busy: false };
                turns.insert(segment.index.clone(), turn);
            }
            let Some(turn) = turns.get(&segment.index) else { continue };
            if !turn.shelf.takes(segment) {
                if refused.insert(*id) {
                    let (container, bucket) = (self.container.id, turn.shelf.place.bucket());
                    let scope = segment.origin.as_ref().map(|origin| origin.scope.as_str());
                    warn!(%container, index = %segment.index, segment = %id, scope, bucket, "segment is not archived: it is not known to be of the bucket's scope");
                }
                continue;
            }
            turn.shelf.seen(*id, segment);
            let (missing, due) = self.missing(&turn.shelf, *id, segment);
            bytes += missing;
            if due {
                behind.insert(segment.index.clone());
            }
        }
        metrics::ARCHIVE_LAG_BYTES.with(&self.container.id.to_string()).set(bytes);
        behind
    }

    /// How much of a segment is not copied, and whether it is to be copied now.
    fn missing(&self, shelf: &Shelf, id: SegmentId, segment: &Segment) -> (u64, bool) {
        let reached = shelf.reached.lock().get(&id).copied().unwrap_or_default();
        let missing = lag(&segment.chunks, segment.start, reached.end);
        let waited = reached.whole.is_none_or(|at| at.elapsed() >= self.interval);
        (missing, missing > 0 && (waited || missing >= FULL_BYTES))
    }

    fn done(&self, turns: &mut BTreeMap<IndexName, Turn>, shelf: &Arc<Shelf>, done: Result<(), Fault>) {
        if let Err(fault) = &done {
            metrics::ARCHIVE_FAILURES.inc();
            let (Fault::Bucket(why) | Fault::Chunk(why)) = fault;
            let (container, bucket) = (self.container.id, shelf.place.bucket());
            warn!(%container, index = %shelf.index, bucket, why, "chunk was not archived, it is tried again");
        }
        // Another bucket may have taken its place.
        let Some(turn) = turns.get_mut(&shelf.index).filter(|turn| Arc::ptr_eq(&turn.shelf, shelf)) else { return };
        turn.busy = false;
        match done {
            Ok(()) => (turn.due, turn.pause) = (Instant::now(), PAUSE_MIN),
            Err(_) => {
                turn.due = Instant::now() + jittered(turn.pause);
                turn.pause = (turn.pause * 2).min(PAUSE_MAX);
            }
        }
    }

    async fn turn(&self, shelf: Arc<Shelf>) -> (Arc<Shelf>, Result<(), Fault>) {
        let done = self.fill(&shelf).await;
        (shelf, done)
    }

    /// Copies some of what is missing.
    async fn fill(&self, shelf: &Shelf) -> Result<(), Fault> {
        let segments: Vec<SegmentId> = {
            let Ok(books) = self.container.readable() else { return Ok(()) };
            let own = books.state.segments.iter().filter(|(_, segment)| shelf.takes(segment));
            own.filter(|(id, segment)| self.missing(shelf, **id, segment).1).map(|(id, _)| *id).collect()
        };
        let mut left = COPIES_PER_TURN;
        let mut unread = None;
        for segment in segments {
            let mut whole = true;
            while let Some(step) = self.next(shelf, segment).await? {
                if left == 0 {
                    return Ok(());
                }
                left -= 1;
                match self.copy(shelf, segment, step).await {
                    Ok(()) => {}
                    Err(Fault::Chunk(why)) => {
                        (unread, whole) = (Some(Fault::Chunk(why)), false);
                        break;
                    }
                    Err(fault) => return Err(fault),
                }
            }
            if let Some(reached) = shelf.reached.lock().get_mut(&segment).filter(|_| whole) {
                reached.whole = Some(Instant::now());
            }
        }
        unread.map_or(Ok(()), Err)
    }

    /// What of a segment is to be copied next; where nobody knows yet what is there, the archive is asked.
    async fn next(&self, shelf: &Shelf, segment: SegmentId) -> Result<Option<Step>, Fault> {
        let step = |archived| {
            if !self.stands(shelf) {
                return None;
            }
            let books = self.container.readable().ok()?;
            let known = books.state.segments.get(&segment).filter(|known| shelf.takes(known))?;
            next(&known.chunks, known.start, archived, shelf.seen(segment, known))
        };
        let known = shelf.reached.lock().get(&segment).copied();
        if let Some(reached) = known {
            return Ok(step(reached.end));
        }
        if step(None).is_none() {
            return Ok(None);
        }
        let objects = shelf.place.objects().map_err(Fault::Bucket)?;
        let folder = folder(&shelf.index, segment);
        let last = objects.largest(&folder, |key| chunk::copied_range(key).map(|(_, to)| to));
        let end = in_time(last).await?;
        shelf.reached.lock().insert(segment, Reached { end, whole: None });
        Ok(step(end))
    }

    /// An index that has left a bucket, or has another one, sends nothing more there.
    fn stands(&self, shelf: &Shelf) -> bool {
        self.archives.get(&shelf.index).is_some_and(|place| Arc::ptr_eq(&place, &shelf.place))
    }

    async fn copy(&self, shelf: &Shelf, segment: SegmentId, step: Step) -> Result<(), Fault> {
        let objects = shelf.place.objects().map_err(Fault::Bucket)?;
        let _turn = self.archives.turn().await;
        if !self.stands(shelf) {
            return Ok(());
        }
        let Step { chunk, from, lost } = step;
        let bytes = self.host.objects.get(&chunk.key).await.map_err(|error| Fault::Chunk(error.to_string()))?;
        let (to, key) = (chunk.to, chunk.key.clone());
        let copy = self.host.cpu(move || cut(bytes, segment, &chunk, from)).await;
        let copy = copy.map_err(|why| Fault::Chunk(format!("chunk {key}: {why}")))?;
        let name = folder(&shelf.index, segment) + &chunk::copy_name(from, to);
        let size = copy.bytes.len();
        // The chunk may have been long on its way, and the bucket be another tenant's by now.
        if !self.stands(shelf) {
            return Ok(());
        }
        // One that exists is the same events: the answer to an earlier try was lost, or another owner was faster.
        in_time(objects.put_if_absent(&name, copy.bytes)).await?;
        shelf.reached.lock().insert(segment, Reached { end: Some(to), whole: None });
        metrics::ARCHIVED_CHUNKS.inc();
        metrics::ARCHIVE_LOST_EVENTS.add(lost);
        debug!(%segment, from, to, bytes = size, lost, bucket = shelf.place.bucket(), "chunk archived");
        Ok(())
    }
}

/// Of the shelves that are behind the one that is due for the longest; it is marked as busy.
fn choose(turns: &mut BTreeMap<IndexName, Turn>, behind: &BTreeSet<IndexName>) -> Option<Arc<Shelf>> {
    let now = Instant::now();
    let due = turns.iter_mut().filter(|(index, turn)| !turn.busy && turn.due <= now && behind.contains(*index));
    let (_, turn) = due.min_by_key(|(_, turn)| turn.due)?;
    turn.busy = true;
    Some(turn.shelf.clone())
}

/// The events of a chunk from one on, if it is the chunk that it should be. CPU only.
fn cut(bytes: Bytes, segment: SegmentId, wanted: &ChunkMeta, from: Offset) -> Result<Encoded, String> {
    let info = chunk::info(&bytes).map_err(|error| error.to_string())?;
    if info.segment != segment || (info.first, info.last + 1) != (wanted.from, wanted.to) {
        return Err(format!("it holds offsets {} to {} of segment {}", info.first, info.last + 1, info.segment));
    }
    chunk::part(bytes, &info, (from, wanted.to)).map_err(|error| error.to_string())
}

async fn in_time<T>(request: impl Future<Output = Result<T, store::StoreError>>) -> Result<T, Fault> {
    match timeout(REQUEST_MAX, request).await {
        Ok(done) => done.map_err(|error| Fault::Bucket(error.to_string())),
        Err(_) => Err(Fault::Bucket(format!("no answer within {REQUEST_MAX:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use types::KeyRange;
    use wire::segment_store::SegmentOrigin;

    use super::*;

    fn turn(index: &str, archives: &Archives) -> (IndexName, Turn) {
        let index: IndexName = index.parse().unwrap();
        archives.show(&index);
        let place = archives.get(&index).unwrap();
        let shelf = Arc::new(Shelf::new(index.clone(), place));
        (index, Turn { shelf, due: Instant::now(), pause: PAUSE_MIN, busy: false })
    }

    fn turn_of<'a>(turns: &'a mut BTreeMap<IndexName, Turn>, index: &str) -> &'a mut Turn {
        turns.get_mut(&index.parse::<IndexName>().unwrap()).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_longest_is_next_and_who_failed_waits() {
        let archives = Archives::none();
        let mut turns: BTreeMap<_, _> = ["a", "b", "c"].iter().map(|index| turn(index, &archives)).collect();
        let behind: BTreeSet<IndexName> = ["a", "b"].iter().map(|index| index.parse().unwrap()).collect();
        let next = |turns: &mut _| choose(turns, &behind).map(|shelf| shelf.index.to_string());
        turn_of(&mut turns, "a").due += PAUSE_MAX;
        assert_eq!(next(&mut turns).as_deref(), Some("b"), "a failed, c has nothing to copy");
        assert_eq!(next(&mut turns), None, "one works at an index");
        tokio::time::advance(PAUSE_MAX).await;
        assert_eq!(next(&mut turns).as_deref(), Some("a"));
        for (index, waited) in [("a", 1), ("b", 2)] {
            let turn = turn_of(&mut turns, index);
            (turn.busy, turn.due) = (false, Instant::now() - Duration::from_secs(waited));
        }
        assert_eq!(next(&mut turns).as_deref(), Some("b"));
    }

    #[test]
    fn what_a_segment_that_goes_takes_along_is_counted() {
        let archives = Archives::none();
        let (_, Turn { shelf, .. }) = turn("shop", &archives);
        let id = |number| SegmentId { stream: 1, epoch: 0, number };
        let scope = |name: &str| {
            Some(SegmentOrigin {
                scope: name.parse().unwrap(),
                range: KeyRange { first: 0, last: u64::MAX },
                encrypted: false,
            })
        };
        let mut segment = Segment::of_test("shop", (5, 20), scope("team"));
        assert!(shelf.takes(&segment));
        for (number, end) in [(0, None), (1, Some(15)), (2, Some(20))] {
            assert_eq!(shelf.seen(id(number), &segment), 5);
            shelf.reached.lock().insert(id(number), Reached { end, whole: None });
        }
        (segment.start, segment.end) = (12, 30);
        assert_eq!(shelf.seen(id(3), &segment), 12, "it was truncated before");
        assert_eq!(shelf.seen(id(0), &segment), 5, "it is what it was at first");
        assert_eq!(shelf.forget(|_| true), 0);
        assert_eq!(shelf.forget(|it| *it == id(0)), 5 + 18, "the rest of one, nothing, and what nobody looked up");
        assert_eq!(shelf.forget(|_| false), 25);
        assert!(shelf.reached.lock().is_empty() && shelf.spans.lock().is_empty());
        // Another tenant's, nobody's, and another index.
        for (index, origin) in [("shop", scope("others")), ("shop", None), ("other", scope("team"))] {
            assert!(!shelf.takes(&Segment::of_test(index, (0, 1), origin)));
        }
    }

    #[test]
    fn a_chunk_that_is_another_one_is_not_copied() {
        let segment = SegmentId { stream: 1, epoch: 0, number: 0 };
        let other = SegmentId { number: 1, ..segment };
        let event = ingest::RawEvent { payload: b"x", received: types::Timestamp::MIN };
        let batch = ingest::to_batch(segment, 5, std::iter::repeat_n(event, 4));
        let bytes = chunk::write(segment, 5, &[batch]).unwrap().bytes;
        let meta = |from, to| ChunkMeta {
            key: "k".into(),
            from,
            to,
            bytes: 1,
            time_min: types::Timestamp::MIN,
            time_max: types::Timestamp::MAX,
        };
        assert_eq!(cut(bytes.clone(), segment, &meta(5, 9), 5).unwrap().bytes, bytes, "the whole is the same bytes");
        let rest = cut(bytes.clone(), segment, &meta(5, 9), 7).unwrap().meta;
        assert_eq!((rest.first, rest.last), (7, 8));
        for (segment, meta) in [(other, meta(5, 9)), (segment, meta(5, 8)), (segment, meta(4, 9))] {
            assert!(cut(bytes.clone(), segment, &meta, 5).unwrap_err().starts_with("it holds offsets 5 to 9"));
        }
        assert!(cut(bytes.slice(1..), segment, &meta(5, 9), 5).is_err());
    }
}
