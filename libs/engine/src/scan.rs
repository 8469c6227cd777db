//! Reading a table: as little of it as the filters, the columns and the order of a query allow.
//!
//! A row is left out only if no filter would let it through: by the times of its chunk, by what the chunk's index says of
//! its row group, and then by the filters themselves on the columns that they name, before any other column of it is
//! decoded. Where rows are wanted by time, chunks are read in that order and their rows come sorted (`sorted`): the first ones
//! long before the last chunk is read, and no more than are asked for.

mod counted;
mod counting;
mod exec;
mod filter;
mod needs;
mod pattern;
mod sorted;
mod stats;
mod tally;
mod walk;

use std::{collections::BTreeSet, sync::Arc};

use arrow::{
    array::{AsArray, RecordBatch},
    datatypes::{SchemaRef, TimestampNanosecondType},
};
use chunk::Predicate;
use datafusion::{error::Result, physical_expr::PhysicalExpr};
use types::Timestamp;

pub use self::stats::{Progress, ScanStats};
pub(crate) use self::{
    counted::{CountersRule, SEVERITY},
    counting::SEVERITIES,
    exec::ScanExec,
    needs::TIME,
    stats::Scanned,
};
use self::{
    filter::{Conjunct, View},
    needs::needs,
    sorted::Order,
};
use crate::{Piece, said::Question};

/// One table as one query reads it.
#[derive(Debug, Clone)]
pub(crate) struct Scan {
    /// The columns of the table.
    table: SchemaRef,
    pieces: Vec<Piece>,
    /// The columns of the result.
    schema: SchemaRef,
    view: View,
    filters: Vec<Arc<dyn PhysicalExpr>>,
    /// What an index can tell of that.
    needs: Option<Predicate>,
    /// Filters that those above make narrower while they run; rows that do not meet them are not needed.
    dynamic: Vec<Arc<dyn PhysicalExpr>>,
    /// All that rows must meet, of both kinds: those that stay first, of which there are so many.
    conditions: Arc<[Conjunct]>,
    fixed: usize,
    /// What of those that stay is asked of a row group of which every row is of a time that is asked for.
    question: Option<Arc<Question>>,
    /// The columns that each of them names.
    looked_at: Vec<Vec<String>>,
    /// The columns that the rows of a chunk shall have; `None` for all.
    wanted: Option<Vec<String>>,
    /// Both together; `None` for all.
    columns: Option<Vec<String>>,
    /// Those of rows that are known to meet what stays; `None` for all.
    columns_of_met: Option<Vec<String>>,
    /// The order in which its rows are wanted.
    order: Option<Arc<Order>>,
    scanned: Arc<Scanned>,
}

impl Scan {
    /// The rows of the pieces that pass the filters, with the columns at these places of the table's schema.
    pub(crate) fn new(
        table: &SchemaRef,
        pieces: Vec<Piece>,
        places: &[usize],
        filters: &[Arc<dyn PhysicalExpr>],
        scanned: Arc<Scanned>,
    ) -> Result<Self> {
        let view = View::new(table, places)?;
        let scan = Self {
            table: Arc::clone(table),
            pieces,
            schema: Arc::new(table.project(places)?),
            filters: filters.to_vec(),
            needs: None,
            dynamic: Vec::new(),
            conditions: Vec::new().into(),
            fixed: 0,
            question: None,
            looked_at: Vec::new(),
            wanted: view.names(),
            columns: None,
            columns_of_met: None,
            order: None,
            view,
            scanned,
        };
        scan.prepared()
    }

    /// Sorts out the conditions and the columns.
    fn prepared(mut self) -> Result<Self> {
        let mut conditions = Conjunct::all(&self.filters, &self.table)?;
        self.fixed = conditions.len();
        let asked = conditions.iter().filter(|one| !one.is_of_time()).map(Conjunct::asked);
        self.question = asked.collect::<Option<_>>().and_then(Question::of).map(Arc::new);
        // What changes comes last: it is worth the more the less is left.
        conditions.extend(Conjunct::all(&self.dynamic, &self.table)?);
        let every = || self.table.fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>();
        self.looked_at = conditions.iter().map(|one| one.view.names().unwrap_or_else(every)).collect();
        let with = |looked_at: &[Vec<String>]| {
            self.wanted.as_ref().map(|wanted| {
                let all: BTreeSet<&String> = wanted.iter().chain(looked_at.iter().flatten()).collect();
                all.into_iter().cloned().collect()
            })
        };
        (self.columns, self.columns_of_met) = (with(&self.looked_at), with(&self.looked_at[self.fixed..]));
        self.conditions = conditions.into();
        self.needs = self.all_needs(&self.filters);
        Ok(self)
    }

    /// The same, narrowed by filters that change while the query runs.
    fn narrowed_by(&self, dynamic: Vec<Arc<dyn PhysicalExpr>>) -> Result<Self> {
        Self { dynamic, ..self.clone() }.prepared()
    }

    /// The same with one more filter.
    fn also(&self, filter: Arc<dyn PhysicalExpr>) -> Result<Self> {
        let mut scan = self.clone();
        scan.filters.push(filter);
        scan.prepared()
    }

    /// The same, with its rows in an order.
    fn ordered(&self, order: Order) -> Self {
        Self { order: Some(Arc::new(order)), ..self.clone() }
    }

    /// What the filters that change ask for now.
    fn narrowed(&self) -> Option<Predicate> {
        self.all_needs(&self.dynamic)
    }

    /// `None` where no index can tell: the columns that a table was cut at are not null where a chunk has them not.
    fn all_needs(&self, filters: &[Arc<dyn PhysicalExpr>]) -> Option<Predicate> {
        let parts: Vec<Predicate> = filters.iter().filter_map(needs).collect();
        (!parts.is_empty() && self.table.metadata().is_empty()).then_some(Predicate::All(parts))
    }

    /// How many rows there are before any filter.
    fn rows_count(&self) -> u64 {
        self.pieces.iter().map(Piece::rows).sum()
    }
}

/// The first and the last time in a batch; every time where it has none.
fn times(batch: &RecordBatch) -> (Timestamp, Timestamp) {
    let times = batch.column_by_name(TIME).and_then(|column| column.as_primitive_opt::<TimestampNanosecondType>());
    let ends = times.and_then(|times| arrow::compute::min(times).zip(arrow::compute::max(times)));
    ends.map_or((Timestamp::MIN, Timestamp::MAX), |(first, last)| {
        (Timestamp::from_nanos(first), Timestamp::from_nanos(last))
    })
}

#[cfg(test)]
mod tests;
