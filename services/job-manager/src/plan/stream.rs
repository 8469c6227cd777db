//! From the steps of a plan to chains and the edges between them.
//!
//! A step goes on in the chain of the one that feeds it, unless that one feeds others too, or rows have to meet by a key.

use std::collections::BTreeSet;

use flow::{Edge, ErrorPolicy, Hidden, JobGraph, OperatorSpec, Partition, Phase, Port, WindowPlan, WindowShape};
use query::stream::{Node, OnError, Output, StreamPlan, Target};
use wire::job_manager::{NewJob, Sink};

use super::{
    Plan,
    operator::{operator, sink, source},
    vertex,
};
use crate::error::Error;

/// Plans what a text computes.
pub(super) fn plan(read: &StreamPlan, job: &NewJob, parallelism: u32) -> Result<Plan, Error> {
    if job.early.is_some() || matches!(job.sink, Some(Sink::Alerts(_))) {
        let message = "an alert rule needs the aggregates of tumble(…) over one index, without lateness";
        return Err(Error::InvalidQuery(message.to_owned()));
    }
    let outputs = read.outputs.iter().map(|output| target(output, job)).collect::<Result<Vec<_>, _>>()?;
    let (reads, mut writes) = (read.reads(), read.writes());
    writes.extend(outputs.iter().filter_map(Target::index));
    if let Some(index) = reads.iter().find(|index| writes.contains(index)) {
        return Err(Error::FeedsItself((*index).clone()));
    }
    let first = outputs.iter().find_map(Target::index);
    let sink = match (first, outputs.first()) {
        (Some(index), _) => Sink::Index(index.clone()),
        (None, Some(target)) => Sink::Elsewhere(target.word().to_owned()),
        (None, None) => return Err(Error::NoSink),
    };
    let also: BTreeSet<_> =
        writes.iter().filter(|index| Some(**index) != first).map(|index| (*index).clone()).collect();
    let source = reads.first().map(|index| (*index).clone());
    Ok(Plan { graph: graph(read, &outputs, parallelism).with_uids()?, sink, source, also: also.into_iter().collect() })
}

/// The graph, without uids; `outputs` are the targets of the statements.
pub(super) fn graph(read: &StreamPlan, outputs: &[Target], parallelism: u32) -> JobGraph {
    let mut chains = Chains::new(read, parallelism);
    for (output, target) in read.outputs.iter().zip(outputs) {
        chains.output(output, target);
    }
    chains.dead_letters();
    chains.graph
}

fn target(output: &Output, job: &NewJob) -> Result<Target, Error> {
    let target = match (&output.target, &job.sink) {
        (Some(target), _) => return Ok(target.clone()),
        (None, Some(Sink::Index(index))) => Target::Index(index.clone()),
        _ => return Err(Error::NoSink),
    };
    if output.changes {
        let message = "this result changes with every row, and an index cannot take back what it has got: use windows";
        return Err(Error::InvalidQuery(message.to_owned()));
    }
    Ok(target)
}

/// Chains that are being made.
struct Chains<'p> {
    plan: &'p StreamPlan,
    parallelism: u32,
    graph: JobGraph,
    /// How many steps and statements take the rows of each step.
    takers: Vec<usize>,
    /// The vertex that ends with each step.
    made: Vec<Option<u32>>,
}

impl<'p> Chains<'p> {
    fn new(plan: &'p StreamPlan, parallelism: u32) -> Self {
        let mut takers = vec![0; plan.nodes.len()];
        let mut used = BTreeSet::new();
        // What looks at single rows only has a chain of its own: so each split keeps its order up to the sink.
        for output in plan.outputs.iter().filter(|output| !alone(plan, output.node)) {
            takers[output.node] += 1;
            use_of(plan, output.node, &mut used);
        }
        for node in &used {
            plan.nodes[*node].inputs().into_iter().for_each(|input| takers[input] += 1);
        }
        let errors = match plan.on_error {
            OnError::Fail => ErrorPolicy::Fail,
            OnError::Null => ErrorPolicy::Null,
            OnError::Into(_) => ErrorPolicy::DeadLetter,
        };
        let made = vec![None; plan.nodes.len()];
        Self { plan, parallelism, graph: JobGraph { errors, ..JobGraph::default() }, takers, made }
    }

    fn output(&mut self, output: &Output, target: &Target) {
        let operator = sink(target);
        if alone(self.plan, output.node) {
            let mut operators = self.alone(output.node);
            operators.push(operator);
            self.vertex(operators, false);
        } else {
            let vertex = self.step(output.node);
            if self.takers[output.node] == 1 {
                self.append(vertex, operator);
            } else {
                self.follow(vertex, vec![operator]);
            }
        }
        if let Some(late) = &output.late_into {
            let mut found = BTreeSet::new();
            self.late(output.node, &mut found);
            self.aside(found, Port::Late, late);
        }
    }

    /// The operators from the source up to a step, where none has state.
    fn alone(&self, node: usize) -> Vec<OperatorSpec> {
        let mut operators = match self.plan.nodes[node].inputs().first() {
            Some(input) => self.alone(*input),
            None => Vec::new(),
        };
        operators.push(self.operator(node));
        operators
    }

    fn operator(&self, node: usize) -> OperatorSpec {
        match &self.plan.nodes[node] {
            Node::Read { input, delay, idle } => {
                let mut columns = BTreeSet::new();
                let some = self.columns(node, &mut columns);
                source(input, (*delay, *idle), some.then(|| columns.into_iter().collect()), self.hidden(node))
            }
            other => operator(other).unwrap_or(OperatorSpec::Filter { sql: "true".to_owned() }),
        }
    }

    /// The vertex that ends with a step.
    fn step(&mut self, node: usize) -> u32 {
        if let Some(made) = self.made[node] {
            return made;
        }
        let made = match &self.plan.nodes[node] {
            Node::Read { .. } => {
                let operator = self.operator(node);
                self.vertex(vec![operator], false)
            }
            Node::Join { left, right, .. } => {
                let (from_left, from_right) = (self.step(left.node), self.step(right.node));
                let operator = self.operator(node);
                let vertex = self.vertex(vec![operator], left.keys.is_empty());
                self.graph.edges.push(Edge::hash(from_left, vertex, left.keys.clone()));
                self.graph.edges.push(Edge::hash(from_right, vertex, right.keys.clone()));
                vertex
            }
            other => self.one_input(node, other.inputs().first().copied().unwrap_or_default()),
        };
        self.made[node] = Some(made);
        made
    }

    fn one_input(&mut self, node: usize, input: usize) -> u32 {
        let mut from = self.step(input);
        let operator = self.operator(node);
        let chained = self.takers[input] == 1;
        let keys = operator.keys(0).map(<[String]>::to_vec);
        match keys {
            Some(keys) if !(chained && self.stays(from, &keys)) => {
                let mut operator = operator;
                if let OperatorSpec::Window(window) = &operator
                    && in_two_phases(window)
                {
                    // One subtask owns all rows: what can be done before they meet is done there.
                    let local = OperatorSpec::Window(WindowPlan { phase: Phase::Local, ..window.clone() });
                    let global = OperatorSpec::Window(WindowPlan { phase: Phase::Global, ..window.clone() });
                    from = self.go_on(from, local, chained);
                    operator = global;
                }
                let vertex = self.vertex(vec![operator], keys.is_empty());
                self.graph.edges.push(Edge::hash(from, vertex, keys));
                vertex
            }
            _ => self.go_on(from, operator, chained),
        }
    }

    fn go_on(&mut self, from: u32, operator: OperatorSpec, chained: bool) -> u32 {
        if chained {
            self.append(from, operator);
            return from;
        }
        self.follow(from, vec![operator])
    }

    /// A chain of its own behind another one, by the same subtasks.
    fn follow(&mut self, from: u32, operators: Vec<OperatorSpec>) -> u32 {
        let single = self.is_single(from);
        let vertex = self.vertex(operators, single);
        let edge =
            if single { Edge::hash(from, vertex, Vec::new()) } else { Edge::new(from, vertex, Partition::Forward) };
        self.graph.edges.push(edge);
        vertex
    }

    fn vertex(&mut self, operators: Vec<OperatorSpec>, single: bool) -> u32 {
        let name = operators.first().map_or("rows", OperatorSpec::word);
        self.graph.vertices.push(vertex(name, operators, if single { 1 } else { self.parallelism }));
        number(self.graph.vertices.len() - 1)
    }

    fn append(&mut self, vertex: u32, operator: OperatorSpec) {
        if let Some(vertex) = self.graph.vertices.get_mut(place(vertex)) {
            vertex.operators.push(operator);
        }
    }

    /// Whether one subtask owns all rows, whatever the parallelism of the job.
    fn is_single(&self, vertex: u32) -> bool {
        let all = |edge: &Edge| matches!(&edge.partition, Partition::Hash { columns } if columns.is_empty());
        self.graph.edges_into(place(vertex)).any(all)
    }

    /// Whether rows that meet by these keys have met in the chain already: it began with them, and hands them on as they are.
    fn stays(&self, vertex: u32, keys: &[String]) -> bool {
        let Some(chain) = self.graph.vertices.get(place(vertex)) else { return false };
        let Some(first) = chain.operators.first().filter(|_| !self.is_two_inputs(vertex)) else { return false };
        let Some(met) = first.keys(0) else { return false };
        if met.is_empty() {
            return keys.is_empty() && self.is_single(vertex);
        }
        let kept = |key: &String| chain.operators.iter().all(|operator| hands_on(operator, key));
        met == keys && met.iter().all(kept)
    }

    fn is_two_inputs(&self, vertex: u32) -> bool {
        self.graph.edges_into(place(vertex)).count() > 1
    }

    /// The columns that steps use of a source; false if they may use all.
    fn columns(&self, node: usize, found: &mut BTreeSet<String>) -> bool {
        let takes = |other: &&Node| other.inputs().contains(&node);
        let ends = self.plan.outputs.iter().any(|output| output.node == node);
        !ends
            && self.plan.nodes.iter().enumerate().filter(|(_, other)| takes(other)).all(|(number, taker)| match taker {
                Node::Filter { predicate, .. } => note(predicate, found) && self.columns(number, found),
                Node::Project { columns, .. } => columns.iter().all(|column| note(&column.expr, found)),
                _ => false,
            })
    }

    /// The hidden columns that steps need of a source: all that can find a row late, and those that depend on order.
    fn hidden(&self, node: usize) -> Hidden {
        let mut hidden = Hidden::default();
        for (number, taker) in self.plan.nodes.iter().enumerate().filter(|(_, other)| other.inputs().contains(&node)) {
            let of = match taker.is_stateful() {
                true => Hidden { watermark: true, place: taker.is_ordered() },
                false => self.hidden(number),
            };
            hidden.watermark |= of.watermark;
            hidden.place |= of.place;
        }
        hidden
    }

    /// The vertices of a statement that can find a row of a source late.
    fn late(&self, node: usize, found: &mut BTreeSet<u32>) {
        let known = &self.plan.nodes[node];
        if known.is_stateful() && known.inputs().iter().any(|input| alone(self.plan, *input)) {
            let made = self.made[node];
            // Of two phases the first one is where rows come by.
            let is_global = |vertex: &u32| {
                let first = self.graph.vertices.get(place(*vertex)).and_then(|vertex| vertex.operators.first());
                matches!(first, Some(OperatorSpec::Window(WindowPlan { phase: Phase::Global, .. })))
            };
            match made.filter(is_global) {
                Some(global) => found.extend(self.graph.edges_into(place(global)).map(|edge| edge.from)),
                None => found.extend(made),
            }
        }
        known.inputs().into_iter().for_each(|input| self.late(input, found));
    }

    /// A sink for rows that leave vertices by another port.
    fn aside(&mut self, from: BTreeSet<u32>, port: Port, target: &Target) {
        let vertex = self.vertex(vec![sink(target)], true);
        for from in from {
            self.graph.edges.push(Edge { port, ..Edge::hash(from, vertex, Vec::new()) });
        }
    }

    fn dead_letters(&mut self) {
        if let OnError::Into(target) = &self.plan.on_error {
            let works = |vertex: &flow::Vertex| vertex.operators.iter().any(|operator| !operator.is_sink());
            let from = (0..).zip(&self.graph.vertices).filter(|(_, vertex)| works(vertex)).map(|(number, _)| number);
            self.aside(from.collect(), Port::DeadLetter, target);
        }
    }
}

/// Whether no step on the way to this one has state.
fn alone(plan: &StreamPlan, node: usize) -> bool {
    let known = &plan.nodes[node];
    !known.is_stateful() && known.inputs().into_iter().all(|input| alone(plan, input))
}

fn use_of(plan: &StreamPlan, node: usize, used: &mut BTreeSet<usize>) {
    if used.insert(node) {
        plan.nodes[node].inputs().into_iter().for_each(|input| use_of(plan, input, used));
    }
}

/// Adds the columns of an expression; false if it cannot be read.
fn note(sql: &str, found: &mut BTreeSet<String>) -> bool {
    let read = query::parse_expression(sql);
    let is_own = |name: &String| name != flow::TIME_COLUMN;
    read.map(|read| found.extend(read.columns.into_iter().filter(is_own))).is_ok()
}

/// Whether rows leave an operator with the same value under that name.
fn hands_on(operator: &OperatorSpec, key: &str) -> bool {
    let quoted = format!("\"{}\"", key.replace('"', "\"\""));
    match operator {
        OperatorSpec::Project { columns } => {
            columns.iter().any(|column| column.name == key && (column.sql == key || column.sql == quoted))
        }
        _ => true,
    }
}

fn in_two_phases(window: &WindowPlan) -> bool {
    let by_pane = !matches!(window.shape, WindowShape::Session { .. } | WindowShape::Count { .. });
    window.keys.is_empty() && by_pane && window.emit == flow::Emit::OnClose
}

fn number(vertex: usize) -> u32 {
    u32::try_from(vertex).unwrap_or(u32::MAX)
}

fn place(vertex: u32) -> usize {
    usize::try_from(vertex).unwrap_or(usize::MAX)
}
