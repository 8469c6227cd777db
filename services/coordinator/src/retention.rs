//! Remembered tail cuts of streams, and which of them becomes the head. Pure, but for the loop in `keep`.

pub(crate) mod keep;
mod pick;
pub(crate) mod tail;

#[cfg(test)]
mod retention_tests;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use types::{IndexName, Offset, SegmentId, StreamCut, Timestamp};
use wire::{
    coordinator::{RetentionPolicy, StreamDescription},
    segment_store::SegmentPlace,
};

use crate::{CoordinatorError, State, graph::Graph};

pub use pick::Situation;
pub use tail::Measured;

/// Cuts that a stream remembers; beyond, every second one of the older half goes, which doubles their distance.
pub const CUTS_MAX: usize = 1_000;

/// Places that the remembered cuts of a stream name, 24 bytes each: a wide stream remembers fewer cuts, and is truncated in larger steps.
pub const PLACES_MAX: usize = 200_000;

/// Cuts that a stream remembers over the least that its policy keeps: a step of one per cent, whatever the interval of the loop.
const CUTS_PER_SPAN: u64 = 100;

/// Segments that are measured at once when a stream is measured for the first time; older ones count as empty.
const FIRST_MEASURED_MAX: usize = 10_000;

/// Milliseconds of a day.
const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

/// What somebody wants of remembered cuts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Remembers where a stream ends, if that is worth it.
    Record {
        /// The index.
        index: IndexName,
        /// The segments that [`Retained::to_measure`] named.
        measured: Vec<Measured>,
    },
    /// Forgets the cuts that the head has passed.
    Forget {
        /// The index.
        index: IndexName,
    },
}

/// What happened to remembered cuts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// A tail cut is remembered.
    CutRecorded {
        /// The stream.
        stream: u32,
        /// The tail, with the bytes of each of its segments.
        tail: Vec<Measured>,
        /// Payload bytes from the first event ever to the tail.
        bytes: u64,
    },
    /// The oldest cuts are forgotten.
    CutsForgotten {
        /// The stream.
        stream: u32,
        /// How many.
        count: usize,
    },
}

/// A remembered tail cut.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recorded {
    /// When it was the tail.
    pub at: Timestamp,
    /// Payload bytes before it.
    pub bytes: u64,
    /// The cut; ten thousand streams remember a hundred each, so it is kept flat.
    places: Vec<(SegmentId, Offset)>,
}

impl Recorded {
    fn new(at: Timestamp, bytes: u64, tail: &[Measured]) -> Self {
        Self { at, bytes, places: tail.iter().map(|one| (one.segment, one.end)).collect() }
    }

    /// The cut.
    pub fn cut(&self) -> StreamCut {
        StreamCut(self.places.iter().copied().collect())
    }
}

/// What is remembered of one stream.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    /// Oldest first.
    cuts: Vec<Recorded>,
    /// The last tail that was remembered, also after the head has passed it.
    tail: Vec<Measured>,
    /// Payload bytes before it.
    bytes: u64,
    /// When it was remembered.
    at: Timestamp,
    /// Payload bytes before the last cut that the head has passed.
    truncated_bytes: u64,
}

/// The remembered cuts of every stream.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retained {
    streams: BTreeMap<u32, Kept>,
}

/// What a stream keeps: its policy, or the days that stand for one.
pub fn policy_of(stream: &StreamDescription) -> Option<RetentionPolicy> {
    stream.retention.or_else(|| {
        let kept_ms = u64::from(stream.retention_days?).saturating_mul(DAY_MS);
        Some(RetentionPolicy::Time { min_ms: kept_ms, max_ms: Some(kept_ms) })
    })
}

impl Retained {
    /// The segments that must be measured to know how much a stream has taken: present ones, and those that were sealed since it was
    /// measured last.
    pub fn to_measure(&self, graph: &Graph) -> Vec<SegmentPlace> {
        let mut places = tail::present(graph);
        let known = self.streams.get(&graph.stream()).map_or(&[][..], |kept| &kept.tail);
        let sealed = |segment: &SegmentId| !graph.is_present(*segment);
        places.extend(known.iter().map(|one| one.segment).filter(sealed).filter_map(|segment| graph.place(segment)));
        // Numbers count up over the whole stream, so what began since has a greater id than all that was known.
        let newer = graph.nodes(known.iter().map(|one| one.segment).max()).filter(|node| sealed(&node.segment));
        let newer: Vec<_> = newer.collect();
        let newest = newer.len().saturating_sub(FIRST_MEASURED_MAX);
        places.extend(newer[newest..].iter().filter_map(|node| graph.place(node.segment)));
        places
    }

    /// Payload bytes of a stream from its first event ever.
    pub fn bytes(&self, stream: u32, measured: &[Measured]) -> u64 {
        let Some(kept) = self.streams.get(&stream) else { return measured.iter().map(|one| one.bytes).sum() };
        let known: BTreeMap<SegmentId, u64> = kept.tail.iter().map(|one| (one.segment, one.bytes)).collect();
        let newest = known.keys().next_back();
        let grown = |one: &Measured| match known.get(&one.segment) {
            Some(before) => one.bytes.saturating_sub(*before),
            None if newest.is_none_or(|newest| one.segment > *newest) => one.bytes,
            // It had ended when the stream was measured last, and was counted then.
            None => 0,
        };
        kept.bytes + measured.iter().map(grown).sum::<u64>()
    }

    /// Picks the cut at which a stream shall begin.
    pub fn pick(
        &self,
        (graph, policy): (&Graph, RetentionPolicy),
        measured: &[Measured],
        consumed: Option<&StreamCut>,
        now: Timestamp,
    ) -> Option<StreamCut> {
        let kept = self.streams.get(&graph.stream())?;
        let bytes = self.bytes(graph.stream(), measured);
        // A subscriber cannot have consumed what is not there.
        let tail = tail_of(graph, measured);
        let consumed = consumed.map(|cut| graph.earlier(cut, &tail).unwrap_or_else(|_| graph.head_cut()));
        let truncated_bytes = kept.truncated_bytes;
        let (cuts, consumed) = (&kept.cuts[..], consumed.as_ref());
        let picked = Situation { policy, cuts, bytes, truncated_bytes, now, consumed, graph }.pick()?;
        // Where the stream begins already there is nothing to do.
        let ahead = graph.resolve(&picked).is_ok_and(|cut| cut != graph.head_cut());
        ahead.then_some(picked)
    }

    /// How many cuts a stream remembers.
    pub fn cut_count(&self, stream: u32) -> usize {
        self.streams.get(&stream).map_or(0, |kept| kept.cuts.len())
    }

    /// Payload bytes before the last cut that the head of a stream has passed.
    pub fn truncated_bytes(&self, stream: u32) -> u64 {
        self.streams.get(&stream).map_or(0, |kept| kept.truncated_bytes)
    }

    /// Forgets a deleted stream.
    pub fn forget(&mut self, stream: u32) {
        self.streams.remove(&stream);
    }

    /// Decides a command.
    pub fn decide(&self, state: &State, command: Command, now: Timestamp) -> Result<Vec<Event>, CoordinatorError> {
        match command {
            Command::Record { index, measured } => {
                let stream = state.live_stream(&index)?;
                let Some(policy) = policy_of(stream.summary()) else { return Ok(Vec::new()) };
                Ok(self.record((stream.graph(), policy), &measured, now).into_iter().collect())
            }
            Command::Forget { index } => {
                let graph = state.live_stream(&index)?.graph();
                Ok(self.passed(graph).into_iter().collect())
            }
        }
    }

    fn record(
        &self,
        (graph, policy): (&Graph, RetentionPolicy),
        measured: &[Measured],
        now: Timestamp,
    ) -> Option<Event> {
        let stream = graph.stream();
        let tail: Vec<Measured> = measured.iter().filter(|one| graph.is_present(one.segment)).copied().collect();
        // An epoch that opened in between: the next round sees its segments.
        if tail.len() != graph.present().len() {
            return None;
        }
        let bytes = self.bytes(stream, measured);
        if let Some(kept) = self.streams.get(&stream) {
            let older = |ms: u64| u128::from(ms / CUTS_PER_SPAN) <= now.since(kept.at).as_millis();
            let more = |span: u64| span / CUTS_PER_SPAN <= bytes - kept.bytes;
            let step = match policy {
                RetentionPolicy::Time { min_ms, .. } => older(min_ms),
                RetentionPolicy::Size { min_bytes, .. } => more(min_bytes),
                RetentionPolicy::TimeAndSize { ms, bytes } => older(ms) || more(bytes),
            };
            let ends = |tail: &[Measured]| tail.iter().map(|one| (one.segment, one.end)).collect::<Vec<_>>();
            if !step || ends(&kept.tail) == ends(&tail) {
                return None;
            }
        }
        Some(Event::CutRecorded { stream, tail, bytes })
    }

    fn passed(&self, graph: &Graph) -> Option<Event> {
        let stream = graph.stream();
        let cuts = &self.streams.get(&stream)?.cuts;
        let head = graph.head_cut();
        let count = cuts.partition_point(|cut| graph.is_at_or_after(&head, &cut.cut()).unwrap_or(false));
        (count > 0).then_some(Event::CutsForgotten { stream, count })
    }

    /// Takes in what happened.
    pub fn apply(&mut self, event: &Event, at: Timestamp) {
        match event {
            Event::CutRecorded { stream, tail, bytes } => {
                let kept = self.streams.entry(*stream).or_default();
                kept.cuts.push(Recorded::new(at, *bytes, tail));
                (kept.tail, kept.bytes, kept.at) = (tail.clone(), *bytes, at);
                let places = |cuts: &[Recorded]| cuts.iter().map(|cut| cut.places.len()).sum::<usize>();
                // Each round drops one in four, until few are left.
                while kept.cuts.len() > CUTS_MAX || (places(&kept.cuts) > PLACES_MAX && kept.cuts.len() > 3) {
                    thin_out(&mut kept.cuts);
                }
            }
            Event::CutsForgotten { stream, count } => {
                if let Some(kept) = self.streams.get_mut(stream) {
                    let passed = kept.cuts.drain(..(*count).min(kept.cuts.len())).next_back();
                    kept.truncated_bytes = passed.map_or(kept.truncated_bytes, |cut| cut.bytes);
                }
            }
        }
    }
}

/// The cut at the measured ends of the present segments; a segment that began since stands at its beginning.
fn tail_of(graph: &Graph, measured: &[Measured]) -> StreamCut {
    let ends: BTreeMap<SegmentId, Offset> = measured.iter().map(|one| (one.segment, one.end)).collect();
    let present = graph.present().map(|there| there.segment);
    StreamCut(present.map(|segment| (segment, ends.get(&segment).copied().unwrap_or(0))).collect())
}

/// Drops every second cut of the older half.
fn thin_out(cuts: &mut Vec<Recorded>) {
    let half = cuts.len() / 2;
    let mut place = 0;
    cuts.retain(|_| {
        place += 1;
        place > half || place % 2 == 1
    });
}
