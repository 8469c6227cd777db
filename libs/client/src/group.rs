//! Reader groups: readers that share the segments of streams among them, every event for one of them.
//!
//! The readers keep one document in a bucket ([`state`]), changed by compare-and-set and watched by all; nobody rules over them. The
//! coordinator knows that a group exists, what it reads, and what it has consumed.

mod checkpoint;
mod reader;
mod state;
mod steps;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bus::{Bucket, Change, SystemClock};
use tokio::{sync::watch, time::timeout};
use types::{Clock, GroupName, IndexName, Offset, ReaderId, SegmentId, StreamCut};
use wire::{
    Problem,
    coordinator::{
        Consumed, CreateGroup, CutKind, DeleteGroup, DescribeGroup, GroupConfig, GroupDescription, GroupRetention,
        NamedGroup, ReportConsumed, ResetGroup,
    },
    views::GROUPS,
};

pub use checkpoint::CHECKPOINTS_MAX;
pub use reader::{Delivered, GroupOptions, GroupReader};
pub use state::{GROUP_READERS_MAX, GROUP_SEGMENTS_MAX, GroupError};

use crate::{
    Client,
    document::{Document, Verdict},
    stream_reader::checked,
};
use checkpoint::Kind;
use state::{GroupState, Setup};

/// The largest document of a group.
pub(crate) const GROUP_BYTES_MAX: usize = 1 << 20;

/// How far one reader is in each of its segments: the offset after the last event that it is done with.
pub type ReaderPosition = BTreeMap<SegmentId, Offset>;

/// What changes in a group, for those who start and stop readers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroupNotice {
    /// Segments that can be read now: more readers than that are idle.
    pub segment_count: usize,
    /// The readers and how many segments each has.
    pub readers: BTreeMap<ReaderId, usize>,
    /// Whether everything was read up to the ends.
    pub end_of_data: bool,
}

/// A reader group of one generation.
///
/// ```no_run
/// # async fn example(client: client::Client) -> Result<(), Box<dyn std::error::Error>> {
/// use client::{Delivered, GroupOptions};
/// use std::time::Duration;
/// use wire::coordinator::{CutKind, GroupConfig, GroupRetention};
///
/// let config = GroupConfig {
///     group: "billing".parse()?,
///     scope: "shop".parse()?,
///     from: [("orders".parse()?, CutKind::Unbounded)].into(),
///     to: Default::default(),
///     checkpoint_ms: 30_000,
///     retention: GroupRetention::None,
/// };
/// let group = client.create_group(&config).await?;
/// let mut reader = group.reader("worker-1".parse()?, GroupOptions::default()).await?;
/// loop {
///     match reader.next(Duration::from_secs(1)).await? {
///         Some(Delivered::Events { segment, batch, .. }) => println!("{} events of {segment}", batch.num_rows()),
///         Some(Delivered::Checkpoint(name)) => println!("{name}: what was read so far is to be made durable now"),
///         Some(Delivered::EndOfData) => break,
///         Some(_) | None => {}
///     }
/// }
/// reader.close().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct ReaderGroup {
    client: Client,
    bucket: Bucket,
    description: GroupDescription,
}

impl Client {
    /// Creates a reader group; creating it again with the same configuration gives it.
    ///
    /// What is truncated already of what it is to read is left out: it begins at the stream's head there.
    /// Errors: Conflict `GroupDiffers`; BadRequest `InvalidCut`; NotFound `UnknownIndex`; Throttled `TooManySegments`.
    pub async fn create_group(&self, config: &GroupConfig) -> Result<ReaderGroup, Problem> {
        let description = self.bus.call::<CreateGroup>(&(), config).await?;
        ReaderGroup::open(self.clone(), description).await
    }

    /// The reader group of a name.
    ///
    /// Errors: NotFound `UnknownGroup`.
    pub async fn reader_group(&self, group: &GroupName) -> Result<ReaderGroup, Problem> {
        let description = self.bus.call::<DescribeGroup>(&(), &NamedGroup { group: group.clone() }).await?;
        ReaderGroup::open(self.clone(), description).await
    }

    /// Deletes a reader group; its readers answer Conflict `ReinitializationRequired`. Deleting what is not there succeeds.
    pub async fn delete_group(&self, group: &GroupName) -> Result<(), Problem> {
        self.bus.call::<DeleteGroup>(&(), &NamedGroup { group: group.clone() }).await?;
        forget(&self.bucket(GROUPS).await?, group, u64::MAX).await
    }
}

/// Removes the documents of the generations before one.
async fn forget(bucket: &Bucket, group: &GroupName, before: u64) -> Result<(), Problem> {
    for (key, _) in bucket.list(&format!("{group}.")).await? {
        if generation(&key).is_some_and(|generation| generation < before) {
            bucket.delete(&key).await?;
        }
    }
    Ok(())
}

fn key(group: &GroupName, generation: u64) -> String {
    format!("{group}.{generation}")
}

/// The generation that a key names.
fn generation(key: &str) -> Option<u64> {
    key.rsplit_once('.')?.1.parse().ok()
}

impl ReaderGroup {
    async fn open(client: Client, description: GroupDescription) -> Result<Self, Problem> {
        let bucket = client.bucket(GROUPS).await?;
        let group = Self { client, bucket, description };
        let mut document = group.document();
        if document.load().await?.is_none() {
            // Whoever comes first puts it there: the creator may have died in between.
            let state = GroupState::new(group.setup().await?)?;
            document
                .change(|there| Ok(if there.is_some() { Verdict::Keep(()) } else { Verdict::Put(state.clone(), ()) }))
                .await?;
        }
        Ok(group)
    }

    /// What the group reads, and its generation.
    pub fn description(&self) -> &GroupDescription {
        &self.description
    }

    /// A new reader of the group; its id must be its own.
    ///
    /// Errors: Conflict `ReaderExists`, `ReinitializationRequired`; Throttled `TooManyReaders`.
    pub async fn reader(&self, reader: ReaderId, options: GroupOptions) -> Result<GroupReader, Problem> {
        GroupReader::join(self.clone(), reader, options).await
    }

    /// Gives the group another configuration; its readers answer Conflict `ReinitializationRequired` and are to be made again
    /// from the group that this returns. With cuts of a checkpoint as `from` it goes on from there.
    pub async fn reset(&self, config: &GroupConfig) -> Result<Self, Problem> {
        let description = self.client.bus.call::<ResetGroup>(&(), config).await?;
        let group = Self::open(self.client.clone(), description).await?;
        forget(&group.bucket, &group.description.config.group, group.description.generation).await?;
        Ok(group)
    }

    /// Declares a reader dead: its segments go to others, at the given positions, else at those that it told last.
    ///
    /// Only for readers that are dead for certain: a living one reads on until it sees this, and others read the same. What it
    /// was given since it told its position is given again. False if it was not in the group.
    pub async fn reader_offline(&self, reader: &ReaderId, last: Option<&ReaderPosition>) -> Result<bool, Problem> {
        self.change(|state| Ok(state.offline(reader, last))).await
    }

    /// Declares offline every reader that said nothing for so long; see [`ReaderGroup::reader_offline`].
    ///
    /// One look has only the times that the readers wrote down, so this trusts the clocks of their machines and of this one.
    /// [`GroupOptions::reader_timeout`] does not.
    pub async fn expire_readers(&self, silent_for: Duration) -> Result<Vec<ReaderId>, Problem> {
        self.change(|state| {
            let silent = state.silent_since(SystemClock.now() - silent_for);
            Ok(silent.into_iter().filter(|reader| state.offline(reader, None)).collect())
        })
        .await
    }

    /// The readers, with what each told of its segments.
    pub async fn readers(&self) -> Result<BTreeMap<ReaderId, ReaderPosition>, Problem> {
        Ok(self.state().await?.assignment())
    }

    /// Makes every reader pass a checkpoint of this name and answers where the group stood.
    ///
    /// A group that begins at these cuts gives each event that comes behind the checkpoint for some reader, and none that came
    /// before. Bounds: [`CHECKPOINTS_MAX`] at a time. Errors: Conflict `CheckpointExists`; Throttled `TooManyCheckpoints`;
    /// Deadline `CheckpointUnknown` when not every reader has passed it within the time: it stays under way; Conflict
    /// `CheckpointLost` when readers skipped truncated events meanwhile.
    pub async fn initiate_checkpoint(
        &self,
        name: &str,
        within: Duration,
    ) -> Result<BTreeMap<IndexName, StreamCut>, Problem> {
        let cuts = self.checkpoint(name, Kind::Asked, within).await?;
        self.report(&cuts).await?;
        Ok(cuts)
    }

    /// The last complete checkpoint, named or automatic.
    pub async fn last_checkpoint(&self) -> Result<Option<(String, BTreeMap<IndexName, StreamCut>)>, Problem> {
        Ok(self.state().await?.last_completed().map(|(_, name, cuts)| (name.to_owned(), cuts)))
    }

    /// Where the group stands, as far as its readers told: with the default options at most about 3 s ago.
    pub async fn stream_cuts(&self) -> Result<BTreeMap<IndexName, StreamCut>, Problem> {
        Ok(self.state().await?.cuts())
    }

    /// Where the group stands: nowhere before what its readers were given when this is called.
    pub async fn generate_stream_cuts(&self, within: Duration) -> Result<BTreeMap<IndexName, StreamCut>, Problem> {
        self.checkpoint(&format!("cuts-{:016x}", rand::random::<u64>()), Kind::Silent, within).await
    }

    /// About how many payload bytes the group has still to read.
    ///
    /// Of segments that are begun the events left count as many bytes as an average event of the segment. The positions are those of
    /// [`ReaderGroup::stream_cuts`].
    pub async fn unread_bytes(&self) -> Result<u64, Problem> {
        let mut all = 0u64;
        for (index, from) in self.stream_cuts().await? {
            let to = match self.description.config.to.get(&index) {
                Some(CutKind::At(cut)) => cut.clone(),
                _ => self.client.tails(&index).await?,
            };
            let graph = self.client.graph(&index).await?;
            let from = graph.join(&from, &self.client.heads(&index).await?);
            // Positions may be ahead of ends that were asked for before.
            let to = graph.join(&from, &to);
            let parts = graph.between(&from, &to)?;
            let infos = self.client.describe_all(parts.iter().map(|(place, ..)| *place)).await?;
            for ((_, from, to), info) in parts.iter().zip(&infos) {
                let (from, to) = (*from, to.unwrap_or(info.end).min(info.end));
                let bytes = u128::from(info.bytes) * u128::from(to.saturating_sub(from)) / u128::from(info.end.max(1));
                all = all.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
            }
        }
        Ok(all)
    }

    /// Tells that a group of kind [`GroupRetention::Manual`] has consumed everything before a cut.
    pub async fn update_retention_cut(&self, index: &IndexName, cut: &StreamCut) -> Result<(), Problem> {
        self.consumed(index.clone(), cut.clone()).await
    }

    /// Notices of changes, the last one only; ends when the group is reset or deleted, and when the receiver is dropped.
    pub fn notices(&self) -> watch::Receiver<GroupNotice> {
        let (teller, receiver) = watch::channel(GroupNotice::default());
        let (mut watch, mut document) = (self.watch(), self.document());
        let own = self.key();
        tokio::spawn(async move {
            loop {
                let change = tokio::select! {
                    change = watch.next() => change,
                    () = teller.closed() => return,
                };
                let Change::Key { key, entry } = change else { continue };
                if key != own {
                    continue;
                }
                let (Ok(_), Some(state)) = (document.observe(entry), document.value()) else { return };
                let count = |(reader, position): (ReaderId, ReaderPosition)| (reader, position.len());
                let notice = GroupNotice {
                    segment_count: state.open_count(),
                    readers: state.assignment().into_iter().map(count).collect(),
                    end_of_data: state.is_finished(),
                };
                teller.send_if_modified(|known| {
                    let new = *known != notice;
                    *known = notice;
                    new
                });
            }
        });
        receiver
    }

    async fn checkpoint(
        &self,
        name: &str,
        kind: Kind,
        within: Duration,
    ) -> Result<BTreeMap<IndexName, StreamCut>, Problem> {
        let mut watch = self.watch();
        let number = self.change(|state| state.begin_checkpoint(name, kind, SystemClock.now())).await?;
        let (mut document, own) = (self.document(), self.key());
        let done = timeout(within, async {
            loop {
                if let Some(state) = document.load().await? {
                    if let Some(cuts) = state.checkpoint_cuts(number) {
                        return Ok(cuts);
                    }
                    if !state.is_under_way(number) {
                        let message =
                            "readers skipped what was truncated, or newer checkpoints came: begin another one";
                        return Err(Problem::conflict("CheckpointLost", message));
                    }
                } else {
                    return Err(reinitialize());
                }
                while !matches!(watch.next().await, Change::Key { key, .. } if key == own) {}
            }
        });
        done.await.unwrap_or_else(|_| {
            let message = format_args!("checkpoint {name:?} is not complete after {within:?}: are all readers alive?");
            Err(Problem::new(wire::Code::Deadline, "CheckpointUnknown", message).unknown())
        })
    }

    /// Holds back retention up to complete checkpoints, for groups that want it.
    pub(crate) async fn report(&self, cuts: &BTreeMap<IndexName, StreamCut>) -> Result<(), Problem> {
        if self.description.config.retention == GroupRetention::AtCheckpoint {
            for (index, cut) in cuts {
                self.consumed(index.clone(), cut.clone()).await?;
            }
        }
        Ok(())
    }

    async fn consumed(&self, index: IndexName, cut: StreamCut) -> Result<(), Problem> {
        let (group, generation) = (self.description.config.group.clone(), self.description.generation);
        self.client.bus.call::<ReportConsumed>(&(), &Consumed { group, generation, index, cut }).await.map(|_| ())
    }

    pub(crate) fn key(&self) -> String {
        key(&self.description.config.group, self.description.generation)
    }

    pub(crate) fn document(&self) -> Document<GroupState> {
        Document::new(self.bucket.clone(), self.key(), GROUP_BYTES_MAX)
    }

    /// Every generation of the group, so that a reset is seen.
    pub(crate) fn watch(&self) -> bus::Watch {
        self.bucket.watch(&format!("{}.", self.description.config.group))
    }

    async fn state(&self) -> Result<GroupState, Problem> {
        self.document().load().await?.cloned().ok_or_else(reinitialize)
    }

    async fn change<R>(&self, mut change: impl FnMut(&mut GroupState) -> Result<R, GroupError>) -> Result<R, Problem> {
        self.document().change(|state| changed(state, &mut change)).await
    }

    /// Where a new generation begins and ends.
    async fn setup(&self) -> Result<Setup, Problem> {
        let GroupDescription { config, generation, .. } = &self.description;
        let mut setup = Setup {
            generation: *generation,
            indexes: BTreeMap::new(),
            checkpoint_ms: config.checkpoint_ms,
            reports: config.retention == GroupRetention::AtCheckpoint,
            start: Vec::new(),
            ends: BTreeMap::new(),
            now: SystemClock.now(),
        };
        for (index, from) in &config.from {
            let from = match from {
                CutKind::Unbounded => self.client.heads(index).await?,
                CutKind::Tail => self.client.tails(index).await?,
                CutKind::At(cut) => cut.clone(),
            };
            let to = match config.to.get(index) {
                None | Some(CutKind::Unbounded) => None,
                Some(CutKind::Tail) => Some(self.client.tails(index).await?),
                Some(CutKind::At(cut)) => Some(cut.clone()),
            };
            // What was truncated since the cuts were taken is left out, as the coordinator does it.
            let head = self.client.heads(index).await?;
            let graph = self.client.graph(index).await?;
            let (from, to) = (graph.join(&from, &head), to.map(|to| graph.join(&to, &head)));
            checked(&self.client, index, &graph, &from, to.as_ref()).await?;
            let streams: BTreeSet<u32> = from.0.keys().map(|segment| segment.stream).collect();
            setup.indexes.extend(streams.into_iter().map(|stream| (stream, index.clone())));
            for (&segment, &offset) in &from.0 {
                setup.start.push((graph.place(segment)?, offset));
            }
            setup.ends.extend(to.unwrap_or_default().0);
        }
        Ok(setup)
    }
}

/// One step of a change of the document.
pub(crate) fn changed<R>(
    state: Option<&GroupState>,
    change: &mut impl FnMut(&mut GroupState) -> Result<R, GroupError>,
) -> Result<Verdict<GroupState, R>, Problem> {
    let state = state.ok_or_else(reinitialize)?;
    let mut next = state.clone();
    let result = change(&mut next)?;
    Ok(if next == *state { Verdict::Keep(result) } else { Verdict::Put(next, result) })
}

pub(crate) fn reinitialize() -> Problem {
    let message = "the group was reset or deleted: open it again and make new readers";
    Problem::conflict("ReinitializationRequired", message)
}
