//! What a vertex of any shape runs, checked before it is deployed.

use std::sync::Arc;

use flow::{Edge, JobGraph, JoinKind, OperatorSpec, Partition, Port, SinkSpec, SourceSpec, Vertex};
use flow::{Emit, Operator, Setting};
use types::IndexName;

use super::stage::{StageOperator, StagePlan};
use crate::error::TaskError;

/// A vertex of any shape.
#[derive(Debug, Clone)]
pub(crate) struct Free {
    pub(crate) source: Option<SourceSpec>,
    operators: Vec<(String, Step)>,
    pub(crate) sink: Option<SinkPlan>,
    /// The key of the rows that come in; `None` if their state cannot be cut by key.
    pub(crate) keys: Option<Vec<String>>,
}

/// One operator of the chain.
#[derive(Debug, Clone)]
enum Step {
    Stage(Arc<StagePlan>),
    Flow(Arc<OperatorSpec>),
}

/// Where the chain's rows go.
#[derive(Debug, Clone)]
pub(crate) enum SinkPlan {
    /// Into an index; `ordered` tells whether every attempt gives the same rows in the same order.
    Index { index: IndexName, ordered: bool },
    /// Anywhere else; `ordered` as above.
    Write { to: SinkSpec, ordered: bool },
}

impl Free {
    /// The vertex of that number.
    pub(crate) fn plan(graph: &JobGraph, number: usize) -> Result<Self, String> {
        let vertex = graph.vertices.get(number).ok_or("does not exist")?;
        let (mut source, mut sink, mut operators) = (None, None, Vec::new());
        for (name, operator) in vertex.operator_names().into_iter().zip(&vertex.operators) {
            match operator {
                OperatorSpec::Read(spec) => source = Some(spec.clone()),
                OperatorSpec::SinkIndex { index } => {
                    sink = Some(SinkPlan::Index { index: index.clone(), ordered: ordered(graph, number) });
                }
                OperatorSpec::Write(to) => {
                    sink = Some(SinkPlan::Write { to: to.clone(), ordered: ordered(graph, number) });
                }
                OperatorSpec::Source { .. } => return Err("a source of an index cannot feed this chain".to_owned()),
                OperatorSpec::SinkAlerts { .. } => {
                    return Err("an alert rule takes the rows of a window only".to_owned());
                }
                OperatorSpec::Filter { sql } => operators.push((name, Step::Stage(StagePlan::filter(sql)?))),
                OperatorSpec::Project { columns } => {
                    operators.push((name, Step::Stage(StagePlan::project(columns)?)));
                }
                other => {
                    let probe = other.build(Setting::alone(&name));
                    probe.map_err(|error| error.to_string())?;
                    operators.push((name, Step::Flow(Arc::new(other.clone()))));
                }
            }
        }
        let keys = vertex.operators.first().and_then(|first| first.keys(0)).map(<[String]>::to_vec);
        Ok(Self { source, operators, sink, keys })
    }

    /// The chain, each operator with the setting that its name gets.
    pub(crate) fn chain(&self, setting: impl Fn(&str) -> Setting) -> Result<flow::Chain, TaskError> {
        let make = |(name, step): &(String, Step)| -> Result<(String, Box<dyn Operator>), TaskError> {
            let operator: Box<dyn Operator> = match step {
                Step::Stage(plan) => Box::new(StageOperator { plan: Arc::clone(plan), name: name.clone() }),
                Step::Flow(spec) => spec.build(setting(name))?,
            };
            Ok((name.clone(), operator))
        };
        Ok(flow::Chain::new(self.operators.iter().map(make).collect::<Result<_, _>>()?))
    }

    /// Whether rows go from the source to the sink without state, so that those of a split keep their order.
    pub(crate) fn is_stateless(&self) -> bool {
        self.operators.iter().all(|(_, step)| matches!(step, Step::Stage(_)))
    }
}

/// Whether the rows that a vertex gives are the same in the same order in every attempt.
///
/// What works by event time gives them in an order of its own; what only hands rows on keeps the order of one input, and a
/// source that of each split. How several inputs interleave is chance, and so is what the clock brings about.
fn ordered(graph: &JobGraph, number: usize) -> bool {
    let Some(vertex) = graph.vertices.get(number) else { return false };
    if let Some(exact) = vertex.operators.iter().rev().find_map(by_event_time) {
        return exact;
    }
    if vertex.operators.first().is_some_and(OperatorSpec::is_source) {
        return true;
    }
    let mut edges = graph.edges_into(number);
    match (edges.next(), edges.next()) {
        (Some(Edge { from, partition, port: Port::Main, .. }), None) => {
            let Some(before) = usize::try_from(*from).ok().filter(|from| *from < number || from_vertex(graph, *from))
            else {
                return false;
            };
            let one = *partition == Partition::Forward || graph.vertices[before].parallelism == 1;
            one && !graph.vertices[before].operators.first().is_some_and(keeps_splits(&graph.vertices[before]))
                && ordered(graph, before)
        }
        _ => false,
    }
}

fn from_vertex(graph: &JobGraph, number: usize) -> bool {
    number < graph.vertices.len()
}

/// A source without state behind it interleaves its splits by chance, once they are not told apart any more.
fn keeps_splits(vertex: &Vertex) -> impl Fn(&OperatorSpec) -> bool + '_ {
    |first| first.is_source() && vertex.operators.iter().all(|operator| by_event_time(operator).is_none())
}

/// Whether an operator with state gives its rows in an order of its own; `None`: it has none.
fn by_event_time(operator: &OperatorSpec) -> Option<bool> {
    match operator {
        OperatorSpec::WindowAggregate(spec) => Some(spec.early.is_none()),
        OperatorSpec::Window(plan) => Some(plan.emit == Emit::OnClose && plan.early.is_none()),
        OperatorSpec::GroupAggregate(_) => Some(false),
        OperatorSpec::Join(join) => Some(!matches!(join.kind, JoinKind::Lookup { .. })),
        OperatorSpec::Over(_) | OperatorSpec::TopN(_) | OperatorSpec::Deduplicate(_) | OperatorSpec::Pattern(_) => {
            Some(true)
        }
        _ => None,
    }
}
