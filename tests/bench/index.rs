//! The log index: what it costs to keep some million lines and to ask about them, beside other log stores on the same lines.

#[path = "index/clickhouse.rs"]
mod clickhouse;
#[path = "index/corpus.rs"]
mod corpus;
#[path = "index/mixed.rs"]
mod mixed;
#[path = "index/oracle.rs"]
mod oracle;
#[path = "index/ours.rs"]
mod ours;
#[path = "index/question.rs"]
mod question;
#[path = "index/sheet.rs"]
mod sheet;
#[path = "index/software.rs"]
mod software;
#[path = "index/store.rs"]
mod store;
#[path = "index/victoria.rs"]
mod victoria;

use std::{path::PathBuf, process::Command, sync::Arc, time::Duration};

use anyhow::{Context, Result, bail};
use hdrhistogram::Histogram;
use logboom_tests::root;
use tokio::time::{Instant, sleep};

use self::{
    clickhouse::{ClickHouse, Variant},
    corpus::Corpus,
    oracle::Oracle,
    ours::Ours,
    question::{QUESTIONS, Question},
    sheet::Sheet,
    store::Store,
    victoria::Victoria,
};
use crate::figure::{Figures, Goal};

const SUITE: &str = "index";
/// Lines of a corpus when nothing else is said; the goals are for so many.
const LINES: u64 = 5_000_000;
/// Runs before a question is measured.
const WARM_UPS: usize = 2;
/// Runs of a question that are measured: the kernel counts CPU in hundredths of a second, so short ones are asked often.
const RUNS_MIN: u32 = 7;
const RUNS_MAX: u32 = 200;
const RUNS_FOR: Duration = Duration::from_secs(3);
/// How often memory is looked at.
const MEMORY_EVERY: Duration = Duration::from_millis(50);

/// What the command line says about this suite.
#[derive(Debug)]
pub(crate) struct Options {
    lines: u64,
    corpus: Option<PathBuf>,
    peers: bool,
}

impl Options {
    /// Takes its own words out of the arguments.
    pub(crate) fn take(arguments: &mut Vec<String>) -> Result<Self> {
        let lines = match value(arguments, "--lines")? {
            Some(text) => text.parse().ok().filter(|lines| *lines > 0).context("--lines wants a number above 0")?,
            None => LINES,
        };
        let corpus = value(arguments, "--corpus")?.map(PathBuf::from);
        let before = arguments.len();
        arguments.retain(|word| word != "--no-peers");
        Ok(Self { lines, corpus, peers: arguments.len() == before })
    }
}

pub(crate) fn value(arguments: &mut Vec<String>, name: &str) -> Result<Option<String>> {
    let Some(place) = arguments.iter().position(|word| word == name) else { return Ok(None) };
    if place + 1 >= arguments.len() {
        bail!("{name} wants a value");
    }
    arguments.remove(place);
    Ok(Some(arguments.remove(place)))
}

pub(crate) async fn run(options: &Options, figures: &mut Figures) -> Result<()> {
    let corpus = match &options.corpus {
        Some(path) => Corpus::open(path)?,
        None => Corpus::generate(options.lines)?,
    };
    let oracle = Arc::new(Oracle::of(&corpus)?);
    figures.note(SUITE, &format!("{} lines of {} bytes", corpus.lines, corpus.bytes));
    let mut bench = Bench { corpus, oracle, sheet: Sheet::default(), figures, wrong: 0 };
    let mut ours = Ours::start(&bench.oracle.needle).await?;
    let rate = bench.measure(&mut ours).await?;
    mixed::run(&mut bench, &mut ours, rate / 2.0).await?;
    mixed::visible(&mut bench, &ours).await?;
    drop(ours);
    if options.peers {
        bench.peers().await;
    }
    bench.sheet.print(bench.figures);
    Ok(())
}

/// Brings a peer, or says why it cannot be had.
pub(crate) fn install(script: &str) -> Result<()> {
    let output = Command::new(root().join(script)).output().context(script.to_owned())?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        bail!("{script}: {}", words.lines().last().unwrap_or("it failed without a word"));
    }
    Ok(())
}

/// One run over one corpus.
struct Bench<'a> {
    corpus: Corpus,
    oracle: Arc<Oracle>,
    sheet: Sheet,
    figures: &'a mut Figures,
    /// Wrong answers of the store that is measured.
    wrong: u32,
}

impl Bench<'_> {
    /// The other stores, one after the other; who cannot be had is left out.
    async fn peers(&mut self) {
        for variant in [Variant::Bloom, Variant::Text] {
            if let Err(error) = self.clickhouse(variant).await {
                self.figures.note(SUITE, &format!("ClickHouse ({variant:?}) is not beside us: {error:#}"));
            }
        }
        if let Err(error) = self.victoria().await {
            self.figures.note(SUITE, &format!("VictoriaLogs is not beside us: {error:#}"));
        }
    }

    async fn clickhouse(&mut self, variant: Variant) -> Result<()> {
        install("tools/install-chdb")?;
        let mut peer = ClickHouse::start(variant, &self.oracle.needle).await?;
        self.measure(&mut peer).await.map(drop)
    }

    async fn victoria(&mut self) -> Result<()> {
        install("tools/install-victoria-logs")?;
        let mut peer = Victoria::start(&self.oracle.needle).await?;
        self.measure(&mut peer).await.map(drop)
    }

    /// Every figure that all stores have; gives the lines that were taken in a second.
    async fn measure(&mut self, store: &mut impl Store) -> Result<f64> {
        self.sheet.column(store.name());
        self.wrong = 0;
        let rate = self.ingested(store).await?;
        let pids = store.pids().await?;
        // They are for so many lines.
        let goal = |goal: f64, lines: u64| Some(Goal::AtMost(goal)).filter(|_| lines >= LINES);
        let mut most = 0;
        let mut medians = Vec::new();
        for question in QUESTIONS {
            let name = question.name();
            let warm = self.warm(store, question).await?;
            most = most.max(store::used(&pids)?.1);
            self.sheet.put(&format!("{name}, warm CPU"), warm.cpu_ms, "ms", goal(question.goal(), self.corpus.lines));
            self.sheet.put(&format!("{name}, warm p50"), warm.p50_ms, "ms", None);
            self.sheet.put(&format!("{name}, warm p99"), warm.p99_ms, "ms", None);
            medians.push(warm.p50_ms);
        }
        self.sheet.put("queries, most memory", most as f64 / 1_024.0, "MiB", None);
        for (question, median) in QUESTIONS.into_iter().zip(medians) {
            store.restart().await?;
            let begun = Instant::now();
            let answer = store.ask(question).await?;
            let wall = begun.elapsed().as_secs_f64() * 1_000.0;
            self.check(store, question, &answer);
            let goal = goal(3.0 * median + 20.0, self.corpus.lines);
            self.sheet.put(&format!("{}, cold", question.name()), wall, "ms", goal);
        }
        self.sheet.put("wrong answers", f64::from(self.wrong), "answers", Some(Goal::AtMost(0.0)));
        Ok(rate)
    }

    /// The way in: time, CPU until nothing is left to do, memory, disk.
    async fn ingested(&mut self, store: &mut impl Store) -> Result<f64> {
        let pids = store.pids().await?;
        let (before, begun) = (store::used(&pids)?.0, Instant::now());
        let mut most = 0;
        {
            let ingest = store.ingest(&self.corpus);
            tokio::pin!(ingest);
            loop {
                tokio::select! {
                    done = &mut ingest => break done?,
                    () = sleep(MEMORY_EVERY) => most = most.max(store::used(&pids)?.1),
                }
            }
        }
        let (wall, now) = (begun.elapsed().as_secs_f64(), store::used(&pids)?.0);
        store.finish().await?;
        let settled = store::settled(store).await?;
        most = most.max(settled.rss_kib);
        let (sheet, lines) = (&mut self.sheet, self.corpus.lines as f64);
        let micros = |until: u64| (until - before) as f64 / lines;
        sheet.put("ingest, lines", lines / wall, "lines/s", None);
        sheet.put("ingest, CPU", micros(now), "µs/line", None);
        sheet.put("ingest, CPU settled", micros(settled.cpu_micros.max(now)), "µs/line", Some(Goal::AtMost(3.0)));
        sheet.put("ingest, most memory", most as f64 / 1_024.0, "MiB", Some(Goal::AtMost(512.0)));
        let disk = store.disk().await?;
        let bytes = store::total(&disk) as f64;
        for (part, bytes) in disk.iter().filter(|_| disk.len() > 1) {
            sheet.put(&format!("disk, {part}"), *bytes as f64 / lines, "B/line", None);
        }
        sheet.put("disk", bytes / lines, "B/line", Some(Goal::AtMost(16.0)));
        sheet.put("disk, corpus to disk", self.corpus.bytes as f64 / bytes, "times", None);
        Ok(lines / wall)
    }

    async fn warm(&mut self, store: &mut impl Store, question: Question) -> Result<Warm> {
        for _ in 0..WARM_UPS {
            store.ask(question).await?;
        }
        let pids = store.pids().await?;
        let mut walls = Histogram::<u64>::new(3)?;
        let (before, begun, mut runs, mut last) = (store::used(&pids)?.0, Instant::now(), 0, String::new());
        while runs < RUNS_MIN || (runs < RUNS_MAX && begun.elapsed() < RUNS_FOR) {
            let asked = Instant::now();
            last = store.ask(question).await?;
            walls.record(u64::try_from(asked.elapsed().as_micros())?)?;
            runs += 1;
        }
        let cpu_ms = (store::used(&pids)?.0 - before) as f64 / 1_000.0 / f64::from(runs);
        self.check(store, question, &last);
        let at = |percent: f64| walls.value_at_percentile(percent) as f64 / 1_000.0;
        Ok(Warm { cpu_ms, p50_ms: at(50.0), p99_ms: at(99.0) })
    }

    /// Says so if an answer is not what the lines say.
    fn check(&mut self, store: &impl Store, question: Question, answer: &str) {
        let wrong = match store.rows(question, answer) {
            Ok(rows) => self.oracle.complaint(question, rows),
            Err(error) => Some(format!("{error:#}")),
        };
        if let Some(wrong) = wrong {
            self.wrong += 1;
            let words = format!("WRONG ANSWER of {} to {}: {wrong}", store.name(), question.name());
            self.figures.note(SUITE, &words);
        }
    }
}

/// What a question costs while everything is warm.
struct Warm {
    cpu_ms: f64,
    p50_ms: f64,
    p99_ms: f64,
}
