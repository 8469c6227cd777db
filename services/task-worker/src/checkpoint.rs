//! Storing a task's part and reporting it, beside the task, which goes on meanwhile.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use flow::StateBlock;
use tokio::{task::JoinHandle, time::Instant};
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, info};
use types::{StreamCut, Timestamp};
use wire::job_manager::{CheckpointFigures, CheckpointReport, ReportCheckpoint};

use crate::{
    blocks::{self, Known},
    metrics::PARTS_STORED,
    part::Part,
    retry::{Pauses, persist},
    run::Cut,
    task::Context,
};

/// What a task is at a barrier.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(crate) part: Part,
    /// The state of operators, frozen and not encoded yet.
    pub(crate) state: Vec<(String, Vec<StateBlock>)>,
    pub(crate) watermark: Timestamp,
    pub(crate) cut: Cut,
    /// From the first barrier to the last.
    pub(crate) align: Duration,
    /// In which the task stood still.
    pub(crate) sync: Duration,
}

impl Snapshot {
    /// A part alone.
    pub(crate) fn of(part: Part) -> Self {
        let (align, sync) = (Duration::ZERO, Duration::ZERO);
        Self { part, state: Vec::new(), watermark: Timestamp::MIN, cut: Cut::default(), align, sync }
    }
}

/// The checkpoints of one task. Bounds: one part is on its way; a newer one ends the older, which the job manager has given up.
#[derive(Debug)]
pub(crate) struct Checkpointer {
    context: Arc<Context>,
    last: u64,
    known: Known,
    on_its_way: Option<AbortOnDropHandle<bool>>,
}

impl Checkpointer {
    /// For a task that was restored from that checkpoint; 0 for a fresh one.
    pub(crate) fn new(context: Arc<Context>, restored: u64) -> Self {
        Self { context, last: restored, known: Known::default(), on_its_way: None }
    }

    /// The same with the blocks that are stored.
    pub(crate) fn with_blocks(self, known: Known) -> Self {
        Self { known, ..self }
    }

    /// Whether a barrier was not seen before; orders are repeated.
    pub(crate) fn is_new(&self, checkpoint: u64) -> bool {
        checkpoint > self.last
    }

    /// The last barrier that was seen.
    pub(crate) fn last(&self) -> u64 {
        self.last
    }

    /// Begins an empty part.
    pub(crate) fn part(&self, checkpoint: u64) -> Part {
        let generation = self.context.submitted.generation;
        let mut part = Part::new(self.context.id, self.context.uid.clone(), checkpoint);
        part.generation = generation;
        part
    }

    /// Stores and reports a snapshot; everything that its part speaks of must be acknowledged.
    pub(crate) fn store(&mut self, checkpoint: u64, snapshot: Snapshot) {
        self.last = checkpoint;
        let key = self.context.submitted.part_key(checkpoint, self.context.id, self.context.attempt);
        self.send(key, snapshot);
    }

    /// The same for what a task is at its end: it stands for the task in every later checkpoint.
    pub(crate) fn store_last(&mut self, mut snapshot: Snapshot) {
        snapshot.part.checkpoint = self.last;
        let key = self.context.submitted.last_part_key(self.context.id, self.context.attempt);
        self.send(key, snapshot);
    }

    /// Waits until the part that is on its way is reported; false if it could not be, or is not wanted.
    pub(crate) async fn reported(&mut self) -> bool {
        let Some(on_its_way) = self.on_its_way.take() else { return true };
        let taken = on_its_way.await.unwrap_or(false);
        if !taken {
            info!(task = %self.context.label, "the last part was not reported");
        }
        taken
    }

    fn send(&mut self, key: String, snapshot: Snapshot) {
        let (context, known) = (Arc::clone(&self.context), self.known.clone());
        known.committed(*context.commits.borrow());
        let work: JoinHandle<bool> = tokio::spawn(async move {
            let task = context.label.clone();
            match stored(&context, &known, key, snapshot).await {
                Ok(report) => tell(&context, report).await,
                Err(error) => {
                    info!(task, error = %error.reason(), "state cannot be stored");
                    false
                }
            }
        });
        self.on_its_way = Some(AbortOnDropHandle::new(work));
    }
}

/// Stores blocks and part.
async fn stored(
    context: &Context,
    known: &Known,
    key: String,
    snapshot: Snapshot,
) -> Result<CheckpointReport, crate::error::TaskError> {
    let began = Instant::now();
    let Snapshot { mut part, state, watermark, cut, align, sync } = snapshot;
    let uploaded = blocks::upload(context, known, part.checkpoint, state, watermark).await?;
    part.state = uploaded.state;
    let (bytes, reference) = part.seal(key);
    put(context, &reference.key, bytes).await;
    PARTS_STORED.inc();
    let Cut { index, splits } = cut;
    let figures = CheckpointFigures {
        align_us: micros(align),
        sync_us: micros(sync),
        async_us: micros(began.elapsed()),
        bytes: uploaded.bytes + reference.bytes,
        new_bytes: uploaded.new_bytes + reference.bytes,
        ..CheckpointFigures::default()
    };
    Ok(CheckpointReport {
        job: context.submitted.job.clone(),
        attempt: context.attempt,
        checkpoint: part.checkpoint,
        task: context.number,
        part: Some(reference),
        cut: index,
        splits,
        blocks: uploaded.keys,
        figures,
    })
}

async fn put(context: &Context, key: &str, bytes: Bytes) {
    let mut pauses = Pauses::default();
    // One that is there is ours, of a try whose answer was lost: nobody else writes this key.
    while let Err(error) = context.shared.objects.put_if_absent(key, bytes.clone()).await {
        info!(task = %context.label, key, %error, "part not stored; it will be repeated");
        tokio::time::sleep(pauses.next()).await;
    }
}

/// Whether the part was taken.
async fn tell(context: &Context, report: CheckpointReport) -> bool {
    let call = || context.shared.bus.call::<ReportCheckpoint>(&(), &report);
    match persist("reporting a checkpoint", call).await {
        Ok(_) => {
            debug!(task = %context.label, checkpoint = report.checkpoint, "part reported");
            true
        }
        Err(error) => {
            info!(task = %context.label, error = %error.reason(), "part is not wanted");
            false
        }
    }
}

/// Whole microseconds.
pub(crate) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

impl From<StreamCut> for Cut {
    fn from(index: StreamCut) -> Self {
        Self { index, ..Self::default() }
    }
}
