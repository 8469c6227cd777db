//! The rest of the platform as the gateway needs it.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use async_trait::async_trait;
use bus::{Bucket, Bus};
use bytes::Bytes;
use client::Client;
use engine::{BatchStream, Chunks};
use futures::StreamExt;
use host::{Host, StartError};
use store::{Objects, StoreError};
use types::{ByteSize, ContainerId, IndexName, JobId, Offset, RuleId, ScopeName, SegmentId, StreamCut};
use wire::{
    Empty, Problem, alerter, coordinator,
    coordinator::{
        SegmentNode, SegmentNodes, SegmentRange, SegmentsOf, StreamDescription, StreamName, StreamsOf, SuccessorsOf,
    },
    index_provisioner, job_manager,
    segment_store::{Append, Appended, SegmentInfo},
    views::{MEMBERS, Member, Placement},
};

use crate::scatter::Stores;

/// Segments of an index that one query or tail looks at; an index that scaled more often must be truncated first.
pub(crate) const SEGMENTS_MAX: usize = 10_000;
/// Segments asked for at once; the coordinator answers no more.
const PAGE_SEGMENTS: u32 = 1_000;
/// The back-end whose indexes are here; those of others have no stream.
const BACKEND: &str = "own";
/// How long one append may take, repeats included.
const APPEND_WITHIN: Duration = Duration::from_secs(20);
/// How long a savepoint is waited for; asking again with its name goes on waiting.
const SAVEPOINT_WITHIN: Duration = Duration::from_secs(20);
/// How long a reader waits at the end of a segment before it says that there is nothing.
const READ_WAIT: Duration = Duration::from_secs(5);

/// What the HTTP door asks of other services.
#[async_trait]
pub(crate) trait Platform: Send + Sync + 'static {
    /// The stream of an index, at most a second old. NotFound: `UnknownIndex`.
    async fn stream(&self, index: &IndexName) -> Result<Arc<StreamDescription>, Problem>;
    /// The stream of an index as it is now. NotFound: `UnknownIndex`.
    async fn stream_now(&self, index: &IndexName) -> Result<StreamDescription, Problem>;
    /// The segments of an index behind one of them, of former epochs too, transactions' never; a page in order of ids.
    async fn segments(&self, index: &IndexName, after: Option<SegmentId>) -> Result<SegmentNodes, Problem>;
    /// What follows a sealed segment; nothing while the next epoch is not open.
    async fn successors(&self, index: &IndexName, segment: SegmentId) -> Result<SegmentNodes, Problem>;
    /// A segment at this instant. NotFound: `UnknownSegment`.
    async fn describe(&self, segment: SegmentRange) -> Result<SegmentInfo, Problem>;
    /// Where fragments of queries run beside the rows; `None` where nothing does that.
    fn stores(&self) -> Option<&dyn Stores> {
        None
    }
    /// Where chunks are read.
    fn chunks(&self) -> &Chunks;
    /// Appends one block; durable when it returns.
    async fn append(&self, container: ContainerId, append: Append) -> Result<Appended, Problem>;
    /// The offsets after the last events.
    async fn tails(&self, index: &IndexName) -> Result<StreamCut, Problem>;
    /// The rows of a segment from an offset on, past its end as they come; ends when the segment is sealed and read, or
    /// with a problem. NotFound: `UnknownSegment`, `Truncated`.
    fn follow(&self, segment: SegmentRange, from: Offset) -> BatchStream;
    /// Every index.
    async fn indexes(&self) -> Result<index_provisioner::IndexList, Problem>;
    /// How many streams there are in a scope.
    async fn streams_in(&self, scope: &ScopeName) -> Result<usize, Problem>;
    /// Every live binding.
    async fn bindings(&self) -> Result<index_provisioner::BindingList, Problem>;
    /// Where containers are.
    async fn placement(&self) -> Result<Placement, Problem>;
    /// Living replicas.
    async fn members(&self) -> Result<Vec<Member>, Problem>;
    /// Whether the bus is there.
    fn is_connected(&self) -> bool;
    /// Items of the library of an index.
    async fn items(&self, of: &coordinator::ItemsOf) -> Result<coordinator::ItemList, Problem>;
    /// One item. NotFound: `UnknownItem`, `UnknownIndex`.
    async fn item(&self, place: &coordinator::ItemPlace) -> Result<coordinator::Item, Problem>;
    /// Puts an item into a library.
    async fn put_item(&self, change: &coordinator::ItemChange) -> Result<coordinator::Item, Problem>;
    /// Takes an item out of a library.
    async fn delete_item(&self, removal: &coordinator::ItemRemoval) -> Result<(), Problem>;
    /// Where the table of a lookup may be put.
    async fn reserve_upload(&self, of: &coordinator::UploadOf) -> Result<coordinator::UploadPlace, Problem>;
    /// Puts an object into storage, where none is.
    async fn put_object(&self, key: &str, bytes: Bytes) -> Result<(), Problem>;
    /// An object of storage.
    async fn object(&self, key: &str) -> Result<Bytes, Problem>;
    /// Every job.
    async fn jobs(&self) -> Result<job_manager::JobList, Problem>;
    /// One job.
    async fn job(&self, job: &JobId) -> Result<job_manager::JobDescription, Problem>;
    /// Starts a job.
    async fn submit(&self, job: &job_manager::NewJob) -> Result<job_manager::JobDescription, Problem>;
    /// Ends a job.
    async fn cancel(&self, job: &JobId) -> Result<(), Problem>;
    /// What a text would run as.
    async fn explain(&self, job: &job_manager::NewJob) -> Result<job_manager::JobPlan, Problem>;
    /// What a job runs. NotFound: `UnknownJob`, also of all that follow.
    async fn plan(&self, job: &JobId) -> Result<job_manager::JobPlan, Problem>;
    /// The last checkpoints of a job.
    async fn checkpoints(&self, job: &JobId) -> Result<job_manager::CheckpointHistory, Problem>;
    /// What ended attempts of a job.
    async fn exceptions(&self, job: &JobId) -> Result<job_manager::JobExceptions, Problem>;
    /// The savepoints of a job.
    async fn savepoints(&self, job: &JobId) -> Result<job_manager::Savepoints, Problem>;
    /// Takes a savepoint, or answers the one of that name.
    async fn take_savepoint(&self, name: &job_manager::SavepointName) -> Result<job_manager::Savepoint, Problem>;
    /// Drops a savepoint.
    async fn delete_savepoint(&self, name: &job_manager::SavepointName) -> Result<(), Problem>;
    /// Stops a job at a savepoint.
    async fn stop_job(&self, stop: &job_manager::StopOf) -> Result<job_manager::JobDescription, Problem>;
    /// Gives a job another parallelism.
    async fn rescale_job(&self, rescale: &job_manager::RescaleOf) -> Result<job_manager::JobDescription, Problem>;
    /// Every rule.
    async fn rules(&self) -> Result<alerter::RuleList, Problem>;
    /// Creates or replaces a rule.
    async fn put_rule(&self, rule: &alerter::Rule) -> Result<alerter::RuleDescription, Problem>;
    /// Deletes a rule.
    async fn delete_rule(&self, rule: &RuleId, index: &IndexName) -> Result<(), Problem>;
}

/// Every segment of an index, of former epochs too.
///
/// A segment is listed together with, or later than, everything that it follows.
/// Bounds: [`SEGMENTS_MAX`], then BadRequest `TooManySegments`. Errors: NotFound `UnknownIndex`.
pub(crate) async fn all_segments(platform: &dyn Platform, index: &IndexName) -> Result<Vec<SegmentNode>, Problem> {
    let mut all: Vec<SegmentNode> = Vec::new();
    loop {
        let page = platform.segments(index, all.last().map(|node| node.segment)).await?;
        let more = page.more && !page.segments.is_empty();
        all.extend(page.segments);
        if all.len() > SEGMENTS_MAX {
            let message = format!("log index {index} has more than {SEGMENTS_MAX} segments: truncate it first");
            return Err(Problem::bad_request("TooManySegments", message));
        }
        if !more {
            return Ok(all);
        }
    }
}

/// The indexes that can be asked.
pub(crate) async fn askable(platform: &dyn Platform) -> Result<BTreeSet<IndexName>, Problem> {
    let all = platform.indexes().await?.indexes.into_iter();
    Ok(all.filter(|one| one.backend == BACKEND).map(|one| one.index).collect())
}

/// The platform over the bus.
pub(crate) struct Remote {
    bus: Bus,
    client: Client,
    chunks: Chunks,
    objects: Objects,
    members: Bucket,
}

impl Remote {
    /// With the connections of the host; keeps so much of chunks in memory.
    pub(crate) async fn new(host: &Host, chunk_cache: ByteSize) -> Result<Self, StartError> {
        let ttl = Some(host.common.lease_ttl.0);
        Ok(Self {
            bus: host.bus.clone(),
            client: Client::new(host.bus.clone(), host.objects.clone()),
            chunks: Chunks::with_cache(host.objects.clone(), usize::try_from(chunk_cache.0).unwrap_or(usize::MAX)),
            objects: host.objects.clone(),
            members: host.bus.bucket(MEMBERS, ttl, host.common.journal_replicas).await?,
        })
    }
}

fn objects(error: StoreError) -> Problem {
    Problem::unavailable("ObjectsUnavailable", error)
}

#[async_trait]
impl Platform for Remote {
    async fn stream(&self, index: &IndexName) -> Result<Arc<StreamDescription>, Problem> {
        self.client.stream(index).await
    }

    async fn append(&self, container: ContainerId, append: Append) -> Result<Appended, Problem> {
        self.client.append(container, append, APPEND_WITHIN).await
    }

    async fn stream_now(&self, index: &IndexName) -> Result<StreamDescription, Problem> {
        self.bus.call::<coordinator::DescribeStream>(&(), &StreamName { index: index.clone() }).await
    }

    async fn segments(&self, index: &IndexName, after: Option<SegmentId>) -> Result<SegmentNodes, Problem> {
        let page = SegmentsOf { index: index.clone(), after, limit: PAGE_SEGMENTS };
        self.bus.call::<coordinator::ListSegments>(&(), &page).await
    }

    async fn successors(&self, index: &IndexName, segment: SegmentId) -> Result<SegmentNodes, Problem> {
        let of = SuccessorsOf { index: index.clone(), segment };
        self.bus.call::<coordinator::ListSuccessors>(&(), &of).await
    }

    async fn describe(&self, segment: SegmentRange) -> Result<SegmentInfo, Problem> {
        self.client.describe(segment).await
    }

    fn stores(&self) -> Option<&dyn Stores> {
        Some(&self.bus)
    }

    fn chunks(&self) -> &Chunks {
        &self.chunks
    }

    async fn tails(&self, index: &IndexName) -> Result<StreamCut, Problem> {
        self.client.tails(index).await
    }

    fn follow(&self, segment: SegmentRange, from: Offset) -> BatchStream {
        let reader = self.client.reader(segment, from);
        futures::stream::unfold(Some(reader), |reader| async move {
            let mut reader = reader?;
            loop {
                match reader.next(READ_WAIT).await {
                    Ok(Some(batch)) => return Some((Ok(batch), Some(reader))),
                    Ok(None) if reader.at_end() => return None,
                    Ok(None) => {}
                    Err(problem) => return Some((Err(problem), None)),
                }
            }
        })
        .boxed()
    }

    async fn indexes(&self) -> Result<index_provisioner::IndexList, Problem> {
        let (mut all, mut wanted) = (index_provisioner::IndexList::default(), index_provisioner::IndexesOf::default());
        loop {
            let page = self.bus.call::<index_provisioner::ListIndexes>(&(), &wanted).await?;
            all.indexes.extend(page.indexes);
            if !page.more {
                return Ok(all);
            }
            wanted.after = all.indexes.last().map(|index| index.instance.clone());
        }
    }

    async fn streams_in(&self, scope: &ScopeName) -> Result<usize, Problem> {
        let (mut count, mut wanted) = (0, StreamsOf { scope: Some(scope.clone()), ..StreamsOf::default() });
        // As many steps as there are pages: each begins behind the one before.
        loop {
            let page = self.bus.call::<coordinator::ListStreams>(&(), &wanted).await?;
            count += page.streams.len();
            wanted.after = page.streams.last().filter(|_| page.more).map(|stream| stream.stream);
            if wanted.after.is_none() {
                return Ok(count);
            }
        }
    }

    async fn bindings(&self) -> Result<index_provisioner::BindingList, Problem> {
        let (mut all, mut wanted) =
            (index_provisioner::BindingList::default(), index_provisioner::BindingsOf::default());
        loop {
            let page = self.bus.call::<index_provisioner::ListBindings>(&(), &wanted).await?;
            all.bindings.extend(page.bindings);
            if !page.more {
                return Ok(all);
            }
            wanted.after = all.bindings.last().map(|binding| binding.binding.clone());
        }
    }

    async fn placement(&self) -> Result<Placement, Problem> {
        self.bus.call::<coordinator::DescribePlacement>(&(), &Empty {}).await
    }

    async fn members(&self) -> Result<Vec<Member>, Problem> {
        self.members.list("").await?.iter().map(|(_, entry)| wire::decode(&entry.value)).collect()
    }

    fn is_connected(&self) -> bool {
        self.bus.is_connected()
    }

    async fn items(&self, of: &coordinator::ItemsOf) -> Result<coordinator::ItemList, Problem> {
        self.bus.call::<coordinator::ListItems>(&(), of).await
    }

    async fn item(&self, place: &coordinator::ItemPlace) -> Result<coordinator::Item, Problem> {
        self.bus.call::<coordinator::DescribeItem>(&(), place).await
    }

    async fn put_item(&self, change: &coordinator::ItemChange) -> Result<coordinator::Item, Problem> {
        self.bus.call::<coordinator::PutItem>(&(), change).await
    }

    async fn delete_item(&self, removal: &coordinator::ItemRemoval) -> Result<(), Problem> {
        self.bus.call::<coordinator::DeleteItem>(&(), removal).await.map(|_| ())
    }

    async fn reserve_upload(&self, of: &coordinator::UploadOf) -> Result<coordinator::UploadPlace, Problem> {
        self.bus.call::<coordinator::ReserveUpload>(&(), of).await
    }

    async fn put_object(&self, key: &str, bytes: Bytes) -> Result<(), Problem> {
        // What an attempt whose answer was lost has put there is the same.
        self.objects.put_if_absent(key, bytes).await.map(drop).map_err(objects)
    }

    async fn object(&self, key: &str) -> Result<Bytes, Problem> {
        self.objects.get(key).await.map_err(objects)
    }

    async fn jobs(&self) -> Result<job_manager::JobList, Problem> {
        let (mut all, mut wanted) = (job_manager::JobList::default(), job_manager::JobsOf::default());
        // As many steps as there are pages: each begins behind the one before.
        loop {
            let page = self.bus.call::<job_manager::ListJobs>(&(), &wanted).await?;
            all.jobs.extend(page.jobs);
            wanted.after = all.jobs.last().filter(|_| page.more).map(|job| job.job.clone());
            if wanted.after.is_none() {
                all.jobs.sort_by_key(|job| job.submitted);
                return Ok(all);
            }
        }
    }

    async fn job(&self, job: &JobId) -> Result<job_manager::JobDescription, Problem> {
        self.bus.call::<job_manager::DescribeJob>(&(), &job_manager::JobName { job: job.clone() }).await
    }

    async fn submit(&self, job: &job_manager::NewJob) -> Result<job_manager::JobDescription, Problem> {
        self.bus.call::<job_manager::SubmitJob>(&(), job).await
    }

    async fn cancel(&self, job: &JobId) -> Result<(), Problem> {
        self.bus.call::<job_manager::CancelJob>(&(), &job_manager::JobName { job: job.clone() }).await.map(|_| ())
    }

    async fn explain(&self, job: &job_manager::NewJob) -> Result<job_manager::JobPlan, Problem> {
        self.bus.call::<job_manager::ExplainJob>(&(), job).await
    }

    async fn plan(&self, job: &JobId) -> Result<job_manager::JobPlan, Problem> {
        self.bus.call::<job_manager::ShowPlan>(&(), &job_manager::JobName { job: job.clone() }).await
    }

    async fn checkpoints(&self, job: &JobId) -> Result<job_manager::CheckpointHistory, Problem> {
        self.bus.call::<job_manager::ShowCheckpoints>(&(), &job_manager::JobName { job: job.clone() }).await
    }

    async fn exceptions(&self, job: &JobId) -> Result<job_manager::JobExceptions, Problem> {
        self.bus.call::<job_manager::ShowExceptions>(&(), &job_manager::JobName { job: job.clone() }).await
    }

    async fn savepoints(&self, job: &JobId) -> Result<job_manager::Savepoints, Problem> {
        self.bus.call::<job_manager::ListSavepoints>(&(), &job_manager::SavepointsOf { job: job.clone() }).await
    }

    async fn take_savepoint(&self, name: &job_manager::SavepointName) -> Result<job_manager::Savepoint, Problem> {
        let savepoint = job_manager::SavepointOf { savepoint: name.clone() };
        self.bus.call_within::<job_manager::TakeSavepoint>(&(), &savepoint, SAVEPOINT_WITHIN).await
    }

    async fn delete_savepoint(&self, name: &job_manager::SavepointName) -> Result<(), Problem> {
        self.bus.call::<job_manager::DeleteSavepoint>(&(), name).await.map(|_| ())
    }

    async fn stop_job(&self, stop: &job_manager::StopOf) -> Result<job_manager::JobDescription, Problem> {
        self.bus.call::<job_manager::StopJob>(&(), stop).await
    }

    async fn rescale_job(&self, rescale: &job_manager::RescaleOf) -> Result<job_manager::JobDescription, Problem> {
        self.bus.call::<job_manager::RescaleJob>(&(), rescale).await
    }

    async fn rules(&self) -> Result<alerter::RuleList, Problem> {
        let (mut all, mut wanted) = (alerter::RuleList::default(), alerter::RulesOf::default());
        // As many steps as there are pages: each begins behind the one before.
        loop {
            let page = self.bus.call::<alerter::ListRules>(&(), &wanted).await?;
            all.rules.extend(page.rules);
            wanted.after = all.rules.last().filter(|_| page.more).map(|rule| rule.rule.rule.clone());
            if wanted.after.is_none() {
                all.rules.sort_by_key(|rule| rule.created);
                return Ok(all);
            }
        }
    }

    async fn put_rule(&self, rule: &alerter::Rule) -> Result<alerter::RuleDescription, Problem> {
        self.bus.call::<alerter::PutRule>(&(), rule).await
    }

    async fn delete_rule(&self, rule: &RuleId, index: &IndexName) -> Result<(), Problem> {
        let name = alerter::RuleName { rule: rule.clone(), index: Some(index.clone()) };
        self.bus.call::<alerter::DeleteRule>(&(), &name).await.map(|_| ())
    }
}
