//! One reader of a group: gives out events, and keeps its part of the shared document.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use arrow::array::RecordBatch;
use bus::{Change, SystemClock, Watch};
use futures::FutureExt;
use tokio::time::Instant;
use types::{Clock, IndexName, Offset, ReaderId, SegmentId, StreamCut};
use wire::{Problem, coordinator::SegmentNode, segment_store::SegmentPlace};

use super::{
    ReaderGroup, ReaderPosition, changed, generation, reinitialize,
    state::{GroupError, GroupState, Seat, Share},
};
use crate::{
    cut::Follows,
    document::Document,
    reader::set::{Found, ReadSet},
    silence::Silence,
    stream_reader::{is_truncation, up_to},
};

/// The longest that a reader waits before it takes or gives away segments: others do the same at this moment.
const JITTER_MAX: Duration = Duration::from_millis(100);

/// How a reader behaves.
#[derive(Debug, Clone)]
pub struct GroupOptions {
    /// How often a reader tells where it is, give or take a fifth: 3 s. What is told less often is given again more often after
    /// a reader died.
    pub refresh: Duration,
    /// Readers that tell nothing for so long are declared offline by the others; `None`: by nobody.
    ///
    /// A reader tells where it is only within [`GroupReader::next`]. If its user takes longer over a batch than this, or its
    /// machine sleeps, it is taken for dead and others are given what it was given: exactly once becomes at least once.
    pub reader_timeout: Option<Duration>,
}

impl Default for GroupOptions {
    fn default() -> Self {
        Self { refresh: Duration::from_secs(3), reader_timeout: None }
    }
}

/// What a reader is given.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Delivered {
    /// Events of one segment, in order.
    Events {
        /// The index.
        index: IndexName,
        /// The segment.
        segment: SegmentId,
        /// The offset of the first.
        first: Offset,
        /// The events.
        batch: RecordBatch,
    },
    /// A checkpoint of this name: everything given before is inside. It is passed with the next call of [`GroupReader::next`].
    Checkpoint(String),
    /// Other segments than before are this reader's.
    Rebalanced {
        /// What it has now and had not.
        gained: Vec<SegmentId>,
        /// What it had and has no more.
        released: Vec<SegmentId>,
    },
    /// Events that were not read yet were truncated; the group goes on behind them.
    Truncated {
        /// The index.
        index: IndexName,
        /// Where the group goes on in it.
        resumes: StreamCut,
    },
    /// Everything up to the ends of the group's cuts, or of sealed streams, was read; said once.
    EndOfData,
}

/// A reader of a group; see [`ReaderGroup`].
///
/// Nothing happens behind its back: it reads, takes and gives away segments, and tells where it is, only while
/// [`GroupReader::next`] runs. One that is dropped without [`GroupReader::close`] keeps its segments until somebody declares it
/// offline.
pub struct GroupReader {
    pub(super) group: ReaderGroup,
    pub(super) seat: Seat,
    options: GroupOptions,
    pub(super) document: Document<GroupState>,
    watch: Watch,
    reads: ReadSet,
    /// The segments that are this reader's, with the offset after the last event given out.
    pub(super) positions: BTreeMap<SegmentId, Offset>,
    /// Segments that were read to their ends, with what follows them.
    pub(super) ended: BTreeMap<SegmentId, (Offset, Vec<SegmentNode>)>,
    /// When to try again to say so, after others had to do something first.
    pub(super) finish_at: Option<Instant>,
    /// Segments of which events are gone, with when to look for the stream's head.
    pub(super) truncated: BTreeMap<SegmentId, Instant>,
    /// Segments whose reading failed, to be tried again with the next call.
    failed: BTreeSet<SegmentId>,
    queue: VecDeque<Delivered>,
    /// The checkpoint that is in the queue.
    pub(super) offered: Option<u64>,
    /// The checkpoint that was handed out and is passed with the next call.
    handed_out: Option<u64>,
    /// When to take or give away segments.
    pub(super) balance_at: Option<Instant>,
    refresh_at: Instant,
    /// What the others said last.
    pub(super) heard: Silence<ReaderId>,
    told_end: bool,
    /// Whether the group of this generation is no more.
    over: bool,
}

impl GroupReader {
    pub(super) async fn join(group: ReaderGroup, reader: ReaderId, options: GroupOptions) -> Result<Self, Problem> {
        let (watch, mut document) = (group.watch(), group.document());
        let seat = Seat { reader, session: rand::random() };
        document
            .change(|state| {
                changed(state, &mut |state: &mut GroupState| {
                    state.join(&seat, SystemClock.now())?;
                    state.acquire(&seat)
                })
            })
            .await?;
        let reads = ReadSet::new(group.client.clone());
        let refresh_at = Instant::now() + options.refresh;
        let mut reader = Self {
            group,
            seat,
            options,
            document,
            watch,
            reads,
            positions: BTreeMap::new(),
            ended: BTreeMap::new(),
            finish_at: None,
            truncated: BTreeMap::new(),
            failed: BTreeSet::new(),
            queue: VecDeque::new(),
            offered: None,
            handed_out: None,
            balance_at: None,
            refresh_at,
            heard: Silence::default(),
            told_end: false,
            over: false,
        };
        reader.reconcile()?;
        Ok(reader)
    }

    /// What comes next; `None` when nothing came within `wait`.
    ///
    /// Calling it says that everything it gave before is done: that is what a checkpoint and a position mean. Cancel safe: what
    /// was not returned is given by a later call.
    /// Errors: Conflict `ReaderOffline`, `ReinitializationRequired`: this reader is at its end. Any other: a later call goes on.
    pub async fn next(&mut self, wait: Duration) -> Result<Option<Delivered>, Problem> {
        let until = Instant::now() + wait;
        if let Some(number) = self.handed_out {
            self.pass(number).await?;
            self.handed_out = None;
        }
        for segment in std::mem::take(&mut self.failed) {
            self.read(segment);
        }
        loop {
            while let Some(change) = self.watch.next().now_or_never() {
                self.hear(change)?;
            }
            self.maintain().await?;
            if let Some(delivered) = self.queue.pop_front() {
                if matches!(delivered, Delivered::Checkpoint(_)) {
                    self.handed_out = self.offered.take();
                }
                return Ok(Some(delivered));
            }
            let wake = self.wake().min(until);
            tokio::select! {
                biased;
                found = self.reads.next() => {
                    if let Some(delivered) = self.take(found)? {
                        return Ok(Some(delivered));
                    }
                }
                change = self.watch.next() => self.hear(change)?,
                () = tokio::time::sleep_until(wake) => {
                    if Instant::now() >= until {
                        return Ok(None);
                    }
                }
            }
        }
    }

    /// Its name.
    pub fn id(&self) -> &ReaderId {
        &self.seat.reader
    }

    /// The offsets after the last events given out.
    pub fn position(&self) -> ReaderPosition {
        self.positions.clone()
    }

    /// Leaves the group; everything given out counts as done.
    pub async fn close(self) -> Result<(), Problem> {
        let position = self.position();
        self.close_at(&position).await
    }

    /// Leaves the group at a position: what lies behind it is given to others, again or for the first time.
    pub async fn close_at(mut self, position: &ReaderPosition) -> Result<(), Problem> {
        let seat = self.seat.clone();
        self.document
            .change(|state| {
                changed(state, &mut |state: &mut GroupState| {
                    if state.held(&seat).is_none() {
                        return Err(GroupError::ReaderOffline(seat.reader.clone()));
                    }
                    state.offline(&seat.reader, Some(position));
                    Ok(())
                })
            })
            .await
    }

    /// Changes the document and looks what that means here.
    pub(super) async fn change(
        &mut self,
        mut change: impl FnMut(&mut GroupState) -> Result<(), GroupError>,
    ) -> Result<(), Problem> {
        self.document.change(|state| changed(state, &mut change)).await?;
        self.reconcile()
    }

    /// The document as last seen.
    pub(super) fn state(&self) -> Result<&GroupState, Problem> {
        let state = self.document.value().filter(|_| !self.over).ok_or_else(reinitialize)?;
        match state.held(&self.seat) {
            Some(_) => Ok(state),
            None => Err(GroupError::ReaderOffline(self.seat.reader.clone()).into()),
        }
    }

    pub(super) fn deliver(&mut self, delivered: Delivered) {
        self.queue.push_back(delivered);
    }

    /// When something is to be done although nothing comes.
    fn wake(&self) -> Instant {
        let due = self.truncated.values().copied().chain(self.finish_at).chain(self.balance_at);
        due.fold(self.refresh_at, Instant::min)
    }

    /// Whether it is time to tell where this reader is; then says when again.
    pub(super) fn is_refresh_due(&mut self) -> bool {
        let due = Instant::now() >= self.refresh_at;
        if due {
            self.refresh_at = Instant::now() + self.options.refresh.mul_f64(rand::random_range(0.8..1.2));
        }
        due
    }

    pub(super) fn reader_timeout(&self) -> Option<Duration> {
        self.options.reader_timeout
    }

    /// Tells once that there is nothing more.
    pub(super) fn end(&mut self) {
        if !std::mem::replace(&mut self.told_end, true) {
            self.deliver(Delivered::EndOfData);
        }
    }

    fn hear(&mut self, change: Change) -> Result<(), Problem> {
        let Change::Key { key, entry } = change else { return Ok(()) };
        let own = self.group.key();
        if key != own {
            // A later generation: this one is over.
            self.over |= entry.is_some() && generation(&key) > generation(&own);
            return if self.over { Err(reinitialize()) } else { Ok(()) };
        }
        if self.document.observe(entry)? { self.reconcile() } else { Ok(()) }
    }

    /// Makes this reader read what the document gives it.
    fn reconcile(&mut self) -> Result<(), Problem> {
        let state = self.document.value().ok_or_else(reinitialize)?;
        let Some(held) = state.held(&self.seat).cloned() else {
            return Err(GroupError::ReaderOffline(self.seat.reader.clone()).into());
        };
        let unfair = state.share(&self.seat.reader) != Share::Fair;
        let mut released: Vec<SegmentId> = self.positions.keys().filter(|s| !held.contains_key(s)).copied().collect();
        for segment in &released {
            self.positions.remove(segment);
            self.reads.remove(*segment);
            self.truncated.remove(segment);
        }
        // Who read a segment to its end did not lose it.
        released.retain(|segment| self.ended.remove(segment).is_none());
        let mut gained = Vec::new();
        let mut skipped = BTreeMap::new();
        for (segment, place) in held {
            let known = self.positions.get(&segment).copied();
            if known.is_none_or(|known| known < place.offset) {
                self.positions.insert(segment, place.offset);
                self.ended.remove(&segment);
                self.truncated.remove(&segment);
                let container = place.container;
                self.reads.add(SegmentPlace { segment, container }, place.offset, state.index(segment));
                gained.extend(known.is_none().then_some(segment));
                if let (Some(_), Some(index)) = (known, state.index(segment)) {
                    skipped.insert(index.clone(), state.cut(segment.stream));
                }
            }
        }
        if !gained.is_empty() || !released.is_empty() {
            self.queue.push_back(Delivered::Rebalanced { gained, released });
        }
        for (index, resumes) in skipped {
            self.queue.push_back(Delivered::Truncated { index, resumes });
        }
        let jitter = || Instant::now() + JITTER_MAX.mul_f64(rand::random_range(0.0..1.0));
        self.balance_at = unfair.then(|| self.balance_at.unwrap_or_else(jitter));
        Ok(())
    }

    /// Reads a segment from where this reader is.
    fn read(&mut self, segment: SegmentId) {
        let Some(state) = self.document.value() else { return };
        let place = state.held(&self.seat).and_then(|held| held.get(&segment));
        if let (Some(place), Some(&offset)) = (place, self.positions.get(&segment)) {
            let container = place.container;
            self.reads.add(SegmentPlace { segment, container }, offset, state.index(segment));
        }
    }

    fn take(&mut self, found: Found) -> Result<Option<Delivered>, Problem> {
        match found {
            Found::Events { segment, first, batch } => {
                let state = self.document.value().ok_or_else(reinitialize)?;
                let (Some(index), Some(position)) = (state.index(segment), self.positions.get_mut(&segment)) else {
                    return Ok(None);
                };
                let (index, end) = (index.clone(), state.end(segment));
                let (batch, next) = up_to(batch, first, end);
                *position = next;
                if end.is_some_and(|end| next >= end) {
                    self.reads.remove(segment);
                    self.ended.insert(segment, (next, Vec::new()));
                }
                Ok((batch.num_rows() > 0).then_some(Delivered::Events { index, segment, first, batch }))
            }
            Found::End { segment, at, follows } => {
                match follows {
                    Follows::Segments(successors) => drop(self.ended.insert(segment, (at, successors))),
                    Follows::Nothing => drop(self.ended.insert(segment, (at, Vec::new()))),
                    Follows::NotYet | Follows::Gone => drop(self.truncated.insert(segment, Instant::now())),
                }
                Ok(None)
            }
            Found::Failed { segment, problem } if is_truncation(&problem) => {
                self.truncated.insert(segment, Instant::now());
                Ok(None)
            }
            Found::Failed { segment, problem } => {
                self.failed.insert(segment);
                Err(problem)
            }
        }
    }
}
