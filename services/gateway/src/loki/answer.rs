//! Results as Loki writes them: streams, matrices, vectors. Pure.

use std::collections::{BTreeMap, HashMap};

use arrow::{
    array::{Array, AsArray, Float64Array, RecordBatch},
    compute::cast,
    datatypes::{DataType, Int64Type, TimeUnit, TimestampNanosecondType},
    error::ArrowError,
    util::display::{ArrayFormatter, FormatOptions},
};
use engine::ResultSet;
use query::{
    Column,
    logql::{Metric, VectorFunction},
};
use serde_json::{Value, json};
use types::Position;

use super::labels::{LEVEL, UNKNOWN, is_label, label_of};

/// Labels with their values.
pub(super) type Labels = BTreeMap<String, String>;

/// The request header by which Grafana asks for labels apart from metadata, and the word for it.
pub(super) const CATEGORIZE: &str = "categorize-labels";

/// One line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Line {
    /// Nanoseconds since 1970.
    pub(super) time: i64,
    pub(super) text: String,
    /// The labels of its stream.
    pub(super) stream: Labels,
    /// What else the event has.
    pub(super) metadata: Labels,
    /// What the query made of it.
    pub(super) parsed: Labels,
    /// Where it lies, unless the query has dropped that.
    pub(super) place: Option<Position>,
}

/// What a column is to a line.
enum Part {
    Stream,
    Metadata,
    Parsed,
}

/// The lines of a result, at most so many; `own` are the columns of the index, `streams` the labels of its streams.
pub(super) fn lines(
    batches: &[RecordBatch],
    own: &[Column],
    streams: &[String],
    limit: usize,
) -> Result<Vec<Line>, ArrowError> {
    let mut lines = Vec::new();
    for batch in batches {
        let room = limit.saturating_sub(lines.len());
        lines_of(&batch.slice(0, batch.num_rows().min(room)), own, streams, &mut lines)?;
    }
    Ok(lines)
}

fn lines_of(batch: &RecordBatch, own: &[Column], streams: &[String], lines: &mut Vec<Line>) -> Result<(), ArrowError> {
    let options = FormatOptions::default();
    let nanos = DataType::Timestamp(TimeUnit::Nanosecond, None);
    let times = batch.column_by_name("_time").map(|times| cast(times, &nanos)).transpose()?;
    let texts = batch.column_by_name("_msg").map(|texts| ArrayFormatter::try_new(texts, &options)).transpose()?;
    let segments = batch.column_by_name("_segment").and_then(|segments| segments.as_string_opt::<i32>());
    let offsets = batch.column_by_name("_offset").and_then(|offsets| offsets.as_primitive_opt::<Int64Type>());
    let severities = batch.column_by_name("severity");
    let severity = severities.map(|of| ArrayFormatter::try_new(of, &options)).transpose()?;
    let mut columns = Vec::new();
    let schema = batch.schema();
    for (field, column) in schema.fields().iter().zip(batch.columns()) {
        let name = field.name().as_str();
        if !is_label(name) || name == "severity" {
            continue;
        }
        let label = label_of(name);
        let part = if streams.contains(&label) {
            Part::Stream
        } else if own.iter().any(|column| column.name == name) {
            Part::Metadata
        } else {
            Part::Parsed
        };
        columns.push((label, part, column, ArrayFormatter::try_new(column, &options)?));
    }
    let level_is_asked = streams.iter().any(|label| label == "level") && columns.iter().all(|c| c.0 != "level");
    for row in 0..batch.num_rows() {
        let time = times.as_ref().map_or(0, |times| times.as_primitive::<TimestampNanosecondType>().value(row));
        let text = texts.as_ref().map_or_else(String::new, |texts| texts.value(row).to_string());
        let segment = segments.and_then(|segments| segments.value(row).parse().ok());
        let offset = offsets.and_then(|offsets| u64::try_from(offsets.value(row)).ok());
        let place = segment.zip(offset).map(|(segment, offset)| Position { segment, offset });
        let mut line = Line { time, text, place, ..Line::default() };
        for (label, part, _, values) in columns.iter().filter(|(_, _, column, _)| column.is_valid(row)) {
            let labels = match part {
                Part::Stream => &mut line.stream,
                Part::Metadata => &mut line.metadata,
                Part::Parsed => &mut line.parsed,
            };
            // Two names may become one label: the first counts.
            labels.entry(label.clone()).or_insert_with(|| values.value(row).to_string());
        }
        let known = severities.filter(|column| column.is_valid(row)).and(severity.as_ref());
        let level = known.map(|severity| severity.value(row).to_string());
        if let Some(level) = level.as_ref().filter(|_| level_is_asked) {
            line.stream.insert("level".to_owned(), level.clone());
        }
        let asked = streams.iter().any(|label| label == LEVEL);
        let place = if asked { &mut line.stream } else { &mut line.metadata };
        place.entry(LEVEL.to_owned()).or_insert_with(|| level.unwrap_or_else(|| UNKNOWN.to_owned()));
        lines.push(line);
    }
    Ok(())
}

/// Lines by their streams, each stream's in the order in which they come; without `categorize` everything that an event has
/// is a label of its stream.
pub(super) fn streams(lines: Vec<Line>, categorize: bool) -> Value {
    let mut places: HashMap<Labels, usize> = HashMap::new();
    let mut streams: Vec<(Labels, Vec<Value>)> = Vec::new();
    for line in lines {
        let Line { time, text, stream: mut labels, metadata, parsed, .. } = line;
        let time = time.to_string();
        let value = if categorize {
            let mut more = serde_json::Map::new();
            for (name, labels) in [("structuredMetadata", metadata), ("parsed", parsed)] {
                if !labels.is_empty() {
                    more.insert(name.to_owned(), json!(labels));
                }
            }
            json!([time, text, more])
        } else {
            for (label, value) in metadata.into_iter().chain(parsed) {
                labels.entry(label).or_insert(value);
            }
            json!([time, text])
        };
        let place = *places.entry(labels).or_insert_with_key(|labels| {
            streams.push((labels.clone(), Vec::new()));
            streams.len() - 1
        });
        streams[place].1.push(value);
    }
    streams.into_iter().map(|(labels, values)| json!({ "stream": labels, "values": values })).collect()
}

/// Points of one series.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Series {
    pub(super) labels: Labels,
    /// Nanoseconds since 1970, and the number there.
    pub(super) points: Vec<(i64, f64)>,
}

/// The series of a metric's result: a time, labels, a number; ordered by labels.
pub(super) fn series(result: &ResultSet) -> Result<Vec<Series>, ArrowError> {
    let nanos = DataType::Timestamp(TimeUnit::Nanosecond, None);
    let options = FormatOptions::default();
    let mut all: Vec<Series> = Vec::new();
    for batch in &result.batches {
        let schema = batch.schema();
        let [time, labels @ .., value] = batch.columns() else { continue };
        let [_, names @ .., _] = schema.fields().as_ref() else { continue };
        let (times, values) = (cast(time, &nanos)?, cast(value, &DataType::Float64)?);
        let (times, values): (_, &Float64Array) =
            (times.as_primitive::<TimestampNanosecondType>(), values.as_primitive());
        let formats: Result<Vec<_>, _> =
            labels.iter().map(|column| ArrayFormatter::try_new(column, &options)).collect();
        let columns: Vec<_> = names.iter().zip(labels).zip(formats?).collect();
        for row in (0..batch.num_rows()).filter(|row| values.is_valid(*row)) {
            let present = columns.iter().filter(|((_, column), _)| column.is_valid(row));
            let labels = present.map(|((field, _), text)| (field.name().clone(), text.value(row).to_string()));
            // As in Loki an empty label is none.
            let labels: Labels = labels.filter(|(_, value)| !value.is_empty()).collect();
            let point = (times.value(row), values.value(row));
            match all.last_mut().filter(|last| last.labels == labels) {
                Some(last) => last.points.push(point),
                None => all.push(Series { labels, points: vec![point] }),
            }
        }
    }
    Ok(all)
}

/// Series over time.
pub(super) fn matrix(all: &[Series]) -> Value {
    let points = |one: &Series| -> Value { one.points.iter().map(|(at, number)| point(*at, *number)).collect() };
    all.iter().map(|one| json!({ "metric": one.labels, "values": points(one) })).collect()
}

/// The last point of each series.
pub(super) fn vector(all: &[Series]) -> Value {
    let last = |one: &Series| one.points.last().map(|(at, number)| point(*at, *number));
    all.iter().filter_map(|one| Some(json!({ "metric": one.labels, "value": last(one)? }))).collect()
}

/// One point: seconds as a number, to the millisecond, and the number as a text.
pub(super) fn point(nanos: i64, number: f64) -> Value {
    let millis = nanos.div_euclid(1_000_000);
    let number = match number {
        number if number == f64::INFINITY => "+Inf".to_owned(),
        number if number == f64::NEG_INFINITY => "-Inf".to_owned(),
        number => number.to_string(),
    };
    if millis % 1_000 == 0 {
        return json!([millis / 1_000, number]);
    }
    #[allow(clippy::cast_precision_loss, reason = "milliseconds of any year that clients know are below 2^53")]
    let seconds = millis as f64 / 1_000.0;
    json!([seconds, number])
}

/// Puts the series of one instant in the order that the metric asks for.
pub(super) fn arrange(metric: &Metric, all: &mut [Series]) {
    let Metric::Aggregate { function, .. } = metric else { return };
    let number = |one: &Series| one.points.last().map_or(f64::NAN, |point| point.1);
    match function {
        VectorFunction::Sort | VectorFunction::Bottom => all.sort_by(|a, b| number(a).total_cmp(&number(b))),
        VectorFunction::SortDescending | VectorFunction::Top => all.sort_by(|a, b| number(b).total_cmp(&number(a))),
        _ => {}
    }
}

/// Whether the metric is a number without a series.
pub(super) fn is_scalar(metric: &Metric) -> bool {
    match metric {
        Metric::Number(_) => true,
        Metric::Binary { left, right, .. } => is_scalar(left) && is_scalar(right),
        _ => false,
    }
}

/// What a query cost, as Grafana's inspector shows it.
pub(super) fn stats(result: &ResultSet, returned: usize) -> Value {
    let engine::Stats { rows_scanned, bytes_scanned, elapsed, .. } = result.stats;
    let millis = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX).max(1);
    let per_second = |count: u64| count.saturating_mul(1_000) / millis;
    json!({ "summary": {
        "bytesProcessedPerSecond": per_second(bytes_scanned),
        "linesProcessedPerSecond": per_second(rows_scanned),
        "totalBytesProcessed": bytes_scanned,
        "totalLinesProcessed": rows_scanned,
        "totalEntriesReturned": returned,
        "execTime": elapsed.as_secs_f64(),
    } })
}

/// A whole answer.
pub(super) fn success(kind: &str, result: &Value, stats: &Value, categorize: bool) -> Value {
    let mut data = json!({ "resultType": kind, "result": result, "stats": stats });
    if categorize {
        data["encodingFlags"] = json!([CATEGORIZE]);
    }
    json!({ "status": "success", "data": data })
}

#[cfg(test)]
#[path = "answer_tests.rs"]
mod tests;
