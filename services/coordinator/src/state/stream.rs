//! One stream: what others see of it, its segments, and the work on it that was begun and not ended.

use serde::{Deserialize, Serialize};
use types::{SegmentId, StreamCut, Tag, Timestamp};
use wire::{
    coordinator::{INSTANCE_TAG_PREFIX, NewStream, RetentionPolicy, ScalingPolicy, StreamDescription},
    segment_store::SegmentPlace,
};

use super::graph::{Graph, Loss};

/// Whether the tags are of a stream that is a service instance.
pub(crate) fn is_of_instance(tags: &[Tag]) -> bool {
    tags.iter().any(|tag| tag.as_str().starts_with(INSTANCE_TAG_PREFIX))
}

/// How far a stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Its segments are being created.
    Creating,
    /// It can be used.
    Live,
    /// Its segments are being deleted.
    Deleting,
}

/// One stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Kept")]
pub struct Stream {
    /// Without what the graph knows better: epoch, segments, head.
    pub(super) description: StreamDescription,
    pub(super) phase: Phase,
    /// What the first request asked for: repeats are compared with it, whatever was changed since.
    pub(super) asked: NewStream,
    pub(super) graph: Graph,
    pub(super) sealing: bool,
    pub(super) truncation: Option<Truncation>,
    /// How many truncations were begun.
    pub(super) truncations: u64,
    /// Whether it came back by a restore: whoever asks for it first gets it, with the policies asked for.
    pub(super) restored: bool,
}

/// What truncations have still to take out of the stores.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Truncation {
    /// The last of them; an end counts only if it ends this one.
    pub number: u64,
    /// What goes.
    pub loss: Loss,
}

/// A stream as it is stored. Before streams could scale it had a description and a phase only.
#[derive(Deserialize)]
struct Kept {
    description: StreamDescription,
    phase: Phase,
    #[serde(default)]
    asked: Option<NewStream>,
    #[serde(default)]
    graph: Option<Graph>,
    #[serde(default)]
    sealing: bool,
    #[serde(default)]
    truncation: Option<Truncation>,
    #[serde(default)]
    truncations: u64,
    #[serde(default)]
    restored: bool,
}

impl From<Kept> for Stream {
    fn from(kept: Kept) -> Self {
        let Kept { mut description, phase, asked, graph, sealing, truncation, truncations, restored } = kept;
        let asked = asked.unwrap_or_else(|| NewStream {
            scope: description.scope.clone(),
            index: description.index.clone(),
            segment_count: u16::try_from(description.segments.len()).unwrap_or(u16::MAX),
            retention_days: description.retention_days,
            scaling: description.scaling,
            retention: description.retention,
            tags: description.tags.clone(),
            encrypted: description.encrypted,
        });
        let segments = std::mem::take(&mut description.segments);
        let graph = graph.unwrap_or_else(|| Graph::first(description.stream, segments, description.created));
        Self { description, phase, asked, graph, sealing, truncation, truncations, restored }
    }
}

impl Stream {
    pub(super) fn begun(graph: Graph, new: &NewStream, created: Timestamp) -> Self {
        let asked = new.clone();
        let NewStream { scope, index, segment_count: _, retention_days, scaling, retention, tags, encrypted } =
            new.clone();
        let number = graph.stream();
        let described = StreamDescription::new((number, created), scope, index, Vec::new());
        let description = StreamDescription { retention_days, scaling, retention, tags, encrypted, ..described };
        let (phase, sealing, truncation, truncations) = (Phase::Creating, false, None, 0);
        Self { description, phase, asked, graph, sealing, truncation, truncations, restored: false }
    }

    /// What others see of it.
    pub fn describe(&self) -> StreamDescription {
        StreamDescription {
            epoch: self.graph.epoch(),
            segments: self.graph.present().copied().collect(),
            head: self.graph.head().clone(),
            ..self.description.clone()
        }
    }

    /// What others see of it, without segments and head: cheap.
    pub fn summary(&self) -> &StreamDescription {
        &self.description
    }

    /// Its segments.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// How far it is.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Whether it takes appends no more, or soon will not.
    pub fn is_ending(&self) -> bool {
        self.description.sealed || self.sealing
    }

    /// Whether its segments are being sealed for good.
    pub fn is_sealing(&self) -> bool {
        self.sealing
    }

    /// What truncations have still to take out of the stores.
    pub fn truncation(&self) -> Option<&Truncation> {
        self.truncation.as_ref()
    }

    /// Whether something was begun and not ended.
    pub fn is_pending(&self) -> bool {
        self.phase != Phase::Live || self.sealing || self.truncation.is_some() || self.graph.scaling().is_some()
    }

    /// Every segment that may exist in a store, but for those of transactions.
    pub fn places(&self) -> Vec<SegmentPlace> {
        let doomed = self.truncation.iter().flat_map(|truncation| truncation.loss.delete.iter().copied());
        self.graph.places().into_iter().chain(doomed).collect()
    }

    pub(super) fn update(&mut self, changed: &Changed) {
        let there = &mut self.description;
        (there.retention_days, there.scaling) = (changed.retention_days, changed.scaling);
        (there.retention, there.tags) = (changed.retention, changed.tags.clone());
    }

    /// Takes in a new head; what an earlier truncation has not taken out yet goes with it.
    pub(super) fn truncate(&mut self, cut: &StreamCut) {
        let mut loss = self.truncation.take().map(|truncation| truncation.loss).unwrap_or_default();
        let more = self.graph.truncate(cut);
        loss.truncate.extend(more.truncate);
        loss.delete.extend(more.delete);
        loss.truncate.retain(|segment: &SegmentId, _| self.graph.node(*segment).is_some());
        self.truncations += 1;
        self.truncation = Some(Truncation { number: self.truncations, loss });
    }
}

/// Policies and tags as they are after a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// How long events are kept.
    pub retention_days: Option<u32>,
    /// When segments are split and merged.
    pub scaling: ScalingPolicy,
    /// What goes first when there is too much.
    pub retention: Option<RetentionPolicy>,
    /// Labels.
    pub tags: Vec<Tag>,
}
