//! A table source as DataFusion sees it: one schema, and filters that the scan applies itself.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::{
    catalog::{Session, TableProvider},
    common::{
        DFSchema, internal_datafusion_err,
        tree_node::{TreeNode, TreeNodeRecursion},
    },
    error::Result,
    logical_expr::{Expr, TableProviderFilterPushDown, TableType},
    physical_plan::ExecutionPlan,
};
use types::IndexName;
use wire::Problem;

use crate::{
    Piece, TableSource,
    scan::{Scan, ScanExec, Scanned},
};

/// What a query reads.
#[derive(Debug, Clone)]
pub(crate) struct Tables {
    all: Vec<Opened>,
    pub(crate) scanned: Arc<Scanned>,
}

/// One of its tables.
#[derive(Debug, Clone)]
pub(crate) struct Opened {
    pub(crate) index: IndexName,
    pub(crate) pieces: Vec<Piece>,
    /// Those of its pieces.
    pub(crate) schemas: Vec<SchemaRef>,
}

impl Tables {
    /// Learns the columns of the sources.
    pub(crate) async fn open(
        sources: &[(IndexName, Arc<dyn TableSource>)],
        scanned: Arc<Scanned>,
    ) -> Result<Self, Problem> {
        let mut all = Vec::with_capacity(sources.len());
        for (index, source) in sources {
            let schemas = source.schemas().await?;
            all.push(Opened { index: index.clone(), pieces: source.pieces(), schemas });
        }
        for piece in all.iter().flat_map(|table| &table.pieces) {
            scanned.expect(piece);
        }
        Ok(Self { all, scanned })
    }

    /// The tables.
    pub(crate) fn all(&self) -> &[Opened] {
        &self.all
    }

    /// Their names and columns.
    pub(crate) fn schemas(&self) -> impl Iterator<Item = (IndexName, SchemaRef)> {
        let merged = |table: &Opened| Arc::new(ingest::merge_schemas(table.schemas.iter().map(AsRef::as_ref)));
        self.all.iter().map(move |table| (table.index.clone(), merged(table)))
    }

    /// What the query that is planned in this session reads of an index.
    pub(crate) fn of(state: &dyn Session, index: &IndexName) -> Result<(Vec<Piece>, Arc<Scanned>)> {
        let tables = state.config().get_extension::<Self>();
        let found = tables.and_then(|tables| {
            let table = tables.all.iter().find(|table| table.index == *index)?;
            Some((table.pieces.clone(), Arc::clone(&tables.scanned)))
        });
        found.ok_or_else(|| internal_datafusion_err!("the session does not say what is read of {index}"))
    }
}

/// One table of a statement.
#[derive(Debug)]
pub(crate) struct SourceTable {
    pub(crate) index: IndexName,
    schema: SchemaRef,
}

impl SourceTable {
    pub(crate) fn new(index: IndexName, schema: SchemaRef) -> Self {
        Self { index, schema }
    }
}

#[async_trait]
impl TableProvider for SourceTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        let of = |filter: &&Expr| {
            if is_of_one_row(filter) {
                TableProviderFilterPushDown::Exact
            } else {
                TableProviderFilterPushDown::Unsupported
            }
        };
        Ok(filters.iter().map(of).collect())
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let all = (0..self.schema.fields().len()).collect();
        let places = projection.unwrap_or(&all);
        let columns = DFSchema::try_from(Arc::clone(&self.schema))?;
        let filters = filters.iter().map(|filter| state.create_physical_expr(filter.clone(), &columns));
        let filters = filters.collect::<Result<Vec<_>>>()?;
        let (pieces, scanned) = Tables::of(state, &self.index)?;
        let scan = Scan::new(&self.schema, pieces, places, &filters, scanned)?;
        Ok(Arc::new(ScanExec::new(scan, state.config().target_partitions(), limit)))
    }
}

/// Whether the filter is a matter of one row alone, and says the same whenever it is asked.
fn is_of_one_row(filter: &Expr) -> bool {
    let mut alone = !filter.is_volatile();
    let walked = filter.apply(|part| {
        let more = matches!(
            part,
            Expr::Exists(_)
                | Expr::InSubquery(_)
                | Expr::ScalarSubquery(_)
                | Expr::SetComparison(_)
                | Expr::OuterReferenceColumn(..)
                | Expr::AggregateFunction(_)
                | Expr::WindowFunction(_)
        );
        alone &= !more;
        Ok(if more { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    alone && walked.is_ok()
}
