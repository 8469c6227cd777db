//! The Rust client of segments.
//!
//! Owns writing exactly once whatever fails in between ([`EventWriter`], [`Transaction`], [`Client::append_if`]; [`Writer`] for
//! those who keep numbers themselves), reads that see every event once in order, in Tier 2 as in the tail
//! ([`SegmentReader`], [`StreamReader`], [`ReaderGroup`], [`BatchReader`]), stream cuts ([`Client::heads`], [`Client::tails`],
//! [`SegmentGraph`]), and shared state beside the streams ([`StateSynchronizer`], [`Table`]).
//! Deliberately does not know: how containers store what they store, queries, or who may do what; a [`bus::Bus`] and a
//! [`store::Objects`] are handed in.
//!
//! # From outside the platform
//!
//! [`Client::connect_with_binding`] takes the credentials of a service binding instead of a connection of the platform's. The same
//! writers, transactions and readers work with it, on the binding's index and as far as its role allows. Each of their calls shows a
//! delegation, which the coordinator signs for some minutes and the connection renews by itself; containers answer it with events
//! instead of naming chunks. Reader groups, synchronizers, tables and time notes are in buckets of the platform's account and stay
//! its own. `docs/decisions/0009-programs-outside-call-under-their-own-subjects.md` says why it is done so.
//!
//! # Writing
//!
//! | what | how | what it costs |
//! |---|---|---|
//! | many events | [`EventWriter::write_batch`], then [`EventWriter::flush`] or await the [`BatchReceipt`] | a copy into a block |
//! | one event, told when it is durable | [`EventWriter::write`], await the [`Receipt`] | the same; the receipt shares its block's memory |
//! | all or none, over all keys | [`Client::begin_transaction`] | two calls to the coordinator, and one merge per segment |
//! | only if nobody came first | [`Client::append_if`] | a round trip |
//! | with numbers of one's own | [`Client::writer`] | a round trip |
//!
//! **Exactly once.** A writer has an id, and numbers its events from 1 in each segment. A segment keeps the last number of each
//! writer with its events, drops what it has, and refuses what leaves a gap; there is no window of time. So a writer repeats
//! whatever it does not know to be stored, under the same numbers, until it is told.
//!
//! **Order.** Events of one key are stored in the order in which they were written, also when their segment is split or merged
//! meanwhile: its successors get nothing of a key before the old segment has said for certain what it holds.
//!
//! **Waiting.** Calls that write wait for memory only ([`WriterOptions::bytes_max`]). When the leader of a log is lost, its
//! segments answer nothing for 5 to 10 s; for longer or heavier traffic give the writer a [`SpillOptions`]. What is in memory does
//! not outlive the process; what is in spill files is sent by the next writer of the same name, index and directory, each event
//! once ([`EventWriter::recovered`]). Neither is acknowledged before its segment has it.
//!
//! **When an owner dies.** What was asked of a segment-store that died is asked again as soon as the coordinator has moved its
//! containers, or after a short time without an answer ([`Attempts`]). So writers wait for the take-over, some 2 to 3 s, and
//! little longer.
//!
//! **When a quota is used up.** The writer waits for as long as the answer says and goes on; it looks again every 10 s, because the
//! plan may change. Writes wait once memory is full. That is no reason to give up, and nothing is lost.
//!
//! **When it fails.** Whatever may pass is repeated for [`WriterOptions::give_up_after`]. After that, or when the stream is
//! sealed or deleted, the writer fails as a whole: every receipt gets a [`WriteError`], whose outcome says truthfully whether
//! that event may be stored.
//!
//! # Reading
//!
//! | what | how | order |
//! |---|---|---|
//! | a stream, by one reader | [`Client::stream_reader`] | per key, through every epoch |
//! | a stream, by many readers, each event for one of them | [`Client::create_group`], [`ReaderGroup::reader`] | per key |
//! | history, by many workers | [`Client::segment_ranges`], [`Client::read_ranges`] | per segment |
//! | one segment | [`Client::reader`] | by offset |
//! | one event | [`Client::fetch_event`] | |
//!
//! **Cuts.** A [`types::StreamCut`] names a place in a stream: one offset for each key. Readers of any kind begin and end at cuts and
//! tell where they are as cuts; [`cut_to_text`] makes a short text of one.
//!
//! **Scaling.** A segment is read only after everything that it follows was read to its end. So the events of a key come in their
//! order, however often their segment is split and merged.
//!
//! **Truncation.** Who stands before the head of a stream is told so once and goes on behind what is gone
//! ([`StreamReader::skip_to_head`], [`Delivered::Truncated`]).
//!
//! **Time.** Writers may say how far their event times are, by themselves ([`WriterOptions::note_time`]) or by hand
//! ([`Client::note_time`]); readers learn between which times they stand ([`Client::time_window`]).
//!
//! **Clocks.** A client whose clock is ahead of the others harms nobody: who is silent is decided by whoever listens, on his own
//! clock. Calls carry a deadline, so that a clock that is behind by more than the time of a call makes every call fail with
//! `Deadline`.
#![doc = include_str!("tasks.md")]

mod advance;
mod attempt;
mod batch;
mod binding;
mod cut;
mod document;
mod error;
mod frontier;
mod group;
mod patience;
mod reader;
#[cfg(test)]
mod sendable;
mod silence;
mod spill;
mod stream_reader;
mod synchronizer;
mod table;
#[cfg(test)]
mod testing;
mod transaction;
mod view;
mod watermark;
mod writer;

use std::{sync::Arc, time::Duration};

use bus::Bus;
use bytes::Bytes;
use moka::sync::Cache;
use store::Objects;
use types::{ContainerId, IndexName, Offset, WriterId};
use wire::{
    Problem,
    coordinator::{DescribeStream, SegmentRange, StreamDescription, StreamName},
    segment_store::{Append, Appended, DescribeSegment, SegmentInfo, SegmentName, SegmentPlace},
};

pub use attempt::Attempts;
pub use batch::{BatchReader, SegmentRangeBounds};
pub use binding::BindingCredentials;
pub use cut::{CutError, EventPointer, GRAPH_SEGMENTS_MAX, SegmentGraph, cut_from_text, cut_to_text};
pub use error::{WriteCause, WriteError};
pub use group::{
    CHECKPOINTS_MAX, Delivered, GROUP_READERS_MAX, GROUP_SEGMENTS_MAX, GroupError, GroupNotice, GroupOptions,
    GroupReader, ReaderGroup, ReaderPosition,
};
pub use patience::Patience;
pub use reader::SegmentReader;
pub use spill::SpillOptions;
pub use stream_reader::StreamReader;
pub use synchronizer::{Apply, COMPACT_FROM_BYTES, COMPACT_FROM_UPDATES, SYNCHRONIZED_BYTES_MAX, StateSynchronizer};
pub use table::{
    PRIMARY_BYTES_MAX, PRIMARY_KEY_BYTES_MAX, RowChange, RowCondition, SECONDARY_KEY_BYTES_MAX, TABLE_CHANGES_MAX,
    TABLE_PAGE_MAX, TABLE_VALUE_BYTES_MAX, Table, TableEntry, TableError, TablePage, Version, Versioned,
};
pub use transaction::Transaction;
pub use watermark::{MARKS_MAX, NOTING_WRITERS_MAX, TimeWindow, WRITER_SILENT_AFTER};
pub use writer::{Backlog, BatchReceipt, EventWriter, NoteTime, Receipt, WriteBatch, Writer, WriterOptions};

/// How old an answer about a stream may be.
const STREAM_FRESH: Duration = Duration::from_secs(1);
/// Streams remembered.
const STREAMS_MAX: u64 = 10_000;
/// Chunks remembered, so that readers that follow one another fetch each once.
const CHUNKS_BYTES_MAX: u64 = 64 << 20;

/// Reads and writes segments; cheap to clone, clones share caches.
#[derive(Clone)]
pub struct Client {
    bus: Bus,
    /// None outside the platform, where chunks are answered by containers.
    objects: Option<Objects>,
    streams: Cache<IndexName, Arc<StreamDescription>>,
    chunks: Cache<String, Bytes>,
    bucket_replicas: u8,
    views: view::Views,
    moves: attempt::Moves,
    /// What writers of an index noted last, as this client saw it.
    noted: Cache<IndexName, watermark::Noted>,
    conditional: writer::Conditional,
}

impl Client {
    /// A client on a connection in the platform account, and the object storage in which the chunks are.
    pub fn new(bus: Bus, objects: Objects) -> Self {
        Self::over(bus, Some(objects))
    }

    fn over(bus: Bus, objects: Option<Objects>) -> Self {
        let weigh = |_: &String, bytes: &Bytes| u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        Self {
            bus,
            objects,
            streams: Cache::builder().max_capacity(STREAMS_MAX).time_to_live(STREAM_FRESH).build(),
            chunks: Cache::builder().weigher(weigh).max_capacity(CHUNKS_BYTES_MAX).build(),
            bucket_replicas: 1,
            views: view::Views::default(),
            moves: attempt::Moves::default(),
            noted: Cache::new(STREAMS_MAX),
            conditional: writer::Conditional::default(),
        }
    }

    /// The same client where buckets have so many replicas: as many as the setting `journal_replicas` of the installation.
    ///
    /// Reader groups, synchronizers, tables and time notes are in buckets; a bucket keeps the number of whoever made it.
    #[must_use]
    pub fn with_bucket_replicas(self, replicas: u8) -> Self {
        Self { bucket_replicas: replicas.max(1), ..self }
    }

    /// Describes the stream of an index; at most one second old.
    ///
    /// Errors: NotFound `UnknownIndex`.
    pub async fn stream(&self, index: &IndexName) -> Result<Arc<StreamDescription>, Problem> {
        if let Some(known) = self.streams.get(index) {
            return Ok(known);
        }
        let stream = self.bus.call::<DescribeStream>(&(), &StreamName { index: index.clone() }).await?;
        let stream = Arc::new(stream);
        self.streams.insert(index.clone(), stream.clone());
        Ok(stream)
    }

    /// Appends a block; repeats transient failures with the same event numbers until `within` is over.
    ///
    /// When the container's owner dies, the attempt under way is given up and repeated at the next owner, see [`Attempts`].
    /// Durable: acknowledged by Tier 1 when it returns. Errors: outcome unknown if any attempt's is; then only a repeat
    /// with the same numbers is safe.
    pub async fn append(&self, container: ContainerId, append: Append, within: Duration) -> Result<Appended, Problem> {
        let (mut patience, mut attempts) = (Patience::new(within), Attempts::default());
        loop {
            let left = patience.left().min(attempts.within());
            let problem = match self.append_once(container, &append, left).await {
                Ok(appended) => return Ok(appended),
                Err(problem) => problem,
            };
            attempts.note(&problem);
            match patience.pause_after(&problem) {
                Some(pause) => tokio::time::sleep(pause).await,
                None => return Err(patience.conclude(problem)),
            }
        }
    }

    /// A writer of an index; its id must be its own for ever.
    pub fn writer(&self, index: IndexName, writer: WriterId) -> Writer {
        Writer::new(self.clone(), index, writer)
    }

    /// A reader of a segment from an offset on.
    pub fn reader(&self, segment: SegmentRange, from: Offset) -> SegmentReader {
        let place = SegmentPlace { segment: segment.segment, container: segment.container };
        SegmentReader::new(self.clone(), place, from)
    }

    /// Describes a segment.
    pub async fn describe(&self, segment: SegmentRange) -> Result<SegmentInfo, Problem> {
        let name = SegmentName { segment: segment.segment };
        self.bus.call::<DescribeSegment>(&segment.container, &name).await
    }

    /// The bytes of a chunk; `None` when the object is not there any more.
    async fn chunk(&self, key: &str) -> Result<Option<Bytes>, Problem> {
        if let Some(known) = self.chunks.get(key) {
            return Ok(Some(known));
        }
        let Some(objects) = &self.objects else {
            let message = format_args!("chunk {key} was named to a client that has no object storage");
            return Err(Problem::internal(message));
        };
        match objects.get(key).await {
            Ok(bytes) => {
                self.chunks.insert(key.to_owned(), bytes.clone());
                Ok(Some(bytes))
            }
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(Problem::unavailable("ObjectsUnavailable", error)),
        }
    }
}
