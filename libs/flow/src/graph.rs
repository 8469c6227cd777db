//! The job graph: plain data that a planner writes, a person can read as JSON and every worker understands.

use std::fmt;

use serde::{Deserialize, Serialize};
use types::{DurationText, IndexName, RuleId, Timestamp, hash64};

use crate::{
    DedupSpec, Error, ErrorPolicy, GroupSpec, JoinKind, JoinSpec, KEY_GROUPS, OverSpec, PatternSpec, Phase, Port,
    TopNSpec, WindowPlan, WindowSpec,
};

mod built;
mod check;
mod sink;
mod source;

pub use sink::SinkSpec;
pub use source::{
    ColumnSpec, Connector, Corrupt, EpochUnit, EventTime, FileFormat, Hidden, NexmarkTable, SourceSpec, ValueType,
};

/// The version of graphs that this release writes; it refuses a newer one. What an operator means never changes under its
/// name: another meaning is another operator, or a field whose default is the old one.
pub const GRAPH_VERSION: u32 = 0;

/// The most vertices of one graph; a statement that needs more is to be split.
pub const VERTICES_MAX: usize = 64;

/// The largest parallelism: one key group per subtask.
pub const PARALLELISM_MAX: u32 = KEY_GROUPS as u32;

/// What a job does: operator chains and the edges between them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct JobGraph {
    /// The operator chains.
    pub vertices: Vec<Vertex>,
    /// Who feeds whom.
    #[serde(default)]
    pub edges: Vec<Edge>,
    /// What becomes of rows that cannot be computed.
    #[serde(default, skip_serializing_if = "is_default")]
    pub errors: ErrorPolicy,
    /// See [`GRAPH_VERSION`].
    #[serde(default, skip_serializing_if = "is_default")]
    pub version: u32,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// One operator chain; its operators call each other without a queue in between.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Vertex {
    /// Names the chain's state over restarts and edits; empty until [`JobGraph::with_uids`] derives it.
    #[serde(default)]
    pub uid: Uid,
    /// For people.
    pub name: String,
    /// The chain, in order.
    pub operators: Vec<OperatorSpec>,
    /// How many subtasks run it.
    pub parallelism: u32,
}

impl Vertex {
    /// The names of the operators, which their state keeps: the word of each, with a number from the second one of a kind.
    pub fn operator_names(&self) -> Vec<String> {
        let words: Vec<&str> = self.operators.iter().map(OperatorSpec::word).collect();
        let number = |at: usize| words[..=at].iter().filter(|word| **word == words[at]).count();
        let name = |at: usize| match number(at) {
            1 => words[at].to_owned(),
            more => format!("{}-{more}", words[at]),
        };
        (0..words.len()).map(name).collect()
    }
}

/// The stable name of an operator chain: a digest of what it computes, or whatever the user pinned.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Uid(pub String);

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A connection between two vertices, named by their places in [`JobGraph::vertices`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edge {
    /// The feeding vertex.
    pub from: u32,
    /// The fed vertex.
    pub to: u32,
    /// Which subtask gets a row.
    pub partition: Partition,
    /// Which of the feeding vertex's rows.
    #[serde(default, skip_serializing_if = "Port::is_main")]
    pub port: Port,
}

impl Edge {
    /// Results, as `partition` says.
    pub fn new(from: u32, to: u32, partition: Partition) -> Self {
        Self { from, to, partition, port: Port::Main }
    }

    /// Results by key.
    pub fn hash(from: u32, to: u32, columns: Vec<String>) -> Self {
        Self::new(from, to, Partition::Hash { columns })
    }
}

/// Which subtask of the next vertex gets a row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Partition {
    /// The one with the same number; both sides have the same parallelism.
    Forward,
    /// The one that owns the key group of these columns.
    Hash {
        /// The key; empty means that everything goes to subtask 0.
        columns: Vec<String>,
    },
}

/// One operator, as data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperatorSpec {
    /// Reads the segments of an index in offset order and decides lateness, per segment.
    Source {
        /// The log index.
        index: IndexName,
        /// Where to begin without a checkpoint.
        #[serde(default)]
        start: SourceStart,
        /// How much disorder is waited for.
        delay: DurationText,
        /// How far ahead of its receipt a row may be and still move the watermark.
        #[serde(default = "max_future_skew")]
        max_future_skew: DurationText,
        /// A segment without rows and without lag for that long is idle.
        #[serde(default = "idle_after")]
        idle_after: DurationText,
        /// The size of the windows downstream, by whose end a row is late; none for a job without windows.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        window: Option<DurationText>,
    },
    /// Keeps the rows for which the condition is true.
    Filter {
        /// A SQL expression over the input's columns.
        sql: String,
    },
    /// Computes columns; `_time` is carried along.
    Project {
        /// The output columns, in order.
        columns: Vec<Projection>,
    },
    /// Keyed tumbling windows.
    WindowAggregate(WindowSpec),
    /// Writes rows to an index, numbered from 1 per subtask, so that repeats are dropped there.
    SinkIndex {
        /// The log index.
        index: IndexName,
    },
    /// Hands rows to an alert rule.
    SinkAlerts {
        /// The rule.
        rule: RuleId,
    },
    /// Reads rows from anywhere.
    Read(SourceSpec),
    /// Writes rows anywhere.
    Write(SinkSpec),
    /// Keyed windows of every shape.
    Window(WindowPlan),
    /// One result per key, which changes.
    GroupAggregate(GroupSpec),
    /// Aggregates of each row over those before it.
    Over(OverSpec),
    /// The first rows of each key.
    TopN(TopNSpec),
    /// One row of each key.
    Deduplicate(DedupSpec),
    /// Two inputs.
    Join(JoinSpec),
    /// Sequences of rows.
    Pattern(PatternSpec),
}

/// One computed column.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Projection {
    /// A SQL expression over the input's columns.
    pub sql: String,
    /// The name of the result.
    pub name: String,
}

/// Where a source begins when there is no checkpoint.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceStart {
    /// With the oldest event kept: past, present and future.
    #[default]
    Oldest,
    /// With the next event to come.
    Newest,
    /// With the first event received at or after this instant.
    Received(Timestamp),
}

fn max_future_skew() -> DurationText {
    DurationText(crate::MAX_FUTURE_SKEW)
}

fn idle_after() -> DurationText {
    DurationText(std::time::Duration::from_secs(10))
}

impl OperatorSpec {
    /// One word for pictures and messages.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Source { .. } => "source",
            Self::Filter { .. } => "filter",
            Self::Project { .. } => "project",
            Self::WindowAggregate(_) => "window",
            Self::SinkIndex { .. } => "index sink",
            Self::SinkAlerts { .. } => "alert sink",
            Self::Read(_) => "source",
            Self::Write(sink) => sink.word(),
            Self::Window(WindowPlan { phase: Phase::Local, .. }) => "local window",
            Self::Window(_) => "window",
            Self::GroupAggregate(_) => "group",
            Self::Over(_) => "over",
            Self::TopN(_) => "top",
            Self::Deduplicate(_) => "dedup",
            Self::Join(_) => "join",
            Self::Pattern(_) => "pattern",
        }
    }

    /// The index that it reads.
    pub fn index_read(&self) -> Option<&IndexName> {
        match self {
            Self::Source { index, .. } | Self::Read(SourceSpec { from: Connector::Index { index, .. }, .. }) => {
                Some(index)
            }
            _ => None,
        }
    }

    /// By which columns the rows of an input must be spread over subtasks; `None`: in any way.
    pub fn keys(&self, input: usize) -> Option<&[String]> {
        match self {
            Self::WindowAggregate(spec) => Some(&spec.keys),
            Self::Window(plan) if plan.phase != Phase::Local => Some(&plan.keys),
            Self::GroupAggregate(spec) => Some(&spec.keys),
            Self::Over(spec) => Some(&spec.keys),
            Self::TopN(spec) => Some(&spec.keys),
            Self::Deduplicate(spec) => Some(&spec.keys),
            Self::Join(JoinSpec { kind: JoinKind::Lookup { .. }, .. }) => None,
            Self::Join(spec) => Some(if input == 0 { &spec.left.keys } else { &spec.right.keys }),
            Self::Pattern(spec) => Some(&spec.keys),
            _ => None,
        }
    }

    /// How many inputs it takes: 0 a source, 2 most joins.
    pub fn inputs(&self) -> usize {
        match self {
            Self::Source { .. } | Self::Read(_) => 0,
            Self::Join(JoinSpec { kind: JoinKind::Lookup { .. }, .. }) => 1,
            Self::Join(_) => 2,
            _ => 1,
        }
    }

    /// Whether it begins a chain.
    pub fn is_source(&self) -> bool {
        matches!(self, Self::Source { .. } | Self::Read(_))
    }

    /// Whether it ends a chain.
    pub fn is_sink(&self) -> bool {
        matches!(self, Self::SinkIndex { .. } | Self::SinkAlerts { .. } | Self::Write(_))
    }

    fn normalised(&self) -> Self {
        match self {
            Self::Filter { sql } => Self::Filter { sql: one_spaced(sql) },
            Self::Project { columns } => Self::Project {
                columns: columns.iter().map(|c| Projection { sql: one_spaced(&c.sql), name: c.name.clone() }).collect(),
            },
            other => other.clone(),
        }
    }
}

/// SQL with one space where there were several, outside quotes.
fn one_spaced(sql: &str) -> String {
    let mut out = String::with_capacity(sql.len());
    let mut quote = None;
    for c in sql.trim().chars() {
        match quote {
            Some(q) => {
                out.push(c);
                if c == q {
                    quote = None;
                }
            }
            None if c.is_whitespace() => {
                if !out.ends_with(' ') {
                    out.push(' ');
                }
            }
            None => {
                out.push(c);
                quote = matches!(c, '\'' | '"').then_some(c);
            }
        }
    }
    out
}

impl Uid {
    /// The uid of a chain: a digest of what it and everything before it computes.
    ///
    /// Names, parallelism and white space do not count, so renaming or rescaling a job keeps its state.
    pub fn of(operators: &[OperatorSpec], inputs: &[Self]) -> Self {
        let operators: Vec<OperatorSpec> = operators.iter().map(OperatorSpec::normalised).collect();
        // Plain structs and enums with text keys: this serialisation has no way to fail.
        let text = serde_json::to_string(&(operators, inputs)).unwrap_or_default();
        Self(format!("{:016x}", hash64(text.as_bytes())))
    }
}

impl JobGraph {
    /// The graph with a uid on every vertex that had none, after [`JobGraph::validate`].
    pub fn with_uids(mut self) -> Result<Self, Error> {
        for vertex in self.validate()? {
            if !self.vertices[vertex].uid.0.is_empty() {
                continue;
            }
            let inputs: Vec<Uid> =
                self.edges_into(vertex).map(|edge| self.vertices[place(edge.from)].uid.clone()).collect();
            let uid = Uid::of(&self.vertices[vertex].operators, &inputs);
            // Twins compute the same; the second one is named after its place.
            let twins = self.vertices.iter().filter(|v| v.uid.0.starts_with(&uid.0)).count();
            self.vertices[vertex].uid = if twins == 0 { uid } else { Uid(format!("{uid}-{}", twins + 1)) };
        }
        Ok(self)
    }

    /// A digest of the graph's uids and edges, stored with each checkpoint.
    pub fn fingerprint(&self) -> String {
        let uids: Vec<&Uid> = self.vertices.iter().map(|v| &v.uid).collect();
        let text = serde_json::to_string(&(uids, &self.edges)).unwrap_or_default();
        format!("{:016x}", hash64(text.as_bytes()))
    }

    /// The slots that the job needs: a slot holds one subtask of each vertex, so it is the largest parallelism.
    pub fn slots(&self) -> u32 {
        self.vertices.iter().map(|v| v.parallelism).max().unwrap_or(0)
    }

    /// The edges into a vertex, in the order of [`JobGraph::edges`].
    pub fn edges_into(&self, vertex: usize) -> impl Iterator<Item = &Edge> {
        self.edges.iter().filter(move |edge| place(edge.to) == vertex)
    }

    /// Checks every rule and returns the vertices in an order in which feeders come first.
    ///
    /// Errors: `Graph` names the vertex or edge, the rule and the way out.
    pub fn validate(&self) -> Result<Vec<usize>, Error> {
        check::validate(self)
    }
}

/// A vertex number as an index.
pub(crate) fn place(vertex: u32) -> usize {
    usize::try_from(vertex).unwrap_or(usize::MAX)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use super::*;
    use crate::AggregateSpec;

    pub(crate) fn seconds(n: u64) -> DurationText {
        DurationText(Duration::from_secs(n))
    }

    /// source, filter => window, sink
    pub(crate) fn graph(parallelism: u32) -> JobGraph {
        let source = OperatorSpec::Source {
            index: "shop".parse().unwrap(),
            start: SourceStart::Oldest,
            delay: seconds(5),
            max_future_skew: max_future_skew(),
            idle_after: idle_after(),
            window: Some(seconds(60)),
        };
        let window = OperatorSpec::WindowAggregate(WindowSpec {
            keys: vec!["service".into()],
            aggregates: vec![AggregateSpec::count_all("n")],
            size: seconds(60),
            early: None,
        });
        JobGraph {
            vertices: vec![
                Vertex {
                    uid: Uid::default(),
                    name: "read".into(),
                    operators: vec![source, OperatorSpec::Filter { sql: "severity = 'error'".into() }],
                    parallelism,
                },
                Vertex {
                    uid: Uid::default(),
                    name: "count".into(),
                    operators: vec![window, OperatorSpec::SinkIndex { index: "counts".parse().unwrap() }],
                    parallelism,
                },
            ],
            edges: vec![Edge::hash(0, 1, vec!["service".into()])],
            ..JobGraph::default()
        }
    }

    #[test]
    fn a_uid_says_what_is_computed_and_nothing_else() {
        let one = graph(1).with_uids().unwrap();
        let mut other = graph(8);
        other.vertices[0].name = "renamed".into();
        other.vertices[0].operators[1] = OperatorSpec::Filter { sql: "  severity =\n\t'error' ".into() };
        let other = other.with_uids().unwrap();
        assert_eq!(one.vertices[0].uid, other.vertices[0].uid);
        assert_eq!(one.vertices[1].uid, other.vertices[1].uid);
        assert_eq!(one.fingerprint(), other.fingerprint());
        let mut edited = graph(1);
        edited.vertices[0].operators[1] = OperatorSpec::Filter { sql: "severity = 'error '".into() };
        let edited = edited.with_uids().unwrap();
        assert_ne!(one.vertices[0].uid, edited.vertices[0].uid);
        assert_ne!(one.vertices[1].uid, edited.vertices[1].uid, "what feeds a window is part of what it computes");
        let mut pinned = graph(1);
        pinned.vertices[1].uid = Uid("mine".into());
        assert_eq!(pinned.with_uids().unwrap().vertices[1].uid, Uid("mine".into()));
    }

    #[test]
    fn twins_get_different_uids() {
        let mut twins = graph(1);
        twins.vertices.push(twins.vertices[0].clone());
        twins.edges.push(Edge { from: 2, ..twins.edges[0].clone() });
        let twins = twins.with_uids().unwrap();
        assert_ne!(twins.vertices[0].uid, twins.vertices[2].uid);
    }

    #[test]
    fn json_reads_what_it_writes_and_fills_in_defaults() {
        let whole = graph(2).with_uids().unwrap();
        let text = serde_json::to_string(&whole).unwrap();
        assert_eq!(serde_json::from_str::<JobGraph>(&text).unwrap(), whole);
        let short = r#"{"vertices": [{"name": "all", "parallelism": 1, "operators": [
            {"source": {"index": "shop", "delay": "5s"}}, {"sink_alerts": {"rule": "r1"}}]}]}"#;
        let short: JobGraph = serde_json::from_str(short).unwrap();
        assert!(short.validate().is_ok());
        assert!(matches!(&short.vertices[0].operators[0],
            OperatorSpec::Source { max_future_skew, .. } if max_future_skew.0 == crate::MAX_FUTURE_SKEW));
    }
}
