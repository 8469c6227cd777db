//! A platform in memory: indexes whose events are parsed when they are read, for tests of the HTTP door alone.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use engine::{BatchStream, Rows, TableSource};
use futures::StreamExt;
use ingest::RawEvent;
use parking_lot::Mutex;
use settings::{Layers, Settings};
use tokio_util::sync::CancellationToken;
use types::{ContainerId, IndexName, JobId, KeyRange, ManualClock, Offset, RuleId, SegmentId, StreamCut, Timestamp};
use wire::{
    Problem, alerter,
    block::{Block, BlockEvent},
    coordinator::{SegmentRange, StreamDescription},
    index_provisioner, job_manager,
    segment_store::{Append, Appended},
    views::{Member, Placement, Role, TokenGrant},
};

use crate::{
    Config,
    api::Door,
    auth::{Auth, Grants},
    platform::Platform,
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
#[derive(Default)]
pub(crate) struct Fake {
    pub(crate) events: Mutex<BTreeMap<SegmentId, Vec<BlockEvent>>>,
    pub(crate) jobs: Mutex<Vec<job_manager::JobDescription>>,
    pub(crate) rules: Mutex<Vec<alerter::RuleDescription>>,
    pub(crate) broken: Mutex<Option<Problem>>,
}

/// The indexes `shop` and `other` with two segments each.
fn segments(index: &IndexName) -> Result<Vec<SegmentRange>, Problem> {
    let stream = match index.as_str() {
        "shop" => 1,
        "other" => 2,
        name => return Err(Problem::not_found("UnknownIndex", format_args!("there is no index {name}"))),
    };
    let range = |(number, range): (u32, KeyRange)| SegmentRange {
        segment: SegmentId { stream, epoch: 0, number },
        container: ContainerId(0),
        range,
    };
    Ok((0..).zip(KeyRange::split_evenly(2)).map(range).collect())
}

impl Fake {
    fn rows(&self, segment: SegmentId, from: Offset) -> arrow::array::RecordBatch {
        let events = self.events.lock().get(&segment).cloned().unwrap_or_default();
        let later = events.iter().skip(usize::try_from(from).unwrap());
        ingest::to_batch(
            segment,
            from,
            later.map(|event| RawEvent { payload: &event.payload, received: event.received }),
        )
    }
}

#[async_trait]
impl Platform for Fake {
    async fn stream(&self, index: &IndexName) -> Result<Arc<StreamDescription>, Problem> {
        let segments = segments(index)?;
        let scope = "team".parse().unwrap();
        let (index, created) = (index.clone(), Timestamp::default());
        Ok(Arc::new(StreamDescription::new((1, created), scope, index, segments)))
    }

    async fn append(&self, _: ContainerId, append: Append) -> Result<Appended, Problem> {
        if let Some(problem) = self.broken.lock().clone() {
            return Err(problem);
        }
        let block = Block::open(append.block).unwrap();
        let mut all = self.events.lock();
        let events = all.entry(append.segment).or_default();
        for event in block.iter() {
            if event.id == 0 || events.iter().all(|known| known.id != event.id) {
                events.push(event);
            }
        }
        Ok(Appended { offsets: vec![None; block.len()], duplicate_count: 0, duplicates: vec![] })
    }

    async fn table(&self, index: &IndexName) -> Result<Arc<dyn TableSource>, Problem> {
        Ok(Arc::new(Rows::new(segments(index)?.iter().map(|range| self.rows(range.segment, 0)).collect())))
    }

    async fn tails(&self, index: &IndexName) -> Result<StreamCut, Problem> {
        let count = |segment| u64::try_from(self.rows(segment, 0).num_rows()).unwrap();
        Ok(StreamCut(segments(index)?.iter().map(|range| (range.segment, count(range.segment))).collect()))
    }

    fn follow(&self, segment: SegmentRange, from: Offset) -> BatchStream {
        let rows = self.rows(segment.segment, from);
        let first = futures::stream::iter((rows.num_rows() > 0).then_some(Ok(rows)));
        first.chain(futures::stream::pending()).boxed()
    }

    async fn indexes(&self) -> Result<index_provisioner::IndexList, Problem> {
        let one = |name: &str| index_provisioner::IndexDescription {
            instance: name.parse().unwrap(),
            scope: "team".parse().unwrap(),
            index: name.parse().unwrap(),
            backend: "own".into(),
            segment_count: 2,
            retention_days: None,
            created: Timestamp::default(),
        };
        Ok(index_provisioner::IndexList { indexes: vec![one("shop"), one("other")] })
    }

    async fn bindings(&self) -> Result<index_provisioner::BindingList, Problem> {
        Ok(index_provisioner::BindingList::default())
    }

    async fn placement(&self) -> Result<Placement, Problem> {
        Ok(Placement::default())
    }

    async fn members(&self) -> Result<Vec<Member>, Problem> {
        Ok(Vec::new())
    }

    fn is_connected(&self) -> bool {
        true
    }

    async fn jobs(&self) -> Result<job_manager::JobList, Problem> {
        Ok(job_manager::JobList { jobs: self.jobs.lock().clone() })
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
            source: query::parse_continuous(&job.text).unwrap().source,
            status: job_manager::JobStatus::Running,
            attempt: 1,
            parallelism: job.parallelism,
            checkpoint: None,
            cut: StreamCut::default(),
            submitted: Timestamp::from_millis(NOW_MS),
            failure: None,
            tasks: vec![],
        };
        self.jobs.lock().push(description.clone());
        Ok(description)
    }

    async fn cancel(&self, job: &JobId) -> Result<(), Problem> {
        self.jobs.lock().retain(|known| known.job != *job);
        Ok(())
    }

    async fn rules(&self) -> Result<alerter::RuleList, Problem> {
        Ok(alerter::RuleList { rules: self.rules.lock().clone() })
    }

    async fn put_rule(&self, rule: &alerter::Rule) -> Result<alerter::RuleDescription, Problem> {
        let created = Timestamp::from_millis(NOW_MS);
        let description = alerter::RuleDescription { rule: rule.clone(), instances: vec![], pending_count: 0, created };
        self.rules.lock().retain(|known| known.rule.rule != rule.rule);
        self.rules.lock().push(description.clone());
        Ok(description)
    }

    async fn delete_rule(&self, rule: &RuleId) -> Result<(), Problem> {
        self.rules.lock().retain(|known| known.rule.rule != *rule);
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
