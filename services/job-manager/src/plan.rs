//! From the text of a continuous query to a job graph. Pure.

use flow::{
    AggregateFunction, AggregateSpec, EarlyFire, EarlyOp, Edge, JobGraph, OperatorSpec, Projection, SourceStart,
    Vertex, WindowSpec,
};
use query::{Continuous, Shape, Windowed, parse_continuous};
use types::DurationText;
use wire::job_manager::{NewJob, Sink};

use crate::error::Error;

/// A planned job.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Plan {
    pub(crate) graph: JobGraph,
    pub(crate) sink: Sink,
    /// The first index that is read.
    pub(crate) source: Option<types::IndexName>,
}

/// A split without rows and without lag for this long holds no watermark back.
const IDLE_AFTER: DurationText = DurationText(std::time::Duration::from_secs(2));

/// Plans a job; `parallelism` is that of the source, at most one subtask per segment.
pub(crate) fn plan(job: &NewJob, parallelism: u16) -> Result<Plan, Error> {
    let read = parse_continuous(&job.text).map_err(|d| Error::InvalidQuery(d.render(&job.text)))?;
    let sink = match (&read.insert_into, &job.sink) {
        (Some(index), _) => Sink::Index(index.clone()),
        (None, Some(sink)) => sink.clone(),
        (None, None) => return Err(Error::NoSink),
    };
    if matches!(&sink, Sink::Index(index) if *index == read.source) {
        return Err(Error::FeedsItself(read.source));
    }
    let parallelism = u32::from(parallelism.max(1));
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
    Ok(Plan { graph: graph.with_uids()?, sink, source: Some(read.source) })
}

fn vertex(name: &str, operators: Vec<OperatorSpec>, parallelism: u32) -> Vertex {
    Vertex { uid: flow::Uid::default(), name: name.to_owned(), operators, parallelism }
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

#[cfg(test)]
mod tests {
    use flow::Partition;
    use wire::job_manager::StartAt;

    use super::*;

    fn job(text: &str) -> NewJob {
        NewJob {
            job: "j".parse().unwrap(),
            text: text.into(),
            sink: None,
            start: StartAt::Earliest,
            parallelism: 2,
            early: None,
            options: wire::job_manager::JobOptions::default(),
        }
    }

    const SUMS: &str = "INSERT INTO sums SELECT service, window_start, count(*) AS n, sum(bytes) AS total \
                        FROM tumble(shop, INTERVAL '10 seconds') WHERE severity = 'error' GROUP BY service, window_start";

    #[test]
    fn a_window_is_fed_by_its_keys() {
        let plan = plan(&job(SUMS), 2).unwrap();
        assert_eq!(plan.sink, Sink::Index("sums".parse().unwrap()));
        let words: Vec<Vec<&str>> =
            plan.graph.vertices.iter().map(|v| v.operators.iter().map(OperatorSpec::word).collect()).collect();
        assert_eq!(words, [vec!["source", "filter", "project"], vec!["window", "project", "index sink"]]);
        assert_eq!(plan.graph.edges[0].partition, Partition::Hash { columns: vec!["service".into()] });
        assert!(plan.graph.vertices.iter().all(|v| !v.uid.0.is_empty()));
    }

    #[test]
    fn one_group_has_one_owner() {
        let text = "INSERT INTO sums SELECT window_start, count(*) AS n FROM tumble(shop, INTERVAL '10 seconds') GROUP BY window_start";
        let plan = plan(&job(text), 4).unwrap();
        assert_eq!(plan.graph.vertices.iter().map(|v| v.parallelism).collect::<Vec<_>>(), [4, 1]);
    }

    #[test]
    fn what_cannot_run_is_refused_in_words() {
        let refused = |text: &str| plan(&job(text), 1).unwrap_err().to_string();
        assert!(refused("SELECT _msg FROM shop").contains("INSERT INTO"));
        assert!(refused("INSERT INTO shop SELECT _msg FROM shop").contains("feed itself"));
        assert!(refused("INSERT INTO a SELEC _msg FROM shop").contains('^'), "a caret shows the place");
    }
}
