//! The Rust client of segments.
//!
//! Owns appends that are stored exactly once whatever fails in between ([`Client::append`], [`Writer`]), reads that see every
//! event once in order, in Tier 2 as in the tail ([`SegmentReader`]), and stream cuts ([`Client::heads`], [`Client::tails`]).
//! Deliberately does not know: how containers store what they store, queries, or who may do what; a [`bus::Bus`] and a
//! [`store::Objects`] are handed in.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! # async fn example(bus: bus::Bus, objects: store::Objects) -> Result<(), Box<dyn std::error::Error>> {
//! let client = client::Client::new(bus, objects);
//! let index = "shop".parse()?;
//!
//! // Exactly once: the number of the first event names the append, so that repeating it is harmless.
//! let writer = client.writer(index, "importer-1".parse()?);
//! let segment = writer.route(Some(&types::RoutingKey::new("cart-17")?)).await?;
//! let last = writer.resume(segment).await?;
//! writer.append(segment, last + 1, &["first".into(), "second".into()]).await?;
//!
//! // From the beginning to the end, and then what comes.
//! let mut reader = client.reader(segment, 0);
//! while let Some(batch) = reader.next(Duration::from_secs(1)).await? {
//!     println!("{} events up to offset {}", batch.num_rows(), reader.position().offset);
//! }
//! # Ok(())
//! # }
//! ```

mod patience;
mod reader;
mod writer;

use std::{sync::Arc, time::Duration};

use bus::Bus;
use bytes::Bytes;
use futures::future::try_join_all;
use moka::sync::Cache;
use store::Objects;
use types::{ContainerId, IndexName, Offset, StreamCut, WriterId};
use wire::{
    Problem,
    coordinator::{DescribeStream, SegmentRange, StreamDescription, StreamName},
    segment_store::{Append, AppendEvents, Appended, DescribeSegment, SegmentInfo, SegmentName},
};

pub use patience::Patience;
pub use reader::SegmentReader;
pub use writer::Writer;

/// How old an answer about a stream may be.
const STREAM_FRESH: Duration = Duration::from_secs(1);
/// Streams remembered.
const STREAMS_MAX: u64 = 10_000;
/// Chunks remembered, so that readers that follow one another fetch each once.
const CHUNKS_BYTES_MAX: u64 = 64 << 20;
/// One try of an append; the segment store itself tries for about ten seconds.
const TRY_WITHIN: Duration = Duration::from_secs(15);

/// Reads and writes segments; cheap to clone, clones share caches.
#[derive(Clone)]
pub struct Client {
    bus: Bus,
    objects: Objects,
    streams: Cache<IndexName, Arc<StreamDescription>>,
    chunks: Cache<String, Bytes>,
}

impl Client {
    /// A client on a connection in the platform account, and the object storage in which the chunks are.
    pub fn new(bus: Bus, objects: Objects) -> Self {
        let weigh = |_: &String, bytes: &Bytes| u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        Self {
            bus,
            objects,
            streams: Cache::builder().max_capacity(STREAMS_MAX).time_to_live(STREAM_FRESH).build(),
            chunks: Cache::builder().weigher(weigh).max_capacity(CHUNKS_BYTES_MAX).build(),
        }
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
    /// Durable: acknowledged by Tier 1 when it returns. Errors: outcome unknown if any attempt's is; then only a repeat
    /// with the same numbers is safe.
    pub async fn append(&self, container: ContainerId, append: Append, within: Duration) -> Result<Appended, Problem> {
        let mut patience = Patience::new(within);
        loop {
            let left = patience.left().min(TRY_WITHIN);
            let problem = match self.bus.call_within::<AppendEvents>(&container, &append, left).await {
                Ok(appended) => return Ok(appended),
                Err(problem) => problem,
            };
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
        SegmentReader::new(self.clone(), segment, from)
    }

    /// Describes a segment.
    pub async fn describe(&self, segment: SegmentRange) -> Result<SegmentInfo, Problem> {
        let name = SegmentName { segment: segment.segment };
        self.bus.call::<DescribeSegment>(&segment.container, &name).await
    }

    /// The cut before the first event that every present segment still has.
    pub async fn heads(&self, index: &IndexName) -> Result<StreamCut, Problem> {
        self.cut(index, |info| info.start).await
    }

    /// The cut behind the last event that every present segment has.
    pub async fn tails(&self, index: &IndexName) -> Result<StreamCut, Problem> {
        self.cut(index, |info| info.end).await
    }

    async fn cut(&self, index: &IndexName, offset: impl Fn(&SegmentInfo) -> Offset) -> Result<StreamCut, Problem> {
        let stream = self.stream(index).await?;
        let infos = try_join_all(stream.segments.iter().map(|segment| self.describe(*segment))).await?;
        Ok(StreamCut(infos.iter().map(|info| (info.segment, offset(info))).collect()))
    }

    /// The bytes of a chunk; `None` when the object is not there any more.
    async fn chunk(&self, key: &str) -> Result<Option<Bytes>, Problem> {
        if let Some(known) = self.chunks.get(key) {
            return Ok(Some(known));
        }
        match self.objects.get(key).await {
            Ok(bytes) => {
                self.chunks.insert(key.to_owned(), bytes.clone());
                Ok(Some(bytes))
            }
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(Problem::unavailable("ObjectsUnavailable", error)),
        }
    }
}
