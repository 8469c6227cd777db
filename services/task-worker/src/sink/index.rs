//! Rows into an index, as JSON events, each exactly once.
//!
//! A writer numbers its events from 1 in each segment of the target and a checkpoint holds the last numbers; a new attempt
//! repeats what follows the checkpoint under the same numbers, and the target drops what it has. So the order of a writer's
//! rows must be the same in every attempt: a window fires in `(window end, key)` order, and rows without a window have a
//! writer per split, because how splits interleave is chance.

use std::{collections::BTreeMap, sync::Arc};

use arrow::{
    array::{ArrayRef, RecordBatch},
    datatypes::{Field, Schema},
    util::display::{ArrayFormatter, FormatOptions},
};
use bytes::Bytes;
use client::{Client, Writer};
use futures::future::try_join_all;
use tracing::warn;
use types::{EVENT_BYTES_MAX, IndexName, ROUTING_KEY_BYTES_MAX, RoutingKey, SegmentId};
use wire::{
    Problem,
    coordinator::{SegmentRange, StreamDescription},
};

use crate::{
    error::TaskError,
    metrics::{ROWS_REFUSED, ROWS_REPEATED, rows},
    name::Submitted,
    part::Numbers,
    retry::persist,
    task::Context,
};

/// Appends the rows of one subtask.
pub(crate) struct IndexSink {
    client: Client,
    index: IndexName,
    stream: Arc<StreamDescription>,
    submitted: Submitted,
    subtask: u32,
    writers: BTreeMap<Option<SegmentId>, Numbered>,
}

struct Numbered {
    writer: Writer,
    last: Numbers,
}

impl std::fmt::Debug for IndexSink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IndexSink").field("index", &self.index).field("subtask", &self.subtask).finish_non_exhaustive()
    }
}

impl IndexSink {
    /// A sink that goes on behind the numbers of a checkpoint.
    pub(crate) async fn open(
        context: &Context,
        index: &IndexName,
        restored: Vec<(Option<SegmentId>, Numbers)>,
    ) -> Result<Self, TaskError> {
        let client = context.shared.client.clone();
        let stream = persist("describing the target index", || client.stream(index)).await?;
        let mut sink = Self {
            client,
            index: index.clone(),
            stream,
            submitted: context.submitted.clone(),
            subtask: context.id.subtask,
            writers: BTreeMap::new(),
        };
        for (split, last) in restored {
            sink.numbered(split)?.last = last;
        }
        Ok(sink)
    }

    /// The last numbers, all of them acknowledged.
    pub(crate) fn numbers(&self) -> Vec<(Option<SegmentId>, Numbers)> {
        self.writers.iter().map(|(split, numbered)| (*split, numbered.last.clone())).collect()
    }

    /// Appends events, each to the segment of its key; when it returns all of them are durable.
    ///
    /// `split` names the writer. Events larger than an event may be are left out and counted; they have no number.
    pub(crate) async fn append(
        &mut self,
        split: Option<SegmentId>,
        events: Vec<(Option<RoutingKey>, Vec<u8>)>,
    ) -> Result<(), TaskError> {
        let routed = routed(&self.stream, events)?;
        let numbered = self.numbered(split)?;
        let runs = runs(&numbered.last, routed);
        let writer = &numbered.writer;
        let appends =
            runs.iter().map(|run| persist("appending results", || writer.append(run.segment, run.first, &run.events)));
        let appended = try_join_all(appends).await?;
        for run in &runs {
            numbered.last.insert(run.segment.segment, run.first + rows(run.events.len()) - 1);
        }
        ROWS_REPEATED.add(appended.iter().map(|a| u64::from(a.duplicate_count)).sum());
        Ok(())
    }

    fn numbered(&mut self, split: Option<SegmentId>) -> Result<&mut Numbered, TaskError> {
        let writer = self.submitted.writer(self.subtask, split)?;
        let fresh = || Numbered { writer: self.client.writer(self.index.clone(), writer), last: Numbers::new() };
        Ok(self.writers.entry(split).or_insert_with(fresh))
    }
}

/// The segment of each event that is not too large.
fn routed(
    stream: &StreamDescription,
    events: Vec<(Option<RoutingKey>, Vec<u8>)>,
) -> Result<Vec<(SegmentRange, Bytes)>, TaskError> {
    let all = events.len();
    let fitting = events.into_iter().filter(|(_, event)| event.len() <= EVENT_BYTES_MAX);
    let routed: Result<Vec<_>, _> = fitting
        .map(|(key, event)| {
            let missing = || Problem::unavailable("NoSegment", format_args!("stream {} has a gap", stream.index));
            let segment = stream.route(key.as_ref()).ok_or_else(missing)?;
            Ok((segment, Bytes::from(event)))
        })
        .collect();
    let routed = routed.map_err(|problem| TaskError::Call { what: "routing results", problem })?;
    if routed.len() < all {
        let count = all - routed.len();
        warn!(index = %stream.index, count, limit = EVENT_BYTES_MAX, "result rows left out, larger than an event may be");
        ROWS_REFUSED.add(rows(count));
    }
    Ok(routed)
}

/// Consecutive events of a writer in one segment.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Run {
    segment: SegmentRange,
    first: u64,
    events: Vec<Bytes>,
}

/// Numbers the events behind `last`, in their order within each segment.
fn runs(last: &Numbers, routed: Vec<(SegmentRange, Bytes)>) -> Vec<Run> {
    let mut runs: BTreeMap<SegmentId, Run> = BTreeMap::new();
    for (segment, event) in routed {
        let first = last.get(&segment.segment).copied().unwrap_or(0) + 1;
        let run = runs.entry(segment.segment).or_insert_with(|| Run { segment, first, events: Vec::new() });
        run.events.push(event);
    }
    runs.into_values().collect()
}

/// One JSON event per row, with `_time` first; the rows' own `_time`, if any, gives way.
pub(crate) fn events_at(time: &ArrayRef, batch: &RecordBatch) -> Result<Vec<Vec<u8>>, TaskError> {
    let schema = batch.schema();
    let others = schema.fields().iter().zip(batch.columns()).filter(|(field, _)| field.name() != flow::TIME_COLUMN);
    let time_field = Arc::new(Field::new(flow::TIME_COLUMN, time.data_type().clone(), false));
    let (fields, columns): (Vec<_>, Vec<_>) = std::iter::once((time_field, Arc::clone(time)))
        .chain(others.map(|(field, column)| (Arc::clone(field), Arc::clone(column))))
        .unzip();
    Ok(engine::json_rows(&RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)?)
}

/// The routing key of each row: its keys as text, joined by `/`; none where that is empty.
pub(crate) fn routing_keys(batch: &RecordBatch, keys: &[String]) -> Result<Vec<Option<RoutingKey>>, TaskError> {
    let options = FormatOptions::default();
    let columns: Vec<ArrayFormatter<'_>> = keys
        .iter()
        .filter_map(|name| batch.column_by_name(name))
        .map(|column| ArrayFormatter::try_new(column, &options))
        .collect::<Result<_, _>>()?;
    let key = |row: usize| {
        let text = columns.iter().map(|column| column.value(row).to_string()).collect::<Vec<_>>().join("/");
        // What is too long for a key still has one place.
        let text =
            if text.len() > ROUTING_KEY_BYTES_MAX { format!("{:016x}", types::hash64(text.as_bytes())) } else { text };
        RoutingKey::new(&text).ok()
    };
    Ok((0..batch.num_rows()).map(key).collect())
}

#[cfg(test)]
mod tests {
    use arrow::array::{Float64Array, Int64Array, StringArray, TimestampNanosecondArray};
    use proptest::prelude::*;
    use types::{ContainerId, KeyRange, Timestamp};

    use super::*;

    fn stream() -> StreamDescription {
        let ranges = (0u32..).zip(KeyRange::split_evenly(4));
        let segment = |number| SegmentId { stream: 9, epoch: 0, number };
        let segments = ranges.map(|(n, range)| SegmentRange { segment: segment(n), container: ContainerId(0), range });
        let (scope, index) = ("tenant".parse().unwrap(), "sums".parse().unwrap());
        StreamDescription::new((9, Timestamp::MIN), scope, index, segments.collect())
    }

    fn event(key: &str, text: &str) -> (Option<RoutingKey>, Vec<u8>) {
        (RoutingKey::new(key).ok(), text.as_bytes().to_vec())
    }

    #[test]
    fn numbers_go_on_behind_the_checkpoint_in_each_segment() {
        let stream = stream();
        let segment = stream.route(RoutingKey::new("a").ok().as_ref()).unwrap();
        let last = Numbers::from([(segment.segment, 41)]);
        let routed = routed(&stream, vec![event("a", "1"), event("a", "2")]).unwrap();
        assert_eq!(runs(&last, routed), [Run { segment, first: 42, events: vec!["1".into(), "2".into()] }]);
    }

    #[test]
    fn an_event_that_is_too_large_takes_no_number() {
        let large = (None, vec![b'x'; EVENT_BYTES_MAX + 1]);
        let routed = routed(&stream(), vec![(None, b"1".to_vec()), large, (None, b"2".to_vec())]).unwrap();
        assert_eq!(runs(&Numbers::new(), routed)[0].events, [Bytes::from("1"), Bytes::from("2")]);
    }

    proptest! {
        /// What a new attempt repeats must have the numbers that it had before, wherever batches were cut.
        #[test]
        fn numbers_do_not_depend_on_batches(
            keys in prop::collection::vec("[a-f]", 1..80), sizes in prop::collection::vec(1usize..20, 1..20),
        ) {
            let stream = stream();
            let all: Vec<_> = keys.iter().enumerate().map(|(i, key)| event(key, &i.to_string())).collect();
            let number = |batches: Vec<Vec<(Option<RoutingKey>, Vec<u8>)>>| {
                let (mut last, mut found) = (Numbers::new(), BTreeMap::new());
                for batch in batches {
                    for run in runs(&last, routed(&stream, batch).unwrap()) {
                        for (number, event) in (run.first..).zip(run.events) {
                            last.insert(run.segment.segment, number);
                            found.insert((run.segment.segment, number), event);
                        }
                    }
                }
                found
            };
            let mut rest = all.as_slice();
            let mut cut = Vec::new();
            for size in sizes.iter().cycle() {
                if rest.is_empty() { break }
                let (batch, behind) = rest.split_at((*size).min(rest.len()));
                cut.push(batch.to_vec());
                rest = behind;
            }
            let whole = number(vec![all.clone()]);
            prop_assert_eq!(whole.len(), all.len());
            prop_assert_eq!(number(cut), whole);
        }
    }

    #[test]
    fn a_row_is_one_event_at_its_time() {
        let time: ArrayRef = Arc::new(TimestampNanosecondArray::from(vec![0, 10_000_000_000]));
        let batch = RecordBatch::try_from_iter([
            ("k", Arc::new(StringArray::from(vec![Some("a"), None])) as ArrayRef),
            ("window_start", Arc::clone(&time)),
            ("n", Arc::new(Int64Array::from(vec![1, 2]))),
        ])
        .unwrap();
        let found: Vec<serde_json::Value> =
            events_at(&time, &batch).unwrap().iter().map(|e| serde_json::from_slice(e).unwrap()).collect();
        let wanted = [
            serde_json::json!({"_time": "1970-01-01T00:00:00Z", "k": "a", "window_start": "1970-01-01T00:00:00Z", "n": 1}),
            serde_json::json!({"_time": "1970-01-01T00:00:10Z", "window_start": "1970-01-01T00:00:10Z", "n": 2}),
        ];
        assert_eq!(found, wanted);
    }

    #[test]
    fn a_key_is_the_text_of_the_row_s_keys() {
        let long = "x".repeat(ROUTING_KEY_BYTES_MAX + 1);
        let batch = RecordBatch::try_from_iter([
            ("k", Arc::new(StringArray::from(vec![Some("cart"), None, Some(&long)])) as ArrayRef),
            ("v", Arc::new(Float64Array::from(vec![1.5, 2.0, 3.0]))),
        ])
        .unwrap();
        let of = |keys: &[&str]| -> Vec<Option<String>> {
            let keys: Vec<String> = keys.iter().map(|&k| k.to_owned()).collect();
            routing_keys(&batch, &keys).unwrap().iter().map(|k| k.as_ref().map(|k| k.as_str().to_owned())).collect()
        };
        assert_eq!(of(&["k"])[..2], [Some("cart".to_owned()), None]);
        assert_eq!(of(&["k"])[2].as_ref().map(String::len), Some(16));
        assert_eq!(of(&["k", "v"])[0].as_deref(), Some("cart/1.5"));
        assert_eq!(of(&[]), [None, None, None]);
    }
}
