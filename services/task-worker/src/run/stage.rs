//! Filters and projections as operators.

use std::sync::Arc;

use arrow::{
    array::{BooleanArray, RecordBatch, RecordBatchOptions},
    compute::filter_record_batch,
    datatypes::Schema,
};
use engine::{FailureKind, RowFailure, Stage};
use flow::{Error, FaultKind, HIDDEN_COLUMNS, Operator, Out, Projection, Verdict};

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

    fn apply(&self, batch: &RecordBatch, failed: &mut Vec<RowFailure>) -> Result<RecordBatch, Error> {
        let rows = self.stage.apply_noting(batch, failed).map_err(|error| Error::Snapshot(error.to_string()))?;
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
pub(crate) struct StageOperator {
    pub(crate) plan: Arc<StagePlan>,
    /// By which dead letters call it.
    pub(crate) name: String,
}

fn kind(kind: FailureKind) -> FaultKind {
    match kind {
        FailureKind::DivisionByZero => FaultKind::DivisionByZero,
        FailureKind::Overflow => FaultKind::Overflow,
        FailureKind::Conversion => FaultKind::Conversion,
    }
}

impl Operator for StageOperator {
    fn process(&mut self, _: usize, batch: &RecordBatch, out: &mut Out) -> Result<(), Error> {
        let mut failed = Vec::new();
        let mut rows = self.plan.apply(batch, &mut failed)?;
        // One fault a row, however many of its expressions failed.
        failed.sort_by_key(|failure| failure.row);
        failed.dedup_by_key(|failure| failure.row);
        let mut gone = Vec::new();
        for RowFailure { row, kind: of, detail } in failed {
            if out.fault(kind(of), &detail, &self.name, batch, row)? == Verdict::Gone {
                gone.push(row);
            }
        }
        // What fails in a filter is out already.
        if self.plan.projects && !gone.is_empty() {
            let stays: BooleanArray = (0..rows.num_rows()).map(|row| Some(gone.binary_search(&row).is_err())).collect();
            rows = filter_record_batch(&rows, &stays)?;
        }
        out.rows(rows);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, AsArray, Int64Array, TimestampNanosecondArray};
    use arrow::datatypes::TimestampNanosecondType;
    use flow::{Chain, ErrorPolicy, Port};

    use super::*;

    fn stage(plan: Result<Arc<StagePlan>, String>) -> Box<StageOperator> {
        Box::new(StageOperator { plan: plan.unwrap(), name: "stage".into() })
    }

    #[test]
    fn a_row_that_cannot_be_computed_meets_the_policy_of_its_job() {
        let n = || Arc::new(Int64Array::from(vec![5, 0, 7])) as ArrayRef;
        let time = || Arc::new(TimestampNanosecondArray::from(vec![1, 2, 3])) as ArrayRef;
        let batch = || RecordBatch::try_from_iter([("_time", time()), ("n", n())]).unwrap();
        let columns = [Projection { sql: "35 / n".into(), name: "share".into() }];
        let run = |plan: Result<Arc<StagePlan>, String>, policy| {
            let mut out = Out::new(policy, false);
            let done = stage(plan).process(0, &batch(), &mut out);
            (done, out)
        };
        let rows = |out: &mut Out| out.take().iter().map(|(port, rows)| (*port, rows.num_rows())).collect::<Vec<_>>();

        let (done, mut out) = run(StagePlan::project(&columns), ErrorPolicy::Null);
        done.unwrap();
        assert_eq!((rows(&mut out), out.counts().faults), (vec![(Port::Main, 3)], 1));

        let (done, out) = run(StagePlan::project(&columns), ErrorPolicy::Fail);
        let refused = done.unwrap_err().to_string();
        assert!(refused.contains("division by zero") && refused.contains("stage"), "{refused}");
        assert_eq!(out.counts().faults, 1);

        for plan in [StagePlan::project(&columns), StagePlan::filter("35 / n > 0")] {
            let (done, mut out) = run(plan, ErrorPolicy::DeadLetter);
            done.unwrap();
            assert_eq!(rows(&mut out), [(Port::DeadLetter, 1), (Port::Main, 2)]);
        }
    }

    #[test]
    fn hidden_columns_go_with_their_rows() {
        let time = || Arc::new(TimestampNanosecondArray::from(vec![1, 2, 3])) as ArrayRef;
        let n = Arc::new(Int64Array::from(vec![5, 6, 7])) as ArrayRef;
        let batch = RecordBatch::try_from_iter([("_time", time()), ("_wm", time()), ("n", n)]).unwrap();
        let filter = stage(StagePlan::filter("n > 5"));
        let columns = [Projection { sql: "n * 2".into(), name: "twice".into() }];
        let project = stage(StagePlan::project(&columns));
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
