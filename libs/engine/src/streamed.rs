//! A query whose rows are shown while it runs.

use std::{
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use arrow::datatypes::Schema;
use datafusion::{error::DataFusionError, execution::SendableRecordBatchStream};
use futures::{FutureExt, Stream, StreamExt, TryStreamExt, stream};
use query::Select;
use tokio::{
    sync::mpsc,
    time::{Interval, MissedTickBehavior},
};
use types::IndexName;

use crate::{
    EngineError, Limits, Progress, ResultColumn, ResultSet, Stats, TableSource,
    error::explain_select,
    partial::{PARTIAL_ROWS_MAX, Partial},
    run::{Asked, Begun, Cut, collect},
};

/// Parts that wait for whoever takes them; beyond it the query waits.
const PARTS_MAX: usize = 4;

/// How often it is told how far a query is.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);

/// How often an aggregate is shown that is not whole yet.
const PARTIAL_EVERY: Duration = Duration::from_millis(300);

/// A part of an answer.
#[derive(Debug, Clone)]
pub enum Part {
    /// The columns, before any row.
    Columns(Vec<ResultColumn>),
    /// More rows, in the order of the answer.
    Rows(ResultSet),
    /// The rows of an aggregate as far as it is; they take the place of all before them, and are replaced by what follows.
    Partial(ResultSet),
    /// How far the query is.
    Progress(Progress),
    /// The last part.
    End(End),
}

/// What is known of an answer at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// How many rows it had.
    pub row_count: usize,
    /// Whether there were more than a query answers.
    pub truncated: bool,
    /// What it cost.
    pub stats: Stats,
}

/// Runs a query over exactly the given tables, and gives its rows as they are found, with figures of how far it is.
///
/// Order: as of [`run_select`](crate::run_select); rows in an order by time come while older (or newer) chunks are not read
/// yet, those of an aggregate when all is read. The last part is [`Part::End`] or an error.
/// Bounds: `limits`, `memory_bytes` for operators only; whoever takes parts slowly slows the query, whose time goes on.
/// Dropping the stream stops the query. Errors: as of [`run_select`](crate::run_select).
pub fn run_select_stream(
    select: Select,
    tables: Vec<(IndexName, Arc<dyn TableSource>)>,
    limits: Limits,
) -> impl Stream<Item = Result<Part, EngineError>> + Send + 'static {
    let (parts, taken) = mpsc::channel(PARTS_MAX);
    let work = async move {
        let asked = Asked::new(&select, limits);
        let run = run(&asked, &select, &tables, limits, &parts);
        let ended =
            tokio::time::timeout(limits.timeout, run).await.unwrap_or(Err(EngineError::Timeout(limits.timeout)));
        let last =
            ended.map(|cut| Part::End(End { row_count: cut.rows, truncated: cut.truncated, stats: asked.stats() }));
        give(&parts, last).await;
    };
    let taken = stream::unfold(taken, |mut taken| async move { taken.recv().await.map(|part| (part, taken)) });
    // Both are driven by whoever takes the parts.
    stream::select(taken, work.into_stream().filter_map(|()| async { None }))
}

/// Tells of an error in terms of the text.
type Fail<'a> = dyn Fn(DataFusionError) -> EngineError + Send + Sync + 'a;

type Parts = mpsc::Sender<Result<Part, EngineError>>;

/// Gives a part; where nobody takes it any more the query is about to be dropped.
async fn give(parts: &Parts, part: Result<Part, EngineError>) {
    drop(parts.send(part).await);
}

async fn run(
    asked: &Asked<'_>,
    select: &Select,
    tables: &[(IndexName, Arc<dyn TableSource>)],
    limits: Limits,
    parts: &Parts,
) -> Result<Cut, EngineError> {
    let fail = |error: DataFusionError| explain_select(&error, limits.memory_bytes, select);
    match asked.begin(tables).await? {
        Begun::Counted(rows) => {
            let mut cut = Cut::default();
            let rows = ResultSet::new(&rows.schema(), cut.take(&rows, limits.rows_max).into_iter().collect(), false)?;
            give(parts, Ok(Part::Columns(rows.columns()))).await;
            give(parts, Ok(Part::Rows(rows))).await;
            Ok(cut)
        }
        Begun::Planned(ready) => {
            let teller = &mut Teller::new(asked, parts);
            if let Some(partial) = Partial::of(&ready.plan, &ready.task) {
                return grow(partial, limits, teller, &fail).await;
            }
            let rows = ready.run().map_err(fail)?;
            columns(&rows.schema(), parts).await?;
            follow(rows, limits, teller, &fail).await
        }
    }
}

async fn columns(schema: &Schema, parts: &Parts) -> Result<(), EngineError> {
    give(parts, Ok(Part::Columns(ResultSet::new(schema, Vec::new(), false)?.columns()))).await;
    Ok(())
}

/// Shows an aggregate as it grows.
async fn grow(
    mut partial: Partial,
    limits: Limits,
    teller: &mut Teller<'_>,
    fail: &Fail<'_>,
) -> Result<Cut, EngineError> {
    columns(&partial.schema(), teller.parts).await?;
    let mut shown = Instant::now();
    loop {
        teller.beside(partial.read()).await.map_err(fail)?;
        if partial.is_whole() {
            return follow(partial.answer().map_err(fail)?, limits, teller, fail).await;
        }
        if shown.elapsed() < PARTIAL_EVERY || !partial.may_show() {
            continue;
        }
        let limits = Limits { rows_max: PARTIAL_ROWS_MAX, ..limits };
        let so_far = collect(partial.answer().map_err(fail)?, limits).await.map_err(fail)?;
        if !so_far.truncated {
            give(teller.parts, Ok(Part::Partial(so_far))).await;
        }
        shown = Instant::now();
    }
}

/// Shows rows as they come.
async fn follow(
    mut rows: SendableRecordBatchStream,
    limits: Limits,
    teller: &mut Teller<'_>,
    fail: &Fail<'_>,
) -> Result<Cut, EngineError> {
    let (schema, mut cut) = (rows.schema(), Cut::default());
    while !cut.truncated {
        let Some(batch) = teller.beside(rows.try_next()).await.map_err(fail)? else { break };
        if let Some(taken) = cut.take(&batch, limits.rows_max) {
            give(teller.parts, Ok(Part::Rows(ResultSet::new(&schema, vec![taken], false)?))).await;
        }
    }
    teller.tell().await;
    Ok(cut)
}

/// Tells how far a query is.
struct Teller<'a> {
    asked: &'a Asked<'a>,
    parts: &'a Parts,
    ticks: Interval,
    told: Progress,
}

impl<'a> Teller<'a> {
    fn new(asked: &'a Asked<'a>, parts: &'a Parts) -> Self {
        let mut ticks = tokio::time::interval(PROGRESS_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { asked, parts, ticks, told: Progress::default() }
    }

    /// Does something, and tells now and then while it lasts.
    async fn beside<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                _ = self.ticks.tick() => {}
            }
            self.tell().await;
        }
    }

    async fn tell(&mut self) {
        let now = self.asked.scanned.progress();
        if now != self.told {
            self.told = now;
            give(self.parts, Ok(Part::Progress(now))).await;
        }
    }
}
