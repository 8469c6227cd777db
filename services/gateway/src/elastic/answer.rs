//! The answer of a search as bytes, within what the answers of one request may take.

use std::{cell::RefCell, sync::Arc, time::Instant};

use arrow::array::RecordBatch;
use engine::{ResultSet, json_rows};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use types::Timestamp;
use wire::Problem;

use super::{
    ask::Fault,
    buckets::Plan,
    gather::{Gathered, Row, Unanswered, hit},
    search::{Counted, Search},
};
use crate::error::HttpError;

/// Bytes of the answers of one request, and of the rows of which they are being made.
pub(super) const ANSWERS_BYTES_MAX: usize = 64 << 20;

/// What is left of the bytes of one request; its searches share it.
#[derive(Debug, Clone)]
pub(super) struct Budget(Arc<Semaphore>);

/// Bytes that nobody else may take until this is dropped.
pub(super) type Held = OwnedSemaphorePermit;

impl Default for Budget {
    fn default() -> Self {
        Self::of(ANSWERS_BYTES_MAX)
    }
}

impl Budget {
    pub(super) fn of(bytes: usize) -> Self {
        Self(Arc::new(Semaphore::new(bytes)))
    }

    pub(super) fn hold(&self, bytes: usize) -> Result<Held, Fault> {
        let bytes = u32::try_from(bytes).map_err(|_| Fault::Full)?;
        Arc::clone(&self.0).try_acquire_many_owned(bytes).map_err(|_| Fault::Full)
    }
}

/// How an answer looks.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Form {
    /// The total as a number alone, as versions before 7 say it.
    pub(super) plain_total: bool,
    /// Whether it says its status, as one of several does.
    pub(super) status: bool,
}

/// What was found of a search.
pub(super) struct Found {
    pub(super) hits: Option<ResultSet>,
    pub(super) total: Option<u64>,
    /// Rows of the places of the plan of its aggregations, and of the hits in them, as that plan was made `now`.
    pub(super) levels: Vec<Vec<Row>>,
    pub(super) top_hits: Vec<Vec<Row>>,
    /// What these rows take.
    pub(super) held: Vec<Held>,
    pub(super) now: Timestamp,
    pub(super) indexes: usize,
    pub(super) took: u64,
}

/// About how many bytes a result is.
pub(super) fn bytes_of(result: &ResultSet) -> usize {
    result.batches.iter().map(|batch| batch.get_array_memory_size()).sum()
}

/// The rows of a result, and what they take.
pub(super) fn rows(result: &ResultSet, budget: &Budget) -> Result<(Vec<Row>, Held), Fault> {
    let (mut rows, mut held) = (Vec::with_capacity(result.row_count()), budget.hold(0)?);
    for batch in &result.batches {
        let raw = raw_rows(batch)?;
        held.merge(budget.hold(raw.iter().map(Vec::len).sum())?);
        rows.extend(raw.iter().map(|raw| row(raw)).collect::<Result<Vec<_>, _>>()?);
    }
    Ok((rows, held))
}

/// The rows of a batch without what is null: of a thousand columns an event has few.
fn raw_rows(batch: &RecordBatch) -> Result<Vec<Vec<u8>>, Fault> {
    Ok(json_rows(batch).map_err(|error| HttpError::engine(error, ""))?)
}

fn row(raw: &[u8]) -> Result<Row, Fault> {
    let read = serde_json::from_slice(raw);
    Ok(read.map_err(|error| Problem::internal(format_args!("a row of a search cannot be read: {error}")))?)
}

/// Errors: it is later than that.
fn in_time(until: Instant) -> Result<(), Unanswered> {
    if Instant::now() > until { Err(Unanswered::Late) } else { Ok(()) }
}

/// Writes the answer of a search; what it takes of the budget stays taken.
///
/// Shape: `{took, timed_out, _shards, hits, aggregations?, status?}`. Of hits one at a time is more than its row.
/// Bounds: the budget, and `until`.
pub(super) fn written(
    search: &Search,
    found: Found,
    form: Form,
    (budget, until): (&Budget, Instant),
) -> Result<Vec<u8>, Fault> {
    let count = found.indexes;
    let shards = json!({ "total": count, "successful": count, "skipped": 0, "failed": 0 });
    let mut out = Writer { bytes: Vec::new(), held: budget.hold(0)?, budget };
    out.member("{", "took", &found.took)?;
    out.member(",", "timed_out", &false)?;
    out.member(",", "_shards", &shards)?;
    if form.status {
        out.member(",", "status", &200)?;
    }
    if !search.aggregations.is_empty() {
        let plan = Plan::new(&search.query, &search.aggregations, found.now);
        let made = RefCell::new(budget.hold(0)?);
        let pay = |bytes| {
            in_time(until)?;
            let more = budget.hold(bytes).map_err(|_| Unanswered::Full)?;
            made.borrow_mut().merge(more);
            Ok(())
        };
        let gathered = Gathered::new(&plan, found.levels, found.top_hits, &pay);
        let aggregations = gathered.answer()?;
        // They make room for the same as bytes.
        drop((gathered, found.held));
        drop(made);
        out.member(",", "aggregations", &aggregations)?;
    }
    let score = search.sort.is_default() && found.hits.as_ref().is_some_and(|hits| hits.row_count() > 0);
    out.member(",\"hits\":{", "max_score", &score.then_some(1.0))?;
    if let Some(total) = found.total {
        out.member(",", "total", &said(total, search, form))?;
    }
    out.text(",\"hits\":[");
    let mut before = "";
    for batch in found.hits.into_iter().flat_map(|hits| hits.batches) {
        for raw in raw_rows(&batch)? {
            in_time(until)?;
            out.text(before);
            before = ",";
            out.add(&hit(&search.shown, &search.sort, &row(&raw)?))?;
        }
    }
    out.text("]}}");
    out.done()
}

fn said(total: u64, search: &Search, form: Form) -> Value {
    let (value, relation) = match search.count {
        Counted::UpTo(most) if total > most => (most, "gte"),
        _ => (total, "eq"),
    };
    if form.plain_total { json!(value) } else { json!({ "value": value, "relation": relation }) }
}

/// JSON that grows, and takes of the budget as it does.
struct Writer<'b> {
    bytes: Vec<u8>,
    held: Held,
    budget: &'b Budget,
}

impl Writer<'_> {
    fn text(&mut self, text: &str) {
        self.bytes.extend_from_slice(text.as_bytes());
    }

    fn member(&mut self, before: &str, name: &str, value: &impl Serialize) -> Result<(), Fault> {
        self.text(before);
        self.add(&name)?;
        self.text(":");
        self.add(value)
    }

    fn add(&mut self, value: &impl Serialize) -> Result<(), Fault> {
        let written = serde_json::to_writer(&mut self.bytes, value);
        written.map_err(|error| Problem::internal(format_args!("an answer cannot be written: {error}")))?;
        self.pay()
    }

    fn pay(&mut self) -> Result<(), Fault> {
        self.held.merge(self.budget.hold(self.bytes.len() - self.held.num_permits())?);
        Ok(())
    }

    fn done(mut self) -> Result<Vec<u8>, Fault> {
        self.pay()?;
        self.held.forget();
        self.bytes.shrink_to_fit();
        Ok(self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, StringArray};

    use super::*;

    fn found(texts: &[&str], levels: Vec<Vec<Row>>, held: Vec<Held>) -> Found {
        let column: ArrayRef = Arc::new(StringArray::from(texts.to_vec()));
        let batch = RecordBatch::try_from_iter([("_msg", column)]).unwrap();
        let hits =
            ResultSet { schema: batch.schema(), batches: vec![batch], truncated: false, stats: Default::default() };
        let now = Timestamp::from_millis(1_767_323_045_000);
        Found { hits: Some(hits), total: Some(20), levels, top_hits: Vec::new(), held, now, indexes: 1, took: 3 }
    }

    fn soon() -> Instant {
        Instant::now() + std::time::Duration::from_secs(60)
    }

    fn search(body: &Value) -> Search {
        Search::read(body, &[], Timestamp::from_millis(1_767_323_045_000)).unwrap()
    }

    #[test]
    fn answers_have_the_shape_of_elasticsearch() {
        let body = json!({"track_total_hits": 10, "aggs": {"n": {"value_count": {"field": "took"}}}});
        let level: Row = json!({"#n": 20, "#m0_0": 7}).as_object().unwrap().clone();
        let shards = json!({"total": 1, "successful": 1, "skipped": 0, "failed": 0});
        for (form, total, status) in [
            (Form::default(), json!({"value": 10, "relation": "gte"}), Value::Null),
            (Form { plain_total: true, status: true }, json!(10), json!(200)),
        ] {
            let found = found(&["a", "b"], vec![vec![level.clone()]], Vec::new());
            let bytes = written(&search(&body), found, form, (&Budget::default(), soon())).unwrap();
            let answer: Value = serde_json::from_slice(&bytes).unwrap();
            assert_eq!((&answer["hits"]["total"], &answer["status"]), (&total, &status));
            assert_eq!((&answer["took"], &answer["_shards"]), (&json!(3), &shards));
            assert_eq!((&answer["timed_out"], &answer["hits"]["max_score"]), (&json!(false), &json!(1.0)));
            assert_eq!(answer["hits"]["hits"][1]["_source"], json!({"message": "b"}));
            assert_eq!(answer["aggregations"], json!({"n": {"value": 7}}));
        }
    }

    #[test]
    fn answers_take_of_one_budget() {
        let (search, text) = (search(&json!({})), "a".repeat(1_000));
        let texts = [text.as_str(); 10];
        let budget = Budget::of(25_000);
        let write = || written(&search, found(&texts, Vec::new(), Vec::new()), Form::default(), (&budget, soon()));
        let (first, second) = (write().unwrap(), write().unwrap());
        assert_eq!(budget.0.available_permits(), 25_000 - first.len() - second.len());
        assert!(matches!(write(), Err(Fault::Full)));
        // What was taken for it is given back.
        assert_eq!(budget.0.available_permits(), 25_000 - first.len() - second.len());
    }

    #[test]
    fn rows_take_of_it_until_they_are_aggregations() {
        let body = json!({"size": 0, "aggs": {"n": {"value_count": {"field": "took"}}}});
        let (row, budget): (Row, _) = (Row::new(), Budget::of(1_000));
        let held = budget.hold(1_000).unwrap();
        let level = || vec![vec![row.clone()]];
        let full = written(&search(&body), found(&[], level(), Vec::new()), Form::default(), (&budget, soon()));
        assert!(matches!(full, Err(Fault::Full)));
        drop(held);
        let held = budget.hold(800).unwrap();
        let fits = written(&search(&body), found(&[], level(), vec![held]), Form::default(), (&budget, soon()));
        assert!(fits.is_ok());
        let rows = found(&["abc"], Vec::new(), Vec::new()).hits.unwrap();
        assert!(matches!(super::rows(&rows, &Budget::of(10)), Err(Fault::Full)));
    }

    #[test]
    fn columns_without_a_value_take_nothing() {
        let columns = (0..1_000).map(|n| (format!("column {n}"), Arc::new(StringArray::new_null(10)) as ArrayRef));
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let result =
            ResultSet { schema: batch.schema(), batches: vec![batch], truncated: false, stats: Default::default() };
        let (rows, held) = super::rows(&result, &Budget::of(100)).unwrap();
        assert_eq!((rows, held.num_permits()), (vec![Row::new(); 10], 20));
    }

    #[test]
    fn writing_has_an_end() {
        let late = Instant::now().checked_sub(std::time::Duration::from_millis(1)).unwrap();
        let found = || found(&["a"], vec![Vec::new()], Vec::new());
        for body in [json!({}), json!({"aggs": {"n": {"value_count": {"field": "took"}}}})] {
            let written = written(&search(&body), found(), Form::default(), (&Budget::default(), late));
            assert_eq!(written.unwrap_err().told().0.as_u16(), 504);
        }
    }
}
