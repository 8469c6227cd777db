//! The rest of the platform as the gateway needs it.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bus::{Bucket, Bus};
use client::Client;
use engine::{BatchStream, Chunks};
use futures::StreamExt;
use host::{Host, StartError};
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

/// Segments of an index that one query or tail looks at; an index that scaled more often must be truncated first.
pub(crate) const SEGMENTS_MAX: usize = 10_000;
/// Segments asked for at once; the coordinator answers no more.
const PAGE_SEGMENTS: u32 = 1_000;
/// How long one append may take, repeats included.
const APPEND_WITHIN: Duration = Duration::from_secs(20);
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
    /// Every job.
    async fn jobs(&self) -> Result<job_manager::JobList, Problem>;
    /// One job.
    async fn job(&self, job: &JobId) -> Result<job_manager::JobDescription, Problem>;
    /// Starts a job.
    async fn submit(&self, job: &job_manager::NewJob) -> Result<job_manager::JobDescription, Problem>;
    /// Ends a job.
    async fn cancel(&self, job: &JobId) -> Result<(), Problem>;
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

/// The platform over the bus.
pub(crate) struct Remote {
    bus: Bus,
    client: Client,
    chunks: Chunks,
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
            members: host.bus.bucket(MEMBERS, ttl, host.common.journal_replicas).await?,
        })
    }
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
