//! Segment stores that know their columns and answer no fragment.

use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use engine::schema_to_ipc;
use parking_lot::Mutex;
use types::ContainerId;
use wire::{
    Problem,
    segment_store::{Fragment, FragmentAnswer, FragmentPart, RowColumns, RowsOf},
};

use super::segments::Segments;
use crate::scatter::Stores;

/// Stores of the containers of all segments.
pub(crate) struct FakeStores {
    segments: Segments,
    /// What they say of a fragment.
    pub(crate) problem: Mutex<Problem>,
    /// How many fragments they were asked for.
    pub(crate) asked: AtomicU32,
}

impl FakeStores {
    /// Of these segments; too busy for fragments.
    pub(crate) fn new(segments: Segments) -> Self {
        let problem = Problem::throttled("Throttled", "too many fragments of queries run here");
        Self { segments, problem: Mutex::new(problem), asked: AtomicU32::default() }
    }
}

#[async_trait]
impl Stores for FakeStores {
    async fn columns(&self, _: ContainerId, rows: &RowsOf) -> Result<RowColumns, Problem> {
        let segments = self.segments.segments.lock();
        let schemas: Vec<_> =
            rows.runs.iter().map(|run| segments[&run.segment].rows(run.segment, run.from).schema()).collect();
        let schema = ingest::merge_schemas(schemas.iter().map(AsRef::as_ref));
        Ok(RowColumns { schema: schema_to_ipc(&schema).unwrap().into() })
    }

    async fn run(&self, _: ContainerId, _: &Fragment) -> Result<FragmentAnswer, Problem> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        Err(self.problem.lock().clone())
    }

    async fn part(&self, _: ContainerId, _: &FragmentPart) -> Result<FragmentAnswer, Problem> {
        Err(self.problem.lock().clone())
    }
}
