//! Filter and projection over batches whose schemas differ, for the sources of jobs.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
};

use arrow::{
    array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions, new_null_array},
    compute::{concat, filter_record_batch, prep_null_mask_filter},
    datatypes::{DataType, Field, Schema, SchemaRef},
    error::ArrowError,
};
use datafusion::{
    common::DFSchema, error::DataFusionError, execution::context::SessionState, physical_expr::PhysicalExpr,
};
use parking_lot::Mutex;
use query::{Continuous, Expression, RESERVED_COLUMNS, parse_expression};

use crate::{EngineError, error::explain, session::session};

/// Plans that a stage keeps, one per schema it has met; beyond it the oldest is made again when it is needed.
pub const PLANS_KEPT_MAX: usize = 64;

/// Memory that expressions account for; they allocate by batch and register nothing.
const MEMORY_BYTES: usize = 64 << 20;

/// Stack for planning: twice what the deepest text takes that [`query::OPERATORS_MAX`] lets through.
const STACK_BYTES: usize = 16 << 20;

/// A filter and a projection, planned anew for each schema that comes along.
///
/// A column that a batch lacks is null in it. An expression that does not fit the types of a batch (`latency / 1000`
/// where `latency` is text) is null in that batch, one that fails on a row (`CAST(x AS INT)`) is null in that row, and a
/// filter that is null lets nothing through: one odd line must not stop a job. [`RESERVED_COLUMNS`] are kept where present.
/// [`Stage::apply_noting`] tells which rows those were. The type of a column follows its expression; make it independent of the batch with a cast, as
/// [`Continuous::row_columns`] does.
pub struct Stage {
    state: SessionState,
    filter: Option<Compiled>,
    columns: Vec<Compiled>,
    plans: Mutex<VecDeque<(SchemaRef, Arc<Plan>)>>,
}

/// A row on which an expression failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowFailure {
    /// Its number in the batch, from 0.
    pub row: usize,
    /// What was wrong.
    pub kind: FailureKind,
    /// The same for people.
    pub detail: String,
}

/// What was wrong with a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// A number was divided by zero.
    DivisionByZero,
    /// A number left the range of its type.
    Overflow,
    /// A value is not what an expression takes, or cannot be made into it.
    Conversion,
}

impl FailureKind {
    fn of(error: &DataFusionError) -> Self {
        let DataFusionError::ArrowError(arrow, _) = error.find_root() else { return Self::Conversion };
        match **arrow {
            ArrowError::DivideByZero => Self::DivisionByZero,
            ArrowError::ArithmeticOverflow(_) => Self::Overflow,
            _ => Self::Conversion,
        }
    }
}

struct Compiled {
    name: String,
    expression: Expression,
    /// The type where the expression cannot be planned for a batch.
    fallback: DataType,
}

struct Plan {
    /// The batch's columns and the missing ones, which are appended as nulls.
    schema: SchemaRef,
    filter: Option<Option<Arc<dyn PhysicalExpr>>>,
    columns: Vec<Option<Arc<dyn PhysicalExpr>>>,
    reserved: Vec<usize>,
    out: SchemaRef,
}

impl std::fmt::Debug for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<&str> = self.columns.iter().map(|column| column.name.as_str()).collect();
        f.debug_struct("Stage").field("columns", &names).finish_non_exhaustive()
    }
}

impl Stage {
    /// A stage of a predicate and named columns, all as SQL; without columns it keeps every column as it is.
    ///
    /// Errors: `Query` where a text is no expression, names an unknown function, or fits no types at all.
    pub fn new(filter: Option<String>, columns: Vec<(String, String)>) -> Result<Self, EngineError> {
        let state = session(MEMORY_BYTES).map_err(|error| explain(&error, MEMORY_BYTES, &|_| (1, 1)))?.state();
        let compile = |name: String, text: &str| -> Result<Compiled, EngineError> {
            let expression = parse_expression(text)?;
            let fallback = possible_type(&state, &expression)?;
            Ok(Compiled { name, expression, fallback })
        };
        let filter = filter.map(|text| compile("filter".to_owned(), &text)).transpose()?;
        if let Some(filter) = &filter
            && !matches!(filter.fallback, DataType::Boolean | DataType::Null)
        {
            let found = format!("the filter {} is {}, not true or false", filter.expression.sql, filter.fallback);
            return Err(query::Diagnostic::new(1, 1, found).into());
        }
        let columns = columns.into_iter().map(|(name, text)| compile(name, &text)).collect::<Result<_, _>>()?;
        Ok(Self { state, filter, columns, plans: Mutex::default() })
    }

    /// The stage that a continuous query needs at its source: its filter and [`Continuous::row_columns`].
    pub fn for_query(query: &Continuous) -> Result<Self, EngineError> {
        let columns = query.row_columns().into_iter().map(|column| (column.name, column.expr));
        Self::new(query.filter.clone(), columns.collect())
    }

    /// The rows that pass, with the columns of the stage after [`RESERVED_COLUMNS`].
    ///
    /// Errors: `Internal` only.
    pub fn apply(&self, batch: &RecordBatch) -> Result<RecordBatch, EngineError> {
        self.apply_noting(batch, &mut Vec::new())
    }

    /// The same, and adds the rows on which an expression failed, by their number in the batch. A row that fails in several
    /// expressions is there several times.
    ///
    /// Errors: `Internal` only.
    pub fn apply_noting(&self, batch: &RecordBatch, failed: &mut Vec<RowFailure>) -> Result<RecordBatch, EngineError> {
        let plan = self.plan(&batch.schema());
        let mut arrays = batch.columns().to_vec();
        let missing = plan.schema.fields().iter().skip(arrays.len());
        arrays.extend(missing.map(|field| new_null_array(field.data_type(), batch.num_rows())));
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        let mut rows = RecordBatch::try_new_with_options(Arc::clone(&plan.schema), arrays, &options)?;
        // Of each row that is left, its number in the batch; needed only where a filter left some out.
        let mut numbers: Option<Vec<usize>> = None;
        if let Some(filter) = &plan.filter {
            rows = match filter {
                Some(filter) => {
                    let mask = passing(filter, &rows, failed)?;
                    numbers = Some(mask.values().set_indices().collect());
                    filter_record_batch(&rows, &mask)?
                }
                None => rows.slice(0, 0),
            };
        }
        let mut out: Vec<ArrayRef> = plan.reserved.iter().map(|&place| Arc::clone(rows.column(place))).collect();
        let wanted = plan.out.fields().iter().skip(out.len());
        if self.columns.is_empty() {
            let places: Vec<usize> = (0..batch.num_columns()).collect();
            return Ok(rows.project(&places)?);
        }
        let before = failed.len();
        for (expr, field) in plan.columns.iter().zip(wanted) {
            out.push(match expr {
                Some(expr) => evaluate(expr, &rows, field.data_type(), failed)?,
                None => new_null_array(field.data_type(), rows.num_rows()),
            });
        }
        if let Some(numbers) = numbers {
            for failure in failed.iter_mut().skip(before) {
                failure.row = numbers.get(failure.row).copied().unwrap_or(failure.row);
            }
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        Ok(RecordBatch::try_new_with_options(Arc::clone(&plan.out), out, &options)?)
    }

    fn plan(&self, schema: &SchemaRef) -> Arc<Plan> {
        let known = |plans: &VecDeque<(SchemaRef, Arc<Plan>)>| {
            plans.iter().find(|(of, _)| of == schema).map(|(_, plan)| Arc::clone(plan))
        };
        if let Some(plan) = known(&self.plans.lock()) {
            return plan;
        }
        let plan = Arc::new(self.make_plan(schema));
        let mut plans = self.plans.lock();
        if plans.len() >= PLANS_KEPT_MAX {
            plans.pop_front();
        }
        plans.push_back((Arc::clone(schema), Arc::clone(&plan)));
        plan
    }

    fn make_plan(&self, schema: &SchemaRef) -> Plan {
        let mut fields: Vec<Arc<Field>> = schema.fields().iter().cloned().collect();
        let all = self.filter.iter().chain(&self.columns);
        let wanted: BTreeSet<&String> = all.flat_map(|column| &column.expression.columns).collect();
        for name in wanted {
            if schema.index_of(name).is_err() {
                fields.push(Arc::new(Field::new(name, DataType::Null, true)));
            }
        }
        let complete = Arc::new(Schema::new(fields));
        let physical = |column: &Compiled| match physical(&self.state, &column.expression, &complete) {
            Ok(expr) => Some(expr),
            Err(error) => {
                tracing::warn!(expression = %column.expression.sql, %error, "expression does not fit a batch, null there");
                None
            }
        };
        let filter = self.filter.as_ref().map(physical);
        let columns: Vec<_> = self.columns.iter().map(physical).collect();
        let own = |name: &str| self.columns.iter().any(|column| column.name == name);
        let reserved: Vec<usize> =
            RESERVED_COLUMNS.iter().filter(|name| !own(name)).filter_map(|name| schema.index_of(name).ok()).collect();
        let mut out: Vec<Arc<Field>> = reserved.iter().map(|&place| Arc::clone(&complete.fields()[place])).collect();
        for (column, expr) in self.columns.iter().zip(&columns) {
            let of = expr.as_ref().and_then(|expr| expr.data_type(&complete).ok());
            let of = plain(of.unwrap_or_else(|| column.fallback.clone()));
            out.push(Arc::new(Field::new(&column.name, of, true)));
        }
        Plan { schema: complete, filter, columns, reserved, out: Arc::new(Schema::new(out)) }
    }
}

/// A column of nothing but nulls has no type of its own; as text it fits every reader.
fn plain(of: DataType) -> DataType {
    match of {
        DataType::Null | DataType::Utf8View | DataType::LargeUtf8 => DataType::Utf8,
        other => other,
    }
}

/// Plans on a stack of its own: planners walk a nested expression by recursion, and a task's thread is small.
fn physical(
    state: &SessionState,
    expression: &Expression,
    schema: &Schema,
) -> Result<Arc<dyn PhysicalExpr>, DataFusionError> {
    let plan = || {
        let schema = DFSchema::try_from(schema.clone())?;
        let logical = state.create_logical_expr(&expression.sql, &schema)?;
        state.create_physical_expr(logical, &schema)
    };
    std::thread::scope(|scope| {
        let planner =
            std::thread::Builder::new().name("plan".to_owned()).stack_size(STACK_BYTES).spawn_scoped(scope, plan);
        let ended = planner.map_err(DataFusionError::IoError)?.join();
        ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// The type of the expression over columns of some type; an error where it fits none.
fn possible_type(state: &SessionState, expression: &Expression) -> Result<DataType, EngineError> {
    let time = DataType::Timestamp(arrow::datatypes::TimeUnit::Nanosecond, None);
    let mut first = None;
    for guess in [DataType::Null, DataType::Utf8, DataType::Float64, DataType::Int64, DataType::Boolean, time.clone()] {
        let fields = expression.columns.iter().map(|name| match name.as_str() {
            "_time" | "_received" => Field::new(name, time.clone(), false),
            "_offset" => Field::new(name, DataType::Int64, false),
            "_msg" | "severity" | "_segment" => Field::new(name, DataType::Utf8, true),
            _ => Field::new(name, guess.clone(), true),
        });
        let schema = Schema::new(fields.collect::<Vec<_>>());
        match physical(state, expression, &schema).and_then(|expr| expr.data_type(&schema)) {
            Ok(of) => return Ok(plain(of)),
            Err(error) => first = first.or(Some(error)),
        }
    }
    let error = first.unwrap_or_else(|| DataFusionError::Plan("the expression fits no types".to_owned()));
    Err(explain(&error, MEMORY_BYTES, &|_| (1, 1)))
}

/// The value in each row, in the wanted type; null in rows on which the expression fails, which are noted.
fn evaluate(
    expr: &Arc<dyn PhysicalExpr>,
    rows: &RecordBatch,
    of: &DataType,
    failed: &mut Vec<RowFailure>,
) -> Result<ArrayRef, EngineError> {
    let whole = |rows: &RecordBatch| -> Result<ArrayRef, DataFusionError> {
        let array = expr.evaluate(rows)?.into_array(rows.num_rows())?;
        if array.data_type() == of { Ok(array) } else { Ok(arrow::compute::cast(&array, of)?) }
    };
    if let Ok(array) = whole(rows) {
        return Ok(array);
    }
    let mut one = |row| {
        whole(&rows.slice(row, 1)).unwrap_or_else(|error| {
            failed.push(RowFailure { row, kind: FailureKind::of(&error), detail: error.strip_backtrace() });
            new_null_array(of, 1)
        })
    };
    let single: Vec<ArrayRef> = (0..rows.num_rows()).map(&mut one).collect();
    if single.is_empty() {
        return Ok(new_null_array(of, 0));
    }
    Ok(concat(&single.iter().map(AsRef::as_ref).collect::<Vec<&dyn Array>>())?)
}

fn passing(
    filter: &Arc<dyn PhysicalExpr>,
    rows: &RecordBatch,
    failed: &mut Vec<RowFailure>,
) -> Result<BooleanArray, EngineError> {
    let array = evaluate(filter, rows, &DataType::Boolean, failed)?;
    let mask = array.as_boolean();
    Ok(if mask.null_count() > 0 { prep_null_mask_filter(mask) } else { mask.clone() })
}

#[cfg(test)]
mod tests;
