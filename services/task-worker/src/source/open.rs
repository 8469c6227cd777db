//! From what a plan says of a source to one that can be read.

use std::{collections::BTreeMap, sync::Arc};

use flow::{Connector, EpochUnit, SourceSpec, ValueType};
use formats::{Column, Kind, Layout, Unit};

use super::{
    files, generated, jetstream, nexmark,
    pulled::{Manner, Place, Pulled, Share},
    segments::Segments,
};
use crate::{
    error::TaskError,
    part::Part,
    run::{Begin, RowSource},
    task::Context,
};

/// Opens a source, fresh or behind the parts of all subtasks of its vertex.
pub(crate) async fn open(
    context: &Arc<Context>,
    spec: &SourceSpec,
    begin: Begin<'_>,
) -> Result<Box<dyn RowSource>, TaskError> {
    let (known, share) = (places(begin.parts)?, Share::of(context));
    let splits = match &spec.from {
        Connector::Index { index, .. } => {
            return Ok(Box::new(Segments::open(context, index, spec, begin).await?));
        }
        Connector::Files { bounded: false, .. } => {
            return Err(TaskError::Plan("files that come later are not looked for: leave 'bounded' true".to_owned()));
        }
        Connector::Files { url, format, .. } => {
            let root = context.shared.files_dir.as_path();
            files::splits(share, (root, url), format, &layout(spec)?, known).await?
        }
        Connector::Datagen { seed, rows, per_second, splits } => {
            let pace = generated::Pace { seed: *seed, rows: *rows, per_second: *per_second, splits: *splits };
            generated::splits(share, pace, &layout(spec)?, &known)
        }
        Connector::Nexmark { table, seed, events, rate, splits } => {
            let events = nexmark::Events { table: *table, seed: *seed, events: *events, rate: *rate, splits: *splits };
            nexmark::splits(share, spec, events, &known)?
        }
        Connector::JetStream { stream, subject, format } => {
            jetstream::splits(context, (stream, subject), format, &layout(spec)?, &known).await?
        }
    };
    // Only a stream can fall silent; whatever else there is has rows or has come to its end.
    let waits = matches!(spec.from, Connector::JetStream { .. });
    let idle_after = spec.time.idle_after.filter(|_| waits).map(|after| after.0);
    let delay = i64::try_from(spec.time.delay.0.as_nanos()).unwrap_or(i64::MAX);
    let manner = Manner { delay, hidden: spec.hidden, corrupt: spec.corrupt, idle_after };
    tracing::info!(task = %context.label, splits = splits.len(), "source begins");
    Ok(Box::new(Pulled::new(splits, manner)))
}

/// Where all splits of the vertex were, whichever subtask read them, in the order of their names.
pub(super) fn places(parts: &[Part]) -> Result<Vec<(String, Place)>, TaskError> {
    let mut known = BTreeMap::new();
    for part in parts {
        for (name, place) in &part.positions {
            let place: Place = wire::decode(place).map_err(|problem| TaskError::Source {
                what: name.clone(),
                problem: format!("its position: {problem}"),
            })?;
            known.insert(name.clone(), place);
        }
    }
    Ok(known.into_iter().collect())
}

/// The columns that the job uses.
fn layout(spec: &SourceSpec) -> Result<Layout, TaskError> {
    let time = spec.time.column.as_deref().unwrap_or(flow::TIME_COLUMN);
    let used = |name: &str| spec.columns.as_ref().is_none_or(|columns| columns.iter().any(|column| column == name));
    if spec.schema.is_empty() {
        return Err(TaskError::Plan(
            "the columns of a source besides an index are declared: schema => 'k bigint, …'".to_owned(),
        ));
    }
    let columns = spec.schema.iter().filter(|column| used(&column.name));
    let columns = columns.map(|column| Column::new(&column.name, kind(column.kind))).collect();
    let unit = match spec.time.unit {
        EpochUnit::Seconds => Unit::Seconds,
        EpochUnit::Millis => Unit::Millis,
        EpochUnit::Micros => Unit::Micros,
        EpochUnit::Nanos => Unit::Nanos,
    };
    Layout::new(columns, Some(time), unit).map_err(|error| TaskError::Plan(error.to_string()))
}

/// The kind of a declared column.
pub(super) fn kind(kind: ValueType) -> Kind {
    match kind {
        ValueType::Integer => Kind::Integer,
        ValueType::Float => Kind::Float,
        ValueType::Text => Kind::Text,
        ValueType::Boolean => Kind::Boolean,
        ValueType::Time => Kind::Time,
    }
}
