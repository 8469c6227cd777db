//! Scaling events: which segments a stream had in each epoch. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use types::{KeyRange, SegmentId, Timestamp};
use wire::{
    Problem,
    coordinator::{EpochRecord, SegmentRange},
};

use crate::graph::Graph;

/// Segments of all epochs of one answer; then 400, and the caller asks for less time.
const SEGMENTS_MAX: usize = 100_000;

/// Which time is asked for, in milliseconds since 1970, both ends included.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(crate) struct Window {
    from: Option<i64>,
    to: Option<i64>,
}

impl Window {
    /// Errors: an end is missing, before 1970, or they stand the wrong way round.
    pub(crate) fn checked(self) -> Result<(i64, i64), Problem> {
        match (self.from, self.to) {
            (Some(from), Some(to)) if 0 <= from && from <= to => Ok((from, to)),
            _ => Err(Problem::bad_request("BadTimeRange", "from and to are needed, in milliseconds, 0 <= from <= to")),
        }
    }
}

/// One epoch.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ScaleMetadata {
    timestamp: i64,
    segment_list: Vec<Segment>,
    splits: u32,
    merges: u32,
}

/// One segment; its keys as a part of 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Segment {
    number: u32,
    start_time: i64,
    key_start: f64,
    key_end: f64,
}

/// What is copied out of the state, to be worked on elsewhere.
pub(crate) struct History {
    created: Timestamp,
    records: Vec<EpochRecord>,
    present: Vec<SegmentRange>,
    /// The ranges of sealed segments; those that were truncated away are missing.
    ranges: BTreeMap<SegmentId, KeyRange>,
}

impl History {
    pub(crate) fn of(graph: &Graph, created: Timestamp) -> Self {
        let records: Vec<EpochRecord> = graph.epochs(0).cloned().collect();
        let sealed = records.iter().flat_map(|record| &record.sealed);
        let ranges = sealed.filter_map(|segment| Some((*segment, graph.node(*segment)?.range))).collect();
        Self { created, records, present: graph.present().copied().collect(), ranges }
    }

    /// The epochs that opened within the window, and the last one before it, which holds when it begins.
    pub(crate) fn events(&self, (from, to): (i64, i64)) -> Result<Vec<ScaleMetadata>, Problem> {
        let times: BTreeMap<u32, i64> = self.records.iter().map(|record| (record.epoch, record.at.millis())).collect();
        let mut now: BTreeMap<SegmentId, KeyRange> = self.present.iter().map(|s| (s.segment, s.range)).collect();
        let (mut found, mut listed) = (Vec::new(), 0);
        // Backwards from what is known best: the present.
        for record in self.records.iter().rev() {
            let at = record.at.millis();
            if at <= to {
                listed += now.len();
                if listed > SEGMENTS_MAX {
                    let message = format!("more than {SEGMENTS_MAX} segments would be listed: ask for less time");
                    return Err(Problem::bad_request("BadTimeRange", message));
                }
                found.push(self.event(record, &now, &times));
                if at < from {
                    break;
                }
            }
            for created in &record.created {
                now.remove(&created.segment);
            }
            let sealed = record.sealed.iter().filter_map(|segment| Some((*segment, *self.ranges.get(segment)?)));
            now.extend(sealed);
        }
        found.reverse();
        Ok(found)
    }

    fn event(
        &self,
        record: &EpochRecord,
        now: &BTreeMap<SegmentId, KeyRange>,
        times: &BTreeMap<u32, i64>,
    ) -> ScaleMetadata {
        let mut segments: Vec<_> = now.iter().collect();
        segments.sort_by_key(|(_, range)| **range);
        let segment = |(id, range): (&SegmentId, &KeyRange)| Segment {
            number: id.number,
            // The record of its epoch may be gone; the stream is older than any segment.
            start_time: times.get(&id.epoch).copied().unwrap_or(self.created.millis()),
            key_start: part(range.first.into()),
            key_end: part(u128::from(range.last) + 1),
        };
        ScaleMetadata {
            timestamp: record.at.millis(),
            segment_list: segments.into_iter().map(segment).collect(),
            splits: record.splits,
            merges: record.merges,
        }
    }
}

/// A place in the key space as a part of the whole.
#[allow(clippy::cast_precision_loss, reason = "for people: the last digits of a double do not matter")]
fn part(place: u128) -> f64 {
    place as f64 / (1u128 << 64) as f64
}

#[cfg(test)]
mod tests {
    use types::ContainerId;

    use super::*;

    fn id(epoch: u32, number: u32) -> SegmentId {
        SegmentId { stream: 1, epoch, number }
    }

    fn range(segment: SegmentId, range: KeyRange) -> SegmentRange {
        SegmentRange { segment, container: ContainerId(0), range }
    }

    /// One segment splits into two at 200 ms; the first of them into two at 300 ms.
    fn history() -> History {
        let (whole, halves, quarters) =
            (KeyRange::split_evenly(1)[0], KeyRange::split_evenly(2), KeyRange::split_evenly(4));
        let record = |epoch, at, sealed: &[SegmentId], created: &[SegmentRange]| EpochRecord {
            epoch,
            at: Timestamp::from_millis(at),
            sealed: sealed.to_vec(),
            created: created.to_vec(),
            splits: u32::from(epoch > 0),
            merges: 0,
        };
        let second = [range(id(1, 1), halves[0]), range(id(1, 2), halves[1])];
        let third = [range(id(2, 3), quarters[0]), range(id(2, 4), quarters[1])];
        History {
            created: Timestamp::from_millis(90),
            records: vec![
                record(0, 100, &[], &[range(id(0, 0), whole)]),
                record(1, 200, &[id(0, 0)], &second),
                record(2, 300, &[id(1, 1)], &third),
            ],
            present: vec![third[0], third[1], second[1]],
            ranges: [(id(0, 0), whole), (id(1, 1), halves[0])].into(),
        }
    }

    #[test]
    fn each_epoch_lists_its_segments() {
        let listed = |from, to| -> Vec<(i64, Vec<(u32, i64)>)> {
            let events = history().events((from, to)).unwrap();
            let segments =
                |event: &ScaleMetadata| event.segment_list.iter().map(|s| (s.number, s.start_time)).collect();
            events.iter().map(|event| (event.timestamp, segments(event))).collect()
        };
        let first = (100, vec![(0, 100)]);
        let second = (200, vec![(1, 200), (2, 200)]);
        let third = (300, vec![(3, 300), (4, 300), (2, 200)]);
        assert_eq!(listed(0, 1_000), [first.clone(), second.clone(), third.clone()]);
        assert_eq!(listed(200, 299), [first, second.clone()], "with the one that holds at the beginning");
        assert_eq!(listed(250, 260), [second]);
        assert_eq!(listed(301, 400), [third]);
        assert_eq!(listed(0, 50), []);
        let last = history().events((300, 300)).unwrap().pop().unwrap();
        let keys: Vec<_> = last.segment_list.iter().map(|s| (s.key_start, s.key_end)).collect();
        assert_eq!((keys, last.splits), (vec![(0.0, 0.25), (0.25, 0.5), (0.5, 1.0)], 1));
    }

    #[test]
    fn what_was_truncated_away_is_left_out_and_its_time_is_the_streams() {
        let mut history = history();
        history.ranges.remove(&id(0, 0));
        history.records.remove(0);
        let events = history.events((0, 1_000)).unwrap();
        assert_eq!(events.iter().map(|event| event.segment_list.len()).collect::<Vec<_>>(), [2, 3]);
        assert_eq!(events[0].segment_list[0].start_time, 200);
    }

    #[test]
    fn a_window_needs_both_ends() {
        for (from, to, fits) in
            [(Some(0), Some(0), true), (Some(1), Some(0), false), (None, Some(1), false), (Some(-1), Some(1), false)]
        {
            assert_eq!(Window { from, to }.checked().is_ok(), fits, "{from:?} {to:?}");
        }
    }
}
