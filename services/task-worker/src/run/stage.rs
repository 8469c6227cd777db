//! Filters and projections as operators.

use std::sync::Arc;

use arrow::{
    array::{RecordBatch, RecordBatchOptions},
    datatypes::Schema,
};
use engine::Stage;
use flow::{Error, HIDDEN_COLUMNS, Operator, Out, Projection};

use crate::error::TaskError;

/// One filter or one projection; subtasks share it.
#[derive(Debug)]
pub(crate) struct StagePlan {
    stage: Stage,
    projects: bool,
}

impl StagePlan {
    /// A filter.
    pub(crate) fn filter(sql: &str) -> Result<Arc<Self>, String> {
        Self::of(Stage::new(Some(sql.to_owned()), Vec::new()), false)
    }

    /// A projection.
    pub(crate) fn project(columns: &[Projection]) -> Result<Arc<Self>, String> {
        let columns: Vec<_> = columns.iter().map(|c| (c.name.clone(), c.sql.clone())).collect();
        let projects = !columns.is_empty();
        Self::of(Stage::new(None, columns), projects)
    }

    fn of(stage: Result<Stage, engine::EngineError>, projects: bool) -> Result<Arc<Self>, String> {
        let stage = stage.map_err(|error| TaskError::from(error).reason())?;
        Ok(Arc::new(Self { stage, projects }))
    }

    fn apply(&self, batch: &RecordBatch) -> Result<RecordBatch, Error> {
        let rows = self.stage.apply(batch).map_err(|error| Error::Snapshot(error.to_string()))?;
        if self.projects { with_hidden(rows, batch) } else { Ok(rows) }
    }
}

/// The rows with the hidden columns of those that they were computed from, one by one.
fn with_hidden(rows: RecordBatch, from: &RecordBatch) -> Result<RecordBatch, Error> {
    let (schema, known) = (from.schema(), rows.schema());
    let lost = |name: &&str| known.index_of(name).is_err();
    let hidden = HIDDEN_COLUMNS.into_iter().filter(lost).filter_map(|name| schema.index_of(name).ok());
    let hidden: Vec<usize> = hidden.collect();
    if hidden.is_empty() {
        return Ok(rows);
    }
    let fields = known.fields().iter().cloned().chain(hidden.iter().map(|at| Arc::clone(&schema.fields()[*at])));
    let columns = rows.columns().iter().cloned().chain(hidden.iter().map(|at| Arc::clone(from.column(*at))));
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    Ok(RecordBatch::try_new_with_options(
        Arc::new(Schema::new(fields.collect::<Vec<_>>())),
        columns.collect(),
        &options,
    )?)
}

/// A stage in a chain. It has no state.
#[derive(Debug)]
pub(crate) struct StageOperator(pub(crate) Arc<StagePlan>);

impl Operator for StageOperator {
    fn process(&mut self, _: usize, batch: &RecordBatch, out: &mut Out) -> Result<(), Error> {
        out.rows(self.0.apply(batch)?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, AsArray, Int64Array, TimestampNanosecondArray};
    use arrow::datatypes::TimestampNanosecondType;
    use flow::{Chain, ErrorPolicy, Port};

    use super::*;

    #[test]
    fn hidden_columns_go_with_their_rows() {
        let time = || Arc::new(TimestampNanosecondArray::from(vec![1, 2, 3])) as ArrayRef;
        let n = Arc::new(Int64Array::from(vec![5, 6, 7])) as ArrayRef;
        let batch = RecordBatch::try_from_iter([("_time", time()), ("_wm", time()), ("n", n)]).unwrap();
        let filter = Box::new(StageOperator(StagePlan::filter("n > 5").unwrap()));
        let columns = [Projection { sql: "n * 2".into(), name: "twice".into() }];
        let project = Box::new(StageOperator(StagePlan::project(&columns).unwrap()));
        let mut chain = Chain::new(vec![("filter".into(), filter), ("project".into(), project)]);
        let mut out = Out::new(ErrorPolicy::Fail, false);
        chain.process(0, batch, &mut out).unwrap();
        let rows = out.take();
        let [(Port::Main, rows)] = &rows[..] else { panic!("{rows:?}") };
        let names: Vec<String> = rows.schema().fields().iter().map(|f| f.name().clone()).collect();
        assert_eq!(names, ["_time", "twice", "_wm"]);
        let watermarks = rows.column(2).as_primitive::<TimestampNanosecondType>();
        assert_eq!(watermarks.values().to_vec(), [2, 3]);
        assert!(StagePlan::filter("nonsense(k)").unwrap_err().contains("nonsense"));
    }
}
