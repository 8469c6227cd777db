//! Rows into an index, as JSON events, each exactly once.
//!
//! A writer numbers its events from 1 in each segment of the target and a checkpoint holds the last numbers; a new attempt
//! repeats what follows the checkpoint under the same numbers, and the target drops what it has. So the order of a writer's
//! rows must be the same in every attempt: a window fires in `(window end, key)` order, and rows without a window have a
//! writer per split, because how splits interleave is chance. How numbers go on when the target is scaled: [`super::targets`].

use std::{collections::BTreeMap, sync::Arc};

use arrow::{
    array::{ArrayRef, RecordBatch},
    datatypes::{Field, Schema},
    util::display::{ArrayFormatter, FormatOptions},
};
use bytes::Bytes;
use client::{Client, SegmentGraph, Writer};
use tracing::warn;
use types::{EVENT_BYTES_MAX, IndexName, ROUTING_KEY_BYTES_MAX, RoutingKey, SegmentId};
use wire::{
    Problem,
    coordinator::{SegmentNode, SegmentRange, StreamDescription},
};

use super::targets::{Segments, Targets};
use crate::{
    error::TaskError,
    metrics::{ROWS_REFUSED, ROWS_REPEATED, rows},
    name::Submitted,
    part::{Numbers, Part},
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
    first: First,
    writers: BTreeMap<Option<SegmentId>, Numbered>,
}

/// The targets with which every writer of the job begins.
///
/// They stay those of the first attempt: a writer may have begun behind the checkpoint, in an attempt that is over, and must
/// begin with the same targets again.
struct First {
    /// As the first attempt found them.
    names: Vec<SegmentId>,
    /// The stream when this attempt began.
    graph: SegmentGraph,
}

struct Numbered {
    writer: Writer,
    targets: Targets,
}

impl std::fmt::Debug for IndexSink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IndexSink").field("index", &self.index).field("subtask", &self.subtask).finish_non_exhaustive()
    }
}

impl IndexSink {
    /// A sink that goes on behind the numbers of a checkpoint.
    pub(crate) async fn open(context: &Context, index: &IndexName, restored: Option<&Part>) -> Result<Self, TaskError> {
        let client = context.shared.client.clone();
        let stream = persist("describing the target index", || client.stream(index)).await?;
        let graph = persist("listing the segments of the target index", || client.graph(index)).await?;
        let (names, writers): (Vec<SegmentId>, &[(Option<SegmentId>, Numbers)]) =
            restored.map_or((Vec::new(), &[]), |part| (part.targets.clone(), &part.writers));
        // A part of a release that did not write them down.
        let sparse = names.is_empty();
        let names = if sparse { stream.segments.iter().map(|s| s.segment).collect() } else { names };
        let mut sink = Self {
            client,
            index: index.clone(),
            stream,
            submitted: context.submitted.clone(),
            subtask: context.id.subtask,
            first: First { names, graph },
            writers: BTreeMap::new(),
        };
        for (split, numbers) in writers {
            let numbered = sink.numbered(*split, numbers, sparse).await?;
            sink.writers.insert(*split, numbered);
        }
        Ok(sink)
    }

    /// Writes down where the writers are; everything that they were given is acknowledged.
    pub(crate) fn note(&self, part: &mut Part) {
        part.writers = self.writers.iter().map(|(split, numbered)| (*split, numbered.targets.numbers())).collect();
        part.targets.clone_from(&self.first.names);
    }

    /// Appends events, each to the segment of its key; when it returns all of them are durable.
    ///
    /// `split` names the writer. Events larger than an event may be are left out and counted; they have no number.
    pub(crate) async fn append(
        &mut self,
        split: Option<SegmentId>,
        events: Vec<(Option<RoutingKey>, Vec<u8>)>,
    ) -> Result<(), TaskError> {
        let hashed = hashed(&self.stream, events);
        if !self.writers.contains_key(&split) {
            let numbers = self.first.names.iter().map(|segment| (*segment, 0)).collect();
            let numbered = self.numbered(split, &numbers, false).await?;
            self.writers.insert(split, numbered);
        }
        if let Some(Numbered { writer, targets }) = self.writers.get_mut(&split) {
            let live = Live { client: &self.client, index: &self.index, writer };
            ROWS_REPEATED.add(targets.append(&live, hashed).await?);
        }
        Ok(())
    }

    async fn numbered(&self, split: Option<SegmentId>, numbers: &Numbers, sparse: bool) -> Result<Numbered, TaskError> {
        let writer = self.client.writer(self.index.clone(), self.submitted.writer(self.subtask, split)?);
        let live = Live { client: &self.client, index: &self.index, writer: &writer };
        let present = &self.stream.segments;
        let targets = Targets::restore(&live, numbers, &self.first.graph, present, sparse).await?;
        Ok(Numbered { writer, targets })
    }
}

/// The segments themselves.
struct Live<'a> {
    client: &'a Client,
    index: &'a IndexName,
    writer: &'a Writer,
}

impl Segments for Live<'_> {
    async fn append(&self, segment: SegmentRange, first: u64, events: &[Bytes]) -> Result<Option<u64>, TaskError> {
        let append = || async {
            match self.writer.append(segment, first, events).await {
                Ok(appended) => Ok(Some(u64::from(appended.duplicate_count))),
                Err(problem) if problem.kind == "SegmentSealed" => Ok(None),
                Err(problem) => Err(problem),
            }
        };
        persist("appending results", append).await
    }

    async fn last(&self, segment: SegmentRange) -> Result<u64, TaskError> {
        persist("asking what is stored of a writer", || self.writer.resume(segment)).await
    }

    async fn behind(&self, sealed: SegmentId) -> Result<SegmentGraph, TaskError> {
        let look = || async {
            let stream = self.client.stream(self.index).await?;
            let graph = self.client.graph(self.index).await?;
            let follows = |node: &SegmentNode| node.successors.iter().any(|s| graph.node(*s).is_some());
            match graph.node(sealed) {
                Some(node) if follows(node) => Ok(graph),
                Some(_) if stream.sealed => {
                    Err(Problem::conflict("StreamSealed", format_args!("index {} takes no more rows", self.index)))
                }
                Some(_) => Err(Problem::unavailable("NoNewEpoch", format_args!("nothing follows {sealed} yet"))),
                None => Err(Problem::not_found("UnknownSegment", format_args!("segment {sealed} was truncated away"))),
            }
        };
        persist("looking for what follows a sealed segment", look).await
    }
}

/// The events that are not too large, each with its key's place in the hash space.
fn hashed(stream: &StreamDescription, events: Vec<(Option<RoutingKey>, Vec<u8>)>) -> Vec<(u64, Bytes)> {
    let all = events.len();
    let fitting = events.into_iter().filter(|(_, event)| event.len() <= EVENT_BYTES_MAX);
    let hashed: Vec<_> = fitting.map(|(key, event)| (stream.hash(key.as_ref()), Bytes::from(event))).collect();
    if hashed.len() < all {
        let count = all - hashed.len();
        warn!(index = %stream.index, count, limit = EVENT_BYTES_MAX, "result rows left out, larger than an event may be");
        ROWS_REFUSED.add(rows(count));
    }
    hashed
}

/// One JSON event per row, with `_time` first; the rows' own `_time`, if any, gives way.
pub(crate) fn events_at(time: &ArrayRef, batch: &RecordBatch) -> Result<Vec<Vec<u8>>, TaskError> {
    let schema = batch.schema();
    let others = schema.fields().iter().zip(batch.columns()).filter(|(field, _)| field.name() != flow::TIME_COLUMN);
    let time_field = Arc::new(Field::new(flow::TIME_COLUMN, time.data_type().clone(), time.null_count() > 0));
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
    use types::Timestamp;

    use super::*;

    #[test]
    fn an_event_that_is_too_large_takes_no_number_and_what_has_no_key_has_one_place() {
        let (scope, index) = ("tenant".parse().unwrap(), "sums".parse().unwrap());
        let stream = StreamDescription::new((9, Timestamp::MIN), scope, index, Vec::new());
        let large = (None, vec![b'x'; EVENT_BYTES_MAX + 1]);
        let keyed = (RoutingKey::new("a").ok(), b"2".to_vec());
        let (none, a) = (types::hash64(b"sums"), RoutingKey::new("a").unwrap().hash());
        let found = hashed(&stream, vec![(None, b"1".to_vec()), large, keyed]);
        assert_eq!(found, [(none, Bytes::from("1")), (a, Bytes::from("2"))]);
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
