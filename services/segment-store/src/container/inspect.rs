//! What callers may look at: segments, writers, the container as a whole; and the wish to have it all in Tier 2.

use std::{
    ops::Bound::{Excluded, Unbounded},
    sync::atomic::Ordering,
};

use types::{SegmentId, Timestamp, WriterId};
use wire::segment_store::{ContainerInfo, PageOf, SegmentInfo, SegmentPage, WriterInfo, WriterTable};

use crate::{
    container::{Container, books::Phase},
    error::Error,
};

/// Segments of one page, at most.
const PAGE_MAX: usize = 1_000;

impl Container {
    /// Describes a segment.
    pub fn describe(&self, segment: SegmentId) -> Result<SegmentInfo, Error> {
        self.readable()?.state.segment(segment).map(|s| s.info(segment))
    }

    /// What a writer has in a segment.
    pub fn writer(&self, segment: SegmentId, writer: &WriterId) -> Result<WriterInfo, Error> {
        let last_event_number = self.readable()?.state.segment(segment)?.last_of(writer);
        Ok(WriterInfo { last_event_number })
    }

    /// By what a segment recognises repeats, once that is final; `None` while it takes appends.
    pub(crate) fn final_writers(&self, segment: SegmentId) -> Result<Option<WriterTable>, Error> {
        let books = self.readable()?;
        let known = books.state.segment(segment)?;
        Ok(known.sealed.then(|| known.table()))
    }

    /// Describes the container.
    pub fn inspect(&self) -> Result<ContainerInfo, Error> {
        let books = self.readable()?;
        let state = &books.state;
        let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        let damage = match &books.phase {
            Phase::ReadOnly(damage) => Some(damage.to_string()),
            _ => None,
        };
        Ok(ContainerInfo {
            container: self.id,
            replica: self.replica.clone(),
            generation: self.generation,
            damage,
            applied_seq: state.applied_seq,
            frame_number: state.frame_number,
            segment_count: count(state.segments.len()),
            chunk_count: count(state.segments.values().map(|s| s.chunks.len()).sum()),
            tail_bytes: books.tail.bytes(),
            log_bytes: books.log.held(),
            garbage_count: count(state.garbage.len()),
        })
    }

    /// Lists segments by id.
    ///
    /// Bounds: 1 to 1 000 at a time.
    pub fn list(&self, page: PageOf) -> Result<SegmentPage, Error> {
        let books = self.readable()?;
        let limit = usize::try_from(page.limit).unwrap_or(PAGE_MAX).clamp(1, PAGE_MAX);
        let mut rest = books.state.segments.range((page.after.map_or(Unbounded, Excluded), Unbounded));
        let segments = rest.by_ref().take(limit).map(|(id, segment)| segment.brief(*id)).collect();
        Ok(SegmentPage { segments, more: rest.next().is_some() })
    }

    /// Asks the storage writer to move every event up to now to Tier 2 and to write a snapshot; answers the frame up to
    /// which that is wanted. Events of open transactions stay where they are.
    pub fn flush(&self) -> Result<u64, Error> {
        let wanted = self.serving()?.state.frame_number;
        self.flush_wanted.fetch_max(wanted, Ordering::Relaxed);
        self.kick.notify_one();
        Ok(wanted)
    }

    /// Waits until the storage writer has done what [`flush`](Self::flush) asked for.
    pub async fn flushed(&self, wanted: u64, deadline: Timestamp) -> Result<ContainerInfo, Error> {
        let mut flushed = self.flushed.subscribe();
        let done = flushed.wait_for(|frame| *frame >= wanted || self.draining.load(Ordering::Relaxed));
        let within = deadline.since(self.clock.now());
        match tokio::time::timeout(within, done).await {
            Ok(Ok(frame)) if *frame >= wanted => {}
            Ok(_) => return Err(self.unavailable("its owner stopped")),
            Err(_) => return Err(Error::FlushUnfinished(self.id)),
        }
        self.inspect()
    }
}
