//! A job graph as text for people.

use std::fmt::Write;

use flow::{
    AggregateSpec, Connector, Edge, ErrorPolicy, Frame, JobGraph, JoinKind, JoinSpec, OperatorSpec, Partition,
    PatternSpec, Phase, Port, SinkSpec, SortKey, SourceSpec, WindowShape,
};

/// The longest expression that is shown whole, in characters.
const SHOWN_CHARS: usize = 120;

/// Each vertex with its parallelism and uid, below it its operators, and where its rows go.
pub(crate) fn explained(graph: &JobGraph) -> String {
    let mut out = String::new();
    for (number, vertex) in graph.vertices.iter().enumerate() {
        line(&mut out, &format!("{number} {} x{} [{}]", vertex.name, vertex.parallelism, vertex.uid));
        for operator in &vertex.operators {
            line(&mut out, &format!("    {}: {}", operator.word(), told(operator)));
        }
        for edge in graph.edges.iter().filter(|edge| usize::try_from(edge.from) == Ok(number)) {
            line(&mut out, &format!("    -> {} {}", edge.to, way(edge)));
        }
    }
    match graph.errors {
        ErrorPolicy::Fail => line(&mut out, "a row that cannot be computed ends the job"),
        ErrorPolicy::Null => {}
        ErrorPolicy::DeadLetter => line(&mut out, "rows that cannot be computed are dead letters"),
    }
    out
}

fn line(out: &mut String, text: &str) {
    let written = writeln!(out, "{}", text.trim_end());
    debug_assert!(written.is_ok(), "writing to a String does not fail");
}

fn way(edge: &Edge) -> String {
    let how = match &edge.partition {
        Partition::Forward => "to the same subtask".to_owned(),
        Partition::Hash { columns } if columns.is_empty() => "all to one subtask".to_owned(),
        Partition::Hash { columns } => format!("by {}", columns.join(", ")),
    };
    match edge.port {
        Port::Main => how,
        Port::Late => format!("late rows, {how}"),
        Port::DeadLetter => format!("dead letters, {how}"),
    }
}

fn told(operator: &OperatorSpec) -> String {
    match operator {
        OperatorSpec::Source { index, delay, .. } => format!("index {index}, watermark delay {:?}", delay.0),
        OperatorSpec::Read(spec) => source(spec),
        OperatorSpec::Filter { sql } => short(sql),
        OperatorSpec::Project { columns } => {
            let column = |name: &str, sql: &str| {
                if sql.trim_matches('"') == name { name.to_owned() } else { format!("{name} = {}", short(sql)) }
            };
            columns.iter().map(|c| column(&c.name, &c.sql)).collect::<Vec<_>>().join(", ")
        }
        OperatorSpec::WindowAggregate(spec) => {
            format!("tumble {:?}{}: {}", spec.size.0, by(&spec.keys), aggregates(&spec.aggregates))
        }
        OperatorSpec::Window(plan) => {
            let late = match plan.lateness.0.is_zero() {
                true => String::new(),
                false => format!(", lateness {:?}", plan.lateness.0),
            };
            let phase = match plan.phase {
                Phase::Whole => "",
                Phase::Local => ", before the rows meet",
                Phase::Global => ", of what was done before",
            };
            format!("{}{late}{}{phase}: {}", shape(&plan.shape), by(&plan.keys), aggregates(&plan.aggregates))
        }
        OperatorSpec::GroupAggregate(spec) => format!("{}{}, changing", aggregates(&spec.aggregates), by(&spec.keys)),
        OperatorSpec::Over(spec) => {
            let frame = match spec.frame {
                Frame::Unbounded => "all rows before".to_owned(),
                Frame::Rows(rows) => format!("{rows} rows before"),
                Frame::Range(span) => format!("{:?} before", span.0),
            };
            format!("{} over {frame}{}", aggregates(&spec.aggregates), by(&spec.keys))
        }
        OperatorSpec::TopN(spec) => {
            let order: Vec<String> = spec.order.iter().map(sorted).collect();
            let when = if spec.windowed { "when the window closes" } else { "changing" };
            format!("first {} by {}{}, {when}", spec.limit, order.join(", "), by(&spec.keys))
        }
        OperatorSpec::Deduplicate(spec) => format!("{:?}{}", spec.keep, by(&spec.keys)).to_lowercase(),
        OperatorSpec::Join(spec) => join(spec),
        OperatorSpec::Pattern(spec) => pattern(spec),
        OperatorSpec::SinkIndex { index } => format!("index {index}"),
        OperatorSpec::SinkAlerts { rule } => format!("rule {rule}"),
        OperatorSpec::Write(sink) => match sink {
            SinkSpec::Files { url, .. } | SinkSpec::Http { url, .. } => url.clone(),
            SinkSpec::JetStream { subject } => subject.clone(),
            SinkSpec::Stdout | SinkSpec::Blackhole => String::new(),
        },
    }
}

fn source(spec: &SourceSpec) -> String {
    let from = match &spec.from {
        Connector::Index { index, .. } => format!("index {index}"),
        Connector::Files { url, .. } => format!("files {url}"),
        Connector::Datagen { seed, .. } => format!("datagen, seed {seed}"),
        Connector::Nexmark { table, seed, .. } => format!("nexmark {table:?}, seed {seed}").to_lowercase(),
        Connector::JetStream { stream, .. } => format!("jetstream {stream}"),
    };
    let columns = match &spec.columns {
        None => "all columns".to_owned(),
        Some(columns) if columns.is_empty() => "no column but the time".to_owned(),
        Some(columns) => format!("columns {}", columns.join(", ")),
    };
    format!("{from}, {columns}, watermark delay {:?}", spec.time.delay.0)
}

fn shape(shape: &WindowShape) -> String {
    match shape {
        WindowShape::Tumble { size, .. } => format!("tumble {:?}", size.0),
        WindowShape::Hop { size, slide, .. } => format!("hop {:?} of {:?}", slide.0, size.0),
        WindowShape::Cumulate { size, step, .. } => format!("cumulate {:?} up to {:?}", step.0, size.0),
        WindowShape::Session { gap } => format!("session, gap {:?}", gap.0),
        WindowShape::Count { rows } => format!("each {rows} rows"),
    }
}

fn join(spec: &JoinSpec) -> String {
    let when = match &spec.kind {
        JoinKind::Window(window) => shape(window),
        JoinKind::Interval { lower_ms, upper_ms } => format!("right {lower_ms} to {upper_ms} ms after left"),
        JoinKind::Temporal => "as of the left time".to_owned(),
        JoinKind::Lookup { table } => format!("lookup {table}"),
    };
    let keys = spec.left.keys.iter().zip(&spec.right.keys).map(|(l, r)| format!("{l} = {r}"));
    let keys = keys.collect::<Vec<_>>().join(", ");
    format!("{} on {keys}, {when}", format!("{:?}", spec.how).to_lowercase())
}

fn pattern(spec: &PatternSpec) -> String {
    let step = |step: &flow::PatternStep| match (step.absent, step.least, step.most) {
        (true, ..) => format!("no {}", step.name),
        (false, 1, 1) => step.name.clone(),
        (false, least, most) => format!("{} {least} to {most} times", step.name),
    };
    let steps: Vec<String> = spec.steps.iter().map(step).collect();
    format!("{} within {:?}{}", steps.join(", then "), spec.within.0, by(&spec.keys))
}

fn sorted(key: &SortKey) -> String {
    format!("{}{}", key.column, if key.descending { " descending" } else { "" })
}

fn by(keys: &[String]) -> String {
    if keys.is_empty() { String::new() } else { format!(" by {}", keys.join(", ")) }
}

fn aggregates(all: &[AggregateSpec]) -> String {
    let one = |a: &AggregateSpec| {
        let of = a.column.as_deref().map_or(String::new(), |column| format!(" of {column}"));
        format!("{} = {}{of}", a.name, format!("{:?}", a.function).to_lowercase())
    };
    all.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn short(sql: &str) -> String {
    match sql.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{}…", &sql[..end]),
        None => sql.to_owned(),
    }
}
