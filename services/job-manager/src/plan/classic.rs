//! What every release could express: one index read row by row, or in tumbling windows. Running jobs hold these graphs in
//! journals and savepoints, so they stay as they are to the byte.

use flow::{
    AggregateFunction, AggregateSpec, EarlyFire, EarlyOp, Edge, JobGraph, OperatorSpec, Projection, SourceStart,
    WindowSpec,
};
use query::{Continuous, Shape, Windowed};
use types::DurationText;
use wire::job_manager::{NewJob, Sink};

use super::{IDLE_AFTER, Plan, vertex};
use crate::error::Error;

/// Plans a query that has been read.
pub(super) fn plan(read: Continuous, job: &NewJob, parallelism: u32) -> Result<Plan, Error> {
    let sink = match (&read.insert_into, &job.sink) {
        (Some(index), _) => Sink::Index(index.clone()),
        (None, Some(sink)) => sink.clone(),
        (None, None) => return Err(Error::NoSink),
    };
    if matches!(&sink, Sink::Index(index) if *index == read.source) {
        return Err(Error::FeedsItself(read.source));
    }
    let graph = match &read.shape {
        Shape::Windowed(windowed) => windowed_graph(&read, windowed, job, &sink, parallelism)?,
        Shape::Stateless { columns } => {
            let mut operators = source(&read, None);
            if !columns.is_empty() {
                let columns = columns.iter().map(|c| Projection { sql: c.expr.clone(), name: c.name.clone() });
                operators.push(OperatorSpec::Project { columns: columns.collect() });
            }
            operators.push(sink_operator(&sink)?);
            JobGraph { vertices: vec![vertex("rows", operators, parallelism)], ..JobGraph::default() }
        }
    };
    let also = Vec::new();
    Ok(Plan { graph: graph.with_uids()?, sink, source: Some(read.source), also })
}

fn source(read: &Continuous, window: Option<&Windowed>) -> Vec<OperatorSpec> {
    let mut operators = vec![OperatorSpec::Source {
        index: read.source.clone(),
        // The stream cut of the deployment says where to begin.
        start: SourceStart::Oldest,
        delay: DurationText(window.map_or(query::DELAY_DEFAULT, |w| w.delay)),
        max_future_skew: DurationText(flow::MAX_FUTURE_SKEW),
        idle_after: IDLE_AFTER,
        window: window.map(|w| DurationText(w.size)),
    }];
    operators.extend(read.filter.iter().map(|sql| OperatorSpec::Filter { sql: sql.clone() }));
    operators
}

fn sink_operator(sink: &Sink) -> Result<OperatorSpec, Error> {
    Ok(match sink {
        Sink::Index(index) => OperatorSpec::SinkIndex { index: index.clone() },
        Sink::Alerts(rule) => OperatorSpec::SinkAlerts { rule: rule.clone() },
        Sink::Elsewhere(_) => return Err(Error::NotBuilt("a sink outside the platform")),
    })
}

fn windowed_graph(
    read: &Continuous,
    windowed: &Windowed,
    job: &NewJob,
    sink: &Sink,
    parallelism: u32,
) -> Result<JobGraph, Error> {
    let keys: Vec<String> = windowed.keys.iter().map(|k| k.name.clone()).collect();
    // Typed once and for all, whatever single rows hold; an argument goes under its aggregate's output name.
    let columns = read.row_columns().into_iter().map(|c| Projection { sql: c.expr, name: c.name }).collect();
    let mut aggregates = Vec::with_capacity(windowed.aggregates.len());
    for aggregate in &windowed.aggregates {
        let column = aggregate.argument.as_ref().map(|_| aggregate.name.clone());
        let function = match (aggregate.function, &column) {
            (query::AggregateFunction::Count, None) => AggregateFunction::CountAll,
            (query::AggregateFunction::Count, Some(_)) => AggregateFunction::Count,
            (query::AggregateFunction::Sum, _) => AggregateFunction::Sum,
            (query::AggregateFunction::Min, _) => AggregateFunction::Min,
            (query::AggregateFunction::Max, _) => AggregateFunction::Max,
            (query::AggregateFunction::Avg, _) => AggregateFunction::Avg,
        };
        aggregates.push(AggregateSpec { function, column, name: aggregate.name.clone(), kind: None });
    }
    let mut feeding = source(read, Some(windowed));
    feeding.push(OperatorSpec::Project { columns });
    let window = OperatorSpec::WindowAggregate(WindowSpec {
        keys: keys.clone(),
        aggregates,
        size: DurationText(windowed.size),
        early: early(windowed, job, sink)?,
    });
    let mut fed = vec![window];
    if matches!(sink, Sink::Index(_)) {
        fed.push(OperatorSpec::Project { columns: output(windowed) });
    }
    fed.push(sink_operator(sink)?);
    // Without a key there is one group, and one subtask that owns it.
    let fed_parallelism = if keys.is_empty() { 1 } else { parallelism };
    Ok(JobGraph {
        vertices: vec![vertex("source", feeding, parallelism), vertex("window", fed, fed_parallelism)],
        edges: vec![Edge::hash(0, 1, keys)],
        ..JobGraph::default()
    })
}

fn early(windowed: &Windowed, job: &NewJob, sink: &Sink) -> Result<Option<EarlyFire>, Error> {
    let Some(early) = &job.early else { return Ok(None) };
    // Early rows come in the order of arrival, which no numbered sink could repeat.
    if !matches!(sink, Sink::Alerts(_)) {
        return Err(Error::InvalidQuery("rows before a window closes can only go to an alert rule".to_owned()));
    }
    let Some(aggregate) = windowed.aggregates.iter().position(|a| a.name == early.column) else {
        return Err(Error::InvalidQuery(format!("the query has no aggregate {:?} to fire early on", early.column)));
    };
    let op = if early.or_equal { EarlyOp::AtLeast } else { EarlyOp::Above };
    Ok(Some(EarlyFire { aggregate, op, threshold: early.threshold }))
}

/// The columns that the query selected, under its names.
fn output(windowed: &Windowed) -> Vec<Projection> {
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let window =
        [(windowed.window_start.as_ref(), query::WINDOW_START), (windowed.window_end.as_ref(), query::WINDOW_END)];
    let times =
        window.into_iter().filter_map(|(name, column)| Some(Projection { sql: quoted(column), name: name?.clone() }));
    let rest = windowed.keys.iter().map(|k| &k.name).chain(windowed.aggregates.iter().map(|a| &a.name));
    times.chain(rest.map(|name| Projection { sql: quoted(name), name: name.clone() })).collect()
}
