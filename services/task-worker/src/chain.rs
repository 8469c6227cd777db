//! From the operators of a vertex to a chain that can run: a head that brings rows, stages, and a tail that takes them.

use std::{collections::BTreeSet, sync::Arc};

use arrow::array::RecordBatch;
use engine::Stage;
use flow::{ExecutionGraph, JobGraph, OperatorSpec, Vertex, WindowSpec};
use query::RESERVED_COLUMNS;
use types::{DurationText, IndexName, RuleId};

use crate::{
    error::{Error, TaskError},
    run::Free,
};

/// What one subtask runs; subtasks of one vertex share it.
#[derive(Debug, Clone)]
pub(crate) enum Plan {
    /// One of the shapes of the first releases, whose state and whose numbers of rows go on as they are.
    Fixed(Chain),
    /// Any other.
    Free(Arc<Free>),
}

impl Plan {
    /// Whether barriers begin here.
    pub(crate) fn is_source(&self) -> bool {
        match self {
            Self::Fixed(chain) => matches!(chain.head, Head::Source(_)),
            Self::Free(free) => free.source.is_some(),
        }
    }
}

/// A source of an index with filters and projections, or a tumbling window before a sink.
#[derive(Debug, Clone)]
pub(crate) struct Chain {
    pub(crate) head: Head,
    pub(crate) stages: Arc<Stages>,
    pub(crate) tail: Tail,
}

/// Where rows come from.
#[derive(Debug, Clone)]
pub(crate) enum Head {
    Source(SourceSpec),
    Window(WindowSpec),
}

/// Where rows go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Tail {
    /// Over the vertex' edges.
    Edges,
    /// Into an index.
    Index(IndexName),
    /// To an alert rule.
    Alerts(RuleId),
}

/// A source, see [`OperatorSpec::Source`].
#[derive(Debug, Clone)]
pub(crate) struct SourceSpec {
    pub(crate) index: IndexName,
    pub(crate) delay: DurationText,
    pub(crate) max_future_skew: DurationText,
    pub(crate) idle_after: DurationText,
    pub(crate) window: Option<DurationText>,
}

/// What a graph's vertices run.
///
/// Errors: `BadPlan` says which vertex cannot run and why.
pub(crate) fn plans(execution: &ExecutionGraph) -> Result<Vec<Plan>, Error> {
    let graph = &execution.graph;
    graph.validate().map_err(|e| Error::BadPlan(e.to_string()))?;
    one_writer_per_index(graph)?;
    let plan = |(number, vertex): (usize, &Vertex)| {
        let plan = if is_fixed(vertex) {
            chain(vertex).map(Plan::Fixed)
        } else {
            Free::plan(graph, number).map(|free| Plan::Free(Arc::new(free)))
        };
        plan.map_err(|why| Error::BadPlan(format!("vertex {:?}: {why}", vertex.name)))
    };
    graph.vertices.iter().enumerate().map(plan).collect()
}

fn is_fixed(vertex: &Vertex) -> bool {
    match (vertex.operators.first(), vertex.operators.last()) {
        (Some(OperatorSpec::Source { .. }), _) => true,
        (Some(OperatorSpec::WindowAggregate(_)), Some(last)) => {
            last.is_sink() && !matches!(last, OperatorSpec::Write(_))
        }
        _ => false,
    }
}

/// Writers are named by job and subtask, so two vertices that write to one index would take each other's rows for repeats.
fn one_writer_per_index(graph: &JobGraph) -> Result<(), Error> {
    let mut seen = BTreeSet::new();
    for operator in graph.vertices.iter().flat_map(|v| &v.operators) {
        if let OperatorSpec::SinkIndex { index } = operator
            && !seen.insert(index)
        {
            return Err(Error::BadPlan(format!("two vertices write to index {index}: use one job for each")));
        }
    }
    Ok(())
}

fn chain(vertex: &Vertex) -> Result<Chain, String> {
    let Some((first, rest)) = vertex.operators.split_first() else { return Err("has no operators".to_owned()) };
    let head = match first {
        OperatorSpec::Source { index, delay, max_future_skew, idle_after, window, start: _ } => {
            Head::Source(SourceSpec {
                index: index.clone(),
                delay: *delay,
                max_future_skew: *max_future_skew,
                idle_after: *idle_after,
                window: *window,
            })
        }
        OperatorSpec::WindowAggregate(spec) => Head::Window(spec.clone()),
        other => return Err(format!("begins with a {}; a chain begins with a source or a window", other.word())),
    };
    let (tail, between) = match rest.split_last() {
        Some((OperatorSpec::SinkIndex { index }, between)) => (Tail::Index(index.clone()), between),
        Some((OperatorSpec::SinkAlerts { rule }, between)) => (Tail::Alerts(rule.clone()), between),
        _ => (Tail::Edges, rest),
    };
    match (&head, &tail) {
        (Head::Source(_), Tail::Alerts(_)) => return Err("an alert rule takes the rows of a window only".to_owned()),
        (Head::Window(_), Tail::Alerts(_)) if !between.is_empty() => {
            return Err("an alert rule takes the rows of a window as they are".to_owned());
        }
        (Head::Window(_), Tail::Edges) => return Err("a window's chain ends with a sink".to_owned()),
        // Routing and times of a row come from the window's own columns, which a filter would shift.
        (Head::Window(_), _) if between.iter().any(|o| matches!(o, OperatorSpec::Filter { .. })) => {
            return Err("a filter behind a window is not available".to_owned());
        }
        _ => {}
    }
    Ok(Chain { head, stages: Arc::new(Stages::plan(between)?), tail })
}

/// Filters and projections, one after the other.
#[derive(Debug)]
pub(crate) struct Stages {
    stages: Vec<Stage>,
    /// Columns of the platform that the query selects itself.
    selected: BTreeSet<String>,
}

/// A predicate and the columns computed behind it, as (name, SQL).
type StageSpec = (Option<String>, Vec<(String, String)>);

impl Stages {
    fn plan(operators: &[OperatorSpec]) -> Result<Self, String> {
        let mut specs: Vec<StageSpec> = Vec::new();
        for operator in operators {
            match operator {
                OperatorSpec::Filter { sql } => specs.push((Some(sql.clone()), Vec::new())),
                OperatorSpec::Project { columns } => {
                    let columns: Vec<_> = columns.iter().map(|c| (c.name.clone(), c.sql.clone())).collect();
                    match specs.last_mut().filter(|(_, projected)| projected.is_empty()) {
                        Some((_, projected)) => *projected = columns,
                        None => specs.push((None, columns)),
                    }
                }
                other => return Err(format!("a {} inside a chain is not available", other.word())),
            }
        }
        let names = specs.iter().flat_map(|(_, columns)| columns.iter().map(|(name, _)| name));
        let selected = names.filter(|name| RESERVED_COLUMNS.contains(&name.as_str())).cloned().collect();
        // A stage without columns would keep all of them, so a projection of nothing is left out.
        let stages = specs.into_iter().filter(|(filter, columns)| filter.is_some() || !columns.is_empty());
        let stages: Result<_, _> = stages.map(|(filter, columns)| Stage::new(filter, columns)).collect();
        Ok(Self { stages: stages.map_err(|e| TaskError::from(e).reason())?, selected })
    }

    /// The rows that pass, with the columns of the last projection.
    pub(crate) fn apply(&self, batch: &RecordBatch) -> Result<RecordBatch, TaskError> {
        let mut rows = batch.clone();
        for stage in &self.stages {
            rows = stage.apply(&rows)?;
        }
        Ok(rows)
    }

    /// The same without the columns that only the platform needs; `_time` stays.
    pub(crate) fn apply_and_shed(&self, batch: &RecordBatch) -> Result<RecordBatch, TaskError> {
        let rows = self.apply(batch)?;
        let shed =
            |name: &str| RESERVED_COLUMNS.contains(&name) && name != flow::TIME_COLUMN && !self.selected.contains(name);
        let schema = rows.schema();
        let kept: Vec<usize> = (0..rows.num_columns()).filter(|i| !shed(schema.field(*i).name())).collect();
        Ok(rows.project(&kept)?)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use arrow::array::{ArrayRef, Int64Array, StringArray, TimestampNanosecondArray};
    use flow::{AggregateSpec, Edge, Projection, Uid};

    use super::*;

    fn source() -> OperatorSpec {
        OperatorSpec::Source {
            index: "shop".parse().unwrap(),
            start: flow::SourceStart::Oldest,
            delay: DurationText(Duration::from_secs(1)),
            max_future_skew: DurationText(flow::MAX_FUTURE_SKEW),
            idle_after: DurationText(Duration::from_secs(2)),
            window: None,
        }
    }

    fn window() -> OperatorSpec {
        OperatorSpec::WindowAggregate(WindowSpec {
            keys: vec!["k".into()],
            aggregates: vec![AggregateSpec::count_all("n")],
            size: DurationText(Duration::from_secs(10)),
            early: None,
        })
    }

    fn filter(sql: &str) -> OperatorSpec {
        OperatorSpec::Filter { sql: sql.into() }
    }

    fn project(sql: &str, name: &str) -> OperatorSpec {
        OperatorSpec::Project { columns: vec![Projection { sql: sql.into(), name: name.into() }] }
    }

    fn into_index(index: &str) -> OperatorSpec {
        OperatorSpec::SinkIndex { index: index.parse().unwrap() }
    }

    fn to_rule() -> OperatorSpec {
        OperatorSpec::SinkAlerts { rule: "r".parse().unwrap() }
    }

    fn vertex(operators: Vec<OperatorSpec>) -> Vertex {
        Vertex { uid: Uid::default(), name: "v".into(), operators, parallelism: 1 }
    }

    #[test]
    fn what_cannot_run_is_said() {
        for (operators, wrong) in [
            (vec![filter("true"), into_index("out")], "begins with"),
            (vec![source(), to_rule()], "window only"),
            (vec![window(), project("k", "k"), to_rule()], "as they are"),
            (vec![window()], "ends with a sink"),
            (vec![window(), filter("n > 1"), into_index("out")], "behind a window"),
            (vec![source(), window(), into_index("out")], "inside a chain"),
            (vec![source(), filter("nonsense(k)"), into_index("out")], "nonsense"),
        ] {
            let found = chain(&vertex(operators)).unwrap_err();
            assert!(found.contains(wrong), "{found:?} does not say {wrong:?}");
        }
    }

    #[test]
    fn two_writers_of_one_index_are_refused() {
        let both = || vertex(vec![source(), into_index("out")]);
        let graph = JobGraph { vertices: vec![both(), both()], ..JobGraph::default() };
        assert!(one_writer_per_index(&graph).unwrap_err().to_string().contains("two vertices write"));
        let edges = vec![Edge::hash(0, 1, vec!["k".into()])];
        let graph = JobGraph {
            vertices: vec![vertex(vec![source()]), vertex(vec![window(), into_index("out")])],
            edges,
            ..JobGraph::default()
        };
        let execution = ExecutionGraph { attempt: 1, graph, tasks: Vec::new() };
        let plans = plans(&execution).unwrap();
        let [Plan::Fixed(first), Plan::Fixed(second)] = &plans[..] else { panic!("{plans:?}") };
        assert_eq!((&first.tail, &second.tail), (&Tail::Edges, &Tail::Index("out".parse().unwrap())));
    }

    fn rows() -> RecordBatch {
        let time = || Arc::new(TimestampNanosecondArray::from(vec![1, 2, 3])) as ArrayRef;
        RecordBatch::try_from_iter([
            ("_time", time()),
            ("_received", time()),
            ("_segment", Arc::new(StringArray::from(vec!["1-0-0"; 3]))),
            ("_offset", Arc::new(Int64Array::from(vec![0, 1, 2]))),
            ("n", Arc::new(Int64Array::from(vec![5, 6, 7]))),
        ])
        .unwrap()
    }

    fn names(batch: &RecordBatch) -> Vec<String> {
        batch.schema().fields().iter().map(|f| f.name().clone()).collect()
    }

    #[test]
    fn platform_columns_are_shed_unless_they_are_selected() {
        let all = Stages::plan(&[filter("n > 5")]).unwrap().apply_and_shed(&rows()).unwrap();
        assert_eq!((names(&all), all.num_rows()), (vec!["_time".to_owned(), "n".to_owned()], 2));
        let some = Stages::plan(&[filter("n > 5"), filter("n < 7"), project("_offset", "_offset")]).unwrap();
        let some = some.apply_and_shed(&rows()).unwrap();
        assert_eq!((names(&some), some.num_rows()), (vec!["_time".to_owned(), "_offset".to_owned()], 1));
    }
}
