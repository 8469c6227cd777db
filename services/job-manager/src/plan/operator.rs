//! From a step of a plan to an operator.

use flow::{
    AfterMatch, AggregateFunction, AggregateSpec, ChangelogMode, ColumnSpec, Connector, Corrupt, DedupSpec, Emit,
    EpochUnit, EventTime, FileFormat, Frame, GroupSpec, Hidden, JoinKind, JoinSide, JoinSpec, JoinType, Keep, Measure,
    MeasureValue, NexmarkTable, OperatorSpec, OverSpec, PatternSpec, PatternStep, Phase, Projection, SinkSpec, SortKey,
    SourceSpec, SourceStart, TopNSpec, ValueType, WindowPlan, WindowShape,
};
use query::stream::{self, Computed, CorruptRows, Declared, Format, Input, JoinHow, JoinInput, Node, Target, TimeUnit};
use query::stream::{MeasuredValue, ValueKind, WindowKind, Within};
use types::DurationText;

use super::IDLE_AFTER;

/// Events a second of Nexmark's own time, where the text says nothing.
const NEXMARK_RATE: u64 = 10_000;

/// The operator of a step besides `Read`, which [`source`] makes.
pub(super) fn operator(node: &Node) -> Option<OperatorSpec> {
    Some(match node {
        Node::Read { .. } => return None,
        Node::Filter { predicate, .. } => OperatorSpec::Filter { sql: predicate.clone() },
        Node::Project { columns, .. } => OperatorSpec::Project {
            columns: columns.iter().map(|c| Projection { sql: c.expr.clone(), name: c.name.clone() }).collect(),
        },
        Node::Window { keys, aggregates, window, emit_every, .. } => OperatorSpec::Window(WindowPlan {
            keys: keys.clone(),
            aggregates: aggregates.iter().map(aggregate).collect(),
            shape: shape(window),
            lateness: DurationText(window.lateness),
            emit: emit_every.map_or(Emit::OnClose, |every| Emit::Every(DurationText(every))),
            early: None,
            phase: Phase::Whole,
        }),
        Node::Group { keys, aggregates, .. } => OperatorSpec::GroupAggregate(GroupSpec {
            keys: keys.clone(),
            aggregates: aggregates.iter().map(aggregate).collect(),
            // What follows need not know the key.
            mode: ChangelogMode::Retract,
            ttl: None,
        }),
        Node::Over { keys, aggregates, frame, .. } => OperatorSpec::Over(OverSpec {
            keys: keys.clone(),
            aggregates: aggregates.iter().map(aggregate).collect(),
            frame: match frame {
                stream::Frame::Unbounded => Frame::Unbounded,
                stream::Frame::Rows(rows) => Frame::Rows(*rows),
                stream::Frame::Range(span) => Frame::Range(DurationText(*span)),
            },
        }),
        Node::Top { keys, order, limit, rank, windowed, .. } => OperatorSpec::TopN(TopNSpec {
            keys: keys.clone(),
            order: order.iter().map(sort_key).collect(),
            limit: *limit,
            rank: rank.clone(),
            windowed: *windowed,
            mode: if *windowed { ChangelogMode::Append } else { ChangelogMode::Retract },
        }),
        Node::Deduplicate { keys, last, .. } => OperatorSpec::Deduplicate(DedupSpec {
            keys: keys.clone(),
            keep: if *last { Keep::Last } else { Keep::First },
            ttl: None,
        }),
        Node::Join { left, right, within, how } => {
            let kind = match within {
                Within::Window(window) => JoinKind::Window(shape(window)),
                Within::Interval { lower_ms, upper_ms } => {
                    JoinKind::Interval { lower_ms: *lower_ms, upper_ms: *upper_ms }
                }
            };
            OperatorSpec::Join(JoinSpec { kind, how: join_type(*how), left: side(left), right: side(right) })
        }
        Node::Sequence { keys, steps, within, overlap, gaps, measures, .. } => OperatorSpec::Pattern(PatternSpec {
            keys: keys.clone(),
            steps: steps.iter().map(step).collect(),
            within: DurationText(*within),
            after: if *overlap { AfterMatch::NextRow } else { AfterMatch::PastLast },
            gaps: *gaps,
            measures: measures.iter().map(measure).collect(),
        }),
    })
}

/// The source of an input; `columns` are those that are used, if not all.
pub(super) fn source(
    input: &Input,
    (delay, idle): (std::time::Duration, Option<std::time::Duration>),
    columns: Option<Vec<String>>,
    hidden: Hidden,
) -> OperatorSpec {
    let none = Declared::default();
    let rows = match input {
        Input::Files { rows, .. } | Input::JetStream { rows, .. } => rows,
        Input::Index(_) | Input::Datagen { .. } | Input::Nexmark { .. } => &none,
    };
    let received = matches!(input, Input::Index(_));
    let column = match input {
        Input::Nexmark { .. } => Some("dateTime".to_owned()),
        _ => rows.time.clone(),
    };
    let time = EventTime {
        column,
        unit: match rows.unit {
            TimeUnit::Millis => EpochUnit::Millis,
            TimeUnit::Seconds => EpochUnit::Seconds,
            TimeUnit::Micros => EpochUnit::Micros,
            TimeUnit::Nanos => EpochUnit::Nanos,
        },
        delay: DurationText(delay),
        max_future_skew: received.then_some(DurationText(flow::MAX_FUTURE_SKEW)),
        idle_after: idle.map(DurationText).or(received.then_some(IDLE_AFTER)),
        max_drift: None,
    };
    let corrupt = match input.corrupt() {
        CorruptRows::Fail => Corrupt::Fail,
        CorruptRows::Drop => Corrupt::Drop,
        CorruptRows::DeadLetter => Corrupt::DeadLetter,
    };
    let schema = input.columns().into_iter().map(|(name, kind)| ColumnSpec { name, kind: value_type(kind) }).collect();
    OperatorSpec::Read(SourceSpec { from: connector(input), time, schema, columns, hidden, corrupt })
}

fn connector(input: &Input) -> Connector {
    match input {
        // The stream cut of the deployment says where to begin.
        Input::Index(index) => Connector::Index { index: index.clone(), start: SourceStart::Oldest },
        Input::Files { url, format, follow, .. } => {
            Connector::Files { url: url.clone(), format: file_format(*format), bounded: !follow }
        }
        Input::Datagen { seed, rows, per_second, splits, .. } => {
            Connector::Datagen { seed: *seed, rows: *rows, per_second: *per_second, splits: *splits }
        }
        Input::Nexmark { table, seed, events, rate, splits } => Connector::Nexmark {
            table: match table {
                stream::NexmarkTable::Person => NexmarkTable::Person,
                stream::NexmarkTable::Auction => NexmarkTable::Auction,
                stream::NexmarkTable::Bid => NexmarkTable::Bid,
            },
            seed: *seed,
            events: *events,
            rate: rate.unwrap_or(NEXMARK_RATE),
            splits: *splits,
        },
        Input::JetStream { stream, subject, format, .. } => {
            Connector::JetStream { stream: stream.clone(), subject: subject.clone(), format: file_format(*format) }
        }
    }
}

/// The sink of a target.
pub(super) fn sink(target: &Target) -> OperatorSpec {
    OperatorSpec::Write(match target {
        Target::Index(index) => return OperatorSpec::SinkIndex { index: index.clone() },
        Target::Files { url, format, roll_bytes, roll_after } => SinkSpec::Files {
            url: url.clone(),
            format: file_format(*format),
            roll_bytes: *roll_bytes,
            roll_after: roll_after.map(DurationText),
        },
        Target::JetStream { subject } => SinkSpec::JetStream { subject: subject.clone() },
        Target::Http { url, headers } => SinkSpec::Http { url: url.clone(), headers: headers.clone() },
        Target::Stdout => SinkSpec::Stdout,
        Target::Blackhole => SinkSpec::Blackhole,
    })
}

fn file_format(format: Format) -> FileFormat {
    match format {
        Format::Ndjson => FileFormat::Ndjson,
        Format::Csv { delimiter, header } => FileFormat::Csv { delimiter, header },
        Format::Parquet => FileFormat::Parquet,
    }
}

fn value_type(kind: ValueKind) -> ValueType {
    match kind {
        ValueKind::Integer => ValueType::Integer,
        ValueKind::Float => ValueType::Float,
        ValueKind::Text => ValueType::Text,
        ValueKind::Boolean => ValueType::Boolean,
        ValueKind::Time => ValueType::Time,
    }
}

fn aggregate(computed: &Computed) -> AggregateSpec {
    use query::AggregateFunction as F;
    let function = match (computed.function, &computed.column) {
        (F::Count, None) => AggregateFunction::CountAll,
        (F::Count, Some(_)) => AggregateFunction::Count,
        (F::Sum, _) => AggregateFunction::Sum,
        (F::Min, _) => AggregateFunction::Min,
        (F::Max, _) => AggregateFunction::Max,
        (F::Avg, _) => AggregateFunction::Avg,
    };
    let kind = computed.kind.map(value_type);
    AggregateSpec { function, column: computed.column.clone(), name: computed.name.clone(), kind }
}

fn shape(window: &stream::Window) -> WindowShape {
    let (size, offset) = (DurationText(window.size), DurationText::default());
    match window.kind {
        WindowKind::Tumble => WindowShape::Tumble { size, offset },
        WindowKind::Hop { slide } => WindowShape::Hop { size, slide: DurationText(slide), offset },
        WindowKind::Cumulate { step } => WindowShape::Cumulate { size, step: DurationText(step), offset },
        WindowKind::Session => WindowShape::Session { gap: size },
    }
}

fn sort_key(order: &stream::Order) -> SortKey {
    SortKey { column: order.column.clone(), descending: order.descending, nulls_first: order.nulls_first }
}

fn side(input: &JoinInput) -> JoinSide {
    let types = input.types.iter().map(|kind| value_type(*kind)).collect();
    JoinSide { keys: input.keys.clone(), columns: input.columns.clone(), types }
}

fn join_type(how: JoinHow) -> JoinType {
    match how {
        JoinHow::Inner => JoinType::Inner,
        JoinHow::Left => JoinType::Left,
        JoinHow::Right => JoinType::Right,
        JoinHow::Full => JoinType::Full,
        JoinHow::Semi => JoinType::Semi,
        JoinHow::Anti => JoinType::Anti,
    }
}

fn step(step: &stream::SequenceStep) -> PatternStep {
    let stream::SequenceStep { name, condition, least, most, absent } = step.clone();
    PatternStep { name, condition, least, most, absent }
}

fn measure(measured: &stream::Measured) -> Measure {
    let value = match &measured.value {
        MeasuredValue::First(column) => MeasureValue::First(column.clone()),
        MeasuredValue::Last(column) => MeasureValue::Last(column.clone()),
        MeasuredValue::Count => MeasureValue::Count,
    };
    Measure { name: measured.name.clone(), step: measured.step.clone(), value }
}
