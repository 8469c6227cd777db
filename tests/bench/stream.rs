//! The stream engine beside Flink: the same files, the same questions, one after the other, never both at once.

#[path = "stream/flink.rs"]
mod flink;
#[path = "stream/ours.rs"]
mod ours;
#[path = "stream/questions.rs"]
mod questions;
#[path = "stream/running.rs"]
mod running;

use std::{collections::BTreeSet, fs, path::Path, time::Duration};

use anyhow::{Context, Result, bail};
use logboom_tests::Workdir;

use self::{
    flink::Flink,
    ours::Ours,
    questions::{Data, Digest, Prepared, QUESTIONS, Question},
};
use crate::figure::{Figure, Figures, Goal};

const SUITE: &str = "stream";
/// Events of a data set when nothing else is said; the goals are for so many.
const ROWS: u64 = 10_000_000;
/// Subtasks of every job of both.
const PARALLELISM: u64 = 2;
/// Files of a table: Flink's reader of a subtask reads one file after the other and takes what lies in the second for late, so there are
/// as many as subtasks.
const FILES: u64 = PARALLELISM;
/// The figures of a job over an index, which is no question.
const RUNNING: &str = "a running job";
/// How long a job may take.
const RUN_MAX: Duration = Duration::from_secs(600);

/// What the command line says about this suite.
#[derive(Debug)]
pub(crate) struct Options {
    rows: u64,
    peers: bool,
    /// Only questions whose name has one of these in it.
    only: Vec<String>,
}

impl Options {
    /// Takes its own words out of the arguments; `--no-peers` is another suite's too and stays.
    pub(crate) fn take(arguments: &mut Vec<String>) -> Result<Self> {
        let rows = match crate::index::value(arguments, "--rows")? {
            Some(text) => text.parse().ok().filter(|rows| *rows > 0).context("--rows wants a number above 0")?,
            None => ROWS,
        };
        let mut only = Vec::new();
        while let Some(word) = crate::index::value(arguments, "--only")? {
            only.push(word);
        }
        let names = || QUESTIONS.iter().map(|question| question.name).chain([RUNNING]);
        if let Some(unknown) = only.iter().find(|word| !names().any(|name| name.contains(*word))) {
            bail!("no question has {unknown:?} in its name; they are: {}", names().collect::<Vec<_>>().join("; "));
        }
        Ok(Self { rows, peers: !arguments.iter().any(|word| word == "--no-peers"), only })
    }

    fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|word| name.contains(word))
    }
}

/// What one run of a question cost.
#[derive(Debug, Clone, Copy)]
struct Cell {
    /// CPU time of the process that runs the tasks, in seconds.
    cpu: f64,
    /// CPU time of the process that leads the job.
    leader_cpu: f64,
    wall: f64,
    /// Resident memory of the process that runs the tasks, afterwards.
    rss_kib: u64,
}

pub(crate) async fn run(options: &Options, figures: &mut Figures) -> Result<()> {
    let sets: BTreeSet<Data> =
        QUESTIONS.iter().filter(|q| options.wants(q.name)).map(|question| question.data).collect();
    for data in sets {
        // It goes before the next one comes: ten million lines are gigabytes.
        let dir = Workdir::new("stream")?;
        let prepared = questions::prepare(data, options.rows, dir.path())?;
        figures.note(SUITE, &format!("{data:?}: {} events, {} files of each kind", options.rows, FILES));
        let asked: Vec<&Question> = QUESTIONS.iter().filter(|q| q.data == data && options.wants(q.name)).collect();
        let mut theirs = Vec::new();
        if options.peers {
            match Flink::start().await {
                Ok(mut flink) => {
                    for question in &asked {
                        theirs.push(told(
                            figures,
                            "Flink",
                            question,
                            of_flink(&mut flink, question, &prepared, dir.path()).await,
                        ));
                    }
                }
                Err(error) => figures.note(SUITE, &format!("Flink is not beside us: {error:#}")),
            }
        }
        theirs.resize(asked.len(), None);
        let mut ours = Ours::start(dir.path()).await?;
        for (question, theirs) in asked.into_iter().zip(theirs) {
            let ours = ours.measure(question, &prepared, dir.path()).await;
            let ours = told(figures, "logboom", question, ours);
            print(figures, question, &prepared, ours, theirs, options.rows);
        }
    }
    if options.wants(RUNNING) { running::run(figures).await } else { Ok(()) }
}

/// The cell, or why there is none.
fn told(figures: &Figures, whose: &str, question: &Question, cell: Result<Cell>) -> Option<Cell> {
    cell.map_err(|error| figures.note(SUITE, &format!("{}: {whose} has no figure: {error:#}", question.name))).ok()
}

/// A first run, whose answer is compared, warms the machine that compiles while it runs; the second is measured and its answer thrown away.
async fn of_flink(flink: &mut Flink, question: &Question, prepared: &Prepared, data: &Path) -> Result<Cell> {
    for table in question.reads {
        flink.sql(&format!("DROP TEMPORARY TABLE IF EXISTS {table}")).await?;
        flink.sql(&questions::flink_table(table, &data.join(table))).await?;
    }
    let folder = flink.folder(&question.name.replace(' ', "-"))?;
    let written = format!("'connector' = 'filesystem', 'format' = 'csv', 'path' = 'file://{}'", folder.display());
    for (sink, with) in [("written", written.as_str()), ("nowhere", "'connector' = 'blackhole'")] {
        flink.sql(&format!("DROP TEMPORARY TABLE IF EXISTS {sink}")).await?;
        flink.sql(&format!("CREATE TEMPORARY TABLE {sink} ({}) WITH ({with})", question.columns)).await?;
    }
    flink.sql(&format!("INSERT INTO written {}", question.flink)).await?;
    let digest = digest(&folder, question, Digest::take_csv)?;
    fs::remove_dir_all(&folder)?;
    agree(question, prepared, digest)?;
    let before = flink.used()?;
    let wall = flink.sql(&format!("INSERT INTO nowhere {}", question.flink)).await?;
    let after = flink.used()?;
    let seconds = |after: u64, before: u64| (after - before) as f64 / 1e6;
    Ok(Cell {
        cpu: seconds(after.tasks.cpu_micros, before.tasks.cpu_micros),
        leader_cpu: seconds(after.jobs.cpu_micros, before.jobs.cpu_micros),
        wall,
        rss_kib: after.tasks.rss_kib,
    })
}

/// What the files of a folder come to; rows of windows are compared by what is in them, others by their number.
fn digest(folder: &Path, question: &Question, take: fn(&mut Digest, &str) -> Result<()>) -> Result<Digest> {
    let mut digest = Digest::default();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        // What is hidden was never finished.
        if !entry.file_type()?.is_file() || entry.file_name().to_string_lossy().starts_with(['.', '_']) {
            continue;
        }
        for line in fs::read_to_string(entry.path())?.lines() {
            if question.data == Data::Nexmark { digest.rows += 1 } else { take(&mut digest, line)? }
        }
    }
    Ok(digest)
}

fn agree(question: &Question, prepared: &Prepared, found: Digest) -> Result<()> {
    match prepared.expected.get(question.name) {
        Some(expected) if *expected != found => {
            bail!(
                "WRONG ANSWER: {} rows, {} were expected (hash {:x}, {:x})",
                found.rows,
                expected.rows,
                found.hash,
                expected.hash
            )
        }
        _ => Ok(()),
    }
}

fn print(
    figures: &mut Figures,
    question: &Question,
    prepared: &Prepared,
    ours: Option<Cell>,
    theirs: Option<Cell>,
    rows: u64,
) {
    let events = prepared.events.get(question.name).copied().unwrap_or(0) as f64;
    let (name, goal) = (question.name, Goal::AtLeast(question.goal));
    let mut add = |what: &str, unit, of: fn(&Cell, f64) -> f64| {
        let (mine, peer) = (ours.map(|cell| of(&cell, events)), theirs.map(|cell| of(&cell, events)));
        let figure = match (mine, peer) {
            (Some(mine), peer) => Figure { peer, ..Figure::new(format!("{name}, {what}"), mine, unit) },
            (None, Some(peer)) => Figure::new(format!("{name}, {what}, Flink alone"), peer, unit),
            (None, None) => return,
        };
        figures.add(SUITE, &figure);
    };
    // The kernel counts hundredths of a second.
    add("events per CPU s of the worker", "events/s", |cell, events| events / cell.cpu.max(0.01));
    add("the same with the job manager", "events/s", |cell, events| events / (cell.cpu + cell.leader_cpu).max(0.01));
    add("wall", "s", |cell, _| cell.wall);
    add("memory of the worker", "MiB", |cell, _| cell.rss_kib as f64 / 1_024.0);
    if let (Some(ours), Some(theirs)) = (ours, theirs) {
        let figure = Figure::new(format!("{name}, times Flink"), theirs.cpu / ours.cpu.max(0.01), "times");
        figures.add(SUITE, &if rows >= ROWS { figure.goal(goal) } else { figure });
    }
}
