//! Questions of every kind are answered alike in every way there is: by DataFusion alone, out of chunks and counters, by a plan
//! where counters would do, as a stream, by parts of the table, and by fragments of several stores.

use futures::{StreamExt, stream, stream::BoxStream};
use query::NamedView;
use tokio::runtime::Builder;
use types::IndexName;

use super::*;
use crate::{
    Fragment, FragmentRows, Part, Scatter, Scattered, batches_of, is_counted, partial::Partial, plans::Ready,
    provider::Tables, run_fragment, run_scattered, run_select_stream, schema_of, schema_to_ipc,
};

mod questions;

use questions::{Certain, Question, VIEWS};

/// Questions about each table.
const QUESTIONS: usize = 6;

/// Columns and rows.
type Answer = (Vec<ResultColumn>, Vec<String>);

fn shop() -> IndexName {
    "shop".parse().unwrap()
}

fn select(text: &str) -> Select {
    let mut select = parse_select(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    if !select.items.is_empty() {
        let view = |(name, text): &(&str, &str)| {
            let name = name.parse::<query::ItemRef>().unwrap().table().unwrap();
            NamedView { name, select: parse_select(text).unwrap() }
        };
        select.views = VIEWS.iter().map(view).collect();
    }
    select
}

fn tables(table: &Arc<Table>) -> Vec<(IndexName, Arc<dyn TableSource>)> {
    vec![(shop(), Arc::clone(table) as Arc<dyn TableSource>)]
}

fn answer(result: &ResultSet) -> Answer {
    assert!(!result.truncated, "nothing is cut");
    (result.columns(), lines(result))
}

async fn by_stream(table: &Arc<Table>, select: Select) -> Answer {
    let (mut columns, mut rows) = (Vec::new(), Vec::new());
    let mut parts = Box::pin(run_select_stream(select, tables(table), Limits::default()));
    while let Some(part) = parts.next().await {
        match part.unwrap() {
            Part::Columns(of) => columns = of,
            Part::Rows(more) => rows.extend(lines(&more)),
            Part::Partial(_) | Part::Progress(_) => {}
            Part::End(end) => assert_eq!(end.row_count, rows.len()),
        }
    }
    (columns, rows)
}

async fn ready(table: &Arc<Table>, select: &Select) -> Ready {
    let scanned = Arc::new(Scanned::new(u64::MAX, "shop"));
    let tables = Tables::open(&tables(table), scanned).await.unwrap();
    Ready::new(select, tables, 256 << 20).await.unwrap()
}

async fn by_plan(table: &Arc<Table>, select: &Select) -> Answer {
    let rows = ready(table, select).await.run().unwrap();
    let schema = rows.schema();
    answer(&ResultSet::new(&schema, rows.try_collect().await.unwrap(), false).unwrap())
}

/// What is answered of the newest pieces, then of more of them, at last of all; `None` for what is not answered so.
async fn by_parts(table: &Arc<Table>, select: &Select) -> Option<Answer> {
    let ready = ready(table, select).await;
    let mut partial = Partial::of(&ready.plan, &ready.task)?;
    loop {
        partial.read().await.unwrap();
        let rows: Vec<RecordBatch> = partial.answer().unwrap().try_collect().await.unwrap();
        let rows = ResultSet::new(&partial.schema(), rows, false).unwrap();
        if partial.is_whole() {
            return Some(answer(&rows));
        }
    }
}

/// The pieces of a table with some stores; what goes to a store and comes from it goes through bytes.
#[derive(Debug)]
struct Shares {
    schema: SchemaRef,
    shares: Vec<Vec<Piece>>,
}

impl Shares {
    async fn of(table: &Table, dice: &mut Dice) -> Self {
        let schemas = table.schemas().await.unwrap();
        let mut shares = vec![Vec::new(); 1 + usize::try_from(dice.roll(4)).unwrap()];
        for piece in table.pieces() {
            let share = dice.roll(shares.len() as u64);
            shares[usize::try_from(share).unwrap()].push(piece);
        }
        Self { schema: Arc::new(ingest::merge_schemas(schemas.iter().map(AsRef::as_ref))), shares }
    }
}

impl Scatter for Shares {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn run(&self, fragment: Arc<Fragment>) -> BoxStream<'static, Result<FragmentRows, EngineError>> {
        let answers = self.shares.clone().into_iter().map(move |pieces| {
            let fragment = Arc::clone(&fragment);
            async move {
                let schema = schema_of(&schema_to_ipc(&fragment.schema)?)?;
                let fragment = Fragment { schema, ..(*fragment).clone() };
                let result = run_fragment(&fragment, &shop(), pieces, Limits::default()).await?;
                let bytes = result.to_ipc_stream()?;
                Ok(FragmentRows { batches: batches_of(&bytes)?, stats: result.stats, answer_bytes: Some(1) })
            }
        });
        stream::iter(answers.collect::<Vec<_>>()).buffer_unordered(2).boxed()
    }
}

/// What is to be answered.
struct Expected {
    question: Question,
    columns: Vec<ResultColumn>,
    rows: Vec<String>,
}

impl Expected {
    /// What DataFusion alone answers over all rows in one batch; an error where it answers nothing.
    async fn of(table: &Table, question: Question) -> Result<Self, DataFusionError> {
        let text = if let Certain::Some(all, _) = &question.certain { all } else { &question.text };
        let (columns, rows) = table.plain(&select(text)).await?;
        Ok(Self { question, columns, rows })
    }

    fn check(&self, way: &str, (columns, mut rows): Answer) {
        let mut expected = self.rows.clone();
        match &self.question.certain {
            Certain::Order => {}
            Certain::Rows => {
                rows.sort_unstable();
                expected.sort_unstable();
            }
            Certain::Some(_, number) => {
                assert_eq!(rows.len(), expected.len().min(*number), "{way}: {}", self.question.text);
                // As many of each as there are rows of it.
                expected.retain(|row| rows.iter().position(|own| own == row).map(|at| rows.swap_remove(at)).is_some());
                assert!(rows.is_empty(), "{way}: {} answers {rows:?}", self.question.text);
            }
        }
        if !matches!(self.question.certain, Certain::Some(..)) {
            assert_eq!(rows, expected, "{way}: {}", self.question.text);
        }
        assert_eq!(columns, self.columns, "{way}: {}", self.question.text);
    }
}

async fn ask(table: Arc<Table>, mut dice: Dice) {
    let shares = Arc::new(Shares::of(&table, &mut dice).await);
    for _ in 0..QUESTIONS {
        let question = questions::any(&mut dice);
        let (text, select) = (question.text.clone(), select(&question.text));
        let expected = match Expected::of(&table, question).await {
            Ok(expected) => expected,
            // What DataFusion cannot plan for its own tables may well be planned for ours.
            Err(error) if error.to_string().starts_with("SanityCheckPlan") => continue,
            Err(error) => {
                let found = run_select(&select, tables(&table), Limits::default()).await;
                assert!(found.is_err(), "{text} is answered, and should not be: {error}");
                continue;
            }
        };
        let found = run_select(&select, tables(&table), Limits::default()).await;
        expected.check("by chunks", answer(&found.unwrap_or_else(|error| panic!("{text}: {error:?}"))));
        let again = run_select(&select, tables(&table), Limits::default()).await;
        expected.check("once more", answer(&again.unwrap_or_else(|error| panic!("{text}: {error:?}"))));
        if is_counted(&select) {
            expected.check("by a plan", by_plan(&table, &select).await);
        }
        expected.check("as a stream", by_stream(&table, select.clone()).await);
        if let Some(found) = by_parts(&table, &select).await {
            expected.check("by parts", found);
        }
        let stores = vec![(shop(), Arc::clone(&shares) as Arc<dyn Scatter>)];
        let found = run_scattered(&select, stores, Limits::default()).await;
        if let Scattered::Answered(found) = found.unwrap_or_else(|error| panic!("by fragments: {text}: {error:?}")) {
            expected.check("by fragments", answer(&found));
        }
    }
}

proptest! {
    // 256 where nobody says otherwise.
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases.div_ceil(32), ..ProptestConfig::default() })]

    #[test]
    fn every_way_answers_alike(seed in proptest::prelude::any::<u64>()) {
        // Planning takes stack, as on the threads of queries.
        let runtime = Builder::new_multi_thread().worker_threads(2).thread_stack_size(16 << 20).enable_all().build().unwrap();
        let asked = runtime.block_on(runtime.spawn(async move {
            let table = Arc::new(Table::random(seed, 8).await);
            ask(table, Dice(!seed)).await;
        }));
        prop_assert!(asked.is_ok(), "{}", asked.unwrap_err());
    }
}
