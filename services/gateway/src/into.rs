//! The rows of a query written into an index, once.

use std::{collections::HashMap, sync::Arc};

use arrow::{
    array::{ArrayRef, Int64Array, RecordBatch, StringArray},
    datatypes::Schema,
};
use bytes::Bytes;
use engine::{EngineError, ResultSet};
use types::{EVENT_BYTES_MAX, IndexName};
use wire::{Problem, block::message_id};

use crate::{
    api::Door,
    auth::Principal,
    error::HttpError,
    ingest_lines::{Entry, Line},
};

/// What the platform gives to every event when it is stored: a row that was one has them no more.
const GIVEN: [&str; 3] = ["_received", "_segment", "_offset"];

/// Writes all rows of a result as events: they are durable when this returns.
///
/// Rows are known by the run and by what they say, so that the same run, repeated within two minutes, adds only what is not there yet.
/// Bounds: a result that was cut, or a row above 1 MiB, is refused before anything is written (`IntoTooLarge`).
/// Errors: also those of ingest; then a part may be stored, and a repeat of the run completes it.
pub(crate) async fn write(
    door: &Door,
    principal: &Principal,
    target: &IndexName,
    run: &str,
    result: ResultSet,
) -> Result<ResultSet, HttpError> {
    let too_large = |message: String| HttpError::from(Problem::bad_request("IntoTooLarge", message));
    if result.truncated {
        let message = format!(
            "the query gives more than {} rows, or more than it may hold in memory: narrow its time range, or aggregate",
            door.config.query_rows_max
        );
        return Err(too_large(message));
    }
    let entry = Entry::new(door, principal.clone(), Some(target))?;
    let stream = entry.stream(door, target).await?;
    let rows = rows(&result).map_err(|error| HttpError::engine(error, ""))?;
    if let Some(row) = rows.iter().position(|row| row.len() > EVENT_BYTES_MAX) {
        return Err(too_large(format!("row {} is larger than {EVENT_BYTES_MAX} bytes: choose fewer columns", row + 1)));
    }
    let ids = ids(target, run, &rows);
    let hash = stream.hash(None);
    let count = rows.len();
    let lines = rows.into_iter().zip(ids).map(|(payload, id)| Line { id, hash, payload });
    entry.store(door, &stream, lines.collect(), true).await?;
    told(target, run, count, &result).map_err(|error| HttpError::engine(error, ""))
}

/// Each row as the event that it becomes.
fn rows(result: &ResultSet) -> Result<Vec<Bytes>, EngineError> {
    let mut rows = Vec::with_capacity(result.row_count());
    for batch in &result.batches {
        let schema = batch.schema();
        let kept: Vec<usize> =
            (0..schema.fields().len()).filter(|at| !GIVEN.contains(&schema.field(*at).name().as_str())).collect();
        rows.extend(engine::json_rows(&batch.project(&kept)?)?.into_iter().map(Bytes::from));
    }
    Ok(rows)
}

/// By what each row is known: what it says, and which one of those that say the same it is. The order of rows does not matter.
fn ids(target: &IndexName, run: &str, rows: &[Bytes]) -> Vec<u128> {
    let mut same: HashMap<&Bytes, u32> = HashMap::new();
    let id =
        |row: &Bytes, which: u32| message_id(&format!("into/{target}/{run}/{which}/{}", String::from_utf8_lossy(row)));
    let which = |row| {
        let which = same.entry(row).or_default();
        *which += 1;
        *which
    };
    let which: Vec<u32> = rows.iter().map(which).collect();
    rows.iter().zip(which).map(|(row, which)| id(row, which)).collect()
}

/// What was done, as a result of one row.
fn told(target: &IndexName, run: &str, rows: usize, of: &ResultSet) -> Result<ResultSet, EngineError> {
    let columns: [(&str, ArrayRef); 3] = [
        ("index", Arc::new(StringArray::from(vec![target.as_str()]))),
        ("run", Arc::new(StringArray::from(vec![run]))),
        ("rows", Arc::new(Int64Array::from(vec![i64::try_from(rows).unwrap_or(i64::MAX)]))),
    ];
    let batch = RecordBatch::try_from_iter(columns)?;
    let schema: Arc<Schema> = batch.schema();
    Ok(ResultSet { schema, batches: vec![batch], truncated: false, stats: of.stats })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_known_by_what_they_say_and_how_often() {
        let index: IndexName = "shop".parse().unwrap();
        let row = |text: &'static str| Bytes::from_static(text.as_bytes());
        let first = ids(&index, "r", &[row("a"), row("b"), row("a")]);
        let mut again = ids(&index, "r", &[row("a"), row("a"), row("b"), row("c")]);
        assert!(first.iter().all(|id| again.contains(id)) && first[0] != first[2]);
        again.sort_unstable();
        again.dedup();
        assert_eq!(again.len(), 4);
        assert_ne!(ids(&index, "s", &[row("a")]), first[..1]);
    }
}
