//! A platform in memory: indexes whose events are parsed when they are read, for tests of the HTTP door alone.

pub(crate) mod jobs;
pub(crate) mod library;
pub(crate) mod segments;
pub(crate) mod stores;
pub(crate) mod tls;

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use engine::{BatchStream, Chunks};
use parking_lot::Mutex;
use settings::{Layers, Settings};
use store::Objects;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use types::{
    ContainerId, Generation, IndexName, JobId, ManualClock, Offset, RuleId, ScopeName, SegmentId, StreamCut, Timestamp,
};
use wire::{
    Problem, alerter,
    coordinator::{self, SegmentNodes, SegmentRange, StreamDescription},
    index_provisioner, job_manager,
    segment_store::{Append, Appended, ChunkMeta, SegmentInfo},
    views::{Assignment, Member, Placement, Quota, Role, TokenGrant},
};

use crate::{
    Config,
    api::Door,
    auth::{Auth, Grants},
    fake::{segments::Segments, stores::FakeStores},
    platform::Platform,
    scatter::Stores,
};

/// 2026-01-02T03:04:05Z
pub(crate) const NOW_MS: i64 = 1_767_323_045_000;

/// Grants by token instead of by hash.
#[derive(Default)]
pub(crate) struct FakeGrants(pub(crate) Mutex<HashMap<String, TokenGrant>>);

#[async_trait]
impl Grants for FakeGrants {
    async fn grant(&self, hash: &str) -> Result<Option<TokenGrant>, Problem> {
        Ok(self.0.lock().get(hash).cloned())
    }
}

/// What it holds.
pub(crate) struct Fake {
    pub(crate) segments: Segments,
    pub(crate) jobs: Mutex<Vec<job_manager::JobDescription>>,
    pub(crate) rules: Mutex<Vec<alerter::RuleDescription>>,
    pub(crate) orders: jobs::Orders,
    pub(crate) broken: Mutex<Option<Problem>>,
    /// What the plan of every index says.
    pub(crate) quota: Mutex<Quota>,
    /// Segments of which appends fail.
    pub(crate) broken_segments: Mutex<HashMap<SegmentId, Problem>>,
    /// What is known of a stream when not asked anew.
    pub(crate) stale: Mutex<Option<StreamDescription>>,
    /// How often it was asked anew.
    pub(crate) looks: AtomicU32,
    /// Answers about segments that are not true any more.
    pub(crate) described_before: Mutex<VecDeque<SegmentInfo>>,
    /// A segment that is sealed after so many appends.
    pub(crate) seal_after: Mutex<Option<(SegmentId, u32)>>,
    /// Indexes of another back-end.
    pub(crate) elsewhere: Mutex<Vec<&'static str>>,
    pub(crate) objects: Objects,
    pub(crate) library: library::Library,
    /// Segment stores, each of one container.
    pub(crate) stores: OnceLock<FakeStores>,
    chunks: Chunks,
    _directory: TempDir,
}

impl Default for Fake {
    fn default() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let objects = Objects::open(&format!("file://{}", directory.path().display())).unwrap();
        Self {
            segments: Segments::default(),
            jobs: Mutex::default(),
            rules: Mutex::default(),
            orders: jobs::Orders::default(),
            broken: Mutex::default(),
            quota: Mutex::default(),
            broken_segments: Mutex::default(),
            stale: Mutex::default(),
            looks: AtomicU32::default(),
            described_before: Mutex::default(),
            seal_after: Mutex::default(),
            elsewhere: Mutex::default(),
            chunks: Chunks::new(objects.clone()),
            library: library::Library::default(),
            stores: OnceLock::new(),
            objects,
            _directory: directory,
        }
    }
}

impl Fake {
    /// Moves the first events of a segment into one chunk.
    pub(crate) async fn tier(&self, segment: SegmentId, to: Offset) -> ChunkMeta {
        let rows = self.segments.segments.lock()[&segment].rows(segment, 0);
        let encoded = chunk::write(segment, 0, &[rows.slice(0, usize::try_from(to).unwrap())]).unwrap();
        let key = format!("chunks/{segment}");
        let bytes = u64::try_from(encoded.bytes.len()).unwrap();
        let (time_min, time_max) = (Timestamp::MIN, Timestamp::MAX);
        let chunk = ChunkMeta { key: key.clone(), from: 0, to, bytes, time_min, time_max };
        self.objects.put_if_absent(&key, encoded.bytes).await.unwrap();
        self.segments.change(segment, |known| known.chunks = vec![chunk.clone()]);
        chunk
    }
}

#[async_trait]
impl Platform for Fake {
    async fn stream(&self, index: &IndexName) -> Result<Arc<StreamDescription>, Problem> {
        if let Some(stale) = self.stale.lock().clone().filter(|stale| stale.index == *index) {
            return Ok(Arc::new(stale));
        }
        self.segments.stream(index).map(|stream| Arc::new(stream.description))
    }

    async fn stream_now(&self, index: &IndexName) -> Result<StreamDescription, Problem> {
        self.looks.fetch_add(1, Ordering::SeqCst);
        self.segments.stream(index).map(|stream| stream.description)
    }

    async fn segments(&self, index: &IndexName, after: Option<SegmentId>) -> Result<SegmentNodes, Problem> {
        self.segments.page(index, after)
    }

    async fn successors(&self, index: &IndexName, segment: SegmentId) -> Result<SegmentNodes, Problem> {
        self.segments.successors(index, segment)
    }

    async fn describe(&self, segment: SegmentRange) -> Result<SegmentInfo, Problem> {
        let mut before = self.described_before.lock();
        if before.front().is_some_and(|info| info.segment == segment.segment) {
            return Ok(before.pop_front().unwrap());
        }
        self.segments.describe(&"shop".parse().unwrap(), segment.segment)
    }

    fn stores(&self) -> Option<&dyn Stores> {
        self.stores.get().map(|stores| stores as &dyn Stores)
    }

    fn chunks(&self) -> &Chunks {
        &self.chunks
    }

    async fn append(&self, _: ContainerId, append: Append) -> Result<Appended, Problem> {
        if let Some(problem) = self.broken.lock().clone() {
            return Err(problem);
        }
        if let Some(problem) = self.broken_segments.lock().get(&append.segment).cloned() {
            return Err(problem);
        }
        let (count, duplicates) = self.segments.append(&append)?;
        if let Some((segment, left)) = self.seal_after.lock().as_mut().filter(|(s, _)| *s == append.segment) {
            *left -= 1;
            if *left == 0 {
                self.segments.seal(*segment);
            }
        }
        let duplicate_count = u32::try_from(duplicates.len()).unwrap();
        Ok(Appended { offsets: vec![None; count], duplicate_count, duplicates })
    }

    async fn tails(&self, index: &IndexName) -> Result<StreamCut, Problem> {
        let segments = self.segments.stream(index)?.description.segments;
        let end = |range: &SegmentRange| {
            let info = self.segments.describe(index, range.segment)?;
            Ok((range.segment, info.end))
        };
        segments.iter().map(end).collect::<Result<_, Problem>>().map(StreamCut)
    }

    fn follow(&self, segment: SegmentRange, from: Offset) -> BatchStream {
        self.segments.follow(segment, from)
    }

    async fn indexes(&self) -> Result<index_provisioner::IndexList, Problem> {
        let one = |name: &str, backend: &str| index_provisioner::IndexDescription {
            instance: name.parse().unwrap(),
            scope: "team".parse().unwrap(),
            index: name.parse().unwrap(),
            backend: backend.into(),
            segment_count: 2,
            retention_days: None,
            options: index_provisioner::IndexOptions { quota: *self.quota.lock(), ..Default::default() },
            created: Timestamp::default(),
        };
        let mut indexes = vec![one("shop", "own"), one("other", "own")];
        indexes.extend(self.elsewhere.lock().iter().map(|name| one(name, "s3")));
        Ok(index_provisioner::IndexList { indexes, more: false })
    }

    async fn streams_in(&self, scope: &ScopeName) -> Result<usize, Problem> {
        let streams = self.segments.streams.lock();
        Ok(streams.values().filter(|stream| stream.description.scope == *scope).count())
    }

    async fn bindings(&self) -> Result<index_provisioner::BindingList, Problem> {
        Ok(index_provisioner::BindingList::default())
    }

    async fn placement(&self) -> Result<Placement, Problem> {
        let placed = |container: u16| Assignment {
            container: ContainerId(container),
            replica: format!("store-{container}").parse().unwrap(),
            generation: Generation::default(),
        };
        Ok(Placement { assignments: (0..2).map(placed).collect(), ..Placement::default() })
    }

    async fn members(&self) -> Result<Vec<Member>, Problem> {
        Ok(Vec::new())
    }

    fn is_connected(&self) -> bool {
        true
    }

    async fn items(&self, of: &coordinator::ItemsOf) -> Result<coordinator::ItemList, Problem> {
        self.segments.stream(&of.index)?;
        self.library.items(of)
    }

    async fn item(&self, place: &coordinator::ItemPlace) -> Result<coordinator::Item, Problem> {
        self.segments.stream(&place.index)?;
        self.library.item(place)
    }

    async fn put_item(&self, change: &coordinator::ItemChange) -> Result<coordinator::Item, Problem> {
        self.segments.stream(&change.index)?;
        self.library.put(change)
    }

    async fn delete_item(&self, removal: &coordinator::ItemRemoval) -> Result<(), Problem> {
        self.library.delete(removal)
    }

    async fn reserve_upload(&self, of: &coordinator::UploadOf) -> Result<coordinator::UploadPlace, Problem> {
        self.segments.stream(&of.index)?;
        Ok(self.library.reserve())
    }

    async fn put_object(&self, key: &str, bytes: Bytes) -> Result<(), Problem> {
        self.objects.put_if_absent(key, bytes).await.map(drop).map_err(|error| Problem::unavailable("Objects", error))
    }

    async fn object(&self, key: &str) -> Result<Bytes, Problem> {
        self.objects.get(key).await.map_err(|error| Problem::unavailable("Objects", error))
    }

    async fn jobs(&self) -> Result<job_manager::JobList, Problem> {
        let jobs = self.jobs.lock().clone();
        // What was true when it was looked at may have changed by the time it is answered.
        tokio::task::yield_now().await;
        Ok(job_manager::JobList { jobs, more: false })
    }

    async fn job(&self, job: &JobId) -> Result<job_manager::JobDescription, Problem> {
        let found = self.jobs.lock().iter().find(|known| known.job == *job).cloned();
        found.ok_or_else(|| Problem::not_found("UnknownJob", format_args!("there is no job {job}")))
    }

    async fn submit(&self, job: &job_manager::NewJob) -> Result<job_manager::JobDescription, Problem> {
        let description = job_manager::JobDescription {
            job: job.job.clone(),
            text: job.text.clone(),
            sink: job.sink.clone().unwrap(),
            source: Some(query::parse_continuous(&job.text).unwrap().source),
            status: job_manager::JobStatus::Running,
            attempt: 1,
            parallelism: job.parallelism,
            checkpoint: None,
            cut: StreamCut::default(),
            submitted: Timestamp::from_millis(NOW_MS),
            failure: None,
            tasks: vec![],
            generation: 0,
            cuts: std::collections::BTreeMap::new(),
            options: job.options.clone(),
        };
        self.jobs.lock().push(description.clone());
        Ok(description)
    }

    async fn cancel(&self, job: &JobId) -> Result<(), Problem> {
        self.jobs.lock().retain(|known| known.job != *job);
        Ok(())
    }

    async fn explain(&self, job: &job_manager::NewJob) -> Result<job_manager::JobPlan, Problem> {
        let known = query::parse_continuous(&job.text);
        known.map(|_| self.orders.plan()).map_err(|found| Problem::bad_request("InvalidQuery", found.message))
    }

    async fn plan(&self, job: &JobId) -> Result<job_manager::JobPlan, Problem> {
        self.job(job).await.map(|_| self.orders.plan())
    }

    async fn checkpoints(&self, job: &JobId) -> Result<job_manager::CheckpointHistory, Problem> {
        self.job(job).await.map(|_| self.orders.checkpoints.lock().clone())
    }

    async fn exceptions(&self, job: &JobId) -> Result<job_manager::JobExceptions, Problem> {
        self.job(job).await.map(|_| self.orders.exceptions.lock().clone())
    }

    async fn savepoints(&self, _: &JobId) -> Result<job_manager::Savepoints, Problem> {
        Ok(job_manager::Savepoints { savepoints: self.orders.savepoints.lock().clone() })
    }

    async fn take_savepoint(&self, name: &job_manager::SavepointName) -> Result<job_manager::Savepoint, Problem> {
        self.job(&name.job).await.map(|_| self.orders.take(name))
    }

    async fn delete_savepoint(&self, name: &job_manager::SavepointName) -> Result<(), Problem> {
        self.orders.savepoints.lock().retain(|known| known.name != *name);
        Ok(())
    }

    async fn stop_job(&self, stop: &job_manager::StopOf) -> Result<job_manager::JobDescription, Problem> {
        self.orders.take(&stop.savepoint);
        let over = if stop.drain { job_manager::JobStatus::Finished } else { job_manager::JobStatus::Suspended };
        self.change_job(&stop.savepoint.job, |job| job.status = over)
    }

    async fn rescale_job(&self, rescale: &job_manager::RescaleOf) -> Result<job_manager::JobDescription, Problem> {
        self.change_job(&rescale.job, |job| job.parallelism = rescale.parallelism)
    }

    async fn rules(&self) -> Result<alerter::RuleList, Problem> {
        let rules = self.rules.lock().clone();
        tokio::task::yield_now().await;
        Ok(alerter::RuleList { rules, more: false })
    }

    async fn put_rule(&self, rule: &alerter::Rule) -> Result<alerter::RuleDescription, Problem> {
        let created = Timestamp::from_millis(NOW_MS);
        let (instances, instance_count, pending_count) = (vec![], 0, 0);
        let rule = rule.clone();
        let description = alerter::RuleDescription { rule, instances, instance_count, pending_count, created };
        self.rules.lock().retain(|known| known.rule.rule != description.rule.rule);
        self.rules.lock().push(description.clone());
        Ok(description)
    }

    async fn delete_rule(&self, rule: &RuleId, index: &IndexName) -> Result<(), Problem> {
        self.rules.lock().retain(|known| known.rule.rule != *rule || known.rule.index != *index);
        Ok(())
    }
}

/// A door on the fake, with the tokens `root`, `writer`, `reader` and `owner` (of `shop`), and the settings' defaults.
pub(crate) fn door(fake: &Arc<Fake>, grants: &Arc<FakeGrants>) -> Door {
    let set = vec!["gateway.ingest_body_max=64KiB".to_owned(), "gateway.query_rows_max=50".to_owned()];
    let config = Settings::load(Layers { set, ..Layers::default() }).unwrap().section::<Config>().unwrap();
    for (token, role) in [("writer", Role::Write), ("reader", Role::Read), ("owner", Role::Admin)] {
        let hash = ring::digest::digest(&ring::digest::SHA256, token.as_bytes());
        let grant = TokenGrant {
            index: "shop".parse().unwrap(),
            scope: "team".parse().unwrap(),
            binding: token.parse().unwrap(),
            role,
            expires: None,
        };
        grants.0.lock().insert(data_encoding::HEXLOWER.encode(hash.as_ref()), grant);
    }
    let clock = Arc::new(ManualClock::at(Timestamp::from_millis(NOW_MS)));
    let auth =
        Auth::new(Some("root"), Arc::clone(grants) as Arc<dyn Grants>, Arc::clone(&clock) as Arc<dyn types::Clock>);
    Door::of(
        config,
        auth,
        Arc::clone(fake) as Arc<dyn Platform>,
        clock,
        "gateway/test".to_owned(),
        CancellationToken::new(),
        tokio::runtime::Handle::current(),
    )
}

/// Long enough for anything that does not hang.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
