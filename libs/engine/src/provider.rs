//! A table source as DataFusion sees it: one schema, and filters that the scan applies itself.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::{
    catalog::{Session, TableProvider},
    common::{
        DFSchema,
        tree_node::{TreeNode, TreeNodeRecursion},
    },
    error::Result,
    logical_expr::{Expr, TableProviderFilterPushDown, TableType},
    physical_plan::ExecutionPlan,
};

use crate::{
    Piece, TableSource,
    scan::{Scan, ScanExec, Scanned},
};

/// One table of one query.
#[derive(Debug)]
pub(crate) struct SourceTable {
    pieces: Vec<Piece>,
    schema: SchemaRef,
    scanned: Arc<Scanned>,
}

impl SourceTable {
    /// Learns the columns of the source.
    pub(crate) async fn open(source: &dyn TableSource, scanned: Arc<Scanned>) -> Result<Self, wire::Problem> {
        let schemas = source.schemas().await?;
        let schema = Arc::new(ingest::merge_schemas(schemas.iter().map(AsRef::as_ref)));
        Ok(Self { pieces: source.pieces(), schema, scanned })
    }

    /// What it reads, and where that is noted.
    pub(crate) fn read(&self) -> (Vec<Piece>, Arc<Scanned>) {
        (self.pieces.clone(), Arc::clone(&self.scanned))
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
        let scan = Scan::new(&self.schema, self.pieces.clone(), places, &filters, Arc::clone(&self.scanned))?;
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
