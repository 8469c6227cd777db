//! Queries of indexes that several segment stores own: which store is asked for what, and what is done where one gives no
//! answer.
//!
//! An index is cut as one table is (see [`table`](crate::table)): the start and the end of each segment are noted first. Then
//! each store is asked about the rows of the segments whose containers it owns, by their offsets. Where a store does not
//! answer, the gateway runs that fragment itself over just those rows, so that each row is in exactly one fragment that came
//! to its end; one that is too large gives up the others, and whole rows are read.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::AtomicUsize},
    time::{Duration, Instant},
};

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use bus::{Bus, Origin};
use engine::{
    EngineError, Fragment, FragmentRows, Limits, ScanStats, Scatter, Stats, TableSource, Whole, batches_of,
    run_fragment, schema_of, schema_to_ipc,
};
use futures::{StreamExt, TryStreamExt, stream, stream::BoxStream};
use tokio::sync::Semaphore;
use tokio_util::task::AbortOnDropHandle;
use types::{ContainerId, IndexName, ReplicaId};
use wire::{
    Problem, segment_store,
    segment_store::{
        DescribeRows, FRAGMENT_BYTES_MAX, FRAGMENT_PART_BYTES_MAX, FRAGMENT_RUNS_MAX, FragmentAnswer, FragmentPart,
        ReadFragment, RowColumns, RowRun, RowsOf, RunFragment,
    },
};

use crate::{
    api::Door,
    metrics::FRAGMENTS,
    platform::Platform,
    table::{IndexTable, Noted},
};

/// Stores that are asked at once for one query.
const STORES_AT_ONCE: usize = 16;
/// How long a store may take to say which columns it has; it opens chunks for that.
const COLUMNS_WITHIN: Duration = Duration::from_secs(5);
/// How long a store lets a question wait before it says that the fragment still runs. One that says nothing is dead.
const ANSWER_WAIT: Duration = Duration::from_secs(2);
/// And how long after that an answer may be on its way.
const ANSWER_GRACE: Duration = Duration::from_secs(2);

/// The doors of segment stores for fragments; any container of a store is its door.
#[async_trait]
pub(crate) trait Stores: Send + Sync {
    /// The columns of some rows.
    async fn columns(&self, at: ContainerId, rows: &RowsOf) -> Result<RowColumns, Problem>;
    /// Begins a fragment.
    async fn run(&self, at: ContainerId, fragment: &segment_store::Fragment) -> Result<FragmentAnswer, Problem>;
    /// A part of its answer.
    async fn part(&self, at: ContainerId, part: &FragmentPart) -> Result<FragmentAnswer, Problem>;
}

#[async_trait]
impl Stores for Bus {
    async fn columns(&self, at: ContainerId, rows: &RowsOf) -> Result<RowColumns, Problem> {
        self.call_within::<DescribeRows>(&at, rows, COLUMNS_WITHIN).await
    }

    async fn run(&self, at: ContainerId, fragment: &segment_store::Fragment) -> Result<FragmentAnswer, Problem> {
        self.call_within::<RunFragment>(&at, fragment, ANSWER_WAIT + ANSWER_GRACE).await
    }

    async fn part(&self, at: ContainerId, part: &FragmentPart) -> Result<FragmentAnswer, Problem> {
        self.call_within::<ReadFragment>(&at, part, ANSWER_WAIT + ANSWER_GRACE).await
    }
}

/// What one store owns of what a query reads.
#[derive(Debug, Clone)]
struct Share {
    /// The container that is asked.
    at: ContainerId,
    segments: Vec<Noted>,
}

impl Share {
    fn runs(&self) -> Vec<RowRun> {
        let run = |noted: &Noted| RowRun {
            container: noted.range.container,
            segment: noted.range.segment,
            from: noted.info.start,
            to: noted.info.end,
        };
        self.segments.iter().map(run).collect()
    }
}

/// What a query of all rows reads, about.
fn bytes(segments: &[Noted]) -> u64 {
    segments.iter().fold(0, |sum, noted| sum.saturating_add(noted.bytes()))
}

/// The shares of the stores, by where the containers are.
fn shares(segments: &[Noted], owner: &BTreeMap<ContainerId, ReplicaId>) -> Result<Vec<Share>, Whole> {
    let mut shares: BTreeMap<&ReplicaId, Share> = BTreeMap::new();
    for noted in segments {
        let at = noted.range.container;
        let replica = owner.get(&at).ok_or(Whole::Unanswered)?;
        let share = shares.entry(replica).or_insert_with(|| Share { at, segments: Vec::new() });
        share.segments.push(noted.clone());
    }
    if shares.len() < 2 {
        return Err(Whole::OneStore);
    }
    if shares.values().any(|share| share.segments.len() > FRAGMENT_RUNS_MAX) {
        return Err(Whole::Segments);
    }
    Ok(shares.into_values().collect())
}

/// An index whose rows are with several stores.
struct Scattered {
    platform: Arc<dyn Platform>,
    index: IndexName,
    schema: SchemaRef,
    shares: Vec<Share>,
    limits: Limits,
    here: Arc<Here>,
    origin: Option<Origin>,
}

/// What all fragments of a query share that run here.
struct Here {
    /// One at a time.
    turn: Semaphore,
    /// Bytes of their tails.
    held: AtomicUsize,
    /// Tables of the query: with the stores of each they divide its memory.
    tables: usize,
}

impl std::fmt::Debug for Scattered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scattered").field("index", &self.index).field("stores", &self.shares.len()).finish()
    }
}

impl Scattered {
    /// An index of which the ends are noted; says why not where it is read here.
    async fn open(
        door: &Door,
        index: &IndexName,
        segments: &[Noted],
        limits: Limits,
        here: &Arc<Here>,
    ) -> Result<Arc<dyn Scatter>, Whole> {
        // Asked before anybody else is: most indexes are small.
        if bytes(segments) < door.config.fragments_from.0 {
            return Err(Whole::Small);
        }
        let (Some(stores), false) = (door.platform.stores(), segments.is_empty()) else { return Err(Whole::OneStore) };
        let placement = door.platform.placement().await.map_err(|_| Whole::Unanswered)?;
        let owner = placement.assignments.into_iter().map(|one| (one.container, one.replica)).collect();
        let shares = shares(segments, &owner)?;
        let asked = stream::iter(shares.clone()).map(|share: Share| async move {
            let told = stores.columns(share.at, &RowsOf { index: index.clone(), runs: share.runs() }).await?;
            schema_of(&told.schema).map_err(Problem::internal)
        });
        let schemas: Result<Vec<SchemaRef>, Problem> = asked.buffered(STORES_AT_ONCE).try_collect().await;
        let schemas = schemas.map_err(|problem| {
            tracing::info!(%index, %problem, "columns of an index not learned from its stores, it is read here");
            Whole::Unanswered
        })?;
        let schema = Arc::new(ingest::merge_schemas(schemas.iter().map(AsRef::as_ref)));
        let (platform, index, origin) = (Arc::clone(&door.platform), index.clone(), bus::origin());
        Ok(Arc::new(Self { platform, index, schema, shares, limits, here: Arc::clone(here), origin }))
    }
}

/// The tables of a query as they lie with their stores; says why not where one of them is read here.
pub(crate) async fn open(
    door: &Door,
    noted: &[(IndexName, Vec<Noted>)],
    limits: Limits,
) -> Result<Vec<(IndexName, Arc<dyn Scatter>)>, Whole> {
    let mut tables = Vec::with_capacity(noted.len());
    let here = Arc::new(Here { turn: Semaphore::new(1), held: AtomicUsize::new(0), tables: noted.len() });
    for (index, segments) in noted {
        tables.push((index.clone(), Scattered::open(door, index, segments, limits, &here).await?));
    }
    if tables.is_empty() { Err(Whole::Small) } else { Ok(tables) }
}

impl Scatter for Scattered {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn run(&self, fragment: Arc<Fragment>) -> BoxStream<'static, Result<FragmentRows, EngineError>> {
        let began = Instant::now();
        let answers = self.shares.clone().into_iter().map(|share| {
            let one = One {
                platform: Arc::clone(&self.platform),
                index: self.index.clone(),
                fragment: Arc::clone(&fragment),
                share,
                limits: self.limits,
                memory_bytes: self.limits.memory_bytes / (self.shares.len() * self.here.tables).max(1),
                here: Arc::clone(&self.here),
                began,
            };
            let origin = self.origin.clone();
            async move {
                let one = Arc::new(one);
                match origin {
                    Some(origin) => bus::with_origin(origin, one.answer()).await,
                    None => one.answer().await,
                }
            }
        });
        stream::iter(answers.collect::<Vec<_>>()).buffer_unordered(STORES_AT_ONCE).boxed()
    }
}

/// One fragment over the share of one store.
struct One {
    platform: Arc<dyn Platform>,
    index: IndexName,
    fragment: Arc<Fragment>,
    share: Share,
    limits: Limits,
    /// What it may hold if it runs here.
    memory_bytes: usize,
    here: Arc<Here>,
    began: Instant,
}

impl One {
    async fn answer(self: &Arc<Self>) -> Result<FragmentRows, EngineError> {
        match self.beside().await {
            Ok(rows) => {
                FRAGMENTS.with("beside").inc();
                Ok(rows)
            }
            // It would not end here either.
            Err(problem) if problem.kind == "QueryScanTooLarge" => Err(EngineError::Source(problem)),
            // Nor would the others together.
            Err(problem) if problem.kind == "FragmentTooLarge" => {
                FRAGMENTS.with("too_large").inc();
                Err(EngineError::Source(problem))
            }
            Err(problem) => {
                tracing::info!(index = %self.index, container = %self.share.at, %problem, "fragment runs here instead");
                FRAGMENTS.with("no_answer").inc();
                let (one, origin) = (Arc::clone(self), bus::origin());
                // Apart from the stream that asks: whoever has the turn must go on also while nobody takes its rows.
                let task = tokio::spawn(async move {
                    match origin {
                        Some(origin) => bus::with_origin(origin, one.here()).await,
                        None => one.here().await,
                    }
                });
                AbortOnDropHandle::new(task).await.unwrap_or_else(|error| {
                    Err(Problem::internal(format_args!("a fragment ended early: {error}")).into())
                })
            }
        }
    }

    fn left(&self) -> Duration {
        self.limits.timeout.saturating_sub(self.began.elapsed())
    }

    /// Beside the rows.
    async fn beside(&self) -> Result<FragmentRows, Problem> {
        let stores = self.platform.stores().ok_or_else(|| Problem::unavailable("NoResponders", "no store answers"))?;
        let id = uuid::Uuid::new_v4().to_string();
        let ms = |time: Duration| u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
        let request = segment_store::Fragment {
            id: id.clone(),
            index: self.index.clone(),
            text: self.fragment.text.clone(),
            schema: schema_to_ipc(&self.fragment.schema).map_err(Problem::internal)?.into(),
            runs: self.share.runs(),
            scan_bytes: self.limits.scan_bytes,
            within_ms: ms(self.left()),
            wait_ms: ms(ANSWER_WAIT),
        };
        let at = self.share.at;
        let part = |part: u32| FragmentPart { id: id.clone(), part, wait_ms: ms(ANSWER_WAIT) };
        let mut answer = stores.run(at, &request).await?;
        // The store ends it in time; dropping this ends it too.
        while !answer.ready {
            answer = stores.part(at, &part(0)).await?;
        }
        let mut bytes = answer.part.to_vec();
        for n in 1..answer.parts {
            let next = stores.part(at, &part(n)).await?;
            bytes.extend_from_slice(&next.part);
            if bytes.len() > FRAGMENT_BYTES_MAX + FRAGMENT_PART_BYTES_MAX {
                return Err(Problem::bad_request("FragmentTooLarge", "a store answers more than a fragment may"));
            }
        }
        let stats = Stats {
            rows_scanned: answer.rows_scanned,
            bytes_scanned: answer.bytes_scanned,
            scan: ScanStats::of_counts(&answer.counts),
            ..Stats::default()
        };
        let answer_bytes = u64::try_from(bytes.len()).ok();
        Ok(FragmentRows { batches: batches_of(&bytes).map_err(Problem::internal)?, stats, answer_bytes })
    }

    /// Here, over the same rows: one at a time, within its share of the memory.
    async fn here(&self) -> Result<FragmentRows, EngineError> {
        let _turn = self.here.turn.acquire().await.map_err(|error| EngineError::Internal(Box::new(error)))?;
        let table = IndexTable::read(&*self.platform, &self.share.segments, &self.here.held).await?;
        let memory_bytes = self.memory_bytes;
        let limits = Limits { rows_max: usize::MAX, memory_bytes, timeout: self.left(), ..self.limits };
        let too_large = || {
            let why = "a fragment that runs here needs more than its share of query_memory";
            EngineError::Source(Problem::bad_request("FragmentTooLarge", why))
        };
        let result = run_fragment(&self.fragment, &self.index, table.pieces(), limits).await;
        let result =
            result.map_err(|error| if matches!(error, EngineError::Memory(_)) { too_large() } else { error })?;
        if result.truncated {
            return Err(too_large());
        }
        Ok(FragmentRows { batches: result.batches, stats: result.stats, answer_bytes: None })
    }
}

#[cfg(test)]
mod tests {
    use types::{KeyRange, SegmentId, Timestamp};
    use wire::{
        coordinator::SegmentRange,
        segment_store::{ChunkMeta, SegmentInfo},
    };

    use futures::poll;
    use wire::block::BlockEvent;

    use super::*;
    use crate::{fake::Fake, table};

    fn noted(number: u32, container: u16, tail: u64) -> Noted {
        let segment = SegmentId { stream: 1, epoch: 0, number };
        let range = SegmentRange { segment, container: ContainerId(container), range: KeyRange::split_evenly(1)[0] };
        let (time_min, time_max) = (Timestamp::MIN, Timestamp::MAX);
        let chunk = |from, to| ChunkMeta { key: String::new(), from, to, bytes: 1_000, time_min, time_max };
        let info = SegmentInfo {
            segment,
            index: "shop".parse().unwrap(),
            start: 15,
            tail_from: 20,
            end: 20 + tail,
            sealed: false,
            chunks: vec![chunk(0, 10), chunk(10, 20)],
            bytes: (20 + tail) * 100,
            truncated_bytes: 1_000,
            transactional: false,
        };
        Noted { range, info }
    }

    #[test]
    fn what_is_read_is_chunks_and_the_tail() {
        assert_eq!(noted(0, 0, 0).bytes(), 1_000, "the first chunk is truncated");
        assert_eq!(noted(0, 0, 7).bytes(), 1_700);
        assert_eq!(bytes(&[noted(0, 0, 7), noted(1, 0, 0)]), 2_700);
    }

    #[test]
    fn each_segment_is_asked_of_the_store_that_owns_it() {
        let owner = |owners: &[(u16, &str)]| {
            owners.iter().map(|(c, name)| (ContainerId(*c), name.parse().unwrap())).collect::<BTreeMap<_, _>>()
        };
        let segments = [noted(0, 0, 1), noted(1, 1, 2), noted(2, 2, 3), noted(3, 0, 4)];
        let shared = shares(&segments, &owner(&[(0, "a"), (1, "b"), (2, "a")])).unwrap();
        let numbers = |share: &Share| share.runs().iter().map(|run| run.segment.number).collect::<Vec<_>>();
        assert_eq!(shared.iter().map(numbers).collect::<Vec<_>>(), [vec![0, 2, 3], vec![1]]);
        let runs: Vec<RowRun> = shared.iter().flat_map(Share::runs).collect();
        assert!(runs.iter().all(|run| run.from == 15 && run.to == 20 + u64::from(run.segment.number) + 1));
        assert_eq!(shared[0].at, ContainerId(0));
        assert_eq!(shares(&segments, &owner(&[(0, "a"), (1, "a"), (2, "a")])).unwrap_err(), Whole::OneStore);
        assert_eq!(shares(&segments, &owner(&[(0, "a"), (1, "b")])).unwrap_err(), Whole::Unanswered, "nobody owns 2");
    }

    #[tokio::test]
    async fn fragments_run_here_one_at_a_time_within_their_share_of_the_memory() {
        const MEMORY: usize = 1 << 20;
        const ROWS: u32 = 900;
        let fake = Arc::new(Fake::default());
        let event = |n: u32| {
            let payload = format!("{{\"n\":{n},\"msg\":\"{}\"}}", "m".repeat(400)).into_bytes().into();
            BlockEvent { received: Timestamp::from_millis(1), id: 0, payload }
        };
        let index: IndexName = "shop".parse().unwrap();
        let ids: Vec<SegmentId> = fake.segments.segments.lock().keys().filter(|id| id.stream == 1).copied().collect();
        for id in &ids {
            fake.segments.change(*id, |segment| segment.events.extend((0..ROWS).map(event)));
        }
        let schema = fake.segments.segments.lock()[&ids[0]].rows(ids[0], 0).schema();
        let schema = Arc::new(ingest::merge_schemas([schema.as_ref()]));
        let segments = table::noted(&*fake, &index).await.unwrap();
        let here = Arc::new(Here { turn: Semaphore::new(1), held: AtomicUsize::new(0), tables: 1 });
        let text = "SELECT n AS \"__0\", max(_msg) AS \"__1\" FROM \"shop\" GROUP BY 1".to_owned();
        let fragment = Arc::new(Fragment { text, schema: Arc::clone(&schema) });
        let run = |memory_bytes: usize, stores: usize| {
            let share = |noted: &Noted| Share { at: noted.range.container, segments: vec![noted.clone()] };
            let scattered = Scattered {
                platform: Arc::clone(&fake) as Arc<dyn Platform>,
                index: index.clone(),
                schema: Arc::clone(&schema),
                shares: segments.iter().take(stores).map(share).collect(),
                limits: Limits { memory_bytes, ..Limits::default() },
                here: Arc::clone(&here),
                origin: None,
            };
            scattered.run(Arc::clone(&fragment))
        };
        let turn = here.turn.acquire().await.unwrap();
        let mut answers = run(64 << 20, 2);
        for _ in 0..100 {
            assert!(poll!(answers.next()).is_pending(), "whoever has no turn waits");
            tokio::task::yield_now().await;
        }
        drop(turn);
        let answers: Vec<FragmentRows> = answers.try_collect().await.unwrap();
        let rows = |of: &FragmentRows| of.batches.iter().map(arrow::array::RecordBatch::num_rows).sum::<usize>();
        assert_eq!(answers.iter().map(rows).collect::<Vec<_>>(), [ROWS as usize; 2]);
        // What is enough for one is too little for both.
        assert!(run(MEMORY, 1).try_collect::<Vec<_>>().await.is_ok());
        let small = run(MEMORY, 2).try_collect::<Vec<_>>().await.unwrap_err();
        assert!(matches!(&small, EngineError::Source(problem) if problem.kind == "FragmentTooLarge"), "{small:?}");
    }
}
