//! Which rows of a tail its reader wants, and what of them.

use std::{collections::VecDeque, sync::Arc};

use arrow::{
    array::{AsArray, RecordBatch},
    datatypes::{Int64Type, SchemaRef},
};
use engine::Stage;
use parking_lot::Mutex;
use query::{Column, Diagnostic, RESERVED_COLUMNS, Sieve, SieveStage};
use types::{Offset, Timestamp};
use wire::Problem;

use crate::{error::HttpError, sql};

/// Schemas of rows for which it is kept what is done to them; beyond it the oldest is made again when it is needed.
const SCHEMAS_MAX: usize = 64;
/// The column of offsets.
const OFFSET: &str = "_offset";

/// What is done to the rows of one tail.
pub(crate) struct Filter {
    sieve: Sieve,
    /// The columns that the index had when the tail began.
    known: Vec<Column>,
    begun: Timestamp,
    made: Mutex<VecDeque<(SchemaRef, Arc<Made>)>>,
}

/// What is done to rows of one schema.
struct Made {
    stages: Vec<Stage>,
    /// The columns that the reader sees, where they are not all.
    seen: Option<Vec<String>>,
}

/// Rows that passed.
#[derive(Debug)]
pub(super) struct Passed {
    /// As the reader sees them.
    pub(super) rows: RecordBatch,
    /// The offset of each.
    pub(super) offsets: Vec<Offset>,
}

impl Passed {
    /// All of a batch.
    pub(super) fn all(batch: &RecordBatch) -> Self {
        Self { rows: batch.clone(), offsets: offsets(batch) }
    }
}

impl Filter {
    /// What a query asks of rows, for a tail that begins now; `None` where it asks nothing.
    ///
    /// Errors: a field that no event of the index has; a column of the platform that is computed anew.
    pub(super) fn new(sieve: Sieve, known: &[Column], begun: Timestamp) -> Result<Option<Self>, Diagnostic> {
        if sieve.is_everything() {
            return Ok(None);
        }
        // Of an index without events nothing is known but the columns of the platform.
        if known.iter().any(|column| !column.name.starts_with('_') && column.name != "severity") {
            sieve.check(known, begun)?;
        }
        let stages = sieve.stages(known, begun)?;
        let changed = stages.iter().flat_map(|stage| &stage.columns).find(|column| {
            RESERVED_COLUMNS.contains(&column.name.as_str()) && column.expr != format!("\"{}\"", column.name)
        });
        if let Some(column) = changed.filter(|column| column.expr != column.name) {
            let found = Diagnostic::new(1, 1, format!("{} is a column of the platform", column.name));
            return Err(found.help("choose another name"));
        }
        Ok(Some(Self { sieve, known: known.to_vec(), begun, made: Mutex::default() }))
    }

    /// The rows that pass. It takes the CPU: run it where queries run.
    pub(super) fn apply(&self, batch: &RecordBatch) -> Result<Passed, Problem> {
        let failed = |error| HttpError::engine(error, self.sieve.text()).problem().clone();
        let made = self.made(&batch.schema())?;
        let mut rows = batch.clone();
        for stage in &made.stages {
            rows = stage.apply(&rows).map_err(failed)?;
        }
        let offsets = offsets(&rows);
        if let Some(seen) = &made.seen {
            let schema = rows.schema();
            let places: Vec<usize> = seen.iter().filter_map(|name| schema.index_of(name).ok()).collect();
            rows = rows.project(&places).map_err(Problem::internal)?;
        }
        Ok(Passed { rows, offsets })
    }

    fn made(&self, schema: &SchemaRef) -> Result<Arc<Made>, Problem> {
        let known = |made: &VecDeque<(SchemaRef, Arc<Made>)>| {
            made.iter().find(|(of, _)| of == schema).map(|(_, made)| Arc::clone(made))
        };
        if let Some(made) = known(&self.made.lock()) {
            return Ok(made);
        }
        let made = Arc::new(self.make(schema)?);
        let mut all = self.made.lock();
        if all.len() >= SCHEMAS_MAX {
            all.pop_front();
        }
        all.push_back((Arc::clone(schema), Arc::clone(&made)));
        Ok(made)
    }

    fn make(&self, schema: &SchemaRef) -> Result<Made, Problem> {
        let text = self.sieve.text();
        let mut columns: Vec<Column> = Vec::with_capacity(schema.fields().len());
        let own = schema.fields().iter();
        columns.extend(own.map(|field| Column { name: field.name().clone(), kind: sql::kind(field.data_type()) }));
        let missing = self.known.iter().filter(|known| schema.index_of(&known.name).is_err());
        columns.extend(missing.cloned());
        let stages = self.sieve.stages(&columns, self.begun);
        let stages = stages.map_err(|found| HttpError::query("InvalidQuery", &found, text).problem().clone())?;
        let seen = stages.iter().rev().find(|stage| !stage.columns.is_empty());
        let seen = seen.map(|stage| stage.columns.iter().map(|column| column.name.clone()).collect());
        let stage = |stage: SieveStage| {
            let columns = stage.columns.into_iter().map(|column| (column.name, column.expr)).collect();
            Stage::new(stage.filter, columns).map_err(|error| HttpError::engine(error, text).problem().clone())
        };
        Ok(Made { stages: stages.into_iter().map(stage).collect::<Result<_, _>>()?, seen })
    }
}

fn offsets(batch: &RecordBatch) -> Vec<Offset> {
    let column = batch.column_by_name(OFFSET).and_then(|column| column.as_primitive_opt::<Int64Type>());
    column.map_or_else(Vec::new, |offsets| {
        offsets.values().iter().map(|offset| u64::try_from(*offset).unwrap_or_default()).collect()
    })
}

#[cfg(test)]
mod tests {
    use ingest::RawEvent;
    use types::{IndexName, SegmentId};

    use super::*;

    fn rows(from: u64, lines: &[&str]) -> RecordBatch {
        let segment = SegmentId { stream: 1, epoch: 0, number: 0 };
        let received = Timestamp::from_millis(1_000);
        ingest::to_batch(segment, from, lines.iter().map(|line| RawEvent { payload: line.as_bytes(), received }))
    }

    fn shown(query: &str, known: &[Column], batches: &[RecordBatch]) -> Vec<(Vec<u64>, Vec<String>)> {
        let index: IndexName = "shop".parse().unwrap();
        let sieve = match query.split_at(query.find(':').unwrap_or_default()) {
            ("sql", text) => Sieve::sql(&text[1..], &index),
            ("logql", text) => Sieve::logql(&text[1..], &index),
            _ => Sieve::pipe(query, &index),
        };
        let filter = Filter::new(sieve.unwrap(), known, Timestamp::from_millis(0)).unwrap().unwrap();
        let one = |batch: &RecordBatch| {
            let passed = filter.apply(batch).unwrap();
            let lines = engine::json_rows(&passed.rows).unwrap();
            (passed.offsets, lines.into_iter().map(|line| String::from_utf8(line).unwrap()).collect())
        };
        batches.iter().map(one).collect()
    }

    fn columns(names: &[&str]) -> Vec<Column> {
        names.iter().map(|name| Column { name: (*name).to_owned(), kind: query::ColumnKind::Text }).collect()
    }

    #[test]
    fn rows_pass_whatever_columns_their_batch_has() {
        let batches = [
            rows(5, &[r#"{"msg":"a","status":500}"#, r#"{"msg":"b","status":200}"#]),
            rows(7, &[r#"{"msg":"c"}"#]),
            rows(8, &[r#"{"msg":"d","status":"503"}"#, r#"{"msg":"e","status":"odd"}"#]),
        ];
        for query in ["status>=500 | keep _msg", "sql:SELECT _msg FROM shop WHERE TRY_CAST(status AS BIGINT) >= 500"] {
            let found = shown(query, &[], &batches);
            let expected = [(vec![5], vec![r#"{"_msg":"a"}"#]), (vec![], vec![]), (vec![8], vec![r#"{"_msg":"d"}"#])];
            let found: Vec<(Vec<u64>, Vec<&str>)> =
                found.iter().map(|(at, lines)| (at.clone(), lines.iter().map(String::as_str).collect())).collect();
            assert_eq!(found, expected, "{query}");
        }
        let found = shown("-status=500 | keep _msg", &[], &batches);
        assert_eq!(found.iter().map(|(at, _)| at.len()).sum::<usize>(), 4, "without the field it is not 500");
    }

    #[test]
    fn fields_are_computed_one_upon_another() {
        let batches = [rows(0, &["user=ann took=7", "user=bob took=3"])];
        let text = "| let double = took * 2 | where double > 10 | format \"{user}: {double}\" as line | keep line";
        assert_eq!(shown(text, &[], &batches), [(vec![0], vec![r#"{"line":"ann: 14"}"#.to_owned()])]);
        let text = "logql:{user=~\"b.*\"} | line_format \"{{.user}}\"";
        let found = shown(text, &[], &batches);
        assert_eq!(found[0].0, [1]);
        assert!(found[0].1[0].contains(r#""_msg":"bob""#), "{found:?}");
    }

    #[test]
    fn what_cannot_be_asked_is_refused_when_the_tail_begins() {
        let index: IndexName = "shop".parse().unwrap();
        let known = columns(&["_msg", "_offset", "user"]);
        let new = |text: &str, known: &[Column]| {
            let sieve = Sieve::pipe(text, &index).unwrap();
            Filter::new(sieve, known, Timestamp::from_millis(0)).map(|filter| filter.is_some())
        };
        assert_eq!(new("", &known), Ok(false));
        assert_eq!(new("user=a", &known), Ok(true));
        assert_eq!(new("usr=a", &[]), Ok(true), "of an index without events nothing is known");
        assert_eq!(new("usr=a", &known).unwrap_err().help.as_deref(), Some("did you mean user?"));
        assert!(new("| let _offset = 1", &known).unwrap_err().message.contains("column of the platform"));
    }
}
