//! Fragments of queries, run beside the rows that this replica owns: chunks and tail together.
//!
//! Which rows a fragment reads is said by segment and offsets, and looked up in the books of the containers when it begins:
//! chunks that were merged meanwhile, and events that went to Tier 2 meanwhile, are the same rows under other names. A row
//! has one offset for ever, so a replica that was superseded and does not know it yet answers nothing wrong; it only may
//! not have what it is asked for, and then says so.

mod kept;
mod rows;

use std::{sync::Arc, time::Duration};

use engine::{Chunks, EngineError, FRAGMENT_ROWS_MAX, Limits, Piece};
use host::Places;
use parking_lot::Mutex;
use store::Objects;
use tokio::runtime::{Handle, Runtime};
use types::IndexName;
use wire::{
    Code, Problem,
    segment_store::{
        FRAGMENT_BYTES_MAX, FRAGMENT_RUNS_MAX, FRAGMENT_TEXT_MAX, Fragment, FragmentAnswer, FragmentPart, RowColumns,
        RowRun, RowsOf,
    },
};

use self::{
    kept::{Answered, Begun, Fragments, One},
    rows::{Reader, Tails},
};
use crate::{config::Config, crash, error::Error, lane::to_u64, metrics::FRAGMENTS, tenure::Owned};

/// Fragments that run at once, half of them of one index; beyond it they wait. Each may use `fragment_memory`.
const FRAGMENTS_MAX: usize = 8;
/// How long one waits for others to end; then the gateway reads the rows itself.
const PLACE_WAIT: Duration = Duration::from_secs(5);
/// The longest that a request waits for an answer.
const ANSWER_WAIT: Duration = Duration::from_secs(2);
/// The longest that a fragment may take, whatever it asks for.
const WITHIN_MAX: Duration = Duration::from_secs(3_600);
/// Threads for fragments, at most: appends go first.
const THREADS_MAX: usize = 4;
/// Stack of one of them: twice what planning the deepest text takes.
const STACK_BYTES: usize = 16 << 20;
/// How long a question about columns waits for a place: whoever asks waits 5 s for the answer.
const COLUMNS_WAIT: Duration = Duration::from_secs(2);

/// The threads on which fragments run; dropped, they end without being waited for.
pub(crate) struct Threads(Option<Runtime>);

impl Threads {
    pub(crate) fn new() -> std::io::Result<Self> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        runtime.thread_name("fragment").worker_threads(threads).thread_stack_size(STACK_BYTES).enable_all();
        runtime.build().map(|runtime| Self(Some(runtime)))
    }

    fn handle(&self) -> Option<Handle> {
        self.0.as_ref().map(|runtime| runtime.handle().clone())
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// What runs fragments; clones share it.
#[derive(Clone)]
pub(crate) struct Queries(Arc<Shared>);

struct Shared {
    reader: Reader,
    places: Places,
    fragments: Mutex<Fragments>,
    threads: Handle,
    memory_bytes: usize,
}

impl Queries {
    /// Over the containers that this replica owns.
    pub(crate) fn new(config: &Config, objects: Objects, owned: Owned, threads: &Threads) -> Self {
        let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        let chunks = Chunks::with_cache(objects.clone(), size(config.chunk_cache.0));
        Self(Arc::new(Shared {
            reader: Reader { owned, chunks, objects, tails: Tails::new() },
            places: Places::new(FRAGMENTS_MAX),
            fragments: Mutex::default(),
            // They are there as long as anybody asks.
            threads: threads.handle().unwrap_or_else(Handle::current),
            memory_bytes: size(config.fragment_memory.0),
        }))
    }

    /// The columns of some rows. Tails are read for it, so it takes a place as fragments do.
    pub(crate) async fn describe(&self, rows: RowsOf) -> Result<RowColumns, Error> {
        check_runs(&rows.runs)?;
        let _place = self.0.places.wait(Some(&rows.index), COLUMNS_WAIT).await.ok_or_else(full)?;
        let schemas = self.0.reader.schemas(&rows.index, &rows.runs).await?;
        let schema = ingest::merge_schemas(schemas.iter().map(AsRef::as_ref));
        let bytes = engine::schema_to_ipc(&schema).map_err(|error| Error::Columns(error.to_string()))?;
        Ok(RowColumns { schema: bytes.into() })
    }

    /// Begins a fragment, or finds it begun, and answers its first part if that comes soon.
    pub(crate) async fn run(&self, fragment: Fragment) -> Result<FragmentAnswer, Error> {
        check_runs(&fragment.runs)?;
        if fragment.text.len() > FRAGMENT_TEXT_MAX || fragment.id.len() > 64 {
            return Err(invalid("its text or its id is too long"));
        }
        let wait = wait(fragment.wait_ms);
        let begun = self.0.fragments.lock().begin(&fragment.id);
        let one = match begun {
            Begun::Known(one) => one,
            Begun::New(one) => {
                let (shared, own) = (Arc::clone(&self.0), Arc::clone(&one));
                self.0.threads.spawn(async move { shared.keep(fragment, own).await });
                one
            }
            Begun::TooMany => {
                return Err(full());
            }
        };
        one.part(0, wait).await.map_err(Error::Fragment)
    }

    /// Answers a part of what a fragment gave.
    pub(crate) async fn part(&self, wanted: FragmentPart) -> Result<FragmentAnswer, Error> {
        let one = self.0.fragments.lock().get(&wanted.id);
        let unknown = || Problem::new(Code::NotFound, "UnknownFragment", "no such fragment is here: run it again");
        let one = one.ok_or_else(|| Error::Fragment(unknown()))?;
        one.part(wanted.part, wait(wanted.wait_ms)).await.map_err(Error::Fragment)
    }
}

fn wait(ms: u32) -> Duration {
    Duration::from_millis(ms.into()).min(ANSWER_WAIT)
}

fn full() -> Error {
    Error::Fragment(Problem::throttled("Throttled", "too many fragments of queries run here"))
}

fn invalid(why: &str) -> Error {
    Error::Fragment(Problem::bad_request("InvalidFragment", why))
}

fn check_runs(runs: &[RowRun]) -> Result<(), Error> {
    if runs.len() > FRAGMENT_RUNS_MAX {
        return Err(invalid("it names too many runs of rows"));
    }
    if runs.iter().any(|run| run.from >= run.to) { Err(invalid("it names a run without rows")) } else { Ok(()) }
}

impl Shared {
    /// Runs a fragment while somebody asks for its answer, and keeps the answer as long.
    async fn keep(self: Arc<Self>, fragment: Fragment, one: Arc<One>) {
        let id = fragment.id.clone();
        tokio::select! {
            answer = self.answer(fragment) => {
                FRAGMENTS.with(if answer.is_ok() { "answered" } else { "failed" }).inc();
                one.end(answer);
                one.forgotten().await;
            }
            () = one.forgotten() => FRAGMENTS.with("given_up").inc(),
        }
        self.fragments.lock().remove(&id);
    }

    async fn answer(&self, fragment: Fragment) -> Result<Answered, Problem> {
        let _place = self.places.wait(Some(&fragment.index), PLACE_WAIT).await.ok_or_else(full)?;
        let pieces = self.reader.pieces(&fragment.index, &fragment.runs).await?;
        crash::point("fragment_begun");
        let limits = Limits {
            rows_max: FRAGMENT_ROWS_MAX,
            memory_bytes: self.memory_bytes,
            timeout: Duration::from_millis(fragment.within_ms.into()).min(WITHIN_MAX),
            scan_bytes: fragment.scan_bytes,
        };
        run(fragment.index, fragment.text, &fragment.schema, pieces, limits).await
    }
}

/// Runs a text over pieces; an answer that is not whole is none.
async fn run(
    index: IndexName,
    text: String,
    schema: &[u8],
    pieces: Vec<Piece>,
    limits: Limits,
) -> Result<Answered, Problem> {
    let too_large = |why: &str| Problem::bad_request("FragmentTooLarge", why);
    let problem = |error: EngineError| match error {
        EngineError::Source(problem) => problem,
        EngineError::Memory(_) => too_large("it needs more than segment_store.fragment_memory"),
        EngineError::Timeout(_) => Problem::new(Code::Deadline, "QueryTimeout", error),
        EngineError::Query(found) => Problem::bad_request("InvalidQuery", found.message),
        EngineError::Internal(source) => Problem::internal(source),
    };
    let fragment = engine::Fragment { text, schema: engine::schema_of(schema).map_err(problem)? };
    let result = engine::run_fragment(&fragment, &index, pieces, limits).await.map_err(problem)?;
    if result.truncated {
        return Err(too_large("it answers too many rows"));
    }
    let stream = result.to_ipc_stream().map_err(problem)?;
    if stream.len() > FRAGMENT_BYTES_MAX {
        return Err(too_large("its answer has too many bytes"));
    }
    let told = FragmentAnswer {
        rows_scanned: result.stats.rows_scanned,
        bytes_scanned: result.stats.bytes_scanned,
        counts: result.stats.scan.counts(),
        ..FragmentAnswer::default()
    };
    tracing::debug!(%index, bytes = to_u64(stream.len()), rows = result.row_count(), "fragment answered");
    Ok(Answered { stream: stream.into(), told })
}

#[cfg(test)]
mod tests {
    use settings::{Layers, Settings};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_question_about_columns_takes_a_place_as_fragments_do() {
        let config = Settings::load(Layers::default()).unwrap().section::<Config>().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let objects = Objects::open(&format!("file://{}", directory.path().display())).unwrap();
        let threads = Threads::new().unwrap();
        let queries = Queries::new(&config, objects, Owned::default(), &threads);
        let index: IndexName = "shop".parse().unwrap();
        let rows = || RowsOf { index: index.clone(), runs: Vec::new() };
        let held: Vec<_> = (0..FRAGMENTS_MAX / 2).map(|_| queries.0.places.take(Some(&index)).unwrap()).collect();
        let refused = queries.describe(rows()).await.unwrap_err();
        assert_eq!(Problem::from(refused).kind, "Throttled");
        drop(held);
        assert!(queries.describe(rows()).await.is_ok(), "of no rows there are no columns");
        assert!(queries.0.places.take(Some(&index)).is_some(), "it was given back");
    }
}
