//! Event time: writers say how far they are, readers learn between which times they stand. Weak claims only.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bus::SystemClock;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use types::{Clock, IndexName, StreamCut, Timestamp, WriterId};
use wire::{Problem, views::WATERMARKS};

use crate::{
    Client, SegmentGraph,
    document::{Document, Verdict},
    silence::{Silence, said_after},
};

/// A writer that notes nothing for so long is no longer waited for.
pub const WRITER_SILENT_AFTER: Duration = Duration::from_secs(30);
/// Writers of a stream that note times; beyond, the one silent for longest is forgotten.
pub const NOTING_WRITERS_MAX: usize = 1_000;
/// Marks of a stream; beyond, the oldest goes.
pub const MARKS_MAX: usize = 256;
/// Segments in all marks of a stream; beyond, the oldest mark goes.
const MARKED_SEGMENTS_MAX: usize = 10_000;
/// The largest document: writers and marks.
const NOTES_BYTES_MAX: usize = 1 << 20;

/// Between which event times a reader stands; `None` where nothing is known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeWindow {
    /// Writers said, before all that is still to be read was written, that they were done with everything before this time.
    pub lower: Option<Timestamp>,
    /// No writer had said more than this when what is to be read next was written.
    pub upper: Option<Timestamp>,
}

/// What a writer said last.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Note {
    #[serde(rename = "t")]
    time: Timestamp,
    /// Changes with every note; by the writer's own clock, and compared with nothing but itself.
    #[serde(rename = "s")]
    seen: Timestamp,
}

/// How long each writer of an index has said the same, as one client saw it.
pub(crate) type Noted = Arc<Mutex<Silence<WriterId>>>;

/// What held at a cut.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Mark {
    lower: Timestamp,
    upper: Timestamp,
    /// Everything that the writers had written by then lies before it.
    cut: StreamCut,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Notes {
    writers: BTreeMap<WriterId, Note>,
    marks: VecDeque<Mark>,
}

impl Notes {
    /// Takes a note of a writer whose events all lie before `tails`; who is silent is no longer waited for.
    fn note(
        &mut self,
        (writer, time): (&WriterId, Timestamp),
        tails: &StreamCut,
        silent: &BTreeSet<WriterId>,
        now: Timestamp,
    ) {
        self.writers.retain(|name, _| name == writer || !silent.contains(name));
        // A writer's time never goes back: what was claimed of it stays true.
        let time = self.writers.get(writer).map_or(time, |note| note.time.max(time));
        let seen = said_after(self.writers.get(writer).map(|note| note.seen), now);
        self.writers.insert(writer.clone(), Note { time, seen });
        while self.writers.len() > NOTING_WRITERS_MAX {
            let silent = self.writers.iter().min_by_key(|(_, note)| note.seen).map(|(writer, _)| writer.clone());
            let Some(silent) = silent else { break };
            self.writers.remove(&silent);
        }
        let times = || self.writers.values().map(|note| note.time);
        let (lower, upper) = (times().min().unwrap_or(time), times().max().unwrap_or(time));
        let last = self.marks.back();
        let (floor, ceiling) = last.map_or((lower, upper), |mark| (mark.lower.max(lower), mark.upper.max(upper)));
        let cut = last.map_or_else(|| tails.clone(), |mark| later_tails(&mark.cut, tails));
        match self.marks.back_mut() {
            // What is known at a place may grow; a place that was told must not move: readers have passed it.
            Some(mark) if mark.cut == cut => *mark = Mark { lower: floor, upper: ceiling, cut },
            Some(mark) if (mark.lower, mark.upper) == (floor, ceiling) => {}
            _ => self.marks.push_back(Mark { lower: floor, upper: ceiling, cut }),
        }
        let entries = |marks: &VecDeque<Mark>| marks.iter().map(|mark| mark.cut.0.len()).sum::<usize>();
        while self.marks.len() > MARKS_MAX || (self.marks.len() > 1 && entries(&self.marks) > MARKED_SEGMENTS_MAX) {
            self.marks.pop_front();
        }
    }

    fn window(&self, graph: &SegmentGraph, position: &StreamCut) -> TimeWindow {
        let mut window = TimeWindow::default();
        for mark in &self.marks {
            if is_passed(graph, &mark.cut, position) {
                window.lower = Some(mark.lower);
            } else {
                window.upper = Some(mark.upper);
                break;
            }
        }
        window
    }
}

/// Of two cuts at ends of the stream the later one: ends of a later epoch lie nowhere before those of an earlier one.
fn later_tails(a: &StreamCut, b: &StreamCut) -> StreamCut {
    if a.0.keys().eq(b.0.keys()) {
        return StreamCut(a.0.iter().map(|(segment, offset)| (*segment, (*offset).max(b.offset(*segment)))).collect());
    }
    let epoch = |cut: &StreamCut| cut.0.keys().map(|segment| (segment.epoch, segment.number)).max();
    if epoch(a) > epoch(b) { a.clone() } else { b.clone() }
}

/// Whether a reader at `position` has read everything before `cut`; segments that are gone lie before every reader.
fn is_passed(graph: &SegmentGraph, cut: &StreamCut, position: &StreamCut) -> bool {
    let there = StreamCut(cut.0.iter().filter(|(s, _)| graph.node(**s).is_some()).map(|(s, o)| (*s, *o)).collect());
    matches!(graph.compare(&there, position), Ok(Some(Ordering::Less | Ordering::Equal)))
}

impl Client {
    /// Says that a writer has written, and got acknowledged, all its events with times up to `time`.
    ///
    /// To be said every few seconds, by hand or by [`WriterOptions::note_time`](crate::WriterOptions::note_time); a writer that says
    /// nothing for [`WRITER_SILENT_AFTER`], on the clock of a client that notes meanwhile, is no longer waited for. Who notes
    /// once and ends says so with [`Client::forget_writer`]. Times of a writer that go back are ignored. Bounds: [`NOTING_WRITERS_MAX`], [`MARKS_MAX`].
    pub async fn note_time(&self, index: &IndexName, writer: &WriterId, time: Timestamp) -> Result<(), Problem> {
        let tails = self.tails(index).await?;
        let mut document = self.notes(index).await?;
        let noted = self.noted.get_with_by_ref(index, Noted::default);
        document
            .change(|notes| {
                let mut next = notes.cloned().unwrap_or_default();
                let mut noted = noted.lock().unwrap_or_else(PoisonError::into_inner);
                let said = next.writers.iter().map(|(name, note)| (name, note.seen));
                let silent = noted.look(said, WRITER_SILENT_AFTER, Instant::now());
                next.note((writer, time), &tails, &silent, SystemClock.now());
                Ok(Verdict::Put(next, ()))
            })
            .await
    }

    /// Forgets a writer at once: it writes no more.
    pub async fn forget_writer(&self, index: &IndexName, writer: &WriterId) -> Result<(), Problem> {
        let mut document = self.notes(index).await?;
        document
            .change(|notes| {
                let Some(notes) = notes.filter(|notes| notes.writers.contains_key(writer)) else {
                    return Ok(Verdict::Keep(()));
                };
                let mut next = notes.clone();
                next.writers.remove(writer);
                Ok(Verdict::Put(next, ()))
            })
            .await
    }

    /// Between which event times a reader at a cut stands.
    ///
    /// Weak: it is as true as what the writers note, it says nothing of writers that note nothing, or that were silent and come
    /// back with older events. For a reader that goes on, and that is no further behind than [`MARKS_MAX`] marks, no bound goes back.
    pub async fn time_window(&self, index: &IndexName, position: &StreamCut) -> Result<TimeWindow, Problem> {
        let graph = self.graph(index).await?;
        let mut document = self.notes(index).await?;
        Ok(document.load().await?.map(|notes| notes.window(&graph, position)).unwrap_or_default())
    }

    async fn notes(&self, index: &IndexName) -> Result<Document<Notes>, Problem> {
        Ok(Document::new(self.bucket(WATERMARKS).await?, index.to_string(), NOTES_BYTES_MAX))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{graph, segment};

    fn at(offset: u64) -> StreamCut {
        StreamCut([(segment(1, 3), offset), (segment(0, 2), offset)].into())
    }

    fn time(at: i64) -> Timestamp {
        Timestamp::from_nanos(at)
    }

    #[test]
    fn the_slowest_writer_holds_the_lower_bound_until_it_falls_silent() {
        let (a, b): (WriterId, WriterId) = ("a".parse().unwrap(), "b".parse().unwrap());
        let (graph, mut notes) = (graph(), Notes::default());
        let window = |notes: &Notes, offset| {
            let window = notes.window(&graph, &at(offset));
            (window.lower.map(Timestamp::nanos), window.upper.map(Timestamp::nanos))
        };
        assert_eq!(window(&notes, 5), (None, None));
        notes.note((&a, time(10)), &at(5), &BTreeSet::new(), time(0));
        notes.note((&b, time(100)), &at(6), &BTreeSet::new(), time(0));
        assert_eq!((window(&notes, 4), window(&notes, 5)), ((None, Some(10)), (Some(10), Some(100))));
        assert_eq!(window(&notes, 6), (Some(10), None));
        notes.note((&a, time(50)), &at(9), &BTreeSet::new(), time(1));
        assert_eq!((window(&notes, 8), window(&notes, 9)), ((Some(10), Some(100)), (Some(50), None)));
        // Whoever notes decides who is silent; its own clock may be years off.
        notes.note((&b, time(200)), &at(12), &[a.clone(), b.clone()].into(), time(-9));
        assert_eq!(window(&notes, 12), (Some(200), None), "a is silent");
        let begin = StreamCut([(segment(0, 0), 0), (segment(0, 1), 0), (segment(0, 2), 99)].into());
        assert_eq!(notes.window(&graph, &begin).lower, None, "before a scale nothing of it is passed");
    }

    proptest! {
        /// Noted times may be anything: for a reader that goes on neither bound goes back, and the lower one is never above what
        /// the slowest writer that is not silent had noted before the reader's place was written.
        #[test]
        fn bounds_never_go_back(steps in proptest::collection::vec((0..3u8, 0..1_000i64, 0..4u64), 1..60)) {
            let (graph, mut notes, mut end) = (graph(), Notes::default(), 0);
            let mut truth: BTreeMap<u8, i64> = BTreeMap::new();
            let mut claims: Vec<(u64, i64)> = Vec::new();
            for (writer, noted, written) in steps {
                end += written;
                let known = truth.entry(writer).or_insert(noted);
                *known = (*known).max(noted);
                notes.note((&format!("w{writer}").parse().unwrap(), time(noted)), &at(end), &BTreeSet::new(), time(0));
                claims.push((end, *truth.values().min().unwrap()));
                prop_assert!(notes.marks.len() <= MARKS_MAX);
            }
            let mut last = TimeWindow::default();
            for place in 0..=end {
                let window = notes.window(&graph, &at(place));
                prop_assert!(window.lower >= last.lower);
                prop_assert!(window.upper.is_none() || window.upper >= last.upper);
                let best = claims.iter().filter(|(cut, _)| *cut <= place).map(|(_, lower)| *lower).max();
                prop_assert!(window.lower.map(Timestamp::nanos) <= best, "{:?} {:?}", window, best);
                last = window;
            }
        }
    }
}
