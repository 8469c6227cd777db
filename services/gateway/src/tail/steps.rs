//! What one segment says to a tail: its rows, and at its end what follows it.

use std::{sync::Arc, time::Duration};

use arrow::array::RecordBatch;
use engine::BatchStream;
use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use tokio::time::sleep;
use types::{IndexName, SegmentId};
use wire::{
    Problem,
    coordinator::{SegmentNode, SegmentRange},
};

use crate::platform::Platform;

/// The pause before it is asked again what follows a sealed segment; it doubles.
const FOLLOW_PAUSE_MIN: Duration = Duration::from_millis(50);
/// The longest such pause.
const FOLLOW_PAUSE_MAX: Duration = Duration::from_secs(1);
/// What one segment says.
pub(super) enum Step {
    /// Rows.
    Rows(SegmentId, RecordBatch),
    /// It cannot be read on.
    Failed(SegmentRange, Problem),
    /// It is sealed and was read to its end; here is what follows, nothing if the stream was sealed whole.
    Ended(SegmentId, Result<Vec<SegmentNode>, Problem>),
}

/// Whose rows are read.
pub(super) struct Whose {
    pub(super) platform: Arc<dyn Platform>,
    pub(super) index: IndexName,
    pub(super) segment: SegmentRange,
}

/// The rows of a segment, and then why there are no more.
pub(super) fn steps(whose: Whose, rows: BatchStream) -> BoxStream<'static, Step> {
    let next = |state: Option<(Whose, BatchStream)>| async move {
        let (whose, mut rows) = state?;
        match rows.next().await {
            Some(Ok(batch)) => Some((Step::Rows(whose.segment.segment, batch), Some((whose, rows)))),
            Some(Err(problem)) => Some((Step::Failed(whose.segment, problem), None)),
            None => Some((Step::Ended(whose.segment.segment, successors(&whose).await), None)),
        }
    };
    stream::unfold(Some((whose, rows)), next).boxed()
}

/// What follows a sealed segment, as soon as that is known; nothing if its stream was sealed whole.
async fn successors(whose: &Whose) -> Result<Vec<SegmentNode>, Problem> {
    let Whose { platform, index, segment } = whose;
    let ask = async || platform.successors(index, segment.segment).await.map(|found| found.segments);
    let mut pause = FOLLOW_PAUSE_MIN;
    loop {
        let found = match ask().await {
            Ok(found) if found.is_empty() => match platform.stream_now(index).await {
                Ok(stream) if stream.segments.iter().all(|present| present.segment != segment.segment) => {
                    // The next epoch opened just now, or a truncation left the segment behind.
                    let gone = || Problem::not_found("UnknownSegment", format_args!("{} is gone", segment.segment));
                    Some(ask().await.and_then(|found| if found.is_empty() { Err(gone()) } else { Ok(found) }))
                }
                Ok(stream) if stream.sealed => Some(Ok(found)),
                // Between the seal and the next epoch nothing follows.
                Ok(_) => None,
                Err(problem) => Some(Err(problem)),
            },
            found => Some(found),
        };
        match found {
            Some(Err(problem)) if problem.is_transient() => {
                tracing::debug!(segment = %segment.segment, %problem, "question what follows repeated");
            }
            Some(found) => return found,
            None => {}
        }
        sleep(pause).await;
        pause = (pause * 2).min(FOLLOW_PAUSE_MAX);
    }
}
