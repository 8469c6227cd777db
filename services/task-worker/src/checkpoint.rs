//! Storing a task's part and reporting it, beside the task, which goes on meanwhile.

use std::sync::Arc;

use store::Put;
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, info};
use types::StreamCut;
use wire::job_manager::{CheckpointReport, ReportCheckpoint};

use crate::{
    metrics::PARTS_STORED,
    part::Part,
    retry::{Pauses, persist},
    task::Context,
};

/// The checkpoints of one task. Bounds: one part is on its way; a newer one ends the older, which the job manager has given up.
#[derive(Debug)]
pub(crate) struct Checkpointer {
    context: Arc<Context>,
    last: u64,
    on_its_way: Option<AbortOnDropHandle<()>>,
}

impl Checkpointer {
    /// For a task that was restored from that checkpoint; 0 for a fresh one.
    pub(crate) fn new(context: Arc<Context>, restored: u64) -> Self {
        Self { context, last: restored, on_its_way: None }
    }

    /// Whether a barrier was not seen before; orders are repeated.
    pub(crate) fn is_new(&self, checkpoint: u64) -> bool {
        checkpoint > self.last
    }

    /// Begins an empty part.
    pub(crate) fn part(&self, checkpoint: u64) -> Part {
        Part::new(self.context.id, self.context.uid.clone(), checkpoint)
    }

    /// Stores and reports the part; everything that it speaks of must be acknowledged.
    pub(crate) fn store(&mut self, part: &Part, cut: StreamCut) {
        self.last = part.checkpoint;
        let context = Arc::clone(&self.context);
        let key = context.submitted.part_key(part.checkpoint, context.id, context.attempt);
        let (bytes, reference) = part.seal(key);
        let report = CheckpointReport {
            job: context.submitted.job.clone(),
            attempt: context.attempt,
            checkpoint: part.checkpoint,
            task: context.number,
            part: Some(reference.clone()),
            cut,
        };
        let work = async move {
            let mut pauses = Pauses::default();
            loop {
                match context.shared.objects.put_if_absent(&reference.key, bytes.clone()).await {
                    Ok(Put::Stored) => break,
                    // Nobody else writes this key: it is ours, of a try whose answer was lost.
                    Ok(Put::Exists) => break,
                    Err(error) => {
                        info!(task = %context.label, key = %reference.key, %error, "part not stored; it will be repeated");
                        tokio::time::sleep(pauses.next()).await;
                    }
                }
            }
            PARTS_STORED.inc();
            let reported =
                persist("reporting a checkpoint", || context.shared.bus.call::<ReportCheckpoint>(&(), &report)).await;
            match reported {
                Ok(_) => debug!(task = %context.label, checkpoint = report.checkpoint, "part reported"),
                Err(error) => info!(task = %context.label, error = %error.reason(), "part is not wanted"),
            }
        };
        self.on_its_way = Some(AbortOnDropHandle::new(tokio::spawn(work)));
    }
}
