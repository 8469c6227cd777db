//! Queries over rows that lie elsewhere: cut into fragments that run beside them, whose answers are merged here.
//!
//! A plan is cut where that cannot change its answer: below an aggregate whose parts can be merged (groups with `count`,
//! `sum`, `min`, `max` and `avg`; what is distinct is a group), below the first rows of an order, and at the bottom of a
//! plan that only filters and projects and wants few rows. A fragment travels as the text of one `SELECT` over one table. A text is used only
//! if planning it again gives the very fragment that it was written for; so what a text cannot say is not cut.
//! What is left above runs here over the answers, with everything that a query may be made of.
//!
//! Sums of decimal numbers are added in another order than without fragments, as they are between two runs of any query
//! on several threads; nothing else of an answer differs.

mod ask;
mod cut;
mod ipc;
mod merge;
mod remote;
mod run;

use std::{collections::BTreeMap, fmt, sync::Arc};

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use async_trait::async_trait;
use futures::stream::BoxStream;
use query::{Diagnostic, parse_select};
use types::IndexName;
use wire::Problem;

pub use self::{
    ipc::{batches_of, schema_of, schema_to_ipc},
    run::{Scattered, run_scattered},
};
use crate::{EngineError, Limits, Piece, ResultSet, ScanStats, Stats, TableSource, run_select};

/// The most rows that a fragment answers. What wants more rows, or does not say how many, is not cut; groups may turn out to
/// be more, and then the query is read as whole rows ([`Whole::TooLarge`]).
pub const FRAGMENT_ROWS_MAX: usize = 65_536;

/// A part of a query over one table.
#[derive(Debug, Clone)]
pub struct Fragment {
    /// One `SELECT` over the table.
    pub text: String,
    /// The columns of the table that it may name, of all rows of the query.
    pub schema: SchemaRef,
}

/// What one fragment answered.
#[derive(Debug, Clone, Default)]
pub struct FragmentRows {
    /// Its rows.
    pub batches: Vec<RecordBatch>,
    /// What it cost.
    pub stats: Stats,
    /// Bytes that came from elsewhere; `None` where it ran in this process.
    pub answer_bytes: Option<u64>,
}

/// A table whose rows lie in parts elsewhere, at one instant.
pub trait Scatter: fmt::Debug + Send + Sync + 'static {
    /// The columns of all rows together.
    fn schema(&self) -> SchemaRef;

    /// Runs a fragment over each part of the rows, each row in exactly one of them, and answers as they end.
    ///
    /// Errors end the query; with BadRequest `FragmentTooLarge` it is given up, and read as whole rows. Dropping the stream gives up what still runs.
    fn run(&self, fragment: Arc<Fragment>) -> BoxStream<'static, Result<FragmentRows, EngineError>>;
}

/// Why a query was answered from whole rows, not from fragments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whole {
    /// There is little to read.
    Small,
    /// Its answer is shown as it is found.
    Streamed,
    /// Counters answer it.
    Counted,
    /// All of it is in one store, or in none.
    OneStore,
    /// It has more segments than a fragment may name.
    Segments,
    /// A store did not say which columns it has.
    Unanswered,
    /// No place for a cut was found.
    Shape,
    /// An aggregate whose parts cannot be merged.
    Aggregate,
    /// It asks for all rows that pass, or for more than a fragment answers.
    AllRows,
    /// A fragment needed too much memory, or answered too much.
    TooLarge,
    /// What it asks for cannot be said in a text.
    Text,
    /// It names views or lookups.
    Library,
}

impl Whole {
    /// The reason in words.
    pub fn why(self) -> &'static str {
        match self {
            Self::Small => "it is read here: there is less than gateway.fragments_from",
            Self::Streamed => "it is read here: a streamed answer shows its rows as they are found",
            Self::Counted => "it is read here: the counters of its chunks answer it",
            Self::OneStore => "it is read here: fewer than two stores own what it reads",
            Self::Segments => "it is read here: a store owns too many segments of it",
            Self::Unanswered => "it is read here: a store did not say in time which columns it has",
            Self::Shape => "it is read here: only filters, groups and the first rows of an order run beside the rows",
            Self::Aggregate => {
                "it is read here: of the aggregates only count, sum, min, max and avg run beside the rows"
            }
            Self::AllRows => "it is read here: it asks for all rows that pass, or for more than 65536 of them",
            Self::TooLarge => "it is read here: a fragment of it needed too much memory, or answered too much",
            Self::Text => "it is read here: no text says the same as the part of it that would run beside the rows",
            Self::Library => "it is read here: it names views or lookups",
        }
    }
}

/// How a query came to its rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FragmentStats {
    /// Fragments that ran beside the rows.
    pub beside: u64,
    /// Fragments that ran here, because where the rows lie they did not come to their end.
    pub here: u64,
    /// Bytes of the answers of those that ran beside the rows.
    pub answer_bytes: u64,
    /// Why there were none; `None` where nobody asked.
    pub whole: Option<Whole>,
}

impl FragmentStats {
    /// What `EXPLAIN` says of it: what, how often, how many bytes, and why.
    pub(crate) fn told(&self) -> Vec<(&'static str, u64, Option<u64>, &'static str)> {
        if let Some(whole) = self.whole {
            return vec![("fragments", 0, None, whole.why())];
        }
        let ran =
            ("fragments", self.beside, Some(self.answer_bytes), "ran beside the rows, their answers were merged here");
        let here = ("fragments run here", self.here, None, "a store gave no answer");
        let all = [(self.beside + self.here > 0, ran), (self.here > 0, here)];
        all.into_iter().filter(|(is, _)| *is).map(|(_, row)| row).collect()
    }
}

/// Runs a fragment over these pieces of its table.
///
/// Bounds: `limits`; an answer that was cut says so, and must not be merged. Errors: as [`run_select`]; BadRequest
/// `InvalidFragment` where the text is not about this table alone.
pub async fn run_fragment(
    fragment: &Fragment,
    index: &IndexName,
    pieces: Vec<Piece>,
    limits: Limits,
) -> Result<ResultSet, EngineError> {
    let invalid = |why: &dyn fmt::Display| EngineError::Source(Problem::bad_request("InvalidFragment", why));
    let select = parse_select(&fragment.text).map_err(|found| invalid(&found))?;
    if select.tables.as_slice() != std::slice::from_ref(index) {
        return Err(invalid(&format_args!("a fragment of {index} reads {:?}", select.tables)));
    }
    let source = Arc::new(Part { pieces, schema: Arc::clone(&fragment.schema) });
    let result = run_select(&select, vec![(index.clone(), source)], limits).await;
    result.map_err(|error| match error {
        // The place is in a text that nobody has written.
        EngineError::Query(found) => EngineError::Query(Diagnostic::new(1, 1, found.message)),
        other => other,
    })
}

/// Pieces of a table that have not all of its columns.
#[derive(Debug)]
struct Part {
    pieces: Vec<Piece>,
    schema: SchemaRef,
}

#[async_trait]
impl TableSource for Part {
    fn pieces(&self) -> Vec<Piece> {
        self.pieces.clone()
    }

    async fn schemas(&self) -> Result<Vec<SchemaRef>, Problem> {
        Ok(vec![Arc::clone(&self.schema)])
    }
}

impl ScanStats {
    /// The counts by their names, for another process.
    pub fn counts(&self) -> BTreeMap<String, u64> {
        let counts = serde_json::to_value(self).and_then(serde_json::from_value);
        counts.unwrap_or_default()
    }

    /// What another process has counted; names that are not known are left out.
    pub fn of_counts(counts: &BTreeMap<String, u64>) -> Self {
        let known = serde_json::to_value(counts).and_then(serde_json::from_value);
        known.unwrap_or_default()
    }

    /// The sum of both.
    pub fn plus(&self, other: &Self) -> Self {
        let mut counts = self.counts();
        for (name, count) in other.counts() {
            *counts.entry(name).or_default() += count;
        }
        Self::of_counts(&counts)
    }
}
