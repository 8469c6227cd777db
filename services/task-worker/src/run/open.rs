//! From a plan to a task that is ready, fresh or as a checkpoint left it.

use std::sync::Arc;

use exchange::{Gate, Receiver};
use flow::{Aligner, Combined, JobGraph, KeyGroups, Out, Port, Setting};
use tracing::info;

use super::{
    Begin, Free,
    index::IndexRows,
    plan::SinkPlan,
    task::{Feed, Progress, Run},
};
use crate::{
    blocks,
    checkpoint::Checkpointer,
    edges::Edges,
    error::TaskError,
    metrics::Meter,
    part::Part,
    sink::{self, IndexSink},
    source,
    task::Context,
};

/// State of one operator of one task, in memory and spilled; beyond it the attempt ends with `StateTooLarge`.
const STATE_BYTES_MAX: usize = 4 << 30;

/// Opens the task of a vertex.
pub(crate) async fn open(
    context: &Arc<Context>,
    graph: &JobGraph,
    plan: &Free,
    receivers: Vec<Receiver>,
    edges: Edges,
    begin: Begin<'_>,
) -> Result<Run, TaskError> {
    let inputs = inputs(context, graph, &receivers);
    let keep_late = graph.edges.iter().any(|edge| edge.from == context.id.vertex && edge.port == Port::Late);
    let groups = key_groups(context, plan);
    let mut chain = plan.chain(|name| Setting {
        name: name.to_owned(),
        key_groups: groups.first..groups.end,
        errors: graph.errors,
        state_bytes_max: STATE_BYTES_MAX,
        spill: None,
    })?;
    let cut_by = plan.keys.as_ref().map(|_| groups);
    let known = blocks::restore(context, &mut chain, begin.parts, cut_by).await?;
    let sink: Option<Box<dyn super::RowSink>> = match &plan.sink {
        None => None,
        Some(SinkPlan::Index { index, ordered }) => {
            // Where order is chance, rows cannot be recognised by their numbers: each attempt writes under a name of its own.
            let mut named = context.as_ref().clone();
            named.submitted.unordered = (!ordered).then_some(context.attempt);
            let mine = own(context, begin.parts).filter(|_| *ordered);
            let sink = IndexSink::open(&named, index, mine).await?;
            Some(Box::new(IndexRows {
                sink,
                keys: plan.keys.clone().unwrap_or_default(),
                by_split: plan.is_stateless(),
            }))
        }
        Some(SinkPlan::Write { to, ordered }) => Some(sink::open(context, to, *ordered, begin).await?),
    };
    let (count, feed) = match &plan.source {
        Some(spec) => (1, Feed::Source(source::open(context, spec, begin).await?)),
        None => (receivers.len(), Feed::Gate(Gate::new(receivers), inputs)),
    };
    let checkpoint = begin.parts.iter().map(|part| part.checkpoint).max().unwrap_or(0);
    info!(task = %context.label, inputs = count, parts = begin.parts.len(), checkpoint, "task begins");
    Ok(Run {
        feed,
        chain,
        out: Out::new(graph.errors, keep_late),
        edges,
        sink,
        by_split: plan.is_stateless(),
        combined: Combined::new(count),
        aligner: Aligner::new(count, checkpoint),
        checkpoints: Checkpointer::new(Arc::clone(context), checkpoint).with_blocks(known),
        commits: context.commits.clone(),
        meter: Meter::of(context),
        progress: Progress::default(),
    })
}

/// Of each channel the number of its edge among those into the vertex.
fn inputs(context: &Context, graph: &JobGraph, receivers: &[Receiver]) -> Vec<usize> {
    let into: Vec<u32> =
        (0u32..).zip(&graph.edges).filter(|(_, e)| e.to == context.id.vertex).map(|(number, _)| number).collect();
    let place = |receiver: &Receiver| into.iter().position(|edge| *edge == receiver.id().edge).unwrap_or_default();
    receivers.iter().map(place).collect()
}

fn key_groups(context: &Context, plan: &Free) -> KeyGroups {
    match plan.keys {
        Some(_) => flow::key_groups_of(number(context.id.subtask), number(context.parallelism)).into(),
        None => KeyGroups::ALL,
    }
}

fn number(of: u32) -> usize {
    usize::try_from(of).unwrap_or(usize::MAX)
}

/// The part of the same subtask, where it counts under the same names.
pub(crate) fn own<'a>(context: &Context, parts: &'a [Part]) -> Option<&'a Part> {
    parts.iter().find(|part| part.task == context.id && part.generation == context.submitted.generation)
}
